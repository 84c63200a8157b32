"""Score videos in this process with the same stages as the scripts; the networks are loaded once.

    scorer = Scorer(parameters, scratch=Path("/tmp/me"))
    score = scorer("/videos/a.mp4", "a.mp4")
    print(score.status, score.tracks)

Importing this module does not load torch; the first ``Scorer`` does.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from syncnet import reasons
from syncnet.defaults import DIRECT, FLOAT32
from syncnet.errors import DiskFullError, MediaError, SyncNetError, ToolError, no_space
from syncnet.filter import correction
from syncnet.filter.correction import Order, Outcome, Uncorrected
from syncnet.filter.layout import FilterLayout, keep_outputs, video_layout
from syncnet.results.layout import Layout, check_input, discard, make_folder
from syncnet.results.scores_json import LAG_DIGITS
from syncnet.results.step_files import save_json

if TYPE_CHECKING:
    from syncnet.filter.inputs import Video
    from syncnet.filter.recipe import Parameters
    from syncnet.steps.correct import Measurement
    from syncnet.steps.direct import DirectSettings
    from syncnet.steps.pipeline import PipelineSettings

logger = logging.getLogger("syncnet")

SUCCESS = "success"  # at least one track has a score
NO_FACES = "no_faces"  # no face track that is large enough and long enough: the reasons say which
NO_AUDIO = "no_audio"
NO_VIDEO = "no_video"  # an audio file
FAILED = "failed"  # not analysed completely: the error says why
STATUSES = (SUCCESS, NO_FACES, NO_AUDIO, NO_VIDEO, FAILED)
# Statuses of videos whose content is the reason why they cannot be analysed; other errors give ``FAILED``.
STATUS_OF = {reasons.NO_VIDEO: NO_VIDEO, reasons.NO_AUDIO: NO_AUDIO, reasons.TOO_SHORT: NO_FACES}

# Codes that scores are checked for, as every line of the journal says: earlier versions checked for none of them.
CHECKS = (
    *(reasons.DAMAGED, reasons.SILENT, reasons.CHANNELS_CANCEL, reasons.FEW_WINDOWS, reasons.OFFSET_CHANGES),
    reasons.NOT_SQUARE_PIXELS,
)

SECONDS_DIGITS = 3

Settings = TypeVar("Settings", "PipelineSettings", "DirectSettings")
Record = dict[str, Any]  # JSON object: of a track, a reason, or a video's line of the journal
Started = tuple[float, str]  # ``(time.monotonic(), timestamp())`` of the start of a video


@dataclass(frozen=True)
class VideoScore:
    """Score of one video.

    Attributes:
        status: One of ``STATUSES``.
        tracks: One record per face track, as in scores.json.
        reasons: Records of code and text: why there is no track, or warnings about the tracks.
        error: One line that says why the status is ``FAILED``, otherwise None.
        faces: Record of ``detect.Summary``; None if no faces were detected.
        lag_ms: Milliseconds by which the audio of the whole video is early; None if it was not or cannot be measured.
        lag_error_ms: Half-width of the 95 % interval of ``lag_ms``.
        speakers: Records of who speaks when, as in scores.json.
        speech_without_face: Records of when somebody speaks whose face is not visible.
        min_speaking: Shortest time for which a face speaks, in seconds; None if the analysis did not finish.
        checks: ``CHECKS`` of the version that made the score; None if the analysis did not finish.
        start_time: Start of the analysis, as ISO 8601 local time with UTC offset.
        end_time: End of the analysis, likewise.
        processing_time: Duration of the analysis, in seconds.
    """

    status: str
    tracks: list[Record] = field(default_factory=list)
    reasons: list[Record] = field(default_factory=list)
    error: str | None = None
    faces: Record | None = None
    lag_ms: float | None = None
    lag_error_ms: float | None = None
    speakers: list[Record] = field(default_factory=list)
    speech_without_face: list[Record] = field(default_factory=list)
    min_speaking: float | None = None
    checks: list[str] | None = None
    start_time: str = ""
    end_time: str = ""
    processing_time: float = 0.0


ScoreVideo = Callable[..., VideoScore | Outcome]  # takes what ``task`` returns
LoadScorer = Callable[..., ScoreVideo]  # takes scratch, index and threads


def task(video: Video) -> tuple[Any, ...]:
    """Return the path and name of a video, and the path of the file whose sound replaces its own.

    Those of an ``Uncorrected`` video are followed by its order.
    """
    arguments = video.path, video.name, video.sound.path if video.sound else None
    return (*arguments, video.order) if isinstance(video, Uncorrected) else arguments


def timestamp() -> str:
    """Return the current local time with UTC offset, in ISO 8601 with milliseconds."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def failed(error: str, *, started: Started | None = None) -> VideoScore:
    """Return the score of a video that could not be analysed.

    Args:
        error: One line that says why.
        started: Start of the analysis; None if it never started.
    """
    now = timestamp()
    seconds = time.monotonic() - started[0] if started else 0.0
    return VideoScore(
        FAILED,
        error=error,
        start_time=started[1] if started else now,
        end_time=now,
        processing_time=round(seconds, SECONDS_DIGITS),
    )


