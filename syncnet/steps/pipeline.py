"""The step run_pipeline: from any video to clips of face tracks with audio."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncnet import defaults, reasons
from syncnet.constants import FRAME_RATE, MIN_FRAMES, SAMPLES_PER_FRAME
from syncnet.errors import MediaError
from syncnet.faces.crops import write_crops
from syncnet.faces.detect import Detector, Summary, detect_faces, summarise
from syncnet.faces.scenes import Scene, detect_scenes, frame_numbers, new_manager, whole_scenes
from syncnet.faces.tracks import Face, Path2D, Track, Tracking, track_faces
from syncnet.media import conversions
from syncnet.media.containers import Sound, Streams, check_streams, chosen_sound, main_video, open_container
from syncnet.media.ffmpeg import reading_output_of
from syncnet.media.fingerprint import behaviour
from syncnet.media.frames import growing_files, read_frame
from syncnet.media.pictures import pixel_aspect, square_size
from syncnet.progress import Progress, silent
from syncnet.reasons import Reason
from syncnet.results.layout import Layout, check_input, discard, frame_file, make_folder, new_file, new_folder
from syncnet.results.scores_json import pipeline_report, scores_report, weights_record
from syncnet.results.step_files import faces_record, save_json, save_pickle, tracks_record
from syncnet.steps import faults
from syncnet.steps.advice import Evidence, advise, len_of, shares_with_faces, whole_face_scale
from syncnet.steps.versions import versions

if TYPE_CHECKING:
    from argparse import Namespace

    from scenedetect import FrameTimecode

    from syncnet.results.protocols import Weights

logger = logging.getLogger("syncnet")


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of run_pipeline, named like the flags; their fields are also keys of the recipe.

    Attributes:
        facedet_scale: as in ``detect_faces``.
        crop_scale, frame_rate: as in ``write_crops``.
        min_track, num_failed_det, min_face_size: as in ``track_faces``.
        scene_threshold: as in ``scenes.new_manager``.
    """

    facedet_scale: float = defaults.FACEDET_SCALE
    crop_scale: float = defaults.CROP_SCALE
    min_track: int = defaults.MIN_TRACK
    frame_rate: int = FRAME_RATE
    num_failed_det: int = defaults.NUM_FAILED_DET
    min_face_size: int = defaults.MIN_FACE_SIZE
    scene_threshold: float = defaults.SCENE_THRESHOLD

    @classmethod
    def from_flags(cls, args: Namespace) -> PipelineSettings:
        """Return the settings given by parsed flags."""
        return cls(**{setting.name: getattr(args, setting.name) for setting in fields(cls)})


DEFAULT_SETTINGS = PipelineSettings()


@dataclass(frozen=True)
class PipelineResult:
    """Result of ``run``.

    Attributes:
        recipe: everything that the tracks depend on.
        faces: statistics of the faces; None if no frame was analysed.
        scenes: scenes of the video.
        tracks: face tracks.
        paths: crop positions of the tracks.
        reasons: why there is no track, or why the tracks' scores are not reliable.
        pixel_aspect: width of a pixel of the frames, by its height.
    """

    recipe: dict[str, Any]
    faces: Summary | None = None
    scenes: list[Scene] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    paths: list[Path2D] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    pixel_aspect: float = 1.0


