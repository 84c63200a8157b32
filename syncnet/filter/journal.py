"""The journal of a folder's scores: one line of JSON per finished video, on disk before the next one begins.

Later lines on a path replace earlier ones. A line that a killed program or a full disk left torn is cut off when the
journal is next opened; nothing else is ever removed. Every line ends with a checksum of itself, so that a million of
them need not be decoded to the end just to know which videos they are; one that does not fit, because another program
has changed the line, makes it worth a closer look. A damaged line counts as not there.
"""

import contextlib
import errno
import json
import logging
import os
import re
import zlib
from dataclasses import asdict, dataclass

from syncnet.errors import DiskFullError, SyncNetError, no_space
from syncnet.filter.recipe import current_digest
from syncnet.filter.scorer import FAILED, STATUSES, SUCCESS
from syncnet.results.layout import make_folder
from syncnet.results.step_files import save_json

try:
    import fcntl
except ImportError:  # Windows: nobody keeps a second program out
    fcntl = None

logger = logging.getLogger("syncnet")

BLOCK = 1 << 16
decode = json.JSONDecoder().decode  # as json.loads, which guesses the encoding first
ENTRY_KEYS = ("name", "size", "mtime_ns", "recipe", "status")
RECORD_KEYS = ("video_name", "tracks", "reasons", "error", "faces", "start_time", "end_time", "processing_time")
TRACK_KEYS = ("track", "offset", "offset_ms", "confidence", "min_dist", "lse_c", "lse_d", "start", "end", "reasons")
FIRST_LONG_KEY = b', "tracks": '  # no text can hold these bytes: JSON has a backslash before its quotes
CHECKSUM = b', "crc32": %d}\n'
CHECKED_LINE = re.compile(rb', "crc32": (\d+)}\n\Z')


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of a video's latest line.

    Attributes:
        position: of the line in the file, in bytes.
        name: of the video.
        size, mtime_ns: of the video when it was scored.
        recipe: the recipe's digest.
        status: one of ``scorer.STATUSES``.
    """

    position: int
    name: str
    size: int | None
    mtime_ns: int | None
    recipe: str
    status: str


@contextlib.contextmanager
def locked(path):
    """Keep other programs out of an output folder meanwhile.

    Raises:
        SyncNetError: one is there already, or the file system knows no locks.
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
                    f"{path.parent}: another program (process {owner}) writes its results here: wait for it, or choose "
                    "another --output_dir"
                ) from error
            except OSError as error:  # some network file systems have no locks
                raise SyncNetError(
                    f"{path}: this file system cannot lock files ({error.strerror}), so nothing would keep a second "
                    "program out: choose an --output_dir on another one"
                ) from error
        with contextlib.suppress(OSError):  # a full disk: only the message is poorer
            file.truncate(0)
            file.write(f"{os.getpid()} on {os.uname().nodename}" if hasattr(os, "uname") else str(os.getpid()))
            file.flush()
        yield


