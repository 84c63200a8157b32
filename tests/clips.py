"""Clips for tests, made by ffmpeg out of nothing."""

import cv2
import numpy as np
from scipy.io import wavfile

from syncnet.media.ffmpeg import Ffmpeg

RED, WHITE, GREY = "red", "white", "gray"
FACE = 100  # pixels: the side of a red square, which the detector of the tests takes for a face


def make(path, *inputs, flags=()):
    """Encode lavfi sources into a file."""
    arguments = [part for source in inputs for part in ("-f", "lavfi", "-i", source)]
    Ffmpeg([*arguments, *flags, path.absolute()], source=path).finish()
    return path


def canvas(*, seconds, rate="25", size="320x240", colour=GREY):
    return f"color=c={colour}:s={size}:r={rate}:d={seconds}"


def square(x, y, *, side=FACE, colour=RED, enable=""):
    """A drawbox filter; enable: ffmpeg's expression of when."""
    text = f",drawbox=x={x}:y={y}:w={side}:h={side}:color={colour}:t=fill"
    return f"{text}:enable='{enable}'" if enable else text


def tone(*, seconds, rate=44100):
    return f"sine=frequency=440:sample_rate={rate}:duration={seconds}"


def face_clip(path, *, seconds=1.4, rate="25", size="320x240", x=100, y=60, side=FACE, sound=None, flags=()):
    """A red square with a white stripe, still, on grey, with a tone of the same length."""
    face = square(x, y, side=side) + f",drawbox=x={x}:y={y + side // 2}:w={side}:h={side // 5}:color={WHITE}:t=fill"
    sources = [canvas(seconds=seconds, rate=rate, size=size) + face]
    if sound != "":
        sources.append(sound or tone(seconds=seconds))
    return make(path, *sources, flags=flags)


def flashes(count, *, seed=0, hold=16):
    """Which of count frames are light: runs of random length, the same for picture and sound."""
    rng = np.random.default_rng(seed)
    runs = rng.integers(5, hold + 1, count)
    return (np.repeat(np.arange(count) % 2, runs)[:count]).astype(bool)


def flashing_face(light, *, corners=((100, 60),), size=(320, 240)):
    """Frames of red squares on black, each with white stripes where its row of ``light`` says so."""
    frames = np.full((len(light[0]), size[1], size[0], 3), 0, np.uint8)
    for (x, y), lit in zip(corners, light):
        frames[:, y : y + FACE, x : x + FACE] = (0, 0, 255)
        for row in range(y + 5, y + FACE - 15, 20):
            frames[lit, row : row + 10, x : x + FACE] = 255
    return frames


def write_pictures(folder, frames):
    """Frames as PNG files, for ffmpeg's image2."""
    folder.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index:06d}.png"), frame)
    return folder


def write_sound(path, loud, *, seed=0):
    """Noise, 32 dB louder where the frames are loud than elsewhere."""
    samples = np.random.default_rng(seed).integers(-8000, 8000, (len(loud), 640))
    wavfile.write(path, 16000, (samples * np.where(loud, 1, 0.025)[:, None]).astype(np.int16).ravel())
    return path


def encode(path, pictures, sound, *, flags=("-c:v", "mpeg4", "-q:v", "2", "-c:a", "pcm_s16le")):
    inputs = ["-framerate", "25", "-i", pictures / "%06d.png", "-i", sound]
    Ffmpeg([*inputs, *flags, path], source=path).finish()
    return path


def decode(path):
    """All frames of a video, as OpenCV decodes them."""
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return np.array(frames)
        frames.append(frame)