def run(
    videofile: str | Path,
    layout: Layout,
    settings: PipelineSettings = DEFAULT_SETTINGS,
    *,
    load_detector: Callable[[], Detector],
    find_weights: Callable[[], Weights | None] = lambda: None,
    audio: Path | None = None,
    audio_stream: int | None = None,
    progress: Progress = silent,
    on_faces: Callable[[int, list[Face]], None] = lambda index, faces: None,
) -> PipelineResult:
    """Find the face tracks of a video, and write them and everything that later steps need.

    The result is also written to pipeline.json. A video without a track is not an error: scores.json then gives the
    reason.

    Args:
        videofile: path of the input.
        layout: ``Layout``; its folders are replaced.
        settings: ``PipelineSettings``.
        load_detector: returns the ``Detector``; called while ffmpeg converts the video.
        find_weights: returns the detector's ``Weights`` or None; called for the recipe if the detector is not used.
        audio: media file whose sound replaces the video's own; both start together.
        audio_stream: index among the audio streams of the file that gives the sound; None for the one that ffmpeg
            selects.
        progress: as in ``syncnet.progress``.
        on_faces: called with the index and the list of faces of every frame.

    Raises:
        MediaError: the input cannot be used; if the reason is its content, scores.json gives the reason.
        UsageError: the input is missing, or is in a folder that would be replaced.
    """

    def without_tracks(*why: Reason) -> PipelineResult:
        return PipelineResult(recipe={**make_recipe(settings, weights=find_weights()), **choice}, reasons=[*why])

    choice = {"audio": str(audio) if audio else None, "audio_stream": audio_stream}
    layout.check_outside(videofile)
    if audio:
        layout.check_outside(audio)
    try:
        videofile = check_input(videofile)
        streams = check_streams(videofile)
        sound = chosen_sound(videofile, streams=streams, audio=audio, audio_stream=audio_stream)
        if not (streams.audio or sound):
            layout.clear()
            make_folder(layout.crops)
            return save(without_tracks(reasons.no_audio()), videofile, layout)
        detector, fault = convert(videofile, layout, streams=streams, sound=sound, load_detector=load_detector)
        of_input, pixel_aspect = inspect(videofile, layout, audio=audio, fault=fault)
        if reasons.no_audio() in of_input:  # a damaged file of which no sound could be decoded
            layout.clear()
            make_folder(layout.crops)
            return save(without_tracks(*of_input), videofile, layout)
        faces, timecodes = analyse(
            layout, settings, detector=detector, shorten=audio is not None, progress=progress, on_faces=on_faces
        )
    except MediaError as error:
        if error.code:
            layout.clear()
            save(without_tracks(Reason(error.code, str(error))), videofile, layout)
        raise
    finally:
        discard(layout.tmp)

    scenes = frame_numbers(timecodes)

    def track(scenes: Sequence[Scene], settings: PipelineSettings) -> Tracking:
        return track_faces(
            faces,
            scenes,
            min_track=settings.min_track,
            num_failed_det=settings.num_failed_det,
            min_face_size=settings.min_face_size,
        )

    tracking = track(scenes, settings)
    with new_folder(layout.crops) as folder:
        paths = write_crops(
            tracking.tracks,
            frames=layout.frames,
            audio=layout.audio,
            folder=folder,
            crop_scale=settings.crop_scale,
            frame_rate=settings.frame_rate,
            progress=progress,
        )
        save_pickle(tracks_record(tracking.tracks, paths), layout.tracks)
    summary = summarise(faces)
    result = PipelineResult(
        recipe={**make_recipe(settings, weights=detector.weights), **choice, "device": str(detector.device)},
        faces=summary,
        scenes=scenes,
        tracks=tracking.tracks,
        paths=paths,
        reasons=of_input
        + explain(
            tracking,
            summary,
            scenes=scenes,
            audio_frames=conversions.wav_length(layout.audio) // SAMPLES_PER_FRAME,
            settings=settings,
            evidence=Evidence(
                detector,
                track=track,
                faces=faces.__getitem__,
                images=lambda frames: [read_frame(frame_file(layout.frames, frame))[..., ::-1] for frame in frames],
                scenes=lambda threshold: frame_numbers(detect_scenes(layout.video, new_manager(threshold=threshold))),
            ),
        ),
        pixel_aspect=pixel_aspect,
    )
    return save(result, videofile, layout)


def make_recipe(settings: PipelineSettings, *, weights: Weights | None) -> dict[str, Any]:
    """Return the recipe of run_pipeline: everything in this step that a score depends on."""
    return {**asdict(settings), "s3fd_weights": weights_record(weights), "versions": versions()}


