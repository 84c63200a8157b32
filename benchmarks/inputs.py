"""Show what is said of videos that have no score, or none to trust, and whether following the advice gives one.

    python -m benchmarks.inputs
    python -m benchmarks.inputs --kind faces --mode direct
    python -m benchmarks.inputs --json inputs.json

Every situation is a video made from data/sample.mp4 or from ffmpeg's sources. It is scored, the flags of the advice are
taken from the text of the reasons (and the video is converted, or scored in direct mode, where they say so), and it is
scored again. Ends with status 1 if a code is not the expected one, or advice does not give a score.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from syncnet import score_video
from syncnet.constants import FRAME_RATE
from syncnet.defaults import DIRECT, MODES, PUBLISHED
from syncnet.errors import MediaError
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg

SAMPLE = Path(__file__).resolve().parent.parent / "data/sample.mp4"
SHOT = 6.1  # seconds into the sample at which somebody speaks alone
FACE_X, FACE_Y, FACE_HEIGHT = 197, 165, 185  # there, in pixels
SAMPLE_WIDTH = 640
SECONDS = 2.6  # of a speaker: more than the frames of a track in direct mode
SIZES = {"480p": (854, 480), "1080p": (1920, 1080), "4K": (3840, 2160)}
ENCODING = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac")
FLAG = re.compile(r"--(\w+) (\d+(?:\.\d+)?)(?![^:]* (?:pixels|frames)\b)")
DAMAGED_SECONDS = 4.5
FLIPPED = 200
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-pix_fmt", "yuv420p", "-c:a", "aac")
CONTAINERS: dict[str, Sequence[str]] = {
    ".mp4": (*H264, "-movflags", "+faststart"),
    ".mkv": H264,
    ".webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    ".ts": H264,
    ".avi": ("-c:v", "mpeg4", "-q:v", "4", "-c:a", "libmp3lame"),
}
SHAPES = {"2": "320:360", "4/3": "480:360", "16/15": "600:360", "1/2": "640:180"}
CONVERT = f"fps={FRAME_RATE}"


@dataclass(frozen=True)
class Situation:
    """A video, and what should be said of it.

    Attributes:
        kind: what is varied in its group.
        name: its name in the table.
        make: writes the video to a path without a suffix, and returns the path.
        codes: codes of the video of which one is expected; with "" no reason is expected, or any is accepted with None.
        flags: arguments of ``score_video``.
        modes: modes in which it is expected.
        advice: whether advice is expected that gives a score; None if either will do.
    """

    kind: str
    name: str
    make: Callable[[Path], Path]
    codes: Sequence[str] | None
    flags: dict[str, Any] = field(default_factory=dict)
    modes: Sequence[str] = MODES
    advice: bool | None = None


def encode(path: Path, *arguments: object) -> Path:
    """Run ffmpeg with some inputs and filters, and return the path of the file that it writes."""
    path = path.with_suffix(".mp4")
    Ffmpeg([*arguments, *ENCODING, *ERRORS_ONLY, path], source=path).finish()
    return path


def face(size: tuple[int, int], share: float, *, rate: float = FRAME_RATE, seconds: float = SECONDS) -> str:
    """Return a filter that shows the sample's speaker in a frame; it takes streams 0:v and 0:a of the sample.

    Args:
        size: width and height of the frame, in pixels.
        share: height of the face, relative to that of the frame.
        rate: frames per second.
        seconds: length.
    """
    (width, height), factor = size, share * size[1] / FACE_HEIGHT
    return (
        f"color=c=0x405060:s={width}x{height}:r={rate}:d={seconds}[back];"
        f"[0:v]fps={rate},scale={max(2, round(SAMPLE_WIDTH * factor))}:-2:flags=bicubic[face];"
        f"[back][face]overlay=x={width / 2 - FACE_X * factor:.0f}:y={height / 2 - FACE_Y * factor:.0f}:shortest=1"
    )


def speaker(size: tuple[int, int], share: float, **options: float) -> Callable[[Path], Path]:
    """Return a function that writes a video of one speaker; arguments as for ``face``."""
    seconds = options.get("seconds", SECONDS)
    source = ("-ss", SHOT, "-t", seconds, "-i", SAMPLE, "-filter_complex", face(size, share, **options))
    return lambda path: encode(path, *source)


def lavfi(source: str, *, seconds: float = 5.0) -> Callable[[Path], Path]:
    """Return a function that writes a video of one of ffmpeg's own sources."""
    sound = f"sine=frequency=440:duration={seconds}"
    return lambda path: encode(path, "-f", "lavfi", "-i", source, "-f", "lavfi", "-i", sound, "-t", seconds)


