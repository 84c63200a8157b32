"""The filter's course: which videos still have to be scored, scoring them, and deriving the results.

An engine is anything with ``run(videos)`` that yields every ``Video`` with its ``VideoScore``: ``LocalEngine`` or
``RayEngine``. This process alone writes.
"""

import contextlib
import logging
from dataclasses import dataclass

from syncnet.errors import SyncNetError, UsageError
from syncnet.filter import outputs, recipe
from syncnet.filter.inputs import Video
from syncnet.filter.journal import Journal
from syncnet.filter.layout import kept_origin
from syncnet.filter.placement import NONE, Placement
from syncnet.filter.quality import Statistics, Thresholds, judge
from syncnet.filter.scorer import FAILED, SUCCESS, origin_of
from syncnet.results.layout import discard, make_folder

logger = logging.getLogger("syncnet")

CHANGED, NEVER, ALWAYS = "changed", "never", "always"
RESCORE = (CHANGED, NEVER, ALWAYS)


@dataclass(frozen=True)
class Derivation:
    """How results are derived from scores.

    Attributes:
        thresholds: ``quality.Thresholds``.
        settings: what ``filter_settings`` of the JSON holds.
        transfer: one of ``placement.KINDS``.
    """

    thresholds: Thresholds
    settings: dict
    transfer: str


@dataclass(frozen=True)
class FilterResult:
    """What ``run`` leaves.

    Attributes:
        statistics: ``Statistics`` of the videos with a score.
        total: videos that were to be judged.
        recipes: recipes by digest.
        stopped: the ``KeyboardInterrupt`` or ``SyncNetError`` that ended the scoring early; None where none did.
    """

    statistics: Statistics
    total: int
    recipes: dict
    stopped: BaseException | None = None


def run(
    videos,
    filter_layout,
    derivation,
    *,
    parameters,
    make_engine,
    scratch,
    rescore=CHANGED,
    retry_failed=False,
    save_outputs=False,
    below=None,
    recursive=False,
    progress,
):
    """Score what has no score yet and derive the results. The output folder must be ``locked``.

    Args:
        videos: list of ``Video``; None for those that the journal has scores of.
        filter_layout: ``FilterLayout``.
        derivation: ``Derivation``.
        parameters: ``recipe.Parameters``.
        make_engine: returns the engine for ``Parameters``; called when there is something to score.
        scratch: folder of the workers' scratch.
        rescore, retry_failed: as in ``to_score``.
        save_outputs: also score videos whose outputs are not kept.
        below, recursive: as in ``known_videos``.
        progress: makes a tqdm bar, as ``syncnet.progress.bar`` does.

    Returns:
        ``FilterResult``. Scoring that is interrupted, or cannot go on, still leaves results of what is finished.

    Raises:
        KeyboardInterrupt, SyncNetError: nothing is finished, or results cannot be written.
    """
    journal = open_journal(filter_layout, scratch)
    if videos is None:
        videos = known_videos(journal, below=below, recursive=recursive)
    elif rescore == NEVER:
        check_known(videos, journal)
    stopped = None
    try:
        if rescore != NEVER and videos:
            score_missing(
                videos,
                journal,
                filter_layout,
                parameters=parameters.found(),
                make_engine=make_engine,
                thresholds=derivation.thresholds,
                rescore=rescore,
                retry_failed=retry_failed,
                save_outputs=save_outputs,
                progress=progress,
            )
    except (KeyboardInterrupt, SyncNetError) as error:
        journal.catch_up()
        if not journal.entries:
            raise
        stopped = error
    try:
        statistics = derive(videos, journal, filter_layout, derivation, progress=progress)
    except SyncNetError:
        if stopped:
            raise stopped from None
        raise
    return FilterResult(statistics, total=len(videos), recipes=journal.recipes, stopped=stopped)


def open_journal(filter_layout, scratch):
    """The ``Journal`` of an output folder, and none of what a killed program left there and in its ``scratch``."""
    for folder in (filter_layout.work, scratch):
        discard(folder)
    return Journal(filter_layout.journal, filter_layout.recipes)


def to_score(videos, journal, *, recipe, rescore, retry_failed, needs_outputs):
    """The videos that this run has to score.

    Args:
        videos: list of ``Video``.
        journal: ``Journal``.
        recipe: the recipe's digest.
        rescore: one of ``RESCORE``.
        retry_failed: also those that failed.
        needs_outputs: tells of a ``Video`` whether its outputs are asked for and not there.
    """
    if rescore == NEVER:
        return []

    def done(video):
        entry = journal.entries.get(video.path)
        if video.size is None and entry and entry.status != FAILED:
            return True  # a disk that is away takes no scores with it
        if rescore == ALWAYS or not journal.finished(video, recipe, retry_failed=retry_failed):
            return False
        return not (entry.status == SUCCESS and needs_outputs(video))

    return [video for video in videos if not done(video)]