def convert(
    videofile: Path, layout: Layout, *, streams: Streams, sound: Sound | None, load_detector: Callable[[], Detector]
) -> tuple[Detector, str]:
    """Convert the input with ffmpeg, load the detector at the same time, and return it and ``Ffmpeg.fault``.

    The results of an earlier run are removed only after both have succeeded.
    """
    make_folder(layout.tmp)
    with conversions.start_conversion(
        videofile,
        layout.unfinished_video,
        script=layout.rate_script,
        streams=streams,
        behaviour=behaviour(),
        sound=sound,
    ) as conversion:
        detector = load_detector()
        conversion.finish(code=reasons.NOT_MEDIA)
    if conversion.complaint:
        logger.warning("%s: damaged? using what can be read of it (ffmpeg: %s)", videofile, conversion.complaint)
    layout.clear()
    layout.unfinished_video.replace(layout.video)
    return detector, conversion.fault


def inspect(videofile: Path, layout: Layout, *, audio: Path | None, fault: str) -> tuple[list[Reason], float]:
    """Return the reasons that concern the whole file, and the width of a pixel of the frames, by its height.

    Args:
        videofile: the input.
        layout: ``Layout`` with the converted video.
        audio: as in ``run``.
        fault: what ffmpeg could not decode; empty if nothing.
    """
    found = faults.of_conversion(videofile, other=audio, messages=[fault])
    with open_container(layout.video) as container:
        video = main_video(container)
        aspect = pixel_aspect(video)
        if aspect != 1:
            found.append(reasons.not_square_pixels(aspect=aspect, size=square_size(video.width, video.height, aspect)))
        if not container.streams.audio:
            found.append(reasons.no_audio())
    return found, aspect


