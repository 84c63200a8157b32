"""Copies of the videos in folders by quality: they appear complete, and move when a video changes sides.

The filter remembers which files it put there. Whatever else lies in these folders is not touched, and neither is a
source; the copy of a video whose source is gone is never removed.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
from dataclasses import dataclass, replace

from syncnet.errors import DiskFullError, SyncNetError, no_space
from syncnet.filter.layout import aside_file, other_name, scratch_root, worker_scratch
from syncnet.progress import silent
from syncnet.results.layout import discard, new_file

logger = logging.getLogger("syncnet")

COPY, HARDLINK, SYMLINK, NONE = "copy", "hardlink", "symlink", "none"
KINDS = (COPY, HARDLINK, SYMLINK, NONE)
IN_THE_WAY = "%s: not put there: a file that the filter did not make is in its place"
CLOCK_NS = 2 * 10**9  # some file systems keep times to two seconds


@dataclass(frozen=True)
class Placed:
    """A file that the filter made.

    Attributes:
        place: its path below the output folder.
        source: the video's absolute path.
        kind: one of ``KINDS``.
        size, mtime_ns: of the source when it was made.
        inode: of the source; what a hard link is told by.
    """

    place: str
    source: str
    kind: str
    size: int
    mtime_ns: int
    inode: int

    def is_there(self, filter_layout):
        """Whether the file is there and nobody has changed it."""
        path = filter_layout.file_path(self.place)
        try:
            if self.kind == SYMLINK:
                return os.readlink(path) == self.source  # noqa: PTH115, a million times
            stat = os.lstat(path)
        except OSError:
            return False
        if self.kind == HARDLINK:
            return stat.st_ino == self.inode
        return stat.st_size == self.size and abs(stat.st_mtime_ns - self.mtime_ns) <= CLOCK_NS


@dataclass(frozen=True)
class Change:
    """What is to be done about one video.

    Attributes:
        video: ``Video``.
        here: its files that are there now.
        start: the one of them that becomes the new file; None where the new one is made from the source.
        new: the file that there will be; None for none.
    """

    video: object
    here: list
    start: Placed | None
    new: Placed | None


class Placement:
    """The two folders of one output folder.

    Args:
        filter_layout: ``FilterLayout``.
        kind: how a video gets there, one of ``KINDS`` but ``NONE``.

    Raises:
        SyncNetError: the record of what was made cannot be read.
    """

    def __init__(self, filter_layout, *, kind):
        self.layout, self.kind = filter_layout, kind
        self.known = {}  # source -> list of Placed, oldest first
        self.owners = {}  # place -> source; the last on record, as a place is promised only where nothing is
        self.promised = set()  # places that files of this run will take
        self.elsewhere = set()  # which of the two folders turned out to be on another disk
        for placed in read_placed(filter_layout.placed):
            self.known.setdefault(placed.source, []).append(placed)
            self.owners[placed.place] = placed.source

    def settle(self, wanted, *, progress=silent):
        """Bring the folders in line with the verdicts.

        Args:
            wanted: per video of this run a pair of its ``Video`` and its place below the output folder; None where it
                belongs into neither folder.
            progress: as in ``syncnet.progress``.

        Raises:
            SyncNetError: a file cannot be written; what is there is complete.
        """
        self.clear_asides()
        changes = [change for video, place in wanted if (change := self.plan(video, place))]
        if not changes:
            return
        try:
            # first on record, then made: a killed program's files are known to the next
            with self.layout.placed.open("a", encoding="utf-8") as file:
                file.write("\n")  # ends a line that a killed program left torn
                file.writelines(as_line(change.new) for change in changes if change.new)
                file.flush()
                os.fsync(file.fileno())
            for change in progress(changes, total=len(changes), desc="folders"):
                self.carry_out(change)
            with new_file(self.layout.placed) as aside:
                lines = (as_line(placed) for source in self.known for placed in self.owned(source))
                aside.write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            kind = DiskFullError if no_space(error) else SyncNetError
            raise kind(
                f"{error.filename2 or error.filename or self.layout.output_dir}: cannot write it ({error.strerror}): "
                "the scores are kept; run the same command again to go on, or choose another --transfer"
            ) from error
        finally:
            discard(worker_scratch(self.layout.work, "copy"))
            self.clear_asides()

    def owned(self, source):
        """The files on record of one video, but those whose places have become another's."""
        return [placed for placed in self.known.get(source, ()) if self.owners[placed.place] == source]

    def plan(self, video, place):
        """The ``Change`` for one video; None where all is as it should be."""
        here = [placed for placed in self.owned(video.path) if placed.is_there(self.layout)]
        here = list({placed.place: placed for placed in here}.values())
        if place is None:
            gone = bool(here) and source_state(video) is None  # the copy may be all that is left of it
            return Change(video, here, None, None) if here and not gone else None
        fit = [placed for placed in here if self.is_current(placed, video)]
        if len(here) == 1 and fit and fit[0].place == place:
            return None
        places = place, other_name(place, video.path)
        if len(here) == 1 and fit and fit[0].place in places:
            return None
        target = self.free(places, here)
        if target is None:
            logger.warning(IN_THE_WAY, place)
            return None
        source = source_state(video)
        start = next(iter(fit), here[-1] if here and source is None else None)
        if start:
            return self.promise(Change(video, here, start, replace(start, place=target)))
        if source is None or (source.st_size, source.st_mtime_ns) != (video.size, video.mtime_ns):
            what = "is gone" if source is None else "has changed since it was scored"
            logger.warning("%s: not put into %s: it %s", video.path, place, what)
            return None
        new = Placed(target, video.path, self.kind, video.size, video.mtime_ns, source.st_ino)
        return self.promise(Change(video, here, None, new))

    def promise(self, change):
        """Give a place to one video, and to no other of this run."""
        self.promised.add(change.new.place)
        self.owners[change.new.place] = change.video.path
        return change

    def is_current(self, placed, video):
        """Whether a file is what would be made now."""
        return placed.kind == self.kind and (placed.size, placed.mtime_ns) == (video.size, video.mtime_ns)

    def free(self, places, here):
        """The first place where nobody else's file is or will be; None without one.

        A file that is to move away still holds its place: a killed program may have left it there.
        """
        ours = {placed.place for placed in here}
        taken = (p in self.promised or os.path.lexists(self.layout.file_path(p)) for p in places)
        return next((p for p, is_taken in zip(places, taken) if p in ours or not is_taken), None)

    def carry_out(self, change):
        """Make or move a video's file, and remove what it replaces."""
        if change.new:
            target = self.layout.file(change.new.place)
            if not is_open(target, change):
                return
            if change.start:
                self.move(change, target)
            else:
                self.make(change.new, change.new.source, target)
        for old in change.here:
            path = self.layout.file(old.place)
            if not change.new or old.place != change.new.place:
                path.unlink(missing_ok=True)
                self.prune(path.parent)
        self.known[change.video.path] = [change.new] if change.new else []

    def move(self, change, target):
        """Move a file, or copy it to another disk."""
        start = self.layout.file(change.start.place)
        try:
            start.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.make(change.new, start, target)

    def make(self, new, origin, target):
        """Put a file in place at once, whatever the time it takes to copy."""
        side = self.layout.file(new.place.partition("/")[0])
        if side not in self.elsewhere:
            try:
                make_aside(new, origin, aside_file(self.layout, target.suffix)).replace(target)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self.elsewhere.add(side)
        folder = self.aside_folder(side)
        folder.mkdir(parents=True, exist_ok=True)
        make_aside(new, origin, folder / f"copy{target.suffix}").replace(target)

    def aside_folder(self, side):
        """Where copies grow in one of the two folders that is on another disk; it may serve more output folders."""
        return scratch_root(side / self.layout.work.name, self.layout)

    def clear_asides(self):
        for side in self.layout.quality_folders:
            folder = self.aside_folder(side)
            discard(folder)
            self.prune(folder.parent)

    def prune(self, folder):
        """Remove folders that have become empty, but not the two themselves."""
        with contextlib.suppress(OSError):
            while folder not in (*self.layout.quality_folders, self.layout.output_dir):
                folder.rmdir()
                folder = folder.parent


