"""Videos whose sound is moved by a known amount, in many containers, and where their sound and pictures really lie.

Everything is measured without the suite: PyAV decodes the file, its sound is correlated with the sound that went in,
and its pictures are compared with the pictures that went in, all by the time stamps of what is decoded. The delays of
encoders that a container does not declare are thus part of the truth, as they are of what a player shows.

A lag is in milliseconds and positive if the sound is early, as everywhere in the suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from scipy.io import wavfile
from scipy.signal import fftconvolve, resample_poly

from syncnet.constants import FRAME_RATE, SAMPLE_RATE
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg
from training.syncnet.clips import delayed

MILLISECONDS = 1000
THUMBNAIL = 96, 54  # width and height of the pictures that are compared
PICTURES_FOUND = 0.9  # share of a file's pictures that are recognised
PICTURES_NEAR_MS = 20.5  # of most; further away, a picture was taken for another that looks like it
HOLE = 3.0, 3.4  # seconds between which a file's sound has no packets
LATE_S, EARLY_S, CUT_S = 0.3, -0.2, 1.5  # seconds by which a stream is late or early, and at which a copy starts
OTHER_MS = 450  # move of the sound that no player takes
EXPERIMENTAL = ("-strict", "-2")  # ffmpeg 4's word for Opus and FLAC in MP4
FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov+default_base_moof")
X264 = {"preset": "veryfast", "crf": "18", "g": "50", "bf": "2"}


@dataclass(frozen=True)
class Source:
    """Pictures and sound that belong together.

    Attributes:
        frames: N x H x W x 3, uint8, BGR.
        times: N, time of each frame in seconds.
        content: N, time of what each frame shows, in seconds; differs from ``times`` where frames were picked.
        sound: samples, float64, -1 to 1; the first is at time 0.
        sound_rate: samples per second.
    """

    frames: np.ndarray
    times: np.ndarray
    content: np.ndarray
    sound: np.ndarray
    sound_rate: int

    def at(self, times: np.ndarray) -> Source:
        """Return the source with the frames nearest to other times."""
        index = np.abs(self.content[None] - times[:, None]).argmin(1)
        return Source(self.frames[index], times, self.content[index], self.sound, self.sound_rate)

    def sound_at(self, rate: int) -> np.ndarray:
        """Return the sound at another sample rate."""
        ratio = Fraction(rate, self.sound_rate)
        return resample_poly(self.sound, ratio.numerator, ratio.denominator)


def regular(rate: Fraction, seconds: float) -> np.ndarray:
    """Return the times of frames at a constant rate, in seconds."""
    return np.arange(int(seconds * rate)) / float(rate)


def irregular(seconds: float, *, shortest: int = 15, longest: int = 80, seed: int = 0) -> np.ndarray:
    """Return times, whole milliseconds in seconds, that are ``shortest`` to ``longest`` milliseconds apart."""
    steps = np.random.default_rng(seed).integers(shortest, longest + 1, int(seconds * MILLISECONDS / shortest))
    times = np.concatenate([[0], np.cumsum(steps)])
    return times[times < seconds * MILLISECONDS] / MILLISECONDS


def decoded_source(path: Path) -> Source:
    """Return the pictures and the sound of a file, both from time 0, without anything in front of the pictures."""
    times, frames = read_pictures(path, lambda frame: frame.to_ndarray(format="bgr24"))
    start, sound, rate = read_sound(path)
    lead = round((start - times[0]) * rate)
    sound = np.pad(sound, (lead, 0)) if lead > 0 else sound[-lead:]
    return Source(np.stack(frames), times - times[0], times - times[0], sound, rate)


def read_pictures(path: Path, convert: Callable[[av.VideoFrame], np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the time stamps, in seconds, and the converted frames of a file."""
    times, frames = [], []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(container.streams.video[0]):
            times.append(float(frame.pts * frame.time_base))
            frames.append(convert(frame))
    return np.array(times), frames