def analyse(
    layout: Layout,
    settings: PipelineSettings,
    *,
    detector: Detector,
    shorten: bool,
    progress: Progress,
    on_faces: Callable[[int, list[Face]], None],
) -> tuple[list[list[Face]], list[tuple[FrameTimecode, FrameTimecode]]]:
    """Unpack the converted video and detect its faces and scenes; with ``shorten`` its audio ends with its frames.

    Returns:
        Per frame a list of ``Face``; start and end of every scene.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(new_folder(layout.frames))
        audio = stack.enter_context(new_file(layout.audio))
        unpacking = stack.enter_context(
            conversions.start_unpacking(layout.video, folder, audio, quality=conversions.PIPELINE_QUALITY)
        )
        pool = stack.enter_context(ThreadPoolExecutor(1))
        manager = new_manager(threshold=settings.scene_threshold)
        stack.callback(manager.stop)  # if face detection fails, do not wait for scene detection
        cuts = pool.submit(detect_scenes, layout.video, manager)
        files = growing_files(folder, unpacking)
        faces: list[list[Face]] = []
        found = detect_faces(files, detector, facedet_scale=settings.facedet_scale)
        with reading_output_of(unpacking):
            for of_frame in progress(found, total=conversions.frame_count(layout.video), desc="faces"):
                on_faces(len(faces), of_frame)
                faces.append(of_frame)
        unpacking.finish()
        if shorten:
            conversions.shorten_wav(audio, samples=len(faces) * SAMPLES_PER_FRAME)
        if not faces:
            raise MediaError(f"{layout.video}: no frame of it can be decoded", code=reasons.NOT_MEDIA)
        timecodes = cuts.result()
    save_pickle(faces_record(faces), layout.faces)
    save_pickle(timecodes, layout.scenes)
    return faces, timecodes


def explain(
    tracking: Tracking,
    summary: Summary,
    *,
    scenes: Sequence[Scene],
    audio_frames: int,
    settings: PipelineSettings,
    evidence: Evidence | None = None,
    confident: bool = False,
) -> list[Reason]:
    """Return the reasons why there is no track, or why the tracks' scores are not reliable.

    Args:
        tracking: result of ``track_faces``.
        summary: statistics of the faces.
        scenes: scenes of the video.
        audio_frames: length of the audio, in frames.
        settings: settings of the run.
        evidence: what advice is tried on; without it the reasons name the flags that might help.
        confident: the score of a track is known to be confident.
    """
    found = []
    usable, whole = min(summary.frames, audio_frames), whole_scenes(scenes, frames=summary.frames)
    if not tracking.tracks and usable < MIN_FRAMES:
        found.append(reasons.too_short(frames=usable, needed=MIN_FRAMES))
        found += no_track(tracking, summary, settings=settings, advice="")
    elif not tracking.tracks and evidence:
        advice = advise(evidence, settings, scenes=scenes, frames=summary.frames, audio_frames=audio_frames)
        shares = shares_with_faces(whole, evidence.faces)
        lengths = [len_of(scene, summary.frames) for scene, share in zip(scenes, shares) if share >= reasons.RARE]
        found += no_track(
            # also the faces in what is left out of the last scene
            replace(tracking, longest=evidence.track(whole, settings).longest),
            summary,
            settings=settings,
            advice=str(advice),
            chance=max(shares) < reasons.RARE,
            scene=max(lengths, default=None) if len(scenes) > 1 else None,
        )
    elif not tracking.tracks:
        found += no_track(tracking, summary, settings=settings, advice=None)
    elif evidence and not confident and (scale := whole_face_scale(evidence, settings, tracks=tracking.tracks)):
        found.append(reasons.parts_of_a_face(scale=scale))
    ignored = summary.frames - max(scenes[-1].end, whole[-1].start)
    if ignored > reasons.SCENE_TOLERANCE:
        found.append(reasons.scene_cut_short(frames=ignored, length=summary.frames - whole[-1].start))
    if summary.frames - audio_frames > reasons.AUDIO_TOLERANCE:
        found.append(reasons.audio_short(video_frames=summary.frames, audio_frames=audio_frames))
    return found


def no_track(
    tracking: Tracking,
    summary: Summary,
    *,
    settings: PipelineSettings,
    advice: str | None,
    chance: bool = False,
    scene: int | None = None,
) -> list[Reason]:
    """Return the reasons why there is no track.

    Args:
        tracking, summary, settings: as in ``explain``.
        advice: as in ``reasons.no_face``.
        chance: every scene has so few detections that those of too few frames for a score are no faces.
        scene: length of the longest scene with faces, in frames; None if the video has no cut.
    """
    min_track, min_face_size = settings.min_track, settings.min_face_size
    largest = summary.largest
    if largest is None or (chance and tracking.longest < MIN_FRAMES):
        return [
            reasons.no_face(
                facedet_scale=settings.facedet_scale,
                detections=summary.frames_with_faces,
                longest=tracking.longest,
                frames=summary.frames,
                advice=advice,
            )
        ]
    if tracking.largest is not None and largest > min_face_size:
        return [
            reasons.long_tracks_too_small(
                largest=tracking.largest, min_face_size=min_face_size, min_track=min_track, advice=advice
            )
        ]
    if tracking.largest is not None:
        return [reasons.faces_too_small(largest=tracking.largest, min_face_size=min_face_size, advice=advice)]
    found = []
    if largest <= min_face_size:
        found.append(reasons.faces_too_small(largest=largest, min_face_size=min_face_size, advice=advice))
    if scene is not None and scene < min_track:
        found.append(reasons.scene_too_short(longest=scene, min_track=min_track, advice=advice))
    else:
        found.append(reasons.tracks_too_short(longest=tracking.longest, min_track=min_track, advice=advice))
    return found


def save(result: PipelineResult, videofile: str | Path, layout: Layout) -> PipelineResult:
    """Write pipeline.json and, if there is no track, scores.json; return ``result``."""
    report = pipeline_report(result, videofile=videofile, reference=layout.reference)
    save_json(report, layout.pipeline)
    if not result.tracks:
        save_json(scores_report(report, reference=layout.reference, tracks=[], speakers=[], recipe=None), layout.scores)
    return result
