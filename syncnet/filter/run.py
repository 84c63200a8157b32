"""The filter's main loop: select the videos that need a score, score and correct them, and derive the results.

An engine (``LocalEngine`` or ``RayEngine``) scores and corrects the videos in other processes. Only this process writes
results.
"""

import collections
import contextlib
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from syncnet.defaults import MAX_LAG
from syncnet.errors import SyncNetError, UsageError
from syncnet.filter import outputs, recipe
from syncnet.filter.correction import CORRECTION, UNFINISHED, Outcome, Uncorrected
from syncnet.filter.corrector import Corrector, outcome_of
from syncnet.filter.inputs import Video
from syncnet.filter.journal import Journal
from syncnet.filter.layout import FilterLayout, kept_origin
from syncnet.filter.outputs import Decided, Judged
from syncnet.filter.placement import CORRECT, NONE, Placement
from syncnet.filter.quality import Statistics, Thresholds, Verdict, judge
from syncnet.filter.recipe import Parameters, Recipe
from syncnet.filter.scorer import FAILED, SUCCESS, Record, VideoScore, origin_of
from syncnet.results.layout import discard, make_folder

logger = logging.getLogger("syncnet")

CHANGED, NEVER, ALWAYS = "changed", "never", "always"
RESCORE = (CHANGED, NEVER, ALWAYS)


class Engine(Protocol):
    """Anything that scores and corrects videos in other processes."""

    def run(self, videos: collections.deque[Video]) -> Generator[tuple[Video, VideoScore | Outcome], None, None]:
        """Yield every video with its score, or an ``Uncorrected`` one with its outcome, as soon as it is finished.

        Videos may be appended meanwhile. One that failed comes with a failed score.
        """


@dataclass(frozen=True)
class Scoring:
    """Settings for scoring videos.

    Attributes:
        parameters: Parameters of the recipe.
        make_engine: Returns the engine for given parameters; called only if there are videos to score.
        rescore: One of ``RESCORE``.
        retry_failed: Also score videos that failed.
        save_outputs: Also score videos whose outputs are not kept.
        given: Names of the parameters that the user gave, which select the recipe if ``rescore`` is ``NEVER``.
    """

    parameters: Parameters
    make_engine: Callable[[Parameters], Engine]
    rescore: str = CHANGED
    retry_failed: bool = False
    save_outputs: bool = False
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Derivation:
    """Settings for deriving results from scores.

    Attributes:
        thresholds: Thresholds to judge videos by.
        settings: Record of ``filter_settings`` in the JSON.
        transfer: One of ``placement.KINDS``.
        max_lag: Largest lag to take out with ``CORRECT``, in milliseconds.
    """

    thresholds: Thresholds
    settings: Record
    transfer: str
    max_lag: float = MAX_LAG


@dataclass(frozen=True)
class FilterResult:
    """Result of ``run``.

    Attributes:
        statistics: Statistics of the videos that the journal has a line of.
        total: Number of videos of this run, with and without score.
        judged: The recipe of the scores.
        uncorrected: Videos that are yet to be corrected to pass.
        damaged: Videos that pass although they are damaged.
        stopped: ``KeyboardInterrupt`` or ``SyncNetError`` that ended the scoring early; None if it is complete.
    """

    statistics: Statistics
    total: int
    judged: Judged
    uncorrected: list[Decided]
    damaged: list[Decided]
    stopped: BaseException | None = None


