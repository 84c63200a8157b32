"""The correction of videos, as far as the program that writes the results does it; workers make the files."""

import json
import logging
from dataclasses import replace
from pathlib import Path

from syncnet.defaults import DIRECT
from syncnet.errors import UsageError
from syncnet.filter.correction import CORRECTION, UNFINISHED, Correcting, Order, Outcome, Uncorrected
from syncnet.filter.inputs import Video, stat_video
from syncnet.filter.journal import Journal
from syncnet.filter.layout import FilterLayout
from syncnet.filter.outputs import scored_video
from syncnet.filter.placement import CORRECT, Placement
from syncnet.filter.quality import Thresholds, Verdict, best_track, judge
from syncnet.filter.scorer import Record, VideoScore
from syncnet.results.layout import make_folder

logger = logging.getLogger("syncnet")


class Corrector:
    """The correction of an output folder's videos with the scores of one recipe.

    Args:
        journal: Journal of the output folder.
        filter_layout: Paths of the output folder.
        thresholds: Thresholds to judge videos by.
        max_lag: Largest lag to take out, in milliseconds.
        recipe: Digest of the recipe.

    Attributes:
        correcting: Settings for judging videos.

    Raises:
        UsageError: Scores of this recipe say nothing of the lag of a video's own sound.
        SyncNetError: The record of the files that the filter made cannot be read.
    """

    def __init__(
        self, journal: Journal, filter_layout: FilterLayout, thresholds: Thresholds, *, max_lag: float, recipe: str
    ) -> None:
        made_by = journal.recipes.get(recipe, {})
        if made_by.get("mode") != DIRECT or made_by.get("audio_dir"):
            what = "sound from --audio_dir" if made_by.get("audio_dir") else "published mode"
            raise UsageError(
                f"--transfer {CORRECT}: these scores are of {what}: add --mode {DIRECT}, or choose another"
            )
        self.journal, self.layout, self.thresholds, self.recipe = journal, filter_layout, thresholds, recipe
        self.placement = Placement(filter_layout, kind=CORRECT)
        self.correcting = Correcting(max_lag, made_by["vshift"], self.is_there)

    def is_there(self, record: Record) -> bool:
        """Return True if the corrected file of a line's video is there."""
        return self.placement.has_corrected(record["video_path"], (record["size"], record["mtime_ns"]))

    def judge(self, record: Record) -> Verdict:
        """Judge one video."""
        return judge(record, self.thresholds, self.correcting)

    def order(self, record: Record) -> Uncorrected:
        """Return the video of a line as one to correct."""
        video = scored_video(record)
        track = best_track(record["tracks"])
        # otherwise its lag may be beyond those that were tried for the score
        is_known = record.get("lag_ms") is not None and track and track["confidence"] >= self.thresholds.min_confidence
        score = json.dumps({name: record[name] for name in ("tracks", "reasons")}) if is_known else None
        order = Order(self.correcting.max_lag, score, str(self.layout.work))
        return Uncorrected(video.path, video.name, video.size, video.mtime_ns, order=order)

    def left_over(self, videos: list[Video], *, retry_failed: bool) -> list[Video]:
        """Return those of finished videos that are to be corrected.

        Args:
            videos: The videos.
            retry_failed: Also correct videos again whose correction did not finish.
        """
        names = {video.path: video.name for video in videos if video.size is not None}
        found: list[Video] = []
        for record in self.journal.records(names, self.recipe):
            if retry_failed and (record.get(CORRECTION) or {}).get("state") == UNFINISHED:
                del record[CORRECTION]
            if self.judge(record).pending:
                found.append(self.order({**record, "name": names[record["video_path"]]}))
        return found

    def finish(self, video: Uncorrected, record: Record, outcome: Outcome) -> Record | None:
        """Put a corrected file into its folder, and write the outcome to the journal.

        The line comes last: if this program is killed in between, the next one corrects the video again.

        Args:
            video: The video.
            record: Its line of the journal.
            outcome: What came of its correction.

        Returns:
            The new record; None if the outcome is void, which is logged.
        """
        if not is_as_scored(video):
            return None
        corrected = {**record, "name": video.name, CORRECTION: outcome.record()}
        if outcome.file:
            there = replace(self.correcting, is_there=lambda _: True)
            passes = judge(corrected, self.thresholds, there).passes
            place = self.layout.placed_name(video.name, good=passes)
            for folder in self.layout.quality_folders:
                make_folder(folder, flag="--output_dir")
            if not self.placement.put(video, place, Path(outcome.file)):
                return None
        return self.journal.append_correction({**record, "name": video.name}, outcome.record())


def is_as_scored(video: Video) -> bool:
    """Return True if a video is what it was when it was scored; log why it is not corrected otherwise."""
    now = stat_video(video.path, video.name)
    if (now.size, now.mtime_ns) == (video.size, video.mtime_ns):
        return True
    what = "was deleted" if now.size is None else "was modified"
    logger.warning("%s: not corrected: the video %s after it was scored", video.path, what)
    return False


def outcome_of(video: Uncorrected, result: VideoScore | Outcome) -> Outcome:
    """Return the outcome of a correction, also of one that did not finish."""
    if isinstance(result, Outcome):
        return result
    assert video.order is not None
    return Outcome(UNFINISHED, video.order.max_lag, error=result.error, processing_time=result.processing_time)