def drawn(*, text: bool, seconds: float = 3.0) -> Callable[[Path], Path]:
    """Return a function that writes a still picture of lines of text, or of circles and rectangles."""
    random, image = np.random.default_rng(1), np.full((480, 640, 3), 230, np.uint8)
    for row in range(12):
        x, y = (int(value) for value in random.integers(60, 400, 2))
        colour = tuple(int(value) for value in random.integers(0, 200, 3))
        if text:
            cv2.putText(image, "nobody is to be seen here", (20, 40 + 38 * row), 0, 1.0, colour, 2)
        else:
            cv2.circle(image, (x, y), 10 + y // 8, colour, -1)
            cv2.rectangle(image, (y, x), (y + x // 2, x + 40), colour, 3)

    def make(path: Path) -> Path:
        picture = path.with_suffix(".png")
        cv2.imwrite(str(picture), image)
        sound = f"sine=frequency=440:duration={seconds}"
        loop = ("-loop", 1, "-framerate", FRAME_RATE, "-i", picture)
        return encode(path, *loop, "-f", "lavfi", "-i", sound, "-t", seconds)

    return make


def cut(frames: int, *, rate: float, seconds: float = 2.0, same: bool = False) -> Callable[[Path], Path]:
    """Return a function that writes a video that is cut to a speaker.

    Args:
        frames: frames of the scene with the speaker.
        rate: frames per second.
        seconds: length of the scene before it, which shows nobody.
        same: the speaker is there all the time, and only what is behind changes.
    """
    start = round(seconds * rate) / rate
    after = f"t,{start - 0.25 / rate:.4f}"
    change = f"x=290:w=350:c=white:t=fill:enable='gte({after})'" if same else f"c=white:t=fill:enable='lt({after})'"
    filters = f"[0:v][0:a][1:v][1:a]concat=v=1:a=1[v][a];[v]fps={rate},drawbox={change}[o]"
    shot = ("-ss", SHOT, "-t", 5.0, "-i", SAMPLE)
    output = ("-map", "[o]", "-map", "[a]", "-t", start + frames / rate)
    return lambda path: encode(path, *shot, *shot, "-filter_complex", filters, *output)


def faces() -> Iterator[Situation]:
    """Yield faces of different sizes."""
    for name, size in SIZES.items():
        for share in (0.03, 0.1, 0.3, 0.6, 1.0, 1.5):
            yield Situation("faces", f"{share:.0%} of {name}", speaker(size, share), None)


def without_faces() -> Iterator[Situation]:
    """Yield pictures without a face."""
    sources = ["mandelbrot", "testsrc", "testsrc2", "smptebars", "life=mold=10", "cellauto", "yuvtestsrc"]
    for source in sources:
        size = f"{source}{':' if '=' in source else '='}s=640x480:r={FRAME_RATE}"
        yield Situation("no face", source.partition("=")[0], lavfi(size), ("no_face",), advice=False)
    for text in (False, True):
        yield Situation("no face", "text" if text else "drawing", drawn(text=text), ("no_face",), advice=False)


def scenes() -> Iterator[Situation]:
    """Yield short scenes."""
    for rate in (8, 15, 24, 25, 30, 60):
        for length in (1, 6, 12, 30, 60):
            yield Situation("scenes", f"{length} frames at {rate} fps", cut(length, rate=rate), None)
    for rate in (15, 25):
        yield Situation(
            "scenes",
            f"cut behind one face at {rate} fps",
            cut(2 * rate, rate=rate, same=True),
            None,
            flags={"min_track": 70},
        )


def contained(path: Path, suffix: str) -> Path:
    """Write the speaker into a container, with a start that plays before the rest is there, and return its path."""
    path = path.with_suffix(suffix)
    shot = ("-ss", SHOT, "-t", DAMAGED_SECONDS, "-i", SAMPLE)
    Ffmpeg([*shot, *CONTAINERS[suffix], *ERRORS_ONLY, path], source=path).finish()
    return path


def truncated(suffix: str, share: float) -> Callable[[Path], Path]:
    """Return a function that writes a video and keeps a share of its bytes."""

    def make(path: Path) -> Path:
        path = contained(path, suffix)
        path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share) - 1])
        return path

    return make


