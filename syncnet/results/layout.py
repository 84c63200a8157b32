"""Paths of results on disk. Only this module and ``filter.layout`` build them.

    DATA_DIR/pyavi/REF     video.avi, audio.wav (run_pipeline), video_only.avi, video_out.avi (run_visualise)
    DATA_DIR/pyframes/REF  000001.jpg ... (run_pipeline)
    DATA_DIR/pycrop/REF    00000.avi ... one clip per face track (run_pipeline)
    DATA_DIR/pywork/REF    faces.pckl, scene.pckl, tracks.pckl, pipeline.json (run_pipeline),
                           activesd.pckl, offsets.txt (run_syncnet), scores.json (both)
    DATA_DIR/pytmp/REF     temporary files

Files and folders are written under a temporary name that contains PART, and renamed when they are complete.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from syncnet.errors import DiskFullError, MediaError, SyncNetError, UsageError, no_space
from syncnet.reasons import NOT_MEDIA

PART = ".part"
FRAME_PATTERN = "%06d.jpg"
FRAME_DIGITS = 6  # at least
CROP_NAME = "{:05d}.avi"
CROP_DIGITS = 5  # at least
RESULTS = ("pyavi", "pywork", "pycrop", "pyframes")
STEPS = (*RESULTS, "pytmp")
INDEX_NAME = "index.csv"
SPAN_CLIP = re.compile(r"track\d+_\d+\.\d\d-\d+\.\d\d\.mp4")  # what ``span_clip`` returns
LONGEST_NAME = 255  # bytes


@dataclass(frozen=True)
class Layout:
    """Paths of the results of one video.

    Attributes:
        data_dir: value of --data_dir.
        reference: value of --reference, the name of the video.

    Raises:
        UsageError: the reference is not a plain folder name, or a name is not valid Unicode.
    """

    data_dir: Path
    reference: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_dir", Path(self.data_dir))
        check_unicode(self.data_dir, flag="--data_dir")
        check_reference(self.reference)

    def folder(self, step: str) -> Path:
        """Return the folder of one of ``STEPS``."""
        return self.data_dir / step / self.reference

    @property
    def video(self) -> Path:
        return self.folder("pyavi") / "video.avi"

    @property
    def audio(self) -> Path:
        return self.folder("pyavi") / "audio.wav"

    @property
    def video_only(self) -> Path:
        return self.folder("pyavi") / "video_only.avi"

    @property
    def video_out(self) -> Path:
        return self.folder("pyavi") / "video_out.avi"

    @property
    def frames(self) -> Path:
        return self.folder("pyframes")

    @property
    def crops(self) -> Path:
        return self.folder("pycrop")

    @property
    def tmp(self) -> Path:
        return self.folder("pytmp")

    @property
    def rate_script(self) -> Path:
        return self.tmp / "rate.txt"

    @property
    def unfinished_video(self) -> Path:
        return self.tmp / "video.avi"

    @property
    def faces(self) -> Path:
        return self.folder("pywork") / "faces.pckl"

    @property
    def scenes(self) -> Path:
        return self.folder("pywork") / "scene.pckl"

    @property
    def tracks(self) -> Path:
        return self.folder("pywork") / "tracks.pckl"

    @property
    def pipeline(self) -> Path:
        return self.folder("pywork") / "pipeline.json"

    @property
    def distances(self) -> Path:
        return self.folder("pywork") / "activesd.pckl"

    @property
    def offsets(self) -> Path:
        return self.folder("pywork") / "offsets.txt"

    @property
    def scores(self) -> Path:
        return self.folder("pywork") / "scores.json"

    def crop_files(self) -> list[Path]:
        """Return the clips of the face tracks in order, followed by clips of other programs named 0*.avi."""
        others = [path for path in sorted(self.crops.glob("0*.avi")) if crop_number(path) is None]
        finished = [path for path in others if not path.stem.endswith(PART)]
        return numbered_files(self.crops, ".avi", digits=CROP_DIGITS) + finished

    def check_outside(self, path: str | Path) -> None:
        """Refuse an input in a folder that a run replaces.

        Raises:
            UsageError: the path is in such a folder.
        """
        for step in STEPS:
            for folder in (self.folder(step), part_folder(self.folder(step))):
                if lies_in(path, folder):
                    raise UsageError(f"{path}: lies in {folder}, which this run replaces: choose another --reference")

    def clear(self) -> None:
        """Remove the results of an earlier run with this reference, and create the folders for new ones."""
        for step in RESULTS:
            remove_folder(self.folder(step))
            remove_folder(part_folder(self.folder(step)))
        for step in ("pyavi", "pywork"):
            make_folder(self.folder(step))


def lies_in(path: str | Path, folder: Path) -> bool:
    """Return True if a path is a folder or is below it, with or without resolving links."""
    names = (Path(path).resolve(), Path(path).absolute())
    folders = {folder.resolve(), folder.absolute()}
    return any(folders & {name, *name.parents} for name in names)


def check_unicode(folder: str | Path, *, flag: str) -> None:
    """Refuse a path that is not valid Unicode, because OpenCV cannot open it.

    Args:
        folder: path of a folder or file.
        flag: flag that gave the path, for the error message.

    Raises:
        UsageError: the path is not valid Unicode.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{flag} {str(folder)!r}: not valid Unicode: choose another name") from error