def run(
    videos: list[Video] | None,
    filter_layout: FilterLayout,
    scoring: Scoring,
    derivation: Derivation,
    *,
    scratch: Path,
    below: str | None = None,
    recursive: bool = False,
    progress: Callable[..., Any],
) -> FilterResult:
    """Score the videos that need a score, and derive the results. The output folder must be ``locked``.

    If the scoring is interrupted or fails, the results of all finished videos are still derived.

    Args:
        videos: Videos to judge; None, only with ``NEVER``, for those in the journal.
        filter_layout: Paths of the output folder.
        scoring: Settings for scoring the videos.
        derivation: Settings for deriving the results.
        scratch: Folder for the workers' scratch folders.
        below: As for ``known_videos``.
        recursive: As for ``known_videos``.
        progress: Makes a tqdm bar, as ``syncnet.progress.bar`` does.

    Returns:
        The statistics, and the error that ended the scoring early, if any.

    Raises:
        KeyboardInterrupt: Interrupted before any video was finished.
        UsageError: ``scoring.rescore`` is ``NEVER``, and the journal has no such recipe or none of the videos.
        SyncNetError: No video is finished and the scoring failed, or results cannot be written.
    """
    journal = open_journal(filter_layout, scratch)
    stopped: BaseException | None = None
    corrector: Corrector | None = None
    if scoring.rescore == NEVER:
        digest = recorded_recipe(journal, scoring)
        if videos is None:
            videos = known_videos(journal, digest, below=below, recursive=recursive)
        else:
            check_known(videos, journal, digest)
        if derivation.transfer == CORRECT:
            corrector = make_corrector(journal, filter_layout, derivation, digest)
    else:
        assert videos is not None, "a run that scores has videos"
        parameters = scoring.parameters.found()
        made_by = recipe.make_recipe(parameters)
        digest = recipe.digest(made_by)
        if derivation.transfer == CORRECT:
            journal.recipes.setdefault(digest, made_by)
            corrector = make_corrector(journal, filter_layout, derivation, digest)
        try:
            score_missing(
                videos,
                journal,
                filter_layout,
                replace(scoring, parameters=parameters),
                made_by=made_by,
                digest=digest,
                thresholds=derivation.thresholds,
                corrector=corrector,
                progress=progress,
            )
        except (KeyboardInterrupt, SyncNetError) as error:
            journal.catch_up()
            if not journal.of(digest):
                raise
            stopped = error
    found = judged_recipe(journal, digest)
    try:
        statistics, decided = derive(
            videos, journal, filter_layout, derivation, judged=found, corrector=corrector, progress=progress
        )
    except SyncNetError:
        if stopped:
            raise stopped from None
        raise
    return FilterResult(
        statistics,
        total=len(videos),
        judged=found,
        uncorrected=[each for each in decided if each.pending],
        damaged=[each for each in decided if each.damage],
        stopped=stopped,
    )


def make_corrector(journal: Journal, filter_layout: FilterLayout, derivation: Derivation, digest: str) -> Corrector:
    """Return the corrector of a run; arguments as for ``run``."""
    return Corrector(journal, filter_layout, derivation.thresholds, max_lag=derivation.max_lag, recipe=digest)


def recorded_recipe(journal: Journal, scoring: Scoring) -> str:
    """Return the digest of the newest recipe in the journal that has the values of the flags that the user gave.

    Raises:
        UsageError: The journal has no scores, or none by such a recipe.
        WeightsError: The user named a weights file that cannot be read.
    """
    if not journal.newest:
        raise UsageError(f"{journal.path}: no scores: run the filter without --rescore never first")
    given = recipe.given_values(scoring.parameters, scoring.given)
    if not given:
        return journal.newest
    for digest in reversed(journal.entries):
        if digest in journal.recipes and recipe.agrees(journal.recipes[digest], given):
            return digest
    values = ((name, getattr(scoring.parameters, name)) for name in given)
    flags = ", ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in values)
    raise UsageError(
        f"{journal.path}: no scores by a recipe with {flags}: run the filter without --rescore never first, or drop "
        "these flags to judge the newest scores"
    )


def judged_recipe(journal: Journal, digest: str) -> Judged:
    """Return a recipe of the journal as the one that is judged."""
    others = [
        {"recipe": other, "videos": len(entries), "parameters": journal.recipes.get(other)}
        for other, entries in journal.entries.items()
        if other != digest
    ]
    return Judged(digest, journal.recipes.get(digest), others)


def open_journal(filter_layout: FilterLayout, scratch: Path) -> Journal:
    """Open the journal of an output folder, after removing scratch that a killed program left."""
    for folder in (filter_layout.work, scratch):
        discard(folder)
    return Journal(filter_layout.journal, filter_layout.recipes)


def to_score(
    videos: list[Video], journal: Journal, scoring: Scoring, *, recipe: str, needs_outputs: Callable[[Video], bool]
) -> list[Video]:
    """Select the videos that this run has to score.

    Args:
        videos: Videos of this run.
        journal: Journal of the output folder.
        scoring: Settings for scoring the videos.
        recipe: Digest of the recipe.
        needs_outputs: Returns True for a video whose outputs are requested but not kept.

    Returns:
        The selected videos, in the same order.
    """

    def done(video: Video) -> bool:
        entry = journal.of(recipe).get(video.path)
        if entry is None:
            return False
        if video.size is None and entry.status != FAILED:
            return True  # the disk may be unmounted: keep the score
        if scoring.rescore == ALWAYS or not journal.finished(video, recipe, retry_failed=scoring.retry_failed):
            return False
        return not (entry.status == SUCCESS and needs_outputs(video))

    return [video for video in videos if not done(video)]


