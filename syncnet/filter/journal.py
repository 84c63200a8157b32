"""The journal of scores: one line of JSON per finished video, written to disk before the next video is scored.

A later line replaces an earlier one of the same path and recipe. An incomplete last line, left by a killed program or
a full disk, is cut off when the journal is next opened; no other line is ever removed. Every line ends with its own
checksum: if the checksum is correct, only the start of the line is decoded, which saves time with a million lines.
Otherwise another program has changed the line, and it is decoded and checked completely. Damaged lines are ignored.
"""

import contextlib
import errno
import json
import logging
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from syncnet.errors import DiskFullError, SyncNetError, no_space
from syncnet.filter.correction import CORRECTION, check_correction
from syncnet.filter.inputs import Video
from syncnet.filter.recipe import Recipe, digests_of, mode_of
from syncnet.filter.scorer import FAILED, STATUSES, SUCCESS, Record, VideoScore
from syncnet.results.layout import make_folder
from syncnet.results.step_files import save_json

try:
    import fcntl
except ImportError:  # Windows: output folders are not locked
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("syncnet")

BLOCK = 1 << 16
decode = json.JSONDecoder().decode  # json.loads without its detection of the encoding
RECORD_KEYS = ("video_name", "tracks", "reasons", "error", "faces", "start_time", "end_time", "processing_time")
TRACK_KEYS = ("track", "offset", "offset_ms", "confidence", "min_dist", "start", "end", "reasons")
FIRST_LONG_KEY = b', "tracks": '  # never part of a JSON string, where quotes have a backslash before them
CHECKSUM_KEY = "crc32"
CHECKSUM = b', "crc32": %d}\n'
CHECKED_LINE = re.compile(rb', "crc32": (\d+)}\n\Z')