def check_reference(reference: str) -> None:
    """Refuse a reference that is not a plain folder name, so that results stay inside DATA_DIR.

    Raises:
        UsageError: the reference is not a plain folder name, or is too long.
    """
    check_unicode(reference, flag="--reference")
    bad = not reference or reference in (".", "..") or any(c in reference for c in "/\\\0")
    if len(os.fsencode(reference + PART)) > LONGEST_NAME:
        raise UsageError(f"--reference {reference!r}: too long for the name of a folder: choose a shorter one")
    if bad or reference.endswith(PART):
        raise UsageError(
            f"--reference {reference!r}: must be a plain folder name without slashes, not ending in {PART}, because "
            "results go to DATA_DIR/py*/REFERENCE"
        )


def part_file(path: Path) -> Path:
    """Return the temporary name of a file; its extension stays the same because OpenCV derives the format from it."""
    return path.with_name(path.stem + PART + path.suffix)


def part_folder(folder: Path) -> Path:
    """Return the temporary name of a folder."""
    return folder.with_name(folder.name + PART)


def frame_file(folder: Path, index: int) -> Path:
    """Return the path of a frame's image.

    Args:
        folder: folder of frames.
        index: index of the frame, from 0; the file names start at 1.
    """
    return folder / (FRAME_PATTERN % (index + 1))


def crop_file(folder: Path, index: int) -> Path:
    """Return the path of a face track's clip."""
    return folder / CROP_NAME.format(index)


def frame_files(folder: Path) -> list[Path]:
    """Return the images in a folder of frames, in order."""
    return numbered_files(folder, ".jpg", digits=FRAME_DIGITS)


def numbered_files(folder: Path, suffix: str, *, digits: int) -> list[Path]:
    """Return the files whose names are numbers of at least ``digits`` digits, in numerical order."""
    files = (path for path in folder.glob(f"*{suffix}") if number_of(path, digits=digits) is not None)
    return sorted(files, key=lambda path: (len(path.stem), path.stem))


def number_of(path: Path, *, digits: int) -> int | None:
    """Return the number that is the name of a file; None if the name is not a number of at least ``digits`` digits."""
    return int(path.stem) if path.stem.isdecimal() and len(path.stem) >= digits else None


def scratch_folder(tmp_dir: str | Path, reference: str) -> Path:
    """Return the folder for the temporary frames and audio of a clip.

    Raises:
        UsageError: the reference is not a plain folder name, or a name is not valid Unicode.
    """
    check_reference(reference)
    check_unicode(tmp_dir, flag="--tmp_dir")
    return Path(tmp_dir) / reference