class Scorer:
    """Callable that scores or corrects videos, one at a time.

    Args:
        parameters: Parameters of the recipe.
        scratch: Scratch folder for frames and audio, used by this scorer alone; removed after every video.
        output_dir: Output folder to keep ``syncnet_outputs`` in; None to keep nothing.

    Raises:
        SyncNetError: The networks cannot be loaded.
    """

    def __init__(self, parameters: Parameters, *, scratch: Path, output_dir: Path | None = None) -> None:
        from detectors import S3FD
        from SyncNetInstance import SyncNetInstance

        self.parameters = parameters
        precision: dict[str, Any] = {} if parameters.precision == FLOAT32 else {"precision": parameters.precision}
        self.detector = (
            None if parameters.face_crops else S3FD(parameters.device, weights=parameters.s3fd_weights, **precision)
        )
        self.net = SyncNetInstance(parameters.device, **precision)
        self.net.loadParameters(parameters.initial_model)
        self.scratch = scratch
        self.results = FilterLayout(output_dir) if output_dir else None

    def __call__(
        self, path: str, name: str, sound: str | None = None, order: Order | None = None
    ) -> VideoScore | Outcome:
        """Score or correct one video.

        Args:
            path: Absolute path.
            name: Name under which its outputs are kept.
            sound: Path of the file whose sound replaces the video's own.
            order: How to correct it; None to score it.

        Returns:
            The score; errors of the video itself give the status ``FAILED``. Or what came of the correction.

        Raises:
            DiskFullError: The disk is full, which is not an error of the video.
            MemoryError: Not enough memory. torch raises its own error instead.
        """
        if order:
            return self.correct(path, order)
        started = time.monotonic(), timestamp()
        layout = video_layout(self.scratch)
        try:
            score = self.analyse(path, layout, name=name, sound=sound)
            if self.results and score.status != FAILED:
                self.keep(self.results, layout, path, name, score)
        except MediaError as error:
            score = unusable(error, one_line(str(error).removeprefix(f"{path}: ")))
        except DiskFullError:
            raise
        except OSError as error:
            if not no_space(error):
                raise
            raise full_disk(self.scratch, error) from error
        except SyncNetError as error:
            score = failed(one_line(str(error).removeprefix(f"{path}: ")))
        finally:
            discard(self.scratch)
        seconds = round(time.monotonic() - started[0], SECONDS_DIGITS)
        times: dict[str, Any] = {"start_time": started[1], "end_time": timestamp(), "processing_time": seconds}
        made: dict[str, Any] = {"min_speaking": self.parameters.min_speaking, "checks": list(CHECKS)}
        return VideoScore(**{**vars(score), **times, **made})

    def analyse(self, path: str, layout: Layout, *, name: str, sound: str | None) -> VideoScore:
        """Score a video in the mode of the recipe; arguments as for ``__call__``."""
        check_input(path, advice="")
        if self.parameters.audio_dir and sound is None:
            missing = Path(self.parameters.audio_dir, name).with_suffix("")
            raise MediaError(f"{missing}: no such file with the suffix of an audio or video file: add its sound there")
        if self.parameters.mode == DIRECT:
            return self.direct(path, layout, sound=sound)
        if self.detector is None:
            return self.face_crops(path, layout, sound=sound)
        return self.published(path, layout, sound=sound)

    def published(self, path: str, layout: Layout, *, sound: str | None) -> VideoScore:
        """Run the stages of run_pipeline and run_syncnet."""
        from syncnet.steps import pipeline
        from syncnet.steps import score as score_step

        detector, p = self.detector, self.parameters
        assert detector is not None, "only face crops need no detector"
        found = pipeline.run(
            path,
            layout,
            settings_of(pipeline.PipelineSettings, p),
            load_detector=lambda: detector,
            find_weights=lambda: detector.weights,
            audio=Path(sound) if sound else None,
        )
        if not found.tracks:
            return without_tracks(
                [asdict(reason) for reason in found.reasons], asdict(found.faces) if found.faces else None
            )
        result = score_step.run(
            layout,
            self.net,
            batch_size=p.batch_size,
            vshift=p.vshift,
            min_speaking=p.min_speaking,
            print_line=lambda line: logger.debug("%s", line),
        )
        return from_report(result.report)

    def face_crops(self, path: str, layout: Layout, *, sound: str | None) -> VideoScore:
        """Score a video that is a face crop already, as the demo does."""
        from syncnet.steps import single

        p = self.parameters
        report = single.run(
            path,
            layout,
            self.net,
            audio=Path(sound) if sound else None,
            batch_size=p.batch_size,
            vshift=p.vshift,
            min_speaking=p.min_speaking,
            print_line=lambda line: logger.debug("%s", line),
        )
        if self.results:
            make_folder(layout.scores.parent)
            save_json(report, layout.scores)
        return from_report(report)

    def direct(self, path: str, layout: Layout, *, sound: str | None) -> VideoScore:
        """Run the direct pass, which writes nothing unless the outputs are kept."""
        from syncnet.steps import direct

        settings = settings_of(direct.DirectSettings, self.parameters)
        result = direct.run(path, detector=self.detector, net=self.net, settings=settings, audio=sound)
        if self.results:
            direct.save(result, layout)
        return from_report(result.report)

    def correct(self, path: str, order: Order) -> Outcome:
        """Write a corrected copy of a video.

        Args:
            path: Absolute path.
            order: How to correct it.

        Raises:
            DiskFullError: The disk is full, which is not an error of the video.
        """
        from syncnet.steps import correct, direct

        started = time.monotonic()
        folder = Path(order.folder, f"{self.scratch.name}-corrected")
        file = folder / f"video{Path(path).suffix}"
        known, max_lag = json.loads(order.score) if order.score else None, order.max_lag
        found: dict[str, Any]
        try:
            discard(folder)
            make_folder(folder)
            result = correct.run(
                Path(path),
                file,
                measure=functools.partial(
                    correct.measure,
                    detector=self.detector,
                    net=self.net,
                    settings=settings_of(direct.DirectSettings, self.parameters),
                    max_lag=max_lag,
                ),
                settings=correct.CorrectionSettings(max_lag=max_lag),
                before=correct.measurement_of(known, None, max_lag=max_lag) if known else None,
            )
            found = {
                "state": correction.CORRECTED if result.written else correction.IN_STEP,
                **numbers_of(result.before, "before"),
                **numbers_of(result.after, "after"),
                "delay_ms": round(result.shift.delay_ms, LAG_DIGITS) if result.shift else None,
                "rounds": result.rounds,
                "notes": result.notes,
                "file": str(file) if result.written else "",
            }
        except DiskFullError:
            raise
        except OSError as error:
            if not no_space(error):
                raise
            raise full_disk(folder, error) from error
        except SyncNetError as error:
            state = correction.UNFINISHED if isinstance(error, ToolError) else correction.REFUSED
            # the new file has a temporary name, which means nothing to the user
            text = re.sub(re.escape(f"{folder}/") + r"[^\s:]*", lambda _: path, str(error))
            text = one_line(text.removeprefix(f"{path}: "))
            found = {"state": state, "error": text, **numbers_of(getattr(error, "measurement", None), "before")}
        return Outcome(max_lag=max_lag, processing_time=round(time.monotonic() - started, SECONDS_DIGITS), **found)

    def keep(self, results: FilterLayout, layout: Layout, path: str, name: str, score: VideoScore) -> None:
        """Keep crops, overlay video and analysis of a video in an output folder."""
        from syncnet.constants import FRAME_RATE
        from syncnet.filter import recipe
        from syncnet.steps import visualise

        if score.tracks and self.detector is not None:  # in a face crop there is no face to draw a box around
            visualise.run(layout, frame_rate=FRAME_RATE)
        origin = origin_of(path, recipe.digest(recipe.make_recipe(self.parameters)))
        keep_outputs(layout, results.outputs(name), temporary=results.unfinished_outputs(self.scratch), origin=origin)