def is_open(target, change):
    """Whether a place can still be taken, once its folder is made; a copy may take hours, and others work there too."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        logger.warning("%s: not put there: a file is in the place of its folder", change.new.place)
        return False
    if os.path.lexists(target) and change.new.place not in [placed.place for placed in change.here]:
        logger.warning(IN_THE_WAY, change.new.place)
        return False
    return True


def make_aside(new, origin, aside):
    """A file's path where it is complete but not in place."""
    aside.unlink(missing_ok=True)
    if new.kind == SYMLINK:
        aside.symlink_to(new.source)
    elif new.kind == HARDLINK:
        os.link(os.path.realpath(origin), aside)  # a link to a link would not be the video
    else:
        shutil.copyfile(origin, aside)
        with aside.open("rb+") as file:
            shutil.copystat(origin, aside)  # after opening: the mode may be read-only
            os.fsync(file.fileno())
    return aside


def source_state(video):
    """The stat of a video; None where it is gone."""
    try:
        return os.stat(video.path)  # noqa: PTH116
    except OSError:
        return None


def as_line(placed):
    return json.dumps(vars(placed)) + "\n"


def read_placed(path):
    """The records of what was made; a line that a killed program left torn was not acted upon."""
    if not path.exists():
        return
    try:
        with path.open("rb") as file:  # a torn line may be no text
            for line in file:
                with contextlib.suppress(ValueError, TypeError):
                    yield Placed(**json.loads(line))
    except OSError as error:
        raise SyncNetError(f"{path}: cannot read it ({error.strerror})") from error