def scratch_audio(folder: Path) -> Path:
    """Return the path of a clip's temporary audio."""
    return folder / "audio.wav"


def clear_scratch(folder: Path, *, clip: Path) -> None:
    """Create a folder for temporary frames and audio, or remove those of an earlier clip; other files stay.

    Args:
        folder: from ``scratch_folder``.
        clip: the clip that will be unpacked there.

    Raises:
        UsageError: ``clip`` is one of the files to remove.
    """
    old = [*frame_files(folder), scratch_audio(folder)]
    if lies_in(clip, folder) and any(lies_in(clip, path) for path in old):  # the first test is cheap
        raise UsageError(f"{clip}: lies in {folder}, where its frames and audio are written: choose another --tmp_dir")
    make_folder(folder)
    for path in old:
        path.unlink(missing_ok=True)


def crop_number(path: Path) -> int | None:
    """Return the index of the track that a clip belongs to; None if run_pipeline did not name the clip."""
    return number_of(path, digits=CROP_DIGITS)


def silent_crop_file(folder: Path, index: int) -> Path:
    """Return the path of a track's clip before its audio is added."""
    return folder / f"silent{CROP_NAME.format(index)}"


def crop_audio_file(folder: Path, index: int) -> Path:
    """Return the path of a track's temporary audio."""
    return crop_file(folder, index).with_suffix(".wav")


def span_clip(folder: Path, *, track: int, start: float, end: float) -> Path:
    """Return the path of the clip of a time in which a face speaks, in seconds."""
    return folder / f"track{track}_{start:08.2f}-{end:08.2f}.mp4"


def span_index(folder: Path) -> Path:
    """Return the path of the list of such clips."""
    return folder / INDEX_NAME


def check_clips(folder: str | Path, *, inputs: Iterable[str | Path], overwrite: bool) -> Path:
    """Check that nothing is lost if a folder is replaced by one with clips of speakers, and return its path.

    Args:
        folder: value of --split_speakers.
        inputs: paths of the inputs.
        overwrite: clips of an earlier run may be replaced.

    Raises:
        UsageError: something would be lost.
    """
    check_unicode(folder, flag="--split_speakers")
    path = Path(folder).resolve()
    flag = f"--split_speakers {folder}"
    if any(lies_in(file, path) for file in inputs):
        raise UsageError(f"{flag}: the input lies in it: choose another folder")
    if not path.exists():
        return path
    if not path.is_dir():
        raise UsageError(f"{flag}: is not a folder: choose another one")
    names = sorted(file.name for file in path.iterdir())
    foreign = [name for name in names if not (name == INDEX_NAME or SPAN_CLIP.fullmatch(name))]
    if foreign:
        raise UsageError(f"{flag}: has other files in it, such as {foreign[0]}: choose a new folder")
    if names and not overwrite:
        raise UsageError(f"{flag}: has clips in it: choose a new folder, or replace them with --overwrite")
    return path


