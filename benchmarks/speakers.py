"""Measure who is speaking against the truth, in rendered dialogues and in real faces side by side.

    python -m benchmarks.speakers
    python -m benchmarks.speakers --calibrate        # fit the constants of syncnet.sync.speakers
    python -m benchmarks.speakers --whole 12         # score so many of each as video files, in both modes

Frames within 0.2 s of a change of speaker are left out. "before" is the face whose framewise confidence is highest.
Constants are fitted to every fifth rendered dialogue and to real faces that the starter weights were trained on, and
reported for the others. Faces are scored where they are known to be, as direct mode scores them. Scored dialogues are
kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.optimize import minimize

from benchmarks import dialogues
from benchmarks.dialogues import NOBODY, Dialogue
from syncnet.api import TrackScore
from syncnet.constants import FRAME_RATE
from syncnet.defaults import MIN_SPEAKING, MODES, VSHIFT
from syncnet.sync import speakers, speech
from syncnet.sync.framewise import speaking_confidence

ROOT = Path(__file__).resolve().parent.parent
FACES = ROOT.parent / "shared/faces"
CACHE = ROOT / "runs/speakers"
RENDERED, SIDE = 75, 120
CALIBRATED_ON = 5  # one of so many rendered dialogues
WRONG_WEIGHT = 2.0  # of a wrong frame, relative to a right one
CHANGES = 15.0, 20.0, 25.0, 30.0, 35.0, 42.0, 50.0  # that are tried
SCALES = 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25
RESAMPLES = 2000
LEAST_PROBABILITY = 1e-4  # so that single frames do not decide
LEAST_CONFIDENCE, LEAST_FRAMES = 3.0, 100  # of a real clip: the published confidence, and its length
TRIES = 8  # of pairs of clips for every dialogue
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

    @property
    def is_rendered(self) -> bool:
        return self.name.startswith("rendered")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rendered", type=int, default=RENDERED, help="number of dialogues (default: %(default)s)")
    parser.add_argument("--side", type=int, default=SIDE, help="number of those side by side (default: %(default)s)")
    parser.add_argument("--faces", type=Path, default=FACES, help="folder of the real clips (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of scored dialogues (default: %(default)s)")
    parser.add_argument("--calibrate", action="store_true", help="fit the constants")
    parser.add_argument("--whole", type=int, default=0, help="score so many held-out dialogues of each as video files")
    parser.add_argument("--worst", type=int, default=0, help="list so many of the worst dialogues")
    return parser


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
    """Yield rendered dialogues, scored."""
    for seed, people, tags in dialogues.rendered(count):
        file = cache / f"rendered{seed:03}.npz"
        if not file.exists():
            score(dialogues.render(seed, people=people, tags=tags), file, held_out=True)
        yield replace(read(file), held_out=seed % CALIBRATED_ON != CALIBRATED_ON - 1)


def in_sync(row: dict[str, str]) -> bool:
    """Return True for a clip of one face whose offset is known and undone."""
    known = row["published_offset"] and float(row["published_confidence"]) > LEAST_CONFIDENCE
    return bool(known) and row["faces_in_video"] == "1" and int(row["frames"]) >= LEAST_FRAMES


def side_by_side(count: int, cache: Path, faces: Path) -> Iterator[Scored]:
    """Yield dialogues of real faces, scored; half are of held-out people."""
    for file, part, make in pairs(count, cache, faces):
        if not file.exists():
            score(make(), file, held_out=part == "held_out")
        yield read(file)


def pairs(count: int, cache: Path, faces: Path) -> Iterator[tuple[Path, str, Callable[[], Dialogue]]]:
    """Yield the file for the scores of every pair of real faces, its part, and a function that makes the dialogue."""
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
        for seed in range(TRIES * count if len(names) > 2 else 0):
            if made == count // 2:
                break
            chosen = rng.choice(len(names), 3, replace=False)
            picks = [people[names[who]][int(rng.integers(len(people[names[who]])))] for who in chosen]
            file = cache / f"side-{part}{seed:03}.npz"
            absent = file.with_suffix(".none")
            if absent.exists():
                continue
            clips = functools.cache(functools.partial(load_clips, faces, picks))
            if not file.exists():
                quiet = any(dialogues.silences(clip.audio).mean() > dialogues.LARGEST_SILENCE for clip in clips())
                alike = (dialogues.same_sentence(a.audio, b.audio) for a, b in itertools.combinations(clips(), 2))
                if quiet or any(alike):
                    absent.touch()
                    continue
            kind = dialogues.SIDE_KINDS[made % len(dialogues.SIDE_KINDS)]
            yield file, part, functools.partial(make_pair, clips, kind, seed=seed)
            made += 1


def load_clips(faces: Path, rows: Sequence[dict[str, str]]) -> list[dialogues.Talker]:
    return [dialogues.load(faces / "clips" / row["clip"], row["person"]) for row in rows]


def make_pair(clips: Callable[[], list[dialogues.Talker]], kind: str, *, seed: int) -> Dialogue:
    left, right, stranger = clips()
    return dialogues.beside(left, right, stranger.audio, kind, name=f"{left.name} | {right.name}", seed=seed)


def whole(dialogue: Dialogue, *, mode: str) -> np.ndarray:
    """Return the speaker of every frame as ``score_video`` finds it in a video file: a face, or ``NOBODY``.

    A track that is none of the faces has the number after the last one.
    """
    from syncnet import score_video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dialogue.mp4"
        dialogues.write(dialogue, path)
        found = score_video(path, mode=mode, min_track=FRAME_RATE)
    faces = [face_of(dialogue, track) for track in found.tracks]
    speaker = np.full(len(dialogue.speaker), NOBODY)
    for span in found.speakers:
        speaker[round(span.start * FRAME_RATE) : round(span.end * FRAME_RATE)] = faces[span.track]
    return speaker


def face_of(dialogue: Dialogue, track: TrackScore) -> int:
    """Return the index of the face that a track shows; the number of faces if none."""
    assert track.box is not None, "these are no face crops"
    middle = (track.first_frame + track.last_frame) // 2
    x, y = track.box[0] + track.box[2] / 2, track.box[1] + track.box[3] / 2
    for index, face in enumerate(dialogue.faces):
        if 0 <= middle - face.first < len(face.boxes):
            x1, y1, x2, y2 = face.boxes[middle - face.first]
            if x1 < x < x2 and y1 < y < y2:
                return index
    return len(dialogue.faces)


def score_whole(count: int, side: int, cache: Path, faces: Path) -> Iterator[str]:
    """Yield the tables of held-out dialogues that are scored as video files; ``side`` as in ``side_by_side``."""
    seeds = (one for one in dialogues.rendered(RENDERED) if one[0] % CALIBRATED_ON != CALIBRATED_ON - 1)
    made: dict[str, Iterator[Dialogue]] = {
        "rendered": (dialogues.render(seed, people=people, tags=tags) for seed, people, tags in seeds)
    }
    if faces.exists():
        made["side by side"] = (make() for _, part, make in pairs(side, cache, faces) if part == "held_out")
    for name, group in made.items():
        results: dict[str, list[tuple[tuple[str, ...], Result]]] = defaultdict(list)
        for dialogue in itertools.islice(group, count):
            for mode in MODES:
                results[mode].append((dialogue.kinds, Result.of(whole(dialogue, mode=mode), dialogue.speaker)))
        for mode, of_mode in results.items():
            yield f"{name}, as video files, {mode} mode:"
            yield from table(of_mode)


def before(scored: Scored) -> np.ndarray:
    """Return the speaker of every frame: the face whose framewise confidence is highest, if that is above 2."""
    confidences = [speaking_confidence(dists) if len(dists) else np.zeros(0) for dists in scored.dists]
    found = speakers.speaking_tracks(scored.firsts, confidences)
    return np.pad(found, (0, len(scored.speaker)), constant_values=NOBODY)[: len(scored.speaker)]


def after(scored: Scored) -> np.ndarray:
    """Return the speaker of every frame as ``speakers.find`` finds it."""
    turns = speakers.find(candidates(scored), levels=speech.measure(scored.audio), cuts=scored.cuts)
    found = np.full(len(scored.speaker), NOBODY)
    for span in turns.spans:
        found[span.first : span.last + 1] = span.track
    return found


def candidates(scored: Scored) -> list[speakers.Candidate]:
    return [speakers.Candidate(*face) for face in zip(scored.firsts, scored.frames, scored.dists)]


def settled(speaker: np.ndarray) -> np.ndarray:
    """Return True for the frames that are farther than ``MARGIN`` from a change of speaker."""
    changes = np.flatnonzero(np.diff(speaker)) + 0.5
    return (np.abs(np.arange(len(speaker))[:, None] - changes) > MARGIN).all(axis=1)


@dataclass(frozen=True)
class Result:
    """How one dialogue came out: numbers of frames, and of spans.

    Attributes:
        frames: frames that count.
        right: those whose face, or lack of one, is found.
        wrong: those with a wrong face, or a face while none speaks.
        spoken: those in which a face speaks.
        covered: those of them in which it is found.
        spans, true_spans: numbers of spans.
    """

    frames: int
    right: int
    wrong: int
    spoken: int
    covered: int
    spans: int
    true_spans: int

    @classmethod
    def of(cls, found: np.ndarray, speaker: np.ndarray) -> Result:
        truth = np.maximum(speaker, NOBODY)
        counts = settled(truth)
        right = counts & (found == truth)
        wrong = counts & (found != truth) & (found != NOBODY)
        spoken = counts & (truth != NOBODY)
        sums = [int(values.sum()) for values in (counts, right, wrong, spoken, spoken & right)]
        return cls(*sums, span_count(found), span_count(truth))


def span_count(speaker: np.ndarray) -> int:
    return len(speakers.spans(speaker))


def table(results: Sequence[tuple[tuple[str, ...], Result]]) -> Iterator[str]:
    """Yield the lines of a table of results by kind, those of all first, with intervals of 95 % over the videos."""
    yield (
        f"{'kind':16} {'videos':>6} {'right':>19} {'wrong':>19} {'covered':>7} {'spans':>5} {'true':>5} "
        f"{'within one':>19}"
    )
    groups: dict[str, list[Result]] = {"all": [result for _, result in results]}
    for kinds, result in results:
        for kind in kinds:
            groups.setdefault(kind, []).append(result)
    for kind, group in groups.items():
        rows = np.array([[r.right, r.wrong, r.frames, abs(r.spans - r.true_spans) <= 1, 1] for r in group], float)
        drawn = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))
        samples = rows[drawn].sum(axis=1)
        total = rows.sum(axis=0)
        cells = []
        for part, whole in ((0, 2), (1, 2), (3, 4)):
            low, high = np.percentile(samples[:, part] / samples[:, whole], [2.5, 97.5])
            cells.append(f"{total[part] / total[whole]:.3f} ({low:.3f}-{high:.3f})")
        covered = sum(r.covered for r in group) / max(1, sum(r.spoken for r in group))
        spans, true_spans = (np.mean([getattr(r, name) for r in group]) for name in ("spans", "true_spans"))
        yield (
            f"{kind:16} {len(group):6} {cells[0]:>19} {cells[1]:>19} {covered:7.3f} {spans:5.1f} {true_spans:5.1f} "
            f"{cells[2]:>19}"
        )


Analysed = tuple[Scored, speakers.Analysis]


def calibrate(material: Sequence[Scored]) -> Iterator[str]:
    """Yield the constants of ``syncnet.sync.speakers`` that fit the material.

    The weight comes from logistic regression on the frames with speech, in which faces that speak and faces that do not
    weigh the same, and so do rendered and real faces. What a change costs is where most frames are right, less
    ``WRONG_WEIGHT`` times the wrong ones. Neighbouring frames tell much the same, so all is scaled to where the truth
    is likeliest.
    """
    analysed = [
        (one, speakers.analyse(candidates(one), levels=speech.measure(one.audio), cuts=one.cuts)) for one in material
    ]
    fitted = logistic_regression(*samples(analysed))
    yield f"logistic regression: intercept {fitted[0]:.3f}, weight {fitted[1]:.3f}"
    merits = {change: merit(analysed, fitted, change) for change in CHANGES}
    change = max(merits, key=merits.__getitem__)
    yield f"right less {WRONG_WEIGHT:g} times wrong, by cost of a change: {rounded(merits)}"
    likelihoods = {scale: truth_likelihood(analysed, scale * fitted, scale * change) for scale in SCALES}
    scale = max(likelihoods, key=likelihoods.__getitem__)
    yield f"mean log probability of the truth by scale: { ({s: round(x, 4) for s, x in likelihoods.items()}) }"
    yield f"INTERCEPT, WEIGHT = {scale * fitted[0]:.3f}, {scale * fitted[1]:.3f}, CHANGE = {scale * change:.1f}"


def rounded(values: dict[float, float]) -> dict[float, float]:
    return {key: round(value, 4) for key, value in values.items()}


def with_constants(constants: np.ndarray, change: float) -> AbstractContextManager[Any]:
    """Give other values to the constants of the model."""
    return patch.multiple(speakers, INTERCEPT=constants[0], WEIGHT=constants[1], CHANGE=change)


def merit(analysed: Sequence[Analysed], constants: np.ndarray, change: float) -> float:
    """Return the share of right frames less ``WRONG_WEIGHT`` times that of wrong ones, of rendered and real faces."""
    with with_constants(constants, change):
        results: dict[bool, list[Result]] = defaultdict(list)
        for scored, analysis in analysed:
            speaker, _ = speakers.decide(analysis, min_speaking=MIN_SPEAKING)
            found = np.maximum(speaker, NOBODY)[: len(scored.speaker)]
            results[scored.is_rendered].append(Result.of(found, scored.speaker))
    return float(
        np.mean(
            [sum(r.right - WRONG_WEIGHT * r.wrong for r in of) / sum(r.frames for r in of) for of in results.values()]
        )
    )


def samples(analysed: Sequence[Analysed]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how well windows match, whether the face speaks in them, and how much they weigh."""
    matches, speaks, real = [], [], []
    for scored, analysis in analysed:
        clear = settled(scored.speaker) & (scored.speaker != NOBODY)
        for shot, column in zip(analysis.shots, analysis.columns):
            for part in shot.parts:
                frames = np.arange(len(part.smooth)) + part.first
                used = clear[frames]
                matches.append(speakers.match(part, column)[used])
                speaks.append((scored.speaker[frames] == part.track)[used])
                real.append(np.full(used.sum(), not scored.is_rendered))
    every = [np.concatenate(values) for values in (matches, speaks, real)]
    weights = np.ones(len(every[1]))
    for flags in every[1:]:
        weights *= np.where(flags, 1 / flags.mean(), 1 / max(1e-9, 1 - flags.mean()))
    return every[0], every[1], weights