def known_videos(journal: Journal, recipe: str, *, below: str | None = None, recursive: bool = False) -> list[Video]:
    """Return the videos in the journal, without accessing the files themselves.

    Args:
        journal: Journal of the output folder.
        recipe: Digest of the recipe.
        below: Absolute path of the folder to restrict the videos to; None for all.
        recursive: Include videos in subfolders of ``below``.

    Returns:
        The videos as they were scored, sorted by name.

    Raises:
        UsageError: There are none.
    """
    prefix = below.rstrip("/") + "/" if below else ""
    known = journal.of(recipe)
    paths = [path for path in known if path.startswith(prefix)]
    if below and not recursive:
        paths = [path for path in paths if "/" not in path[len(prefix) :]]
    if not paths:
        raise no_scores(journal, f"videos in {below}", recipe)
    entries = ((path, known[path]) for path in paths)
    return sorted((Video(path, e.name, e.size, e.mtime_ns) for path, e in entries), key=lambda video: video.name)


def check_known(videos: list[Video], journal: Journal, recipe: str) -> None:
    """Raise an error if none of the videos is in the journal.

    Raises:
        UsageError: None is.
    """
    known = journal.of(recipe)
    if not any(video.path in known for video in videos):
        raise no_scores(journal, "these videos", recipe)


def no_scores(journal: Journal, videos: str, recipe: str) -> UsageError:
    """Return the error that a journal has no scores of some videos.

    Args:
        journal: Journal of the output folder.
        videos: The videos, in words.
        recipe: Digest of the recipe.
    """
    advice = "run the filter without --rescore never first"
    if len(journal.entries) > 1:
        which = f"the {'newest ' if recipe == journal.newest else ''}recipe"
        return UsageError(f"{journal.path}: no scores of {videos} by {which}: give the flags of another, or {advice}")
    return UsageError(f"{journal.path}: no scores of {videos}: {advice}")


def score_missing(
    videos: list[Video],
    journal: Journal,
    filter_layout: FilterLayout,
    scoring: Scoring,
    *,
    made_by: Recipe,
    digest: str,
    thresholds: Thresholds,
    corrector: Corrector | None,
    progress: Callable[..., Any],
) -> None:
    """Score and correct the videos that need it; arguments as for ``run`` and ``score``.

    Here ``digest`` is that of ``made_by``.
    """
    names = [digest, *(old for old, new in journal.digests.items() if new == digest)]

    def needs_outputs(video: Video) -> bool:
        current = [origin_of(video.path, name) for name in names]
        return scoring.save_outputs and kept_origin(filter_layout.outputs(video.name)) not in current

    todo = to_score(videos, journal, scoring, recipe=digest, needs_outputs=needs_outputs)
    if corrector:
        scored_now = {video.path for video in todo}
        finished = [video for video in videos if video.path not in scored_now]
        todo += corrector.left_over(finished, retry_failed=scoring.retry_failed)
    if len(todo) < len(videos):
        logger.info("%d of %d videos are finished already", len(videos) - len(todo), len(videos))
    if todo:
        journal.add_recipe(digest, made_by)
        engine = scoring.make_engine(scoring.parameters)
        again = scoring.rescore == ALWAYS
        score(
            todo,
            journal,
            engine,
            recipe=digest,
            thresholds=thresholds,
            corrector=corrector,
            again=again,
            progress=progress,
        )


