"""Compare the frames, audio and scores that several versions of ffmpeg make from the same videos.

    python -m benchmarks.ffmpeg_versions /usr/bin/ffmpeg .venv/ffmpegs/0.6.0

Each argument is the path of an ffmpeg, or of a folder into which the package imageio-ffmpeg was installed (pip install
--no-deps --target FOLDER). The first is the reference. Prints for each: its fingerprint; in how many videos of
tests/numbered.py the frames at 25 fps differ from those of ffmpeg 5.1; the difference of the audio relative to its
level (RMS), mean and largest, over all combinations of codec, sample rate and channels; and the offset and confidence
of every track, with the installed weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CODECS = {"pcm_s16le": ".mkv", "flac": ".mkv", "aac": ".mp4", "libopus": ".mkv"}
RATES = (8000, 16000, 22050, 44100, 48000, 96000)
CHANNELS = ("mono", "stereo", "5.1")
OPUS_RATES = (8000, 16000, 48000)
SECONDS = 2


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ffmpegs", nargs="+", help="ffmpegs to compare; the first is the reference")
    parser.add_argument("--videos", nargs="*", default=["data/sample.mp4"], help="videos to score")
    parser.add_argument("--min_track", type=int, default=50, help="as in run_pipeline")
    return parser


def program_of(path: str | Path) -> Path:
    """Return the ffmpeg at a path, or in the imageio-ffmpeg folder at that path."""
    path = Path(path).absolute()
    return next(iter(sorted(path.glob("imageio_ffmpeg/binaries/ffmpeg-*"))), path)


def examine(videos: Sequence[str], min_track: int) -> None:
    """Compute all figures of the ffmpeg that SYNCNET_FFMPEG names, and print them as JSON."""
    from syncnet.media.fingerprint import behaviour

    found = behaviour()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "version": found.version,
            "fingerprint": found.fingerprint,
            "frames": differing_frames(Path(folder)),
            "scores": [score(Path(video), Path(folder) / "work", min_track) for video in videos],
        }
        result["audio"] = {name: samples.tolist() for name, samples in converted_audio(Path(folder))}
    print(json.dumps(result))


def differing_frames(folder: Path) -> str:
    """Return how many of the numbered videos give other frames than with ffmpeg 5.1; ``folder`` is scratch space."""
    from tests import numbered

    goldens = json.loads((ROOT / "tests/media/frame_goldens.json").read_text(encoding="utf-8"))
    count = 0
    for index, (name, (suffix, arguments)) in enumerate(numbered.cases().items()):
        place = folder / str(index)
        place.mkdir()
        numbers, length = numbered.converted(numbered.write(place / f"a{suffix}", **arguments), place)
        count += (numbers, length) != (goldens[name]["numbers"], goldens[name]["frames_in_avi"])
    return f"{count} of {len(goldens)}"


def synthetic_voice(rate: int, channels: int) -> np.ndarray:
    """Return a signal resembling a voice, channels x samples, int16."""
    rng = np.random.default_rng(0)
    at = np.arange(rate * SECONDS) / rate
    envelope = np.clip(np.sin(8 * at), 0, 1)
    harmonics = sum(np.sin(2 * np.pi * pitch * at + pitch) for pitch in (130, 260, 390, 900, 1800) if pitch < rate / 2)
    return (envelope * harmonics * 2500 + rng.normal(0, 60, (channels, len(at)))).astype(np.int16)


def converted_audio(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the 16 kHz samples of every combination of codec, sample rate and channels."""
    from syncnet.media import conversions
    from syncnet.media.containers import check_streams
    from syncnet.media.fingerprint import behaviour

    for codec, suffix in CODECS.items():
        for rate in OPUS_RATES if codec == "libopus" else RATES:
            for layout in CHANNELS:
                source, video, wav = folder / f"source{suffix}", folder / "video.avi", folder / "audio.wav"
                write_audio(source, codec, rate, layout)
                options = {"script": folder / "rate.txt", "behaviour": behaviour()}
                conversions.start_conversion(source, video, streams=check_streams(source), **options).finish()
                conversions.start_audio(video, wav).finish()
                yield f"{codec} {rate} {layout}", conversions.read_wav(wav)


def write_audio(path: Path, codec: str, rate: int, layout: str) -> None:
    """Write a grey video with a voice, with PyAV, so that every ffmpeg gets the same file."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
        stream = container.add_stream(codec, rate=rate, layout=layout)
        grey = av.VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), format="yuv420p")
        for index in range(25 * SECONDS):
            grey.pts, grey.time_base = index, Fraction(1, 25)
            container.mux(video.encode(grey))
        samples = synthetic_voice(rate, len(stream.layout.channels))
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in av.AudioResampler(stream.format.name, layout, rate).resample(frame):
            container.mux(stream.encode(part))
        for each in (video, stream):
            container.mux(each.encode(None))


def score(video: Path, data_dir: Path, min_track: int) -> dict:
    """Return the name of a video and the offset and confidence of its tracks."""
    for script in ("run_pipeline.py", "run_syncnet.py"):
        command = [sys.executable, script, "--videofile", str(video), "--reference", "a", "--data_dir", str(data_dir)]
        command += ["--quiet", "--device", "cpu"]
        command += ["--min_track", str(min_track)] if script == "run_pipeline.py" else []
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    tracks = json.loads((data_dir / "pywork/a/scores.json").read_text(encoding="utf-8"))["tracks"]
    return {"video": video.name, "tracks": [(track["offset"], track["confidence"]) for track in tracks]}


def difference(samples: Sequence[int], reference: Sequence[int]) -> float:
    """Return the RMS of the difference of two signals relative to the reference's, over their common length."""
    length = min(len(samples), len(reference))
    a, b = (np.array(part[:length], float) for part in (samples, reference))
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    found = []
    for ffmpeg in args.ffmpegs:
        environment = {**os.environ, "SYNCNET_FFMPEG": str(program_of(ffmpeg))}
        code = "import sys; from benchmarks.ffmpeg_versions import examine; examine(sys.argv[2:], int(sys.argv[1]))"
        command = [sys.executable, "-c", code, str(args.min_track), *args.videos]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'version':<20} {'fingerprint':<17} {'frames differ':<14} audio differs, by codec: mean, largest")
    for each in found:
        print(f"{each['version'][:20]:<20} {each['fingerprint']:<17} {each['frames']:<14}", end="")
        for codec in CODECS:
            parts = [difference(each["audio"][n], found[0]["audio"][n]) for n in each["audio"] if n.startswith(codec)]
            print(f" {codec} {np.mean(parts):.4f} {max(parts):.4f} ", end="")
        print()
    print(f"\n{'version':<20} offset and confidence of every track")
    for each in found:
        for scored in each["scores"]:
            tracks = ", ".join(f"{offset:+d} {confidence:.3f}" for offset, confidence in scored["tracks"])
            print(f"{each['version'][:20]:<20} {scored['video']}: {tracks}")


if __name__ == "__main__":
    main()
