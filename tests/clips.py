"""Clips for tests, made by ffmpeg from synthetic sources."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from scipy.io import wavfile

from syncnet.media.ffmpeg import Ffmpeg

RED, WHITE, GREY = "red", "white", "gray"
FACE = 100  # side in pixels of a red square, which the tests' detector takes for a face


def make(path: Path, *inputs: str, flags: Sequence = ()) -> Path:
    """Encode lavfi sources into a file, and return its path."""
    arguments = [part for source in inputs for part in ("-f", "lavfi", "-i", source)]
    Ffmpeg([*arguments, *flags, path.absolute()], source=path).finish()
    return path


def canvas(*, seconds: float, rate: str = "25", size: str = "320x240", colour: str = GREY) -> str:
    """Return the lavfi source of plain frames."""
    return f"color=c={colour}:s={size}:r={rate}:d={seconds}"


def square(x: int | str, y: int | str, *, side: int = FACE, colour: str = RED, enable: str = "") -> str:
    """Return a drawbox filter; ``enable`` is ffmpeg's expression for when it draws."""
    text = f",drawbox=x={x}:y={y}:w={side}:h={side}:color={colour}:t=fill"
    return f"{text}:enable='{enable}'" if enable else text


def tone(*, seconds: float, rate: int = 44100) -> str:
    """Return the lavfi source of a 440 Hz tone."""
    return f"sine=frequency=440:sample_rate={rate}:duration={seconds}"


def face_clip(
    path: Path,
    *,
    seconds: float = 1.4,
    rate: str = "25",
    size: str = "320x240",
    x: int = 100,
    y: int = 60,
    side: int = FACE,
    audio: str | None = None,
    flags: Sequence = (),
) -> Path:
    """Write a clip of a still red square with a white stripe, on grey, with a tone of the same length.

    Args:
        path: File to write.
        seconds: Length.
        rate: Frames per second.
        size: Frame size, WIDTHxHEIGHT.
        x: Left side of the square.
        y: Top of the square.
        side: Side of the square.
        audio: lavfi source of the audio; "" for none.
        flags: Further options of ffmpeg.

    Returns:
        ``path``.
    """
    face = square(x, y, side=side) + f",drawbox=x={x}:y={y + side // 2}:w={side}:h={side // 5}:color={WHITE}:t=fill"
    sources = [canvas(seconds=seconds, rate=rate, size=size) + face]
    if audio != "":
        sources.append(audio or tone(seconds=seconds))
    return make(path, *sources, flags=flags)


def flashes(count: int, *, seed: int = 0, hold: int = 16) -> np.ndarray:
    """Return ``count`` booleans in runs of random length, to make frames light and audio loud."""
    rng = np.random.default_rng(seed)
    runs = rng.integers(5, hold + 1, count)
    return (np.repeat(np.arange(count) % 2, runs)[:count]).astype(bool)


def flashing_face(
    light: Sequence[np.ndarray],
    *,
    corners: Sequence[tuple[int, int]] = ((100, 60),),
    size: tuple[int, int] = (320, 240),
) -> np.ndarray:
    """Return frames of red squares on black that have white stripes where ``light`` is True.

    Args:
        light: For each square, a boolean per frame.
        corners: For each square, x and y of its top left corner.
        size: Width and height of the frames.

    Returns:
        N x H x W x 3, uint8, BGR.
    """
    frames = np.full((len(light[0]), size[1], size[0], 3), 0, np.uint8)
    for (x, y), lit in zip(corners, light):
        frames[:, y : y + FACE, x : x + FACE] = (0, 0, 255)
        for row in range(y + 5, y + FACE - 15, 20):
            frames[lit, row : row + 10, x : x + FACE] = 255
    return frames


def write_frames(folder: Path, frames: Iterable[np.ndarray]) -> Path:
    """Write frames as numbered PNG files into a new folder, and return it."""
    folder.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index:06d}.png"), frame)
    return folder


def write_audio(path: Path, loud: np.ndarray, *, seed: int = 0) -> Path:
    """Write a WAV file of noise, 32 dB louder in the frames where ``loud`` is True, and return its path."""
    samples = np.random.default_rng(seed).integers(-8000, 8000, (len(loud), 640))
    wavfile.write(path, 16000, (samples * np.where(loud, 1, 0.025)[:, None]).astype(np.int16).ravel())
    return path


def encode(
    path: Path,
    frames_folder: Path,
    audio: Path,
    *,
    flags: Sequence[str] = ("-c:v", "mpeg4", "-q:v", "2", "-c:a", "pcm_s16le"),
) -> Path:
    """Encode a folder of PNG files and a WAV file into a video, and return its path."""
    inputs = ["-framerate", "25", "-i", frames_folder / "%06d.png", "-i", audio]
    Ffmpeg([*inputs, *flags, path], source=path).finish()
    return path


def decode(path: str | Path) -> np.ndarray:
    """Return all frames of a video, N x H x W x 3, as OpenCV decodes them."""
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while True:
        found, frame = capture.read()
        if not found:
            capture.release()
            return np.array(frames)
        frames.append(frame)
