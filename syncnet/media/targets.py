"""Files that sound is moved into: whether their container can be written, and can hold what is to be in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncnet.errors import UsageError
from syncnet.media.containers import AVI, main_video, open_container, video_streams
from syncnet.media.encoders import ENCODERS, can_write
from syncnet.media.muxing import FORMATS, container_name, holds, name_of

if TYPE_CHECKING:
    from pathlib import Path

COPY = "copy"  # of --audio_codec: move time stamps alone
MOST_CHANNELS = 8  # of a frame in PyAV


def check_target(output: Path, *, audio_codec: str | None) -> str:
    """Return ffmpeg's name of the container that a name asks for.

    Args:
        output, audio_codec: as in ``resync.move_sound``.

    Raises:
        UsageError: it cannot be written, or cannot hold the codec.
    """
    format = FORMATS.get(output.suffix.lower())
    if format is None:
        raise UsageError(f"{output}: cannot be written: choose a name that ends in one of {', '.join(FORMATS)}")
    if audio_codec == COPY and format == AVI:
        raise UsageError(f"{output}: AVI has no time stamps that --audio_codec {COPY} could move: choose a codec")
    if (
        audio_codec is not None
        and audio_codec != COPY
        and not can_write(ENCODERS.get(audio_codec, audio_codec), format)
    ):
        raise UsageError(
            f"--audio_codec {audio_codec}: cannot be written into {container_name(format)}: choose another"
        )
    return format


def check_holds(source: Path, *, format: str, audio_codec: str | None) -> None:
    """Check that a container can hold what is copied of picture and sound, and that the rest can be encoded.

    Args:
        source, audio_codec: as in ``resync.move_sound``.
        format: ffmpeg's name of the container, from ``check_target``.

    Raises:
        MediaError: the source cannot be read.
        UsageError: the container cannot hold them.
    """
    name = container_name(format)
    with open_container(source) as container:
        picture = main_video(container) if video_streams(container) else None  # without one, nothing can be measured
        if picture is not None and not holds(format, picture):
            raise UsageError(
                f"{source}: {name} cannot hold its picture ({name_of(picture)}): choose another container for "
                "the output"
            )
        for sound in container.streams.audio:
            if audio_codec != COPY and sound.codec_context is not None and sound.channels > MOST_CHANNELS:
                raise UsageError(
                    f"{source}: its sound has {sound.channels} channels, and no more than {MOST_CHANNELS} can be "
                    f"encoded: move time stamps alone with --audio_codec {COPY}"
                )
            if audio_codec == COPY and not holds(format, sound):
                raise UsageError(
                    f"{source}: {name} cannot hold its sound ({name_of(sound)}) as it is: choose another --audio_codec"
                )
