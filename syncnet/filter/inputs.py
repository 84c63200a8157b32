"""Find the filter's input videos, in a folder or on a list."""

import codecs
import os
from dataclasses import dataclass, replace
from pathlib import Path

from syncnet.errors import UsageError

StrPath = str | os.PathLike[str]

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
AUDIO_SUFFIXES = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma")


@dataclass(frozen=True, slots=True)
class Sound:
    """A media file whose sound replaces a video's own.

    Attributes:
        path: Absolute path.
        size: Size in bytes.
        mtime_ns: Time of the last modification, in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Video:
    """A file to score.

    Attributes:
        path: Absolute path.
        name: Path relative to the input folder, with forward slashes; results use it as the video's name.
        size: Size in bytes; None if the file is not accessible.
        mtime_ns: Time of the last modification, in nanoseconds; None if the file is not accessible.
        sound: File whose sound is scored; None for the video's own, or if there is no such file.
    """

    path: str
    name: str
    size: int | None
    mtime_ns: int | None
    sound: Sound | None = None


def stat_video(path: str, name: str) -> Video:
    """Return the ``Video`` of a path."""
    try:
        stat = os.stat(path)  # noqa: PTH116, faster than Path for a million files
    except OSError:
        return Video(path, name, None, None)
    return Video(path, name, stat.st_size, stat.st_mtime_ns)


def find_videos(input_dir: StrPath, *, recursive: bool, leave_out: StrPath) -> list[Video]:
    """Find the video and audio files of a folder by their extensions.

    Hidden files and folders are skipped, and so is a folder that was already scanned under another name (a symbolic
    link to a parent folder, for example).

    Args:
        input_dir: Folder to scan.
        recursive: Also scan subfolders.
        leave_out: Folder to skip: the output folder.

    Returns:
        The videos, sorted by name.

    Raises:
        UsageError: ``input_dir`` is not a folder, or a folder is not readable.
    """
    root = absolute(input_dir)
    if not Path(root).is_dir():
        raise UsageError(f"--input_dir {input_dir}: no such folder: check the path")
    visited = {identity(root), identity(leave_out)}
    found = []
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise UsageError(f"{folder}: cannot read this folder ({error.strerror}): check its permissions") from error
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if recursive and identity(entry.path) not in visited:
                    visited.add(identity(entry.path))
                    below.append((entry.path, f"{prefix}{entry.name}/"))
            elif is_media(entry.name) and (entry.is_file() or entry.is_symlink()):
                found.append(stat_video(entry.path, prefix + entry.name))
        folders += reversed(below)
    return sorted(found, key=lambda video: video.name)


def with_sounds(videos: list[Video], audio_dir: StrPath) -> list[Video]:
    """Return videos with the sound that another folder has for them.

    The sound of a/b.mp4 is a/b.wav in that folder, or has the suffix of another media file. Of several, a sound file is
    preferred to a video, then the first by name.

    Args:
        videos: The videos.
        audio_dir: The folder.

    Raises:
        UsageError: ``audio_dir`` is not a folder, or a folder is not readable.
    """
    if not Path(audio_dir).is_dir():
        raise UsageError(f"--audio_dir {audio_dir}: no such folder: check the path")
    root = absolute(audio_dir)
    folders: dict[str, dict[str, str]] = {}
    found = []
    for video in videos:
        stem = os.path.splitext(video.name)[0]  # noqa: PTH122, faster than Path for a million files
        folder, _, name = stem.rpartition("/")
        if folder not in folders:
            folders[folder] = sounds_by_stem(os.path.join(root, folder))  # noqa: PTH118
        path = folders[folder].get(name)
        stat = stat_video(path, "") if path else None
        if path and stat and stat.size is not None and stat.mtime_ns is not None:
            video = replace(video, sound=Sound(path, stat.size, stat.mtime_ns))
        found.append(video)
    return found


def sounds_by_stem(folder: str) -> dict[str, str]:
    """Return the paths of a folder's media files by their names without suffix; none if there is no such folder."""
    try:
        names = [name for name in os.listdir(folder) if is_media(name) and not name.startswith(".")]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{folder}: cannot read this folder ({error.strerror}): check its permissions") from error
    names.sort(
        key=lambda name: (not name.lower().endswith(AUDIO_SUFFIXES), name), reverse=True
    )  # the preferred comes last
    return {os.path.splitext(name)[0]: os.path.join(folder, name) for name in names}  # noqa: PTH118, PTH122


def is_media(name: str) -> bool:
    """Return True if a file name has the extension of a video or audio file."""
    return name.lower().endswith((*VIDEO_SUFFIXES, *AUDIO_SUFFIXES))


def identity(folder: StrPath) -> tuple[int, int] | None:
    """Return device and inode number of a folder, equal for all its paths; None if it does not exist."""
    try:
        stat = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def absolute(path: StrPath) -> str:
    """Return the absolute path without resolving symbolic links."""
    return os.path.abspath(path)  # noqa: PTH100, Path.resolve would follow the links that the user named


def read_list(input_list: StrPath, *, input_dir: StrPath | None = None) -> list[Video]:
    """Read a list of files, one path per line; empty lines, duplicates and a byte order mark are ignored.

    Args:
        input_list: Path of the list.
        input_dir: Folder that relative paths refer to; None for the current folder.

    Returns:
        The videos, in the order of the list. Names are relative to ``input_dir``, or else to the deepest folder that
        contains all files.

    Raises:
        UsageError: The list is not readable or empty.
    """
    try:
        lines = Path(input_list).read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise UsageError(
            f"--input_list {input_list}: cannot read this list ({error.strerror}): check the path"
        ) from error
    base = absolute(input_dir or ".")
    names = (os.fsdecode(line) for line in lines if line.strip())
    paths = list(dict.fromkeys(os.path.normpath(os.path.join(base, name)) for name in names))  # noqa: PTH118
    if not paths:
        raise UsageError(f"--input_list {input_list}: the list is empty: write one path per line")
    root = common_folder(paths, base if input_dir else None)
    return [stat_video(path, os.path.relpath(path, root).replace(os.sep, "/")) for path in paths]


def common_folder(paths: list[str], preferred: str | None) -> str:
    """Return ``preferred`` if it contains all paths, otherwise the deepest folder that does."""
    if preferred and all(path.startswith(os.path.join(preferred, "")) for path in paths):  # noqa: PTH118
        return preferred
    return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
