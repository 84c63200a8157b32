"""Scene detection."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scenedetect import ContentDetector, FrameTimecode, SceneManager, VideoOpenFailure, open_video
from scenedetect.scene_manager import compute_downscale_factor

from syncnet.constants import FRAME_RATE
from syncnet.defaults import SCENE_THRESHOLD
from syncnet.errors import MediaError
from syncnet.media.ffmpeg import absolute

SETTLING = 17  # frames after which ContentDetector no longer reports a cut: it merges cuts less than 0.6 s apart


@dataclass(frozen=True)
class Scene:
    """A scene between two cuts.

    Attributes:
        start: index of the first frame.
        end: index after the last frame.
    """

    start: int
    end: int


def new_manager(*, threshold: float = SCENE_THRESHOLD) -> SceneManager:
    """Return a ``SceneManager`` for one call of ``detect_scenes``; its ``stop()`` ends the call early.

    Args:
        threshold: change between two frames that counts as a cut, as in ``ContentDetector``.
    """
    manager = SceneManager()
    manager.add_detector(ContentDetector(threshold=threshold))
    return manager


def detect_scenes(video: Path, manager: SceneManager) -> list[tuple[FrameTimecode, FrameTimecode]]:
    """Detect the scenes of a video with PySceneDetect's ``ContentDetector``.

    A video without a cut is one scene that ends at the frame count of its container. In a video with cuts the last
    scene ends after the frames that the decoder returned, which are fewer if ffmpeg left gaps between timestamps. This
    quirk is kept for comparability with published scores.

    Args:
        video: path of the video.
        manager: from ``new_manager``.

    Returns:
        List of (start, end).

    Raises:
        MediaError: OpenCV cannot read the video.
    """
    try:
        stream = open_video(absolute(video))
    except (VideoOpenFailure, OSError) as error:
        raise MediaError(f"{video}: OpenCV cannot read this video") from error
    manager.detect_scenes(stream)
    return manager.get_scene_list() or [(stream.base_timecode, stream.duration)]


def frame_numbers(timecodes: Iterable[tuple[FrameTimecode, FrameTimecode]]) -> list[Scene]:
    """Convert the result of ``detect_scenes`` to ``Scene`` objects."""
    return [Scene(start.frame_num, end.frame_num) for start, end in timecodes]


def whole_scenes(scenes: Sequence[Scene], *, frames: int) -> list[Scene]:
    """Return scenes of which the last ends with the video; see ``detect_scenes``, by which it may end before its start.

    Args:
        scenes: scenes of a video.
        frames: number of its frames.
    """
    return [*scenes[:-1], Scene(scenes[-1].start, frames)]


def timecodes(scenes: Iterable[Scene]) -> list[tuple[FrameTimecode, FrameTimecode]]:
    """Convert scenes to the form that ``detect_scenes`` returns, for scene.pckl."""
    rate = float(FRAME_RATE)
    return [(FrameTimecode(scene.start, fps=rate), FrameTimecode(scene.end, fps=rate)) for scene in scenes]


class Cuts:
    """Scene cuts in a stream of frames, by the same ``ContentDetector``.

    Args:
        threshold: as in ``new_manager``.

    Attributes:
        known: frames that begin a scene, in order; all before ``settled``, and perhaps later ones.
        settled: whether a frame before this one begins a scene is known.
    """

    def __init__(self, *, threshold: float = SCENE_THRESHOLD) -> None:
        self.detector = ContentDetector(threshold=threshold)
        self.known: list[int] = []
        self.settled = self.count = 0

    def add(self, image: np.ndarray) -> None:
        """Add the next frame.

        Args:
            image: H x W x 3 array, uint8, BGR, at the size of ``small_size``.
        """
        found = self.detector.process_frame(FrameTimecode(self.count, fps=float(FRAME_RATE)), image)
        self.known += [timecode.frame_num for timecode in found]
        self.count += 1
        self.settled = max(0, self.count - SETTLING)

    def finish(self) -> None:
        """End the stream: everything is settled."""
        self.settled = self.count


def small_size(width: int, height: int) -> tuple[float, float]:
    """Return the width and height at which PySceneDetect looks at frames, in pixels."""
    factor = max(1.0, compute_downscale_factor(width))
    return width / factor, height / factor