@dataclass(frozen=True, slots=True)
class Entry:
    """Index entry of a video's latest line by one recipe.

    Attributes:
        position: Position of the line in the file, in bytes.
        name: Name of the video.
        size: Size of the video when it was scored, in bytes.
        mtime_ns: Time of the video's last modification when it was scored, in nanoseconds.
        status: One of ``scorer.STATUSES``.
        sound: Size and time of the last modification of the file whose sound was scored; None for the video's own.
    """

    position: int
    name: str
    size: int | None
    mtime_ns: int | None
    status: str
    sound: tuple[int, int] | None = None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock an output folder against other programs.

    Args:
        path: Lock file in the output folder.

    Raises:
        SyncNetError: Another program holds the lock, or the file system does not support locks.
    """
    make_folder(path.parent, flag="--output_dir")
    with path.open("a+", encoding="utf-8") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise SyncNetError(
                    f"{path.parent}: another program (process {owner}) writes to this folder: wait until it ends, or "
                    "choose another --output_dir"
                ) from error
            except OSError as error:  # some network file systems have no locks
                raise SyncNetError(
                    f"{path}: this file system cannot lock files ({error.strerror}): choose an --output_dir on another "
                    "file system"
                ) from error
        with contextlib.suppress(OSError):  # if the disk is full, only the message above lacks the process
            file.truncate(0)
            file.write(f"{os.getpid()} on {os.uname().nodename}" if hasattr(os, "uname") else str(os.getpid()))
            file.flush()
        yield


class Journal:
    """The finished scores of an output folder, which must be ``locked``.

    Args:
        path: Path of the journal; the file is created when the first video is finished.
        recipes_path: Path of the file with the recipes by digest.

    Attributes:
        entries: Entries by digest of the recipe, the recipe of the last line at the end, and by path of the video.
        newest: Digest of the recipe of the last line; empty without lines.
        size: Number of bytes of the journal that have been read or written.
        recipes: Recipes by current digest.
        digests: Current digests by the digests that lines contain: earlier versions of the suite computed some
            differently.

    Raises:
        SyncNetError: The journal cannot be read or repaired.
    """

    def __init__(self, path: Path, recipes_path: Path) -> None:
        self.path, self.recipes_path = path, recipes_path
        self.entries: dict[str, dict[str, Entry]] = {}
        self.newest = ""
        self.size = 0
        self.stored_recipes = read_recipes(recipes_path)
        self.digests: dict[str, str] = {}
        self.recipes: dict[str, Recipe] = {}
        for stored, recipe in self.stored_recipes.items():
            names = digests_of(recipe, stored=stored)
            self.digests.update(names)
            if names:
                self.recipes[names[stored]] = recipe
        try:
            if path.exists():
                repair(path)
                self.read_entries()
        except OSError as error:
            raise SyncNetError(f"{path}: cannot read this journal ({error}): move it away to start again") from error

    def catch_up(self) -> None:
        """Read lines that are on disk but have no entry, because ``append`` was interrupted after writing one."""
        with contextlib.suppress(OSError):  # the next run reads them
            self.read_entries()

    def read_entries(self) -> None:
        """Read all lines after the first ``size`` bytes."""
        damaged = 0
        with self.path.open("rb") as file:
            file.seek(self.size)
            for line in file:
                if not line.endswith(b"\n"):  # a write that was interrupted
                    break
                try:
                    self.add(self.with_digest(decode_head(line)), position=self.size)
                except (ValueError, KeyError, TypeError):
                    damaged += 1
                self.size += len(line)
        if damaged:
            logger.warning(
                "%s: %d damaged lines: their videos have no score until a run without --rescore never",
                self.path,
                damaged,
            )

    def add(self, record: Record, *, position: int) -> None:
        """Add the entry of a line.

        Args:
            record: Record of the line, with the current digest of its recipe.
            position: Position of the line in the file, in bytes.

        Raises:
            KeyError: The line is damaged.
            TypeError: The line is damaged.
        """
        sound = record.get("sound")
        entry = Entry(
            position,
            record["name"],
            record["size"],
            record["mtime_ns"],
            sys.intern(record["status"]),  # one string for a million lines
            (sound["size"], sound["mtime_ns"]) if sound else None,
        )
        path, recipe = record["video_path"], sys.intern(record["recipe"])
        if recipe != self.newest:
            self.entries[recipe] = self.entries.pop(recipe, {})
            self.newest = recipe
        self.entries[recipe][path] = entry

    def with_digest(self, record: Record) -> Record:
        """Return a line's record with the current digest of its recipe."""
        return {**record, "recipe": self.digests.get(record["recipe"], record["recipe"])}

    def add_recipe(self, digest: str, recipe: Recipe) -> None:
        """Save a recipe under its digest, unless it is saved already."""
        if digest not in self.stored_recipes:
            self.recipes.setdefault(digest, recipe)
            self.stored_recipes[digest] = recipe
            save_json(self.stored_recipes, self.recipes_path)

    def append(self, video: Video, score: VideoScore, *, recipe: str, correction: Record | None = None) -> Record:
        """Write the line of a finished video to disk.

        Args:
            video: The video.
            score: Its score.
            recipe: Digest of the recipe.
            correction: Record of the video's correction; None without one.

        Returns:
            The record that the line contains.

        Raises:
            DiskFullError: The disk is full; the journal is unchanged.
            SyncNetError: The line cannot be written for another reason; the journal is unchanged.
        """
        record = {
            "video_name": os.path.basename(video.path),  # noqa: PTH119, the path is text
            "name": video.name,
            "video_path": video.path,
            "size": video.size,
            "mtime_ns": video.mtime_ns,
            "sound": asdict(video.sound) if video.sound else None,
            "recipe": recipe,
            "mode": mode_of(self.recipes[recipe]) if recipe in self.recipes else None,
            **asdict(score),
        }
        return self.write({**record, CORRECTION: correction} if correction else record)

    def append_correction(self, record: Record, correction: Record) -> Record:
        """Write the line of a scored video once more, with its correction.

        Args:
            record: The video's line.
            correction: Record of the correction.

        Returns:
            As for ``append``.

        Raises:
            DiskFullError: As for ``append``.
            SyncNetError: As for ``append``.
        """
        score = {key: value for key, value in record.items() if key not in (CORRECTION, CHECKSUM_KEY)}
        return self.write({**score, CORRECTION: correction})

    def write(self, record: Record) -> Record:
        """Write a line to disk, and return its record; errors as for ``append``."""
        line = with_checksum(json.dumps(record))
        try:
            write_line(self.path, line, at=self.size)
        except OSError as error:
            kind = DiskFullError if no_space(error) else SyncNetError
            raise kind(
                f"{self.path}: cannot write to this file ({error.strerror}): finished scores are kept; run the same "
                "command again to continue"
            ) from error
        self.add(record, position=self.size)
        self.size += len(line)
        return record

    def of(self, recipe: str) -> dict[str, Entry]:
        """Return the entries of a recipe by path of the video.

        Args:
            recipe: Digest of the recipe.
        """
        return self.entries.get(recipe, {})

    def records(self, paths: Iterable[str], recipe: str) -> Iterator[Record]:
        """Yield the latest record by a recipe of every path that has one, in the order of ``paths``."""
        entries = self.of(recipe)
        if not entries:
            return
        with self.path.open("rb") as file:
            for path in paths:
                entry = entries.get(path)
                if entry is None:
                    continue
                if file.tell() != entry.position:
                    file.seek(entry.position)
                yield self.with_digest(decode(file.readline().decode()))

    def finished(self, video: Video, recipe: str, *, retry_failed: bool = False) -> bool:
        """Return True if a video, unmodified since like the file of its sound, has a score by this recipe.

        Args:
            video: The video.
            recipe: Digest of the recipe.
            retry_failed: Count failed videos as not finished.
        """
        entry = self.of(recipe).get(video.path)
        sound = (video.sound.size, video.sound.mtime_ns) if video.sound else None
        return (
            entry is not None
            and (entry.size, entry.mtime_ns, entry.sound) == (video.size, video.mtime_ns, sound)
            and not (retry_failed and entry.status == FAILED)
        )