def logistic_regression(matches: np.ndarray, speaks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the intercept and the weight of the evidence."""
    inputs = np.stack([np.ones(len(matches)), matches], axis=1)

    def loss(fitted: np.ndarray) -> float:
        ratios = inputs @ fitted
        return float((weights * (np.logaddexp(0, ratios) - speaks * ratios)).mean())

    return minimize(loss, np.zeros(inputs.shape[1])).x


def truth_likelihood(analysed: Sequence[Analysed], constants: np.ndarray, change: float) -> float:
    """Return the mean logarithm of the probability that the model gives the truth, in frames with speech."""
    found = []
    with with_constants(constants, change):
        for scored, analysis in analysed:
            clear, truth = settled(scored.speaker), np.maximum(scored.speaker, NOBODY)
            for shot, column in zip(analysis.shots, analysis.columns):
                here = slice(shot.frames.start, shot.frames.stop)
                tracks, ratios = speakers.evidence(shot, column=column)
                for first, end in speakers.runs(analysis.spoken(column)[here]):
                    states = (truth[here][first:end, None] == tracks).argmax(axis=1)
                    likelihood = speakers.posterior(ratios[first:end])[np.arange(end - first), states]
                    found.append(np.log(np.maximum(likelihood, LEAST_PROBABILITY))[clear[here][first:end]])
    return float(np.concatenate(found).mean())


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    args.cache.mkdir(parents=True, exist_ok=True)
    if args.whole:
        print(*score_whole(args.whole, args.side, args.cache, args.faces), sep="\n")
        return 0
    material = {"rendered": list(rendered(args.rendered, args.cache))}
    if args.faces.exists():
        material["side by side"] = list(side_by_side(args.side, args.cache, args.faces))
    else:
        print(f"{args.faces}: not there: no real faces", file=sys.stderr)
    if args.calibrate:
        fitted_to = [scored for group in material.values() for scored in group if not scored.held_out]
        print(*calibrate(fitted_to), sep="\n")
        return 0
    for name, group in material.items():
        for part in (True, False):
            chosen = [scored for scored in group if scored.held_out == part]
            for label, find in (("before", before), ("after", after)):
                results = [(scored.kinds, Result.of(find(scored), scored.speaker)) for scored in chosen]
                print(f"{name}, {'held out' if part else 'fitted to'}, {label}:", *table(results), sep="\n")
            ranked = sorted(zip(results, chosen), key=lambda entry: entry[0][1].right / entry[0][1].frames)
            for (_, result), scored in ranked[: args.worst]:
                print(f"{scored.name} {scored.kinds}: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
