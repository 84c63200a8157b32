"""Score videos in this process, by the same stages as the scripts; the networks are loaded once.

    scorer = Scorer(parameters, scratch=Path("/tmp/me"))
    score = scorer("/videos/a.mp4", "a.mp4")
    print(score.status, score.tracks)

The networks come with the first ``Scorer``; importing this module does not load torch.
"""

import logging
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from syncnet import reasons
from syncnet.errors import DiskFullError, MediaError, SyncNetError, no_space
from syncnet.filter.layout import FilterLayout, keep_outputs, video_layout
from syncnet.results.layout import check_input, discard

logger = logging.getLogger("syncnet")

SUCCESS = "success"  # at least one track has a score
NO_FACES = "no_faces"  # no face, or none that is large, long and audible enough: the reasons tell
NO_AUDIO = "no_audio"
NO_VIDEO = "no_video"  # a sound file
FAILED = "failed"  # not looked at to the end: the error tells
STATUSES = (SUCCESS, NO_FACES, NO_AUDIO, NO_VIDEO, FAILED)

SECONDS_DIGITS = 3


@dataclass(frozen=True)
class VideoScore:
    """What there is to know of one video.

    Attributes:
        status: one of ``STATUSES``.
        tracks: per face track the record that scores.json has of it.
        reasons: list of dicts of code and text: why there is no track, or why to doubt them.
        error: one line where the status is ``FAILED``.
        faces: dict of ``detect.Summary``; None where none were looked for.
        start_time, end_time: ISO 8601, local time with its distance from UTC.
        processing_time: seconds.
    """

    status: str
    tracks: list = field(default_factory=list)
    reasons: list = field(default_factory=list)
    error: str | None = None
    faces: dict | None = None
    start_time: str = ""
    end_time: str = ""
    processing_time: float = 0.0


def timestamp():
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def failed(error, *, started=None):
    """The ``VideoScore`` of a video that could not be looked at.

    Args:
        error: one line.
        started: ``(time.monotonic(), timestamp())`` of the start; None where it never started.
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
    """Scores one video after the other.

    Args:
        parameters: ``recipe.Parameters``.
        scratch: folder for pictures and sound, this scorer's own; emptied after every video.
        output_dir: where ``syncnet_outputs`` is kept; None to keep nothing.

    Raises:
        SyncNetError: the networks cannot be loaded.
    """

    def __init__(self, parameters, *, scratch, output_dir=None):
        from detectors import S3FD
        from SyncNetInstance import SyncNetInstance

        self.parameters = parameters
        self.detector = S3FD(parameters.device, weights=parameters.s3fd_weights)
        self.net = SyncNetInstance(parameters.device)
        self.net.loadParameters(parameters.initial_model)
        self.scratch = scratch
        self.results = FilterLayout(output_dir) if output_dir else None

    def __call__(self, path, name):
        """The ``VideoScore`` of one video.

        Args:
            path: absolute path.
            name: below which name its outputs are kept.

        Raises:
            DiskFullError: no room for its pictures, which is not the video's fault.
            MemoryError: as torch's own error.
        """
        started = time.monotonic(), timestamp()
        layout = video_layout(self.scratch)
        try:
            score = self.look(path, layout)
            if self.results and score.status != FAILED:
                self.keep(layout, path, name, score)
        except MediaError as error:
            score = (
                VideoScore(NO_VIDEO, reasons=[asdict(reasons.Reason(reasons.NO_VIDEO, "no video stream"))])
                if error.code == reasons.NO_VIDEO
                else failed(one_line(str(error).removeprefix(f"{path}: ")))
            )
        except DiskFullError:
            raise
        except OSError as error:
            if not no_space(error):
                raise
            raise DiskFullError(f"{self.scratch}: {one_line(error)}: free some and run it again") from error
        except SyncNetError as error:
            score = failed(one_line(str(error).removeprefix(f"{path}: ")))
        finally:
            discard(self.scratch)
        seconds = round(time.monotonic() - started[0], SECONDS_DIGITS)
        times = {"start_time": started[1], "end_time": timestamp(), "processing_time": seconds}
        return VideoScore(**{**vars(score), **times})

    def look(self, path, layout):
        """Run the stages of run_pipeline and run_syncnet."""
        from syncnet.steps import pipeline
        from syncnet.steps import score as score_step

        check_input(path, advice="")
        p = self.parameters
        settings = pipeline.PipelineSettings(
            facedet_scale=p.facedet_scale,
            crop_scale=p.crop_scale,
            min_track=p.min_track,
            num_failed_det=p.num_failed_det,
            min_face_size=p.min_face_size,
            scene_threshold=p.scene_threshold,
        )
        found = pipeline.run(
            path,
            layout,
            settings,
            load_detector=lambda: self.detector,
            find_weights=lambda: self.detector.weights,
        )
        doubts = [asdict(reason) for reason in found.reasons]
        faces = asdict(found.faces) if found.faces else None
        if not found.tracks:
            silent = any(reason.code == reasons.NO_AUDIO for reason in found.reasons)
            return VideoScore(NO_AUDIO if silent else NO_FACES, reasons=doubts, faces=faces)
        result = score_step.run(
            layout, self.net, batch_size=p.batch_size, vshift=p.vshift, print_line=lambda line: logger.debug("%s", line)
        )
        tracks = result.report["tracks"]
        return VideoScore(decide(tracks), tracks=tracks, reasons=doubts + all_unscored(tracks), faces=faces)

    def keep(self, layout, path, name, score):
        """Keep crops, overlay video and analysis of a video."""
        from syncnet.constants import FRAME_RATE
        from syncnet.filter import recipe
        from syncnet.steps import visualise

        if score.tracks:
            visualise.run(layout, frame_rate=FRAME_RATE)
        origin = origin_of(path, recipe.digest(recipe.make_recipe(self.parameters)))
        keep_outputs(
            layout, self.results.outputs(name), aside=self.results.unfinished_outputs(self.scratch), origin=origin
        )


def origin_of(path, recipe):
    """What tells that a video's kept outputs are those of its score: its absolute path, and the recipe's digest."""
    return {"video_path": path, "recipe": recipe}


def decide(tracks):
    """The status of a video with tracks."""
    scored = any(track["confidence"] is not None for track in tracks)
    return SUCCESS if scored else NO_AUDIO  # a track is unscorable where the sound has ended before it begins


def all_unscored(tracks):
    """Reasons of the tracks where none has a score."""
    if any(track["confidence"] is not None for track in tracks):
        return []
    return list({reason["text"]: reason for track in tracks for reason in track["reasons"]}.values())


def one_line(error):
    return " ".join(str(error).split())


def load_scorer(parameters, *, output_dir, scratch, index, threads):
    """The ``Scorer`` of a worker process.

    Args:
        parameters, output_dir, scratch: as in ``Scorer``.
        index: which worker it is: several GPUs are shared out among the workers.
        threads: to compute with.
    """
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    cards = torch.cuda.device_count()
    if parameters.device in ("auto", "cuda") and cards > 1:
        parameters = replace(parameters, device=f"cuda:{index % cards}")
    return Scorer(parameters, scratch=scratch, output_dir=output_dir)