def count_pictures(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the times of the frames that OpenCV reads, counted at the nominal rate, and their thumbnails."""
    capture, pictures = cv2.VideoCapture(str(path)), []
    rate = capture.get(cv2.CAP_PROP_FPS)
    while (read := capture.read())[0]:
        pictures.append(thumbnail(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)))
    capture.release()
    return np.arange(len(pictures)) / rate, pictures


def read_sound(path: Path, stream: int = 0, *, count: bool = False) -> tuple[float, np.ndarray, int]:
    """Return the start in seconds, the samples (mono, float64) and the rate of a file's sound.

    Every decoded frame lies where its time stamp puts it; what no frame covers is zero. With ``count``, frames follow
    each other from 0 on, whatever their time stamps are.
    """
    places, parts, rate, place = [], [], SAMPLE_RATE, 0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="dbl", layout="mono")
        for frame in container.decode(container.streams.audio[stream]):
            rate = frame.sample_rate
            # a time stamp is exact to a tick, which is 1 ms in Matroska: within that, frames follow each other
            stamped = frame.pts is not None and not count
            if stamped and abs(frame.pts * frame.time_base * rate - place) > frame.time_base * rate:
                place = round(frame.pts * frame.time_base * rate)
            frame.pts = None
            part = np.concatenate([out.to_ndarray()[0] for out in resampler.resample(frame)])
            places.append(place)
            parts.append(part)
            place += len(part)
    first = min(places)
    sound = np.zeros(max(place + len(part) for place, part in zip(places, parts)) - first)
    for place, part in zip(places, parts):
        sound[place - first : place - first + len(part)] = part
    return first / rate, sound, rate


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a small grey picture of an image, as a row of float32 whose mean is 0."""
    small = cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    return (small - small.mean()).ravel()


@dataclass(frozen=True)
class Truth:
    """Where the sound and the pictures of a file lie.

    Attributes:
        lag_ms: milliseconds by which the sound is early.
        sound_ms: time stamp minus time in the source, of the sound.
        picture_ms: the same of the pictures, on average.
        spread_ms: standard deviation of the pictures' time stamps around that.
    """

    lag_ms: float
    sound_ms: float
    picture_ms: float
    spread_ms: float


def measure(path: Path, source: Source, *, stream: int = 0, count: bool = False) -> Truth:
    """Measure where the sound and the pictures of a file lie.

    Args:
        path: the file.
        source: what went into it, before its sound was moved.
        stream: index among the audio streams of the one that counts.
        count: take times as a reader without time stamps does: pictures from 0 at the nominal rate, samples from 0.

    Raises:
        ValueError: the file's pictures are not those of the source.
    """
    start, sound, rate = read_sound(path, stream, count=count)
    sound_ms = (start - delay(source.sound_at(rate), sound) / rate) * MILLISECONDS
    if count:
        times, pictures = count_pictures(path)
    else:
        times, pictures = read_pictures(path, lambda frame: thumbnail(frame.to_ndarray(format="gray")))
    known, content = distinct(source)
    found = np.stack(pictures)
    unlike = (known**2).sum(1)[None] - 2 * found @ known.T
    moved = (times - content[unlike.argmin(1)]) * MILLISECONDS
    near = moved[np.abs(moved - np.median(moved)) < PICTURES_NEAR_MS]
    if len(near) < PICTURES_FOUND * len(moved):
        raise ValueError(f"{path}: only {len(near)} of {len(moved)} pictures are those that went in")
    picture_ms, spread = float(near.mean()), float(near.std())
    return Truth(picture_ms - sound_ms, sound_ms, picture_ms, spread)


def distinct(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return the thumbnails and the times of the different pictures in a source."""
    content, index = np.unique(source.content, return_index=True)
    return np.stack([thumbnail(cv2.cvtColor(source.frames[i], cv2.COLOR_BGR2GRAY)) for i in index]), content


def delay(reference: np.ndarray, sound: np.ndarray) -> float:
    """Return by how many samples ``reference`` starts after ``sound``, where the two are most alike."""
    alike = fftconvolve(reference, sound[::-1])
    best = int(alike.argmax())
    before, peak, after = alike[best - 1 : best + 2]
    return best - (len(sound) - 1) + float((before - after) / (2 * (before - 2 * peak + after)))


@dataclass(frozen=True)
class Case:
    """A file to make.

    Attributes:
        kind: what it tests, a row of the table.
        extension: of its name, which decides the container.
        audio: ffmpeg's encoder of the sound.
        audio_rate: samples per second.
        move_ms: milliseconds by which the sound is made early.
        rate: frames per second; None for a variable rate.
        video: ffmpeg's encoder of the pictures; "copy" for H.264 as it is.
        flags: ffmpeg's further options.
        late_picture, late_sound: seconds by which a stream is late, by its time stamps.
        change: what is done to the file afterwards.
        other_sound: whether another sound comes first, which is not the default.
        others: further inputs, which follow that of the sound, for ``flags``.
    """

    kind: str
    extension: str = "mp4"
    audio: str = "aac"
    audio_rate: int = 48000
    move_ms: int = 0
    rate: Fraction | None = Fraction(FRAME_RATE)
    video: str = "copy"
    flags: Sequence[str] = ()
    late_picture: float = 0.0
    late_sound: float = 0.0
    change: Callable[[Path, Path], None] | None = None
    other_sound: bool = False
    others: Sequence[Path] = ()

    def __str__(self) -> str:
        rate = f"{float(self.rate):.5g}" if self.rate else "variable"
        return f"{self.kind}: {rate} fps, {self.extension}, {self.audio} {self.audio_rate} Hz, {self.move_ms:+} ms"

    @property
    def stream(self) -> int:
        """Index of the audio stream that a player takes."""
        return int(self.other_sound)

    def times(self, seconds: float) -> np.ndarray:
        """Return the times of the frames, in seconds."""
        return regular(self.rate, seconds) if self.rate else irregular(seconds)


def write_pictures(path: Path, source: Source, rate: Fraction | None) -> Path:
    """Write the frames of a source at their times, as H.264 without sound, and return the path."""
    base = Fraction(1, rate.numerator if rate else MILLISECONDS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate or FRAME_RATE, options=X264)
        stream.height, stream.width = source.frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", base
        for time, image in zip(source.times, source.frames):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, source: Source, rate: int, move_ms: float) -> Path:
    """Write the sound of a source as 16-bit WAV, made ``move_ms`` milliseconds early, and return the path."""
    sound = delayed(source.sound_at(rate), -round(move_ms * rate / MILLISECONDS))
    wavfile.write(path, rate, (sound.clip(-1, 1) * np.iinfo(np.int16).max).round().astype(np.int16))
    return path


def make(case: Case, source: Source, folder: Path, *, name: str = "file") -> Path:
    """Make the file of a case in a folder, and return its path.

    Args:
        case: the case.
        source: pictures at the case's times, and sound.
        folder: folder for the file and for what it is made of.
        name: its name without extension.
    """
    path = folder / f"{name}.{case.extension}"
    pictures = write_pictures(folder / f"{name}-v.mp4", source, case.rate)
    sounds = [write_sound(folder / f"{name}-a.wav", source, case.audio_rate, case.move_ms)]
    maps = ["-map", "0:v", "-map", "1:a"]
    if case.other_sound:
        sounds.append(write_sound(folder / f"{name}-b.wav", source, case.audio_rate, OTHER_MS))
        maps = ["-map", "0:v", "-map", "2:a", "-map", "1:a", "-disposition:a:0", "0", "-disposition:a:1", "default"]
    inputs = ["-itsoffset", case.late_picture, "-i", pictures]
    for sound in sounds:
        inputs += ["-itsoffset", case.late_sound, "-i", sound]
    for other in case.others:
        inputs += ["-i", other]
    codecs = ["-c:v", case.video, "-c:a", case.audio, *EXPERIMENTAL]
    if case.video != "copy":
        codecs += ["-b:v", "3M", "-pix_fmt", "yuv420p"]
    whole = folder / f"{name}-whole.{case.extension}" if case.change else path
    Ffmpeg([*inputs, *maps, *codecs, *case.flags, *ERRORS_ONLY, whole], source=path).finish()
    if case.change:
        case.change(whole, path)
    return path


def copy_from(seconds: float) -> Callable[[Path, Path], None]:
    """Return a function that copies a file from some time on, without encoding."""

    def change(source: Path, path: Path) -> None:
        Ffmpeg(["-ss", seconds, "-i", source, "-c", "copy", *ERRORS_ONLY, path], source=source).finish()

    return change


def drop_packets(source: Path, path: Path) -> None:
    """Copy a file without the packets of its sound in ``HOLE``."""
    with av.open(str(source)) as reader, av.open(str(path), "w") as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is None:
                continue
            inside = packet.stream.type == "audio" and HOLE[0] <= packet.pts * packet.time_base < HOLE[1]
            if not inside:
                packet.stream = streams[packet.stream.index]
                writer.mux(packet)


def rates() -> dict[str, Fraction | None]:
    """Return the frame rates by name; None is a variable rate."""
    names = {"15": "15", "23.976": "24000/1001", "24": "24", "25": "25", "29.97": "30000/1001", "30": "30"}
    names |= {"50": "50", "59.94": "60000/1001", "60": "60"}
    return {**{name: Fraction(value) for name, value in names.items()}, "variable": None}


MOVES_MS = (-370, -115, -55, 0, 35, 75, 260)


def rate_cases(moves: Iterable[int] = MOVES_MS) -> list[Case]:
    """Return a file for every frame rate and move, in changing containers."""
    containers = (("mp4", "aac"), ("mkv", "flac"), ("mov", "pcm_s16le"), ("ts", "aac"))
    pairs = [(rate, move) for move in moves for rate in rates().values()]
    return [
        Case("frame rate", *containers[(index + index // len(rates())) % len(containers)], 48000, move, rate)
        for index, (rate, move) in enumerate(pairs)
    ]


def sound_cases(move_ms: int) -> list[Case]:
    """Return a file for every encoder and sample rate of the sound."""
    found = {
        "aac": (8000, 16000, 22050, 32000, 44100, 48000, 96000),
        "libopus": (8000, 16000, 48000),
        "libmp3lame": (8000, 16000, 44100, 48000),
        "mp2": (16000, 32000, 48000),
        "flac": (8000, 44100, 96000),
        "pcm_s16le": (8000, 16000, 44100, 96000),
    }
    return [Case("sound", "mkv", audio, rate, move_ms) for audio, many in found.items() for rate in many]


def container_cases(move_ms: int) -> list[Case]:
    """Return a file for every container."""
    common: dict[str, Any] = {"kind": "container", "move_ms": move_ms}
    return [
        Case(**common, extension="mp4"),
        Case(**common, extension="mp4", audio="libmp3lame", audio_rate=44100),
        Case(**common, extension="mp4", audio="libopus"),
        Case(**common, extension="mp4", audio="flac"),
        Case(**common, extension="mp4", flags=FRAGMENTED),
        Case(**common, extension="mov"),
        Case(**common, extension="mov", audio="pcm_s16le", audio_rate=44100),
        Case(**common, extension="mkv"),
        Case(**common, extension="webm", audio="libopus", video="libvpx", flags=("-deadline", "realtime")),
        Case(**common, extension="webm", audio="libvorbis", video="libvpx", flags=("-deadline", "realtime")),
        Case(**common, extension="ts"),
        Case(**common, extension="ts", audio="mp2", video="mpeg2video"),
        Case(**common, extension="ts", audio="libopus"),
        Case(**common, extension="ts", audio="libmp3lame"),
        Case(**common, extension="mpg", audio="mp2", video="mpeg2video"),
        Case(**common, extension="mpg", audio="mp2", video="mpeg2video", rate=Fraction(30000, 1001)),
        Case(**common, extension="avi", audio="libmp3lame", video="mpeg4"),
        Case(**common, extension="avi", audio="pcm_s16le", audio_rate=16000, video="mpeg4"),
    ]


def time_stamp_cases(move_ms: int) -> list[Case]:
    """Return files with late streams, edit lists, cuts and holes."""
    late = [Case("late picture", extension, move_ms=move_ms, late_picture=LATE_S) for extension in ("mp4", "mkv", "ts")]
    late += [Case("late sound", extension, move_ms=move_ms, late_sound=LATE_S) for extension in ("mp4", "mkv", "ts")]
    late += [
        Case("edit list", move_ms=move_ms, late_sound=EARLY_S),
        Case("edit list", move_ms=move_ms, late_picture=EARLY_S),
        Case("edit list", "mov", "pcm_s16le", move_ms=move_ms, late_sound=EARLY_S),
        *(Case("copied from 1.5 s", ext, move_ms=move_ms, change=copy_from(CUT_S)) for ext in ("mp4", "mkv", "ts")),
    ]
    holes = [Case("hole", extension, move_ms=move_ms, change=drop_packets) for extension in ("ts", "mkv", "mp4")]
    streams = [Case("two sounds", extension, move_ms=move_ms, other_sound=True) for extension in ("mp4", "mkv")]
    return [*late, *holes, *streams]