def full_disk(folder: Path, error: OSError) -> DiskFullError:
    """Return the error that the disk of a folder is full."""
    return DiskFullError(f"{folder}: {one_line(error)}: free space and run the same command again")


def numbers_of(found: Measurement | None, when: str) -> dict[str, float | None]:
    """Return the numbers of a measurement as those of an ``Outcome``; an empty dict without one.

    Args:
        found: The measurement.
        when: ``before`` or ``after``.
    """
    if found is None:
        return {}
    values = {
        f"lag_{when}_ms": found.lag_ms,
        f"lag_error_{when}_ms": found.lag_error_ms,
        f"confidence_{when}": found.confidence,
    }
    return {name: None if value is None else round(float(value), LAG_DIGITS) for name, value in values.items()}


def unusable(error: MediaError, text: str) -> VideoScore:
    """Return the score of a video that cannot be analysed.

    Args:
        error: Error that says so.
        text: Its text, without the video's path.
    """
    code = error.code or ""
    if not code:
        return failed(text)
    found = [asdict(reasons.Reason(code, "no video stream" if code == reasons.NO_VIDEO else text))]
    if code not in STATUS_OF:
        return replace(failed(text), reasons=found)
    return VideoScore(STATUS_OF[code], reasons=found)


def settings_of(kind: type[Settings], parameters: Parameters) -> Settings:
    """Return the settings of a step, a dataclass, with the values of the parameters of the same names."""
    names = [each.name for each in fields(kind) if hasattr(parameters, each.name)]
    return kind(**{name: getattr(parameters, name) for name in names})