class Journal:
    """The scores that are finished. Open it only while its folder is ``locked``.

    Args:
        path: of the file; made when the first video is finished.
        recipes_path: of the file with what the recipes' digests stand for.

    Attributes:
        entries: ``Entry`` by absolute path of the video.
        recipes: recipes by digest.
        digests: of the recipes on record, by the digests that lines name them by: earlier versions of the suite worked
            some out differently.

    Raises:
        SyncNetError: it cannot be read or repaired.
    """

    def __init__(self, path, recipes_path):
        self.path, self.recipes_path = path, recipes_path
        self.entries = {}
        self.size = 0
        self.stored_recipes = read_recipes(recipes_path)
        self.digests = {old: current_digest(recipe, old=old) for old, recipe in self.stored_recipes.items()}
        self.recipes = {self.digests[old]: recipe for old, recipe in self.stored_recipes.items()}
        try:
            if path.exists():
                repair(path)
                self.read_entries()
        except OSError as error:
            raise SyncNetError(f"{path}: cannot read this journal ({error}): move it away to start anew") from error

    def catch_up(self):
        """Know of lines that are on disk already: an interrupt may come between ``append``'s writing and its end."""
        with contextlib.suppress(OSError):  # the next run reads them
            self.read_entries()

    def read_entries(self):
        """Read the lines from ``size`` on."""
        damaged = 0
        with self.path.open("rb") as file:
            file.seek(self.size)
            for line in file:
                if not line.endswith(b"\n"):  # an interrupt in the middle of a failed write
                    break
                try:
                    record = decode_head(line)
                    record = self.with_digest(record)
                    self.entries[record["video_path"]] = Entry(self.size, *(record[key] for key in ENTRY_KEYS))
                except (ValueError, KeyError, TypeError):
                    damaged += 1
                self.size += len(line)
        if damaged:
            logger.warning("%s: %d damaged lines: these videos count as not scored", self.path, damaged)

    def with_digest(self, record):
        """A line's record, naming its recipe by the digest of today."""
        return {**record, "recipe": self.digests.get(record["recipe"], record["recipe"])}

    def add_recipe(self, digest, recipe):
        """Put on record what a recipe's digest stands for."""
        if digest not in self.recipes:
            self.recipes[digest] = self.stored_recipes[digest] = recipe
            save_json(self.stored_recipes, self.recipes_path)

    def append(self, video, score, *, recipe):
        """Write a finished video's line to disk.

        Args:
            video: ``Video``.
            score: ``VideoScore``.
            recipe: the recipe's digest.

        Returns:
            The line as a dict.

        Raises:
            SyncNetError: it cannot be written; the file is then as it was before.
        """
        record = {
            "video_name": os.path.basename(video.path),  # noqa: PTH119, an absolute path as text
            "name": video.name,
            "video_path": video.path,
            "size": video.size,
            "mtime_ns": video.mtime_ns,
            "recipe": recipe,
            **asdict(score),
        }
        line = with_checksum(json.dumps(record))
        try:
            write_line(self.path, line, at=self.size)
        except OSError as error:
            kind = DiskFullError if no_space(error) else SyncNetError
            raise kind(
                f"{self.path}: cannot write to it ({error.strerror}): what is finished is kept; run the same command "
                "again to go on"
            ) from error
        self.entries[video.path] = Entry(self.size, video.name, video.size, video.mtime_ns, recipe, score.status)
        self.size += len(line)
        return record

    def records(self, paths):
        """Yield the latest line of every path that has one, in that order."""
        if not self.entries:
            return
        with self.path.open("rb") as file:
            for path in paths:
                entry = self.entries.get(path)
                if entry is None:
                    continue
                if file.tell() != entry.position:
                    file.seek(entry.position)
                yield self.with_digest(decode(file.readline().decode()))

    def finished(self, video, recipe, *, retry_failed=False):
        """Whether a ``Video`` need not be scored: it was, as it is now, by this recipe."""
        entry = self.entries.get(video.path)
        return (
            entry is not None
            and (entry.size, entry.mtime_ns, entry.recipe) == (video.size, video.mtime_ns, recipe)
            and not (retry_failed and entry.status == FAILED)
        )


def read_recipes(path):
    """Recipes by digest; none of a damaged file, which only says what scores were made with."""
    try:
        recipes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SyncNetError(f"{path}: cannot read it ({error.strerror})") from error
    except ValueError:
        recipes = None
    if not isinstance(recipes, dict):
        logger.warning("%s: damaged: what earlier scores were made with is not known any more", path)
        return {}
    return recipes


def with_checksum(text):
    """A record's JSON as a line of the journal."""
    line = text.encode().removesuffix(b"}")
    return line + CHECKSUM % zlib.crc32(line)


def decode_head(line):
    """The record of a line, at least up to ``FIRST_LONG_KEY``.

    Raises:
        ValueError, KeyError, TypeError: the line is damaged.
    """
    found = CHECKED_LINE.search(line)
    if found and zlib.crc32(memoryview(line)[: found.start()]) == int(found[1]):
        head, there, _ = line.partition(FIRST_LONG_KEY)
        return decode((head + b"}" if there else line).decode())
    record = decode(line.decode())
    check_record(record)
    return record


def check_record(record):
    """Refuse a record that results cannot be derived from.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
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
    scored = [track for track in record["tracks"] if track["confidence"] is not None]
    if record["status"] not in STATUSES or (record["status"] == SUCCESS and not scored):
        raise ValueError("a status that does not fit its tracks")


def write_line(path, line, *, at):
    """Append a line, wholly or not at all, and wait until it is on disk."""
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


def sync_folder(folder):
    """Put a new file's name on disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def repair(path):
    """Cut off a last line that was not written to its end."""
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
            logger.warning("%s: a line that was not written to its end is cut off", path)