def flipped(suffix: str) -> Callable[[Path], Path]:
    """Return a function that writes a video and inverts bits in its middle."""

    def make(path: Path) -> Path:
        path = contained(path, suffix)
        data = bytearray(path.read_bytes())
        generator = random.Random(0)
        for _ in range(FLIPPED):
            data[generator.randrange(len(data) * 2 // 5, len(data) * 3 // 5)] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        return path

    return make


def damage() -> Iterator[Situation]:
    """Yield files that end too early or have wrong bits, and whole ones."""
    for suffix in CONTAINERS:
        yield Situation("damage", f"whole {suffix}", functools.partial(contained, suffix=suffix), ("",))
        for share in (0.1, 0.58, 0.95):
            yield Situation("damage", f"{share:.0%} of {suffix}", truncated(suffix, share), ("damaged",))
        yield Situation("damage", f"flipped bits in {suffix}", flipped(suffix), ("damaged",))


def squeezed(aspect: str) -> Callable[[Path], Path]:
    """Return a function that writes a video whose pixels have a width to height of ``aspect``."""
    filters = f"scale={SHAPES[aspect]},setsar={aspect}"
    return lambda path: encode(path, "-ss", SHOT, "-t", DAMAGED_SECONDS, "-i", SAMPLE, "-vf", filters)


def pixels() -> Iterator[Situation]:
    """Yield videos whose pixels are not square."""
    for aspect in ("2", "4/3", "16/15", "1/2"):
        make = squeezed(aspect)
        yield Situation("pixels", f"{aspect} wide", make, ("not_square_pixels",), modes=(PUBLISHED,))
        yield Situation("pixels", f"{aspect} wide", make, ("",), modes=(DIRECT,))


def situations() -> list[Situation]:
    """Return all situations."""
    return [*faces(), *without_faces(), *scenes(), *damage(), *pixels()]


def advised(texts: Sequence[str]) -> dict[str, float]:
    """Return the flags that reasons advise: what follows "try"."""
    tried = " ".join(text.rpartition("try ")[2] for text in texts if "try --" in text)
    return {name: float(value) if "." in value else int(value) for name, value in FLAG.findall(tried)}


def scored(path: Path, **options: Any) -> tuple[list[str], list[str], bool]:
    """Score a video, and return the codes and texts of its reasons, and whether a track of it has a score."""
    try:
        found = score_video(path, **options)
    except MediaError as error:
        return [error.code or "error"], [str(error)], False
    return (
        [reason.code for reason in found.reasons],
        [reason.text for reason in found.reasons],
        any(track.confidence is not None for track in found.tracks),
    )


def examine(situation: Situation, mode: str, folder: Path) -> dict[str, Any]:
    """Score a situation's video, follow the advice, and return a record."""
    path = situation.make(folder / "video")
    codes, texts, good = scored(path, mode=mode, **situation.flags)
    flags, followed = advised(texts), None
    convert = any(CONVERT in text for text in texts) and not good
    if not good and (flags or convert):
        source, options = path, {**situation.flags, **flags}
        if convert:
            source = encode(folder / "converted", "-i", path, "-vf", CONVERT)
        followed = scored(source, mode=mode, **options)[2]
        if convert:
            followed = followed and scored(path, mode=DIRECT, **options)[2]
    expected = situation.codes is None or bool({*situation.codes} & {*codes, *([] if codes else [""])})
    helps = followed is not False and situation.advice in (None, followed is not None)
    return {
        "kind": situation.kind,
        "name": situation.name,
        "mode": mode,
        "scored": good,
        "codes": codes,
        "texts": texts,
        "flags": flags,
        "convert": convert,
        "followed": followed,
        "as_expected": expected and helps,
    }


def line(record: dict[str, Any]) -> str:
    """Return a record as a line of the table."""
    advice = [f"--{name} {value}" for name, value in record["flags"].items()] + ["convert"] * record["convert"]
    outcome = {None: "scored" if record["scored"] else "-", True: "gives a score", False: "NO SCORE"}
    verdict = "" if record["as_expected"] else "  UNEXPECTED"
    codes = ", ".join(record["codes"]) or "-"
    return (
        f"{record['kind']:8} {record['name']:26} {record['mode']:9} {codes:34} {' '.join(advice) or '-':44} "
        f"{outcome[record['followed']]}{verdict}"
    )


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", help="only situations of this kind")
    parser.add_argument("--name", default="", help="only situations whose name contains this")
    parser.add_argument("--mode", choices=(DIRECT, PUBLISHED), help="only this mode")
    parser.add_argument("--json", type=Path, help="file for all records, with the texts")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    records = []
    for situation in situations():
        if args.kind not in (None, situation.kind) or args.name not in situation.name:
            continue
        for mode in situation.modes:
            if args.mode in (None, mode):
                with tempfile.TemporaryDirectory() as folder:
                    records.append(examine(situation, mode, Path(folder)))
                print(line(records[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1))
    unexpected = sum(not record["as_expected"] for record in records)
    print(f"{len(records)} situations, {unexpected} not as expected")
    return int(bool(unexpected))


if __name__ == "__main__":
    sys.exit(main())
