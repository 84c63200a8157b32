"""Videos whose frames show their number, with any kind of time stamps; made by PyAV, so equal for every ffmpeg."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from syncnet.media import conversions
from syncnet.media.containers import check_streams
from syncnet.media.fingerprint import behaviour
from syncnet.results.layout import frame_files

BITS, BLOCK = 10, 16  # blocks of 16 x 16 pixels, black or white
WIDTH, HEIGHT = BITS * BLOCK, 48
AUDIO_RATE = 44100


def frame(number: int) -> np.ndarray:
    """Return an image that encodes a number, H x W, uint8."""
    image = np.full((HEIGHT, WIDTH), 128, np.uint8)
    for bit in range(BITS):
        image[BLOCK : 2 * BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 16
    return image


def number_of(image: np.ndarray) -> int:
    """Return the number in an image, H x W or H x W x 3."""
    middle = image[BLOCK + 4 : 2 * BLOCK - 4].reshape(BLOCK - 8, BITS, -1).mean(axis=(0, 2))
    return sum(1 << bit for bit in range(BITS) if middle[bit] > 128)


def write(
    path: Path,
    times: Sequence[int],
    *,
    time_base: Fraction,
    rate: Fraction,
    b_frames: int = 0,
    codec: str = "libx264",
    fragmented: bool = False,
) -> Path:
    """Write a video with audio.

    Args:
        path: File to write.
        times: Time stamp of every frame, in ticks.
        time_base: Seconds per tick.
        rate: Frames per second that the stream declares.
        b_frames: Number of consecutive frames that are stored out of order.
        codec: ffmpeg's name of the video encoder.
        fragmented: Store an MP4 file in fragments, as browsers record.

    Returns:
        ``path``.
    """
    options = {"bf": str(b_frames), "qp": "10"} if codec == "libx264" else {"bf": str(b_frames), "q": "2"}
    container_options = {"movflags": "frag_keyframe+empty_moov"} if fragmented else {}
    with av.open(str(path), "w", container_options=container_options) as container:
        video = container.add_stream(codec, rate=rate, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", options=options)
        video.time_base = video.codec_context.time_base = time_base
        audio = container.add_stream("aac" if path.suffix != ".avi" else "libmp3lame", rate=AUDIO_RATE, layout="mono")
        packets = []
        for number, time in enumerate(times):
            image = np.concatenate([frame(number), np.full((HEIGHT // 2, WIDTH), 128, np.uint8)])
            video_frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
            video_frame.pts, video_frame.time_base = time, time_base
            packets += video.encode(video_frame)
        packets += video.encode(None)
        seconds = float((max(times) + 1) * time_base) + 0.2
        tone = (np.sin(np.arange(int(seconds * AUDIO_RATE)) / 16) * 8000).astype(np.int16)
        audio_frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        audio_frame.sample_rate, audio_frame.pts, audio_frame.time_base = AUDIO_RATE, 0, Fraction(1, AUDIO_RATE)
        resampler = av.AudioResampler("fltp" if path.suffix != ".avi" else "s16p", "mono", AUDIO_RATE)
        for part in resampler.resample(audio_frame):
            packets += audio.encode(part)
        packets += audio.encode(None)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            container.mux(packet)
    return path


def converted(source: Path, folder: Path) -> tuple[list[int], int]:
    """Convert a video as run_pipeline does.

    Args:
        source: The video.
        folder: Folder for the results, without a folder ``frames`` yet.

    Returns:
        The numbers of the frames in order, and the number of frames in the AVI.
    """
    video, frames = folder / "video.avi", folder / "frames"
    frames.mkdir()
    streams = check_streams(source)
    conversions.start_conversion(
        source, video, script=folder / "rate.txt", streams=streams, behaviour=behaviour()
    ).finish()
    conversions.start_frames(video, frames, quality=conversions.PIPELINE_QUALITY).finish()
    return [number_of(cv2.imread(str(file))) for file in frame_files(frames)], conversions.frame_count(video)


def regular(rate: int | str | Fraction, *, seconds: int = 2, start: int = 0) -> tuple[list[int], Fraction]:
    """Return the time stamps of a constant rate and their time base, one tick per frame."""
    return [start + index for index in range(int(Fraction(rate) * seconds))], 1 / Fraction(rate)


def jittery(
    rate: int, *, spread: float, drop: float = 0.0, seconds: int = 2, seed: int = 0
) -> tuple[list[int], Fraction]:
    """Return time stamps around a rate, and their time base.

    Args:
        rate: Frames per second.
        spread: Largest displacement of a frame, in frames.
        drop: Share of frames left out.
        seconds: Length.
        seed: Seed.
    """
    rng = np.random.default_rng(seed)
    count = int(rate * seconds)
    ticks = 60000
    times = ((np.arange(count) + rng.uniform(-spread, spread, count)) / rate * ticks).round().astype(int)
    times = np.unique(times[rng.random(count) >= drop])
    return (times - times[0]).tolist(), Fraction(1, ticks)


def cases() -> dict[str, tuple[str, dict]]:
    """Return, by the name of a case, the suffix of the file and the keyword arguments of ``write``."""
    found = {}
    for rate in ("25/2", "15", "24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60"):
        for suffix, b_frames in ((".mp4", 2), (".mp4", 0), (".mkv", 2)):
            times, time_base = regular(rate)
            name = f"{rate.replace('/', '-')}, b{b_frames}{suffix}"
            found[name] = suffix, {"times": times, "time_base": time_base, "rate": Fraction(rate), "b_frames": b_frames}
    for rate in ("15", "24", "30", "60"):
        times, time_base = regular(rate)
        for suffix in (".avi", ".ts"):
            codec = "mpeg4" if suffix == ".avi" else "libx264"
            found[f"{rate}{suffix}"] = (
                suffix,
                {"times": times, "time_base": time_base, "rate": Fraction(rate), "codec": codec},
            )
    varied = {
        "variable 30": jittery(30, spread=0.3, drop=0.2),
        "variable 60": jittery(60, spread=0.45, drop=0.3),
        "variable 50": jittery(50, spread=0.3, drop=0.05),
        "variable 12": jittery(12, spread=0.4, drop=0.3),
        "fast, then slow": ([*range(0, 60000, 1000), *range(60000, 120000, 6000)], Fraction(1, 60000)),
        "slow, then fast": ([*range(0, 60000, 6000), *range(60000, 120000, 1000)], Fraction(1, 60000)),
        "late start": regular("30", start=17),
        "start between frames": ([1001 + 2000 * index for index in range(60)], Fraction(1, 60000)),
        "equal times": ([index // 2 * 4000 for index in range(60)], Fraction(1, 60000)),
    }
    for name, (times, time_base) in varied.items():
        for suffix, b_frames in ((".mp4", 2), (".mp4", 0), (".mkv", 0)):
            if name == "equal times" and suffix == ".mp4":
                continue  # MP4 cannot store them
            arguments = {"times": times, "time_base": time_base, "rate": Fraction(30), "b_frames": b_frames}
            found[f"{name}, b{b_frames}{suffix}"] = suffix, arguments
            if suffix == ".mp4" and "variable" in name:
                found[f"{name}, fragments, b{b_frames}{suffix}"] = suffix, {**arguments, "fragmented": True}
    return found