def known_videos(journal, *, below=None, recursive=False):
    """Videos that the journal has scores of: all, or those in a folder. The files themselves are not looked at."""
    prefix = below.rstrip("/") + "/" if below else ""
    paths = [path for path in journal.entries if path.startswith(prefix)]
    if below and not recursive:
        paths = [path for path in paths if "/" not in path[len(prefix) :]]
    if not paths:
        where = f"of {below}" if below else "at all"
        raise UsageError(f"{journal.path}: no scores {where}: run the filter without --rescore never first")
    entries = ((path, journal.entries[path]) for path in paths)
    return sorted((Video(path, e.name, e.size, e.mtime_ns) for path, e in entries), key=lambda video: video.name)


def check_known(videos, journal):
    """Refuse a list of ``Video`` of which none has a score."""
    if not any(video.path in journal.entries for video in videos):
        raise UsageError(f"{journal.path}: no scores of these: run the filter without --rescore never first")


def score_missing(
    videos,
    journal,
    filter_layout,
    *,
    parameters,
    make_engine,
    thresholds,
    rescore,
    retry_failed,
    save_outputs,
    progress,
):
    """Score the videos that have no score by this recipe; arguments as of ``run``, with ``parameters.found()``."""
    made_by = recipe.make_recipe(parameters)
    digest = recipe.digest(made_by)

    names = [digest, *(old for old, new in journal.digests.items() if new == digest)]

    def needs_outputs(video):
        current = [origin_of(video.path, name) for name in names]
        return save_outputs and kept_origin(filter_layout.outputs(video.name)) not in current

    todo = to_score(
        videos, journal, recipe=digest, rescore=rescore, retry_failed=retry_failed, needs_outputs=needs_outputs
    )
    if len(todo) < len(videos):
        logger.info("%d of %d videos are finished already", len(videos) - len(todo), len(videos))
    if todo:
        journal.add_recipe(digest, made_by)
        score(todo, journal, make_engine(parameters), recipe=digest, thresholds=thresholds, progress=progress)


def score(videos, journal, engine, *, recipe, thresholds, progress):
    """Score videos and write each to the journal as soon as it is finished.

    Args:
        videos: list of ``Video``.
        journal: ``Journal``.
        engine: see this module.
        recipe: the recipe's digest.
        thresholds: ``Thresholds``, for the counts that are shown meanwhile.
        progress: makes a tqdm bar, as ``syncnet.progress.bar`` does.
    """
    found = Statistics()
    bar = progress(total=len(videos), desc="videos")
    with contextlib.closing(engine.run(videos)) as scored, contextlib.closing(bar):
        for number, (video, video_score) in enumerate(scored, start=1):
            record = journal.append(video, video_score, recipe=recipe)
            verdict = judge(record, thresholds)
            found.add(record, verdict)
            tell(record, verdict, f"{number}/{len(videos)}")
            bar.set_postfix_str(f"{found.good} good, {found.poor} poor, {found.failed} failed", refresh=False)
            bar.update()


def tell(record, verdict, position):
    """One line on a video: a warning where it failed."""
    if record["status"] == FAILED:
        logger.warning("%s: failed: %s", record["name"], record["error"])
        return
    word = {True: "good", False: "poor"}[verdict.passes] if verdict.track else record["status"]
    numbers = (
        f", confidence {verdict.track['confidence']:.3f}, offset {verdict.track['offset']}" if verdict.track else ""
    )
    why = "".join(f"; {reason}" for reason in verdict.reasons)
    logger.debug("%s %s: %s%s%s (%.1f s)", position, record["name"], word, numbers, why, record["processing_time"])


def derive(videos, journal, filter_layout, derivation, *, progress):
    """Write the results of a list of ``Video`` from what the journal knows: the ``Statistics``.

    Raises:
        SyncNetError: something cannot be written.
    """
    names = {video.path: video.name for video in videos}
    records = ({**record, "name": names[record["video_path"]]} for record in journal.records(names))
    found, verdicts = outputs.write_results(
        records,
        filter_layout,
        settings=derivation.settings,
        thresholds=derivation.thresholds,
        total=len(videos),
        recipes=journal.recipes,
    )
    if derivation.transfer != NONE:
        for folder in filter_layout.quality_folders:
            make_folder(folder, flag="--output_dir")
        wanted = (
            (video, None if passes is None else filter_layout.placed_name(video.name, good=passes))
            for video, passes in verdicts
        )
        Placement(filter_layout, kind=derivation.transfer).settle(wanted, progress=progress)
    discard(filter_layout.work)
    return found