def read_recipes(path: Path) -> dict[str, Recipe]:
    """Return the recipes by digest; none if the file is damaged, because the scores are valid without them."""
    try:
        recipes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SyncNetError(f"{path}: cannot read this file ({error.strerror}): check its permissions") from error
    except ValueError:
        recipes = None
    if not isinstance(recipes, dict):
        logger.warning("%s: damaged: the recipes of earlier scores are unknown: restore this file if you can", path)
        return {}
    return recipes


def with_checksum(text: str) -> bytes:
    """Return a record's JSON as a line of the journal."""
    line = text.encode().removesuffix(b"}")
    return line + CHECKSUM % zlib.crc32(line)


def decode_head(line: bytes) -> Record:
    """Decode a line, at least up to ``FIRST_LONG_KEY``.

    Raises:
        ValueError: The line is damaged.
        KeyError: The line is damaged.
        TypeError: The line is damaged.
    """
    found = CHECKED_LINE.search(line)
    if found and zlib.crc32(memoryview(line)[: found.start()]) == int(found[1]):
        head, there, _ = line.partition(FIRST_LONG_KEY)
        return decode((head + b"}" if there else line).decode())
    record = decode(line.decode())
    check_record(record)
    return record


def check_record(record: Record) -> None:
    """Raise an error if results cannot be derived from a record.

    Raises:
        ValueError: The record is damaged.
        KeyError: The record is damaged.
        TypeError: The record is damaged.
    """
    for key in RECORD_KEYS:
        record[key]
    lists = [record["reasons"], *(track["reasons"] for track in record["tracks"])]
    for reason in (reason for reasons in lists for reason in reasons):
        reason["code"], reason["text"]
    for track in record["tracks"]:
        for key in TRACK_KEYS:
            track[key]
        if track["confidence"] is not None:
            float(track["confidence"]), float(track["min_dist"]), int(track["offset"])
    if record.get(CORRECTION):
        check_correction(record[CORRECTION])
    scored = [track for track in record["tracks"] if track["confidence"] is not None]
    if record["status"] not in STATUSES or (record["status"] == SUCCESS and not scored):
        raise ValueError("status does not match the tracks")


def write_line(path: Path, line: bytes, *, at: int) -> None:
    """Append a line completely or not at all, and wait until it is on disk.

    Args:
        path: File to append to.
        line: The line.
        at: Size of the file before, in bytes; the file is truncated to it if writing fails.

    Raises:
        OSError: The line cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        try:
            written = os.write(handle, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, at)
            raise
        if at == 0:
            sync_folder(path.parent)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk, if the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def repair(path: Path) -> None:
    """Cut off an incomplete last line."""
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            file.truncate(end)
            os.fsync(file.fileno())
            logger.warning("%s: cut off an incomplete last line, left by a program that was killed", path)
