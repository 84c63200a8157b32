"""Measure who is speaking against the truth, in rendered dialogues and in real faces side by side.

    python -m benchmarks.speakers
    python -m benchmarks.speakers --calibrate        # fit the constants of syncnet.sync.speakers

Frames within 0.2 s of a change of speaker are left out. "before" is the face whose framewise confidence is highest.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import dialogues
from benchmarks.dialogues import Dialogue
from syncnet.constants import FRAME_RATE
from syncnet.defaults import VSHIFT

ROOT = Path(__file__).resolve().parent.parent
FACES = ROOT.parent / "shared/faces"
CACHE = Path("/tmp/speakcache")
RENDERED, SIDE = 60, 80
MARGIN = round(0.2 * FRAME_RATE)  # frames on either side of a change


@dataclass(frozen=True)
class Scored:
    """A dialogue whose faces are scored; attributes as in ``Dialogue``.

    Attributes:
        firsts: first frame of every face.
        dists: distances of every face, windows x shifts.
    """

    name: str
    kinds: tuple[str, ...]
    held_out: bool
    firsts: list[int]
    frames: list[int]
    dists: list[np.ndarray]
    audio: np.ndarray
    speaker: np.ndarray
    cuts: list[int]
    lag_ms: float


def score(dialogue: Dialogue, file: Path, *, held_out: bool) -> None:
    """Score the faces of a dialogue and write the result to a file."""
    import torch

    from syncnet.api import load_net
    from syncnet.sync import scoring

    net = load_net("cpu", None, "float32").net
    video_frames = len(dialogue.speaker)
    with torch.no_grad():
        audio = net.audio_features(scoring.audio_windows(dialogue.audio))
        arrays: dict[str, Any] = {}
        for index, face in enumerate(dialogue.faces):
            crops = dialogues.resized(face.crops)
            windows = scoring.window_count(len(crops), video_frames - face.first)
            video = torch.cat([net.video_features(crops[at : at + 44]) for at in range(0, windows, 40)])[:windows]
            padded = torch.nn.functional.pad(audio, (0, 0, VSHIFT, VSHIFT + windows))
            here = padded[face.first : face.first + windows + 2 * VSHIFT]
            arrays[f"dists{index}"] = scoring.shifted_distances(video, here).numpy()
    temporary = file.with_name(f"part-{file.name}")
    np.savez(
        temporary,
        name=dialogue.name,
        kinds=np.array(dialogue.kinds),
        held_out=held_out,
        firsts=[face.first for face in dialogue.faces],
        frames=[len(face.crops) for face in dialogue.faces],
        audio=dialogue.audio,
        speaker=dialogue.speaker,
        cuts=np.array(dialogue.cuts, int),
        lag_ms=dialogue.lag_ms,
        **arrays,
    )
    temporary.replace(file)


def read(file: Path) -> Scored:
    with np.load(file) as stored:
        return Scored(
            str(stored["name"]),
            tuple(map(str, stored["kinds"])),
            bool(stored["held_out"]),
            stored["firsts"].tolist(),
            stored["frames"].tolist(),
            [stored[f"dists{index}"] for index in range(len(stored["firsts"]))],
            stored["audio"],
            stored["speaker"],
            stored["cuts"].tolist(),
            float(stored["lag_ms"]),
        )


def rendered(count: int, cache: Path) -> Iterator[Scored]:
    """Yield rendered dialogues, scored; every third of another part of the seeds is for calibration."""
    for seed, people, tags in dialogues.rendered(count):
        file = cache / f"rendered{seed:03}.npz"
        if not file.exists():
            score(dialogues.render(seed, people=people, tags=tags), file, held_out=seed % 3 != 2)
        yield read(file)


def in_sync(row: dict[str, str]) -> bool:
    """Return True for a clip of one face whose offset is known and undone."""
    known = row["published_offset"] and float(row["published_confidence"]) > 3
    return bool(known) and row["faces_in_video"] == "1" and int(row["frames"]) >= 100


def side_by_side(count: int, cache: Path, faces: Path) -> Iterator[Scored]:
    """Yield dialogues of real faces, scored; half are of held-out people."""
    from training import common

    trained, held_out = common.split_by_person(common.read_index(faces))
    for part, rows in (("held_out", held_out), ("trained", trained)):
        people: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            if in_sync(row):
                people[row["person"]].append(row)
        names = sorted(people)
        rng = np.random.default_rng(zlib.crc32(part.encode()))
        made = 0
        for seed in range(4 * count):
            if made == count // 2 or len(names) < 3:
                break
            chosen = rng.choice(len(names), 3, replace=False)
            picks = [people[names[who]][int(rng.integers(len(people[names[who]])))] for who in chosen]
            file = cache / f"side-{part}{seed:03}.npz"
            absent = file.with_suffix(".none")
            if absent.exists():
                continue
            if not file.exists():
                left, right, stranger = (dialogues.load(faces / "clips" / row["clip"], row["person"]) for row in picks)
                clips = (left, right, stranger)
                quiet = any(dialogues.silences(clip.audio).mean() > dialogues.LARGEST_SILENCE for clip in clips)
                alike = (dialogues.same_sentence(a.audio, b.audio) for a, b in itertools.combinations(clips, 2))
                if quiet or any(alike):
                    absent.touch()
                    continue
                kind = dialogues.SIDE_KINDS[made % len(dialogues.SIDE_KINDS)]
                name = f"{left.name} | {right.name}"
                made_dialogue = dialogues.beside(left, right, stranger.audio, kind, name=name, seed=seed)
                score(made_dialogue, file, held_out=part == "held_out")
            made += 1
            yield read(file)


if __name__ == "__main__":
    count = int(sys.argv[2])
    cache = CACHE
    cache.mkdir(exist_ok=True)
    for n, _ in enumerate(rendered(count, cache) if sys.argv[1] == "r" else side_by_side(count, cache, FACES)):
        print(n, flush=True)
