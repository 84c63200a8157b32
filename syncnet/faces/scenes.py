"""Cuts of a video."""

from dataclasses import dataclass

from scenedetect import ContentDetector, SceneManager, VideoOpenFailure, open_video

from syncnet.defaults import SCENE_THRESHOLD
from syncnet.errors import MediaError
from syncnet.media.ffmpeg import absolute


@dataclass(frozen=True)
class Scene:
    """Frames ``start`` up to but without ``end``, between two cuts."""

    start: int
    end: int


def new_manager(*, threshold=SCENE_THRESHOLD):
    """PySceneDetect's manager of one ``detect_scenes``; its ``stop()`` ends that early.

    Args:
        threshold: how large a change of the picture is a cut.
    """
    manager = SceneManager()
    manager.add_detector(ContentDetector(threshold=threshold))
    return manager


def detect_scenes(video, manager):
    """Scenes of a video, by PySceneDetect's ContentDetector.

    A video without a cut is one scene up to the frame count of its container. With a cut the last scene ends at the
    frames that the decoder delivered, which are fewer where ffmpeg left timestamp gaps: kept, because published scores
    were computed so.

    Args:
        video: path.
        manager: from ``new_manager``.

    Returns:
        List of pairs of PySceneDetect's FrameTimecode, start and end.
    """
    try:
        stream = open_video(absolute(video))
    except (VideoOpenFailure, OSError) as error:
        raise MediaError(f"{video}: OpenCV cannot read this video") from error
    manager.detect_scenes(stream)
    return manager.get_scene_list() or [(stream.base_timecode, stream.duration)]


def frame_numbers(timecodes):
    """PySceneDetect's pairs as ``Scene`` objects."""
    return [Scene(start.frame_num, end.frame_num) for start, end in timecodes]