def from_report(report: Record) -> VideoScore:
    """Return the score of a video from the content of scores.json."""
    tracks, found = report["tracks"], report["reasons"]
    if not tracks:
        return without_tracks(found, report["faces"])
    return VideoScore(
        decide(tracks),
        tracks=tracks,
        reasons=found + all_unscored(tracks),
        faces=report["faces"],
        lag_ms=report.get("lag_ms"),
        lag_error_ms=report.get("lag_error_ms"),
        speakers=report.get("speakers", []),
        speech_without_face=report.get("speech_without_face", []),
    )


def without_tracks(found: list[Record], faces: Record | None) -> VideoScore:
    """Return the score of a video without face tracks.

    Args:
        found: Records of the reasons.
        faces: Record of ``detect.Summary``.
    """
    silent = any(reason["code"] == reasons.NO_AUDIO for reason in found)
    return VideoScore(NO_AUDIO if silent else NO_FACES, reasons=found, faces=faces)


def origin_of(path: str, recipe: str) -> dict[str, str]:
    """Return the record that links kept outputs to a score.

    Args:
        path: Absolute path of the video.
        recipe: Digest of the recipe.
    """
    return {"video_path": path, "recipe": recipe}


def decide(tracks: list[Record]) -> str:
    """Return the status of a video with tracks."""
    scored = any(track["confidence"] is not None for track in tracks)
    return SUCCESS if scored else NO_AUDIO  # a track cannot be scored if the audio ends before the track starts


def all_unscored(tracks: list[Record]) -> list[Record]:
    """Return the distinct reasons of all tracks if none has a score, otherwise nothing."""
    if any(track["confidence"] is not None for track in tracks):
        return []
    return list({reason["text"]: reason for track in tracks for reason in track["reasons"]}.values())


def one_line(error: Exception | str) -> str:
    """Return the text of an error with all whitespace collapsed to single spaces."""
    return " ".join(str(error).split())


def load_scorer(
    parameters: Parameters, *, output_dir: Path | None, scratch: Path, index: int, threads: int
) -> ScoreVideo:
    """Load the scorer of a worker process.

    Args:
        parameters: Parameters of the recipe.
        output_dir: As for ``Scorer``.
        scratch: As for ``Scorer``.
        index: Index of the worker; workers are assigned to the GPUs in turn.
        threads: Number of CPU threads to use.
    """
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    cards = torch.cuda.device_count()
    if parameters.device in ("auto", "cuda") and cards > 1:
        parameters = replace(parameters, device=f"cuda:{index % cards}")
    return Scorer(parameters, scratch=scratch, output_dir=output_dir)