def make_folder(folder: Path, *, flag: str = "--data_dir") -> None:
    """Create a folder and its parents.

    Args:
        folder: path of the folder, which may exist.
        flag: flag that chooses another folder, for the error message.

    Raises:
        SyncNetError: the folder cannot be created or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SyncNetError(f"{folder}: cannot create this folder ({error.strerror}): choose another {flag}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SyncNetError(f"{folder}: cannot write into this folder: choose another {flag}")


def remove_folder(folder: Path) -> None:
    """Remove a folder of results and its content; if it is a link, remove only the link.

    Raises:
        SyncNetError: the folder cannot be removed.
    """
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise SyncNetError(f"{folder}: cannot remove the results of an earlier run ({error.strerror})") from error


def discard(folder: Path) -> None:
    """Remove a folder of temporary files; errors are ignored, because remaining files only take disk space."""
    shutil.rmtree(folder, ignore_errors=True)


def clear_result(path: Path, *inputs: str | Path, flag: str = "--json") -> None:
    """Remove a result of an earlier run, so that it is not mistaken for the result of a run that fails.

    Args:
        path: value of the flag.
        inputs: the files that are read.
        flag: flag that names the file, for the error message.

    Raises:
        UsageError: ``path`` is an input, or no file can be there.
    """
    if path.exists() and any(path.samefile(file) for file in inputs):
        raise UsageError(f"{path}: is the input, which is never overwritten: choose another {flag}")
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise UsageError(f"{path}: is a folder, or in a folder that does not exist: choose another {flag}")
    if path.is_file():
        path.resolve().unlink()


def check_output(path: str | Path, *, videofile: Path, overwrite: bool) -> Path:
    """Check that a video may be written next to the one that is read, and return its path.

    Args:
        path: value of --output.
        videofile: the input.
        overwrite: an earlier output may be replaced.

    Raises:
        UsageError: no file can be there, there is one already, or it is the input.
        SyncNetError: the folder is not writable.
    """
    if not path:
        raise UsageError("--output is missing: name the corrected video")
    check_unicode(path, flag="--output")
    output = Path(path)
    target = output.resolve()
    for written in (target, part_file(target), part_file(part_file(target))):  # as ``new_file`` within ``new_file``
        if written.exists() and written.samefile(videofile):
            raise UsageError(f"{path}: is or replaces the input, which is never overwritten: choose another --output")
    if target.exists() and not target.is_file():
        raise UsageError(f"{path}: exists and is not a regular file: choose another --output")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: in a folder that does not exist: choose another --output")
    if target.exists() and not overwrite:
        raise UsageError(f"{path}: exists already: choose another --output, or replace it with --overwrite")
    make_folder(target.parent, flag="--output")  # checks that it is writable
    return output


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path that is renamed to ``path`` if the block succeeds.

    If the block fails, the temporary file is removed. If ``path`` is a link, its target is replaced. If it is not a
    regular file (a pipe, /dev/stdout), the block writes to it directly.

    Args:
        path: final path of the file.

    Yields:
        Path to write to.

    Raises:
        DiskFullError: the disk is full.
        SyncNetError: the file cannot be written.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve() if path.is_symlink() else path
    temporary = part_file(target)
    try:
        yield temporary
        temporary.replace(target)
    except BrokenPipeError:
        raise  # comes from printing, not from this file
    except OSError as error:
        kind = DiskFullError if no_space(error) else SyncNetError
        # the block may have failed on a file other than this one
        own = error.filename in (None, str(temporary), str(temporary.absolute()))
        name, act = (path, "write") if own else (error.filename, "read or write")
        raise kind(f"{name}: cannot {act} it ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Write a folder atomically: yield an empty temporary folder that replaces ``folder`` if the block succeeds.

    If the block fails, the temporary folder is removed and ``folder`` stays as it was.
    """
    temporary = part_folder(folder)
    remove_folder(temporary)
    try:
        make_folder(temporary)
        yield temporary
        remove_folder(folder)
        temporary.replace(folder)
    finally:
        if temporary.exists():
            remove_folder(temporary)


def check_input(videofile: str | Path, *, advice: str = ": check --videofile") -> Path:
    """Check that the input is a readable file, and return its path.

    Args:
        videofile: path of the input.
        advice: end of the error message if the input is not a readable file.

    Raises:
        UsageError: the path is empty.
        MediaError: the input does not exist, is not a regular file, cannot be read or is empty.
    """
    if not videofile:
        raise UsageError("--videofile is missing: name the input video")
    path = Path(videofile)
    if not path.exists():
        raise MediaError(f"{path}: no such file{advice}")
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, not a video{advice}")
    if not path.is_file():
        raise MediaError(f"{path}: is not a regular file, but the input is read more than once{advice}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise MediaError(f"{path}: cannot read it ({error.strerror}){advice}") from error
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty", code=NOT_MEDIA)
    return path
