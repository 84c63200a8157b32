"""Which videos the filter works on: those of a folder, or those on a list."""

import codecs
import os
from dataclasses import dataclass
from pathlib import Path

from syncnet.errors import UsageError

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
AUDIO_SUFFIXES = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma")


@dataclass(frozen=True, slots=True)
class Video:
    """One file to score.

    Attributes:
        path: absolute.
        name: its path below the input folder, with forward slashes: the same in the results.
        size: bytes; None where the file cannot be looked at.
        mtime_ns: when it was last changed, in nanoseconds.
    """

    path: str
    name: str
    size: int | None
    mtime_ns: int | None


def look_at(path, name):
    """The ``Video`` of a path."""
    try:
        stat = os.stat(path)  # noqa: PTH116, a million times
    except OSError:
        return Video(path, name, None, None)
    return Video(path, name, stat.st_size, stat.st_mtime_ns)


def find_videos(input_dir, *, recursive, leave_out):
    """Video and audio files of a folder, in order of their names.

    Hidden files and folders are left out, and so is a folder that has been seen already under another name (a link
    that leads back). Files with other extensions are not media.

    Args:
        input_dir: path.
        recursive: also look into its folders.
        leave_out: a folder that is not looked into: the results.

    Returns:
        List of ``Video``.

    Raises:
        UsageError: it is no folder, or cannot be read.
    """
    root = absolute(input_dir)
    if not Path(root).is_dir():
        raise UsageError(f"--input_dir {input_dir}: no such folder")
    seen = {identity(root), identity(leave_out)}
    found = []
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise UsageError(f"{folder}: cannot look into this folder ({error.strerror})") from error
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if recursive and identity(entry.path) not in seen:
                    seen.add(identity(entry.path))
                    below.append((entry.path, f"{prefix}{entry.name}/"))
            elif is_media(entry.name) and (entry.is_file() or entry.is_symlink()):
                found.append(look_at(entry.path, prefix + entry.name))
        folders += reversed(below)
    return sorted(found, key=lambda video: video.name)


def is_media(name):
    return name.lower().endswith((*VIDEO_SUFFIXES, *AUDIO_SUFFIXES))


def identity(folder):
    """What tells that two names are of one folder; None where there is none."""
    try:
        stat = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def absolute(path):
    return os.path.abspath(path)  # noqa: PTH100, keeps links as the user named them


def read_list(input_list, *, input_dir=None):
    """Files on a list, one path a line; empty lines, repetitions and a byte order mark are left out.

    Args:
        input_list: path of the list.
        input_dir: what relative paths are relative to; None for the current folder.

    Returns:
        List of ``Video``, in order of the list. Names are below ``input_dir``, or else below the deepest folder that
        holds all of them.

    Raises:
        UsageError: it cannot be read or is empty.
    """
    try:
        lines = Path(input_list).read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise UsageError(f"--input_list {input_list}: cannot read it ({error.strerror})") from error
    base = absolute(input_dir or ".")
    names = (os.fsdecode(line) for line in lines if line.strip())
    paths = list(dict.fromkeys(os.path.normpath(os.path.join(base, name)) for name in names))  # noqa: PTH118
    if not paths:
        raise UsageError(f"--input_list {input_list}: names no file")
    root = common_folder(paths, base if input_dir else None)
    return [look_at(path, os.path.relpath(path, root).replace(os.sep, "/")) for path in paths]


def common_folder(paths, preferred):
    """``preferred`` if it holds all paths, else the deepest folder that does."""
    if preferred and all(path.startswith(os.path.join(preferred, "")) for path in paths):  # noqa: PTH118
        return preferred
    return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
