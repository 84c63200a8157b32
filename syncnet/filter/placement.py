"""Put copies or links of the videos into the two quality folders, and move them when a verdict changes.

A corrected file is made by a worker, and then belongs to its video like a copy. Files appear complete or not at all.
The filter records which files it made and never touches any other file in these folders, nor a source. It never removes
the copy of a video whose source is gone.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from syncnet.errors import DiskFullError, SyncNetError, no_space
from syncnet.filter.inputs import StrPath, Video
from syncnet.filter.layout import FilterLayout, other_name, scratch_root, temporary_file, worker_scratch
from syncnet.progress import silent
from syncnet.results.layout import discard, new_file

logger = logging.getLogger("syncnet")

COPY, HARDLINK, SYMLINK, CORRECT, NONE = "copy", "hardlink", "symlink", "correct", "none"
KINDS = (COPY, HARDLINK, SYMLINK, CORRECT, NONE)
IN_THE_WAY = "%s: not written: a file that the filter did not make has this name: move it away and run again"
CLOCK_NS = 2 * 10**9  # some file systems store times with a resolution of two seconds


@dataclass(frozen=True)
class Placed:
    """A file that the filter made.

    Attributes:
        place: Path of the file, relative to the output folder.
        source: Absolute path of the video.
        kind: One of ``KINDS``.
        size: Size of the source when the file was made, in bytes; of a corrected file its own.
        mtime_ns: Time of the source's last modification when the file was made, in nanoseconds; likewise.
        inode: Inode number of the source, which identifies a hard link.
        corrects: Size and time of the last modification of the source of a corrected file; None for another file.
    """

    place: str
    source: str
    kind: str
    size: int
    mtime_ns: int
    inode: int
    corrects: tuple[int, int] | None = None

    @property
    def made_from(self) -> tuple[int, int]:
        """Size and time of the last modification of the source when the file was made."""
        size, mtime_ns = self.corrects or (self.size, self.mtime_ns)
        return size, mtime_ns

    def is_there(self, filter_layout: FilterLayout) -> bool:
        """Return True if the file exists and is unmodified."""
        path = filter_layout.file_path(self.place)
        try:
            if self.kind == SYMLINK:
                return os.readlink(path) == self.source  # noqa: PTH115, faster than Path for a million files
            stat = os.lstat(path)
        except OSError:
            return False
        if self.kind == HARDLINK:
            return stat.st_ino == self.inode
        return stat.st_size == self.size and abs(stat.st_mtime_ns - self.mtime_ns) <= CLOCK_NS


@dataclass(frozen=True)
class Change:
    """Change to make for one video.

    Attributes:
        video: The video.
        here: Its existing files.
        start: The existing file that becomes the new file; None to make the new file from the source.
        new: The file that the change produces; None to only remove the existing ones.
        made: Path of a corrected file, which becomes the new file; None for another file.
    """

    video: Video
    here: list[Placed]
    start: Placed | None
    new: Placed | None
    made: Path | None = None


class Placement:
    """The two quality folders of an output folder.

    Args:
        filter_layout: Paths of the output folder.
        kind: How to make a video's file: one of ``KINDS`` except ``NONE``. With ``CORRECT``, workers make corrected
            files, and the files of other videos are copies.

    Raises:
        SyncNetError: The record of the files that the filter made cannot be read.
    """

    def __init__(self, filter_layout: FilterLayout, *, kind: str) -> None:
        self.layout, self.kind = filter_layout, COPY if kind == CORRECT else kind
        self.corrected: Container[str] = ()  # paths of the videos whose files are corrected ones
        self.unmade: Container[str] = ()  # paths of the videos that get no new file
        self.known: dict[str, list[Placed]] = {}  # source -> its files on record, oldest first
        self.owners: dict[str, str] = {}  # place -> source of the last file recorded there
        self.reserved: set[str] = set()  # places of the files that this run makes; only free places are reserved
        self.on_other_disk: set[Path] = set()  # quality folders that turned out to be on another disk
        for placed in read_placed(filter_layout.placed):
            self.known.setdefault(placed.source, []).append(placed)
            self.owners[placed.place] = placed.source

    def settle(
        self,
        wanted: Iterable[tuple[Video, str | None]],
        *,
        corrected: Container[str] = (),
        unmade: Container[str] = (),
        progress: Callable[..., Any] = silent,
    ) -> None:
        """Update the folders to match the verdicts.

        Args:
            wanted: A pair per video of this run: the video, and the path of its file relative to the output folder, or
                None if it belongs in neither folder.
            corrected: Paths of the videos whose corrected files are theirs.
            unmade: Paths of the videos that get no new file; the one that they have is moved.
            progress: Progress bar, as in ``syncnet.progress``.

        Raises:
            DiskFullError: The disk is full; all files in the folders are complete.
            SyncNetError: A file cannot be written for another reason; all files in the folders are complete.
        """
        self.clear_temporary()
        self.corrected, self.unmade = corrected, unmade
        changes = [change for video, place in wanted if (change := self.plan(video, place))]
        if not changes:
            return
        try:
            # record first, then make: if this program is killed, the next one knows all files
            self.record(changes)
            for change in progress(changes, total=len(changes), desc="folders"):
                self.carry_out(change)
            with new_file(self.layout.placed) as temporary:
                lines = (as_line(placed) for source in self.known for placed in self.owned(source))
                temporary.write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            raise self.cannot_write(error) from error
        finally:
            discard(worker_scratch(self.layout.work, "copy"))
            self.clear_temporary()

    def put(self, video: Video, place: str, made: Path) -> bool:
        """Put a corrected file into its folder, in place of the files that the video has.

        Args:
            video: The video as it was scored.
            place: Path of the file relative to the output folder.
            made: Path of the corrected file.

        Returns:
            False if a file that the filter did not make is in the way.

        Raises:
            DiskFullError: The disk is full.
            SyncNetError: The file cannot be written for another reason.
        """
        here = self.existing(video)
        try:
            target = self.free((place, other_name(place, video.path)), here)
            if target is None:
                logger.warning(IN_THE_WAY, place)
                return False
            stat = made.stat()
            assert video.size is not None and video.mtime_ns is not None, "only a video that is there is corrected"
            source = video.size, video.mtime_ns
            new = Placed(target, video.path, CORRECT, stat.st_size, stat.st_mtime_ns, stat.st_ino, corrects=source)
            change = replace(self.reserve(video, here, None, new), made=made)
            self.record([change])
            self.carry_out(change)
        except OSError as error:
            raise self.cannot_write(error) from error
        return new in self.known.get(video.path, [])

    def record(self, changes: Iterable[Change]) -> None:
        """Write the new files of changes to the record, before they are made."""
        with self.layout.placed.open("a", encoding="utf-8") as file:
            file.write("\n")  # ends an incomplete line that a killed program left
            file.writelines(as_line(change.new) for change in changes if change.new)
            file.flush()
            os.fsync(file.fileno())

    def cannot_write(self, error: OSError) -> SyncNetError:
        """Return the error that says that a file cannot be written."""
        kind = DiskFullError if no_space(error) else SyncNetError
        return kind(
            f"{error.filename2 or error.filename or self.layout.output_dir}: cannot write this file "
            f"({error.strerror}): scores are kept; run the same command again to continue, or choose another "
            "--transfer"
        )

    def existing(self, video: Video) -> list[Placed]:
        """Return the files of a video that are there, oldest first."""
        here = [placed for placed in self.owned(video.path) if placed.is_there(self.layout)]
        return list({placed.place: placed for placed in here}.values())

    def has_corrected(self, path: str, made_from: tuple[int | None, int | None]) -> bool:
        """Return True if the corrected file of a video is there.

        Args:
            path: Absolute path of the video.
            made_from: Size and time of the last modification of the video as it was scored.
        """
        files = (placed for placed in self.owned(path) if placed.kind == CORRECT and placed.made_from == made_from)
        return any(placed.is_there(self.layout) for placed in files)

    def owned(self, source: str) -> list[Placed]:
        """Return the files on record of one video, without those whose places now belong to another video."""
        return [placed for placed in self.known.get(source, ()) if self.owners[placed.place] == source]

    def plan(self, video: Video, place: str | None) -> Change | None:
        """Plan the change for one video.

        Args:
            video: The video as it was scored.
            place: Path of its file relative to the output folder; None if it belongs in neither folder.

        Returns:
            The change; None if there is nothing to do, or nothing that can be done.
        """
        here = self.existing(video)
        if place is None:
            gone = bool(here) and source_state(video) is None  # the copy may be the only one left
            return Change(video, here, None, None) if here and not gone else None
        fit = [placed for placed in here if self.is_current(placed, video)]
        if len(here) == 1 and fit and fit[0].place == place:
            return None
        places = place, other_name(place, video.path)
        if len(here) == 1 and fit and fit[0].place in places:
            return None
        unmade = video.path in self.unmade
        if unmade and not here:
            return None
        target = self.free(places, here)
        if target is None:
            logger.warning(IN_THE_WAY, place)
            return None
        source = source_state(video)
        start = next(iter(fit), here[-1] if here and (unmade or source is None) else None)
        if start:
            return self.reserve(video, here, start, replace(start, place=target))
        if source is None or (source.st_size, source.st_mtime_ns) != (video.size, video.mtime_ns):
            what = "was deleted" if source is None else "was modified"
            logger.warning("%s: not put into %s: the video %s after it was scored", video.path, place, what)
            return None
        new = Placed(target, video.path, self.kind, source.st_size, source.st_mtime_ns, source.st_ino)
        return self.reserve(video, here, None, new)

    def reserve(self, video: Video, here: list[Placed], start: Placed | None, new: Placed) -> Change:
        """Reserve the place of a new file for its video in this run, and return the change."""
        self.reserved.add(new.place)
        self.owners[new.place] = video.path
        return Change(video, here, start, new)

    def is_current(self, placed: Placed, video: Video) -> bool:
        """Return True if a file is of the kind that the video gets, and made from the video as it was scored."""
        kind = CORRECT if video.path in self.corrected else self.kind
        return placed.kind == kind and placed.made_from == (video.size, video.mtime_ns)

    def free(self, places: tuple[str, ...], here: list[Placed]) -> str | None:
        """Return the first place that is not taken by a file of others, now or later in this run; None if all are.

        The place of a file that is yet to be moved counts as taken: if the program is killed, the file stays there.

        Args:
            places: Candidates.
            here: Existing files of the video.
        """
        ours = {placed.place for placed in here}
        taken = (p in self.reserved or os.path.lexists(self.layout.file_path(p)) for p in places)
        return next((p for p, is_taken in zip(places, taken) if p in ours or not is_taken), None)

    def carry_out(self, change: Change) -> None:
        """Make or move a video's file, and remove the files that it replaces."""
        if change.new:
            target = self.layout.file(change.new.place)
            if not is_open(target, change.new.place, change.here):
                return
            origin = self.layout.file(change.start.place) if change.start else change.made
            if origin:
                self.move(origin, change.new, target)
            else:
                self.make(change.new, change.new.source, target)
        for old in change.here:
            path = self.layout.file(old.place)
            if not change.new or old.place != change.new.place:
                path.unlink(missing_ok=True)
                self.prune(path.parent)
        self.known[change.video.path] = [change.new] if change.new else []

    def move(self, origin: Path, new: Placed, target: Path) -> None:
        """Move a file, or copy it to another disk."""
        try:
            origin.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.make(new, origin, target)

    def make(self, new: Placed, origin: StrPath, target: Path) -> None:
        """Make a temporary file and rename it to its target, so that it appears complete.

        Args:
            new: The file to make.
            origin: File to copy or link to.
            target: Absolute path of the new file.
        """
        side = self.layout.file(new.place.partition("/")[0])
        if side not in self.on_other_disk:
            try:
                make_temporary(new, origin, temporary_file(self.layout, target.suffix)).replace(target)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self.on_other_disk.add(side)
        folder = self.temporary_folder(side)
        folder.mkdir(parents=True, exist_ok=True)
        make_temporary(new, origin, folder / f"copy{target.suffix}").replace(target)

    def temporary_folder(self, side: Path) -> Path:
        """Return the folder for temporary files in a quality folder that is on another disk.

        Its name is unique to the output folder, because several may share one quality folder through links.
        """
        return scratch_root(side / self.layout.work.name, self.layout)

    def clear_temporary(self) -> None:
        """Remove temporary files from the quality folders."""
        for side in self.layout.quality_folders:
            folder = self.temporary_folder(side)
            discard(folder)
            self.prune(folder.parent)

    def prune(self, folder: Path) -> None:
        """Remove a folder and its parents if they are empty, but not the quality folders themselves."""
        with contextlib.suppress(OSError):
            while folder not in (*self.layout.quality_folders, self.layout.output_dir):
                folder.rmdir()
                folder = folder.parent