def score(
    videos: list[Video],
    journal: Journal,
    engine: Engine,
    *,
    recipe: str,
    thresholds: Thresholds,
    corrector: Corrector | None = None,
    again: bool = False,
    progress: Callable[..., Any],
) -> None:
    """Score videos, and correct those that are to be, and write each to the journal as soon as it is finished.

    Args:
        videos: Videos to score, and ``Uncorrected`` ones.
        journal: Journal of the output folder.
        engine: Engine that scores them.
        recipe: Digest of the recipe.
        thresholds: Thresholds for the counts next to the progress bar.
        corrector: Corrects the videos; None to take them as they are.
        again: Also correct unmodified videos again that were corrected before.
        progress: Makes a tqdm bar, as ``syncnet.progress.bar`` does.
    """
    found = Statistics()
    waiting = collections.deque(videos)
    total = len(videos)
    bar = progress(total=total, desc="videos")
    with contextlib.closing(engine.run(waiting)) as results, contextlib.closing(bar):
        for number, (video, result) in enumerate(results, start=1):
            before = next(journal.records([video.path], recipe), None)
            record: Record | None
            if isinstance(video, Uncorrected):
                assert corrector is not None and before is not None, "it was scored and is to be corrected"
                record = corrector.finish(video, before, outcome_of(video, result))
            else:
                assert isinstance(result, VideoScore)
                unmodified = journal.finished(video, recipe) and not again
                known = before.get(CORRECTION) if before and unmodified else None
                record = journal.append(video, result, recipe=recipe, correction=known)
            if record is None:
                bar.update()
                continue
            verdict = corrector.judge(record) if corrector else judge(record, thresholds)
            if corrector and verdict.pending and not isinstance(video, Uncorrected):
                waiting.append(corrector.order(record))
                total += 1
                bar.total = total
            else:
                found.add(record, verdict)
            log_verdict(record, verdict, f"{number}/{total}")
            bar.set_postfix_str(f"{found.good} good, {found.poor} poor, {found.failed} failed", refresh=False)
            bar.update()


def log_verdict(record: Record, verdict: Verdict, position: str) -> None:
    """Log one line about a video, as a warning if it failed."""
    if record["status"] == FAILED:
        logger.warning("%s: failed: %s", record["name"], record["error"])
        return
    found = record.get(CORRECTION) or {}
    if found.get("state") == UNFINISHED:
        logger.warning("%s: not corrected: %s", record["name"], found["error"])
    word = {True: "good", False: "poor"}[verdict.passes] if verdict.track else record["status"]
    if verdict.corrected:
        word += f", lag {found['lag_before_ms']:.0f} -> {found['lag_after_ms']:.0f} ms"
    numbers = (
        f", confidence {verdict.track['confidence']:.3f}, offset {verdict.track['offset']}" if verdict.track else ""
    )
    why = "".join(f"; {reason}" for reason in verdict.reasons)
    seconds = found.get("processing_time", record["processing_time"])
    logger.debug("%s %s: %s%s%s (%.1f s)", position, record["name"], word, numbers, why, seconds)


def derive(
    videos: list[Video],
    journal: Journal,
    filter_layout: FilterLayout,
    derivation: Derivation,
    *,
    judged: Judged,
    corrector: Corrector | None,
    progress: Callable[..., Any],
) -> tuple[Statistics, list[Decided]]:
    """Write the results of videos from the journal, and update the quality folders.

    Args:
        videos: Videos of this run, with and without score.
        journal: Journal of the output folder.
        filter_layout: Paths of the output folder.
        derivation: Settings for deriving the results.
        judged: The recipe of the scores.
        corrector: Corrects the videos; None to take them as they are.
        progress: Makes a tqdm bar, as ``syncnet.progress.bar`` does.

    Returns:
        Statistics of the videos in the journal, and what was decided of them.

    Raises:
        SyncNetError: A file cannot be written.
    """
    names = {video.path: video.name for video in videos}
    records = ({**record, "name": names[record["video_path"]]} for record in journal.records(names, judged.digest))
    found, decided = outputs.write_results(
        records,
        filter_layout,
        settings=derivation.settings,
        thresholds=derivation.thresholds,
        total=len(videos),
        judged=judged,
        correcting=corrector.correcting if corrector else None,
    )
    if derivation.transfer != NONE:
        for folder in filter_layout.quality_folders:
            make_folder(folder, flag="--output_dir")
        wanted = (
            (each.video, None if each.passes is None else filter_layout.placed_name(each.video.name, good=each.passes))
            for each in decided
        )
        Placement(filter_layout, kind=derivation.transfer).settle(
            wanted,
            corrected={each.video.path for each in decided if each.corrected},
            unmade={each.video.path for each in decided if each.pending},
            progress=progress,
        )
    discard(filter_layout.work)
    return found, decided