def is_open(target: Path, place: str, here: list[Placed]) -> bool:
    """Make the folder of a new file, and return True if the file can still be written.

    Other programs may have made files there since the change was planned, because copying can take hours.

    Args:
        target: Absolute path of the new file.
        place: The same, relative to the output folder.
        here: Existing files of the video, which the new file may replace.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        logger.warning("%s: not written: a file has the name of its folder: move it away and run again", place)
        return False
    if os.path.lexists(target) and place not in [placed.place for placed in here]:
        logger.warning(IN_THE_WAY, place)
        return False
    return True


def make_temporary(new: Placed, origin: StrPath, temporary: Path) -> Path:
    """Make a copy or link at a temporary path.

    Args:
        new: The file to make.
        origin: File to copy or link to.
        temporary: Path to make it at; an existing file is replaced.

    Returns:
        The temporary path.
    """
    temporary.unlink(missing_ok=True)
    if new.kind == SYMLINK:
        temporary.symlink_to(new.source)
    elif new.kind == HARDLINK:
        os.link(os.path.realpath(origin), temporary)  # a hard link to a symbolic link would not be the video
    else:
        shutil.copyfile(origin, temporary)
        with temporary.open("rb+") as file:
            shutil.copystat(origin, temporary)  # after opening, because the mode may be read-only
            os.fsync(file.fileno())
    return temporary


def source_state(video: Video) -> os.stat_result | None:
    """Return the stat result of a video; None if it is not accessible."""
    try:
        return os.stat(video.path)  # noqa: PTH116
    except OSError:
        return None


def as_line(placed: Placed) -> str:
    """Return the record of a file as a line of JSON."""
    return json.dumps({key: value for key, value in vars(placed).items() if value is not None}) + "\n"


def read_placed(path: Path) -> Iterator[Placed]:
    """Yield the files on record.

    Incomplete lines, left by a killed program, are ignored: their files were never made.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as file:  # an incomplete line may not be valid UTF-8
            for line in file:
                with contextlib.suppress(ValueError, TypeError):
                    yield Placed(**json.loads(line))
    except OSError as error:
        raise SyncNetError(f"{path}: cannot read this file ({error.strerror}): check its permissions") from error
