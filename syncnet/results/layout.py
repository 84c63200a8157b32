"""Where results live on disk. Nothing but this and ``filter.layout`` joins paths of results.

    DATA_DIR/pyavi/REF     video.avi, audio.wav (run_pipeline), video_only.avi, video_out.avi (run_visualise)
    DATA_DIR/pyframes/REF  000001.jpg ... (run_pipeline)
    DATA_DIR/pycrop/REF    00000.avi ... a face track each (run_pipeline)
    DATA_DIR/pywork/REF    faces.pckl, scene.pckl, tracks.pckl, pipeline.json (run_pipeline),
                           activesd.pckl, offsets.txt (run_syncnet), scores.json (both)
    DATA_DIR/pytmp/REF     scratch

A folder appears under its final name when it is complete, and so does a file: until then it carries PART.
"""

import os
import shutil
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
LONGEST_NAME = 255  # bytes


@dataclass(frozen=True)
class Layout:
    """Paths of one reference under one data folder.

    Raises:
        UsageError: the reference is no plain folder name.
    """

    data_dir: Path
    reference: str

    def __post_init__(self):
        object.__setattr__(self, "data_dir", Path(self.data_dir))
        check_unicode(self.data_dir, flag="--data_dir")
        check_reference(self.reference)

    def folder(self, step):
        return self.data_dir / step / self.reference

    @property
    def video(self):
        return self.folder("pyavi") / "video.avi"

    @property
    def audio(self):
        return self.folder("pyavi") / "audio.wav"

    @property
    def video_only(self):
        return self.folder("pyavi") / "video_only.avi"

    @property
    def video_out(self):
        return self.folder("pyavi") / "video_out.avi"

    @property
    def frames(self):
        return self.folder("pyframes")

    @property
    def crops(self):
        return self.folder("pycrop")

    @property
    def tmp(self):
        return self.folder("pytmp")

    @property
    def rate_script(self):
        return self.tmp / "rate.txt"

    @property
    def unfinished_video(self):
        return self.tmp / "video.avi"

    @property
    def faces(self):
        return self.folder("pywork") / "faces.pckl"

    @property
    def scenes(self):
        return self.folder("pywork") / "scene.pckl"

    @property
    def tracks(self):
        return self.folder("pywork") / "tracks.pckl"

    @property
    def pipeline(self):
        return self.folder("pywork") / "pipeline.json"

    @property
    def distances(self):
        return self.folder("pywork") / "activesd.pckl"

    @property
    def offsets(self):
        return self.folder("pywork") / "offsets.txt"

    @property
    def scores(self):
        return self.folder("pywork") / "scores.json"

    def crop_files(self):
        """The finished face tracks, in order, and after them clips that somebody else named with a 0 in front."""
        others = [path for path in sorted(self.crops.glob("0*.avi")) if crop_number(path) is None]
        finished = [path for path in others if not path.stem.endswith(PART)]
        return numbered_files(self.crops, ".avi", digits=CROP_DIGITS) + finished

    def check_outside(self, path):
        """Refuse an input that lies in one of the folders that a run replaces."""
        for step in STEPS:
            for folder in (self.folder(step), part_folder(self.folder(step))):
                if lies_in(path, folder):
                    raise UsageError(f"{path}: lies in {folder}, which this run replaces: choose another --reference")

    def clear(self):
        """Remove an earlier run's results of this reference, and make the folders for new ones."""
        for step in RESULTS:
            remove_folder(self.folder(step))
            remove_folder(part_folder(self.folder(step)))
        for step in ("pyavi", "pywork"):
            make_folder(self.folder(step))


def lies_in(path, folder):
    """Whether a path is a folder or below it, by its name or by where links lead."""
    names = (Path(path).resolve(), Path(path).absolute())
    folders = {folder.resolve(), folder.absolute()}
    return any(folders & {name, *name.parents} for name in names)


def check_unicode(folder, *, flag):
    """Refuse a folder of results with a name that OpenCV cannot open files by."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{flag} {str(folder)!r}: a name in it is no Unicode: choose another one") from error


def check_reference(reference):
    """Refuse a reference that is not one plain folder name, so that it stays inside DATA_DIR."""
    check_unicode(reference, flag="--reference")
    bad = not reference or reference in (".", "..") or any(c in reference for c in "/\\\0")
    if len(os.fsencode(reference + PART)) > LONGEST_NAME:
        raise UsageError(f"--reference {reference!r}: too long for a folder's name: choose a shorter one")
    if bad or reference.endswith(PART):
        raise UsageError(
            f"--reference {reference!r}: must be a plain folder name, without slashes, because results go to "
            "DATA_DIR/py*/REFERENCE"
        )


def part_file(path):
    """The name that a file carries until it is complete; its extension stays, which tells OpenCV the format."""
    return path.with_name(path.stem + PART + path.suffix)


def part_folder(folder):
    """The name that a folder carries until it is complete."""
    return folder.with_name(folder.name + PART)


def frame_file(folder, index):
    """Path of the picture of frame ``index`` (from 0; the files count from 1)."""
    return folder / (FRAME_PATTERN % (index + 1))


def crop_file(folder, index):
    return folder / CROP_NAME.format(index)


def frame_files(folder):
    """The pictures in a folder of frames, in order."""
    return numbered_files(folder, ".jpg", digits=FRAME_DIGITS)


def numbered_files(folder, suffix, *, digits):
    """Files named by a number of at least so many digits, in the numbers' order."""
    files = (path for path in folder.glob(f"*{suffix}") if number_of(path, digits=digits) is not None)
    return sorted(files, key=lambda path: (len(path.stem), path.stem))


def number_of(path, *, digits):
    """The number of at least so many digits that a file is named by; None where it has another name."""
    return int(path.stem) if path.stem.isdecimal() and len(path.stem) >= digits else None


def scratch_folder(tmp_dir, reference):
    """Where the pictures and the sound of a clip that is being scored lie."""
    check_reference(reference)
    check_unicode(tmp_dir, flag="--tmp_dir")
    return Path(tmp_dir) / reference


def scratch_audio(folder):
    return folder / "audio.wav"


def clear_scratch(folder, *, clip):
    """Make a scratch folder, or empty it of an earlier clip; whatever else lies there stays.

    Raises:
        UsageError: the ``clip`` that is to be unpacked there lies there itself.
    """
    old = [*frame_files(folder), scratch_audio(folder)]
    if lies_in(clip, folder) and any(lies_in(clip, path) for path in old):  # the one look spares thousands
        raise UsageError(f"{clip}: lies in {folder}, where its pictures and sound are put: choose another --tmp_dir")
    make_folder(folder)
    for path in old:
        path.unlink(missing_ok=True)


def crop_number(path):
    """Which track a clip in a folder of crops is; None of one that run_pipeline did not name."""
    return number_of(path, digits=CROP_DIGITS)


def silent_crop_file(folder, index):
    """A track's pictures before its sound is added."""
    return folder / f"silent{CROP_NAME.format(index)}"


def crop_audio_file(folder, index):
    return crop_file(folder, index).with_suffix(".wav")


def make_folder(folder, *, flag="--data_dir"):
    """Make a folder and its parents.

    Args:
        flag: which flag leads elsewhere.

    Raises:
        SyncNetError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SyncNetError(f"{folder}: cannot make this folder ({error.strerror}): choose another {flag}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SyncNetError(f"{folder}: cannot write into this folder: choose another {flag}")


def remove_folder(folder):
    """Remove a folder that the suite made; of a link, the link alone."""
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise SyncNetError(f"{folder}: cannot remove an earlier run's results ({error.strerror})") from error


def discard(folder):
    """Remove scratch, as far as it can be: what is left over costs room, nothing else."""
    shutil.rmtree(folder, ignore_errors=True)


def clear_result(path, *, videofile):
    """Remove an earlier result of the same name: it would pass for this run's when there is none.

    Raises:
        UsageError: the input is there.
    """
    if path.exists() and path.samefile(videofile):
        raise UsageError(f"{path}: is the input, which stays as it is: choose another --json")
    if path.is_file():
        path.resolve().unlink()


@contextmanager
def new_file(path):
    """Yield the path to write to; it gets its final name when the block ends well and vanishes when not.

    What is no plain file (a pipe, /dev/stdout) is written as it is; of a link, what it leads to is replaced.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve() if path.is_symlink() else path
    aside = part_file(target)
    try:
        yield aside
        aside.replace(target)
    except BrokenPipeError:
        raise  # of something that was printed meanwhile
    except OSError as error:
        kind = DiskFullError if no_space(error) else SyncNetError
        # the block may have failed on another file than this
        name, act = (path, "write") if error.filename in (None, str(aside)) else (error.filename, "read or write")
        raise kind(f"{name}: cannot {act} it ({error.strerror or error})") from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def new_folder(folder):
    """Yield an empty folder to fill; it replaces ``folder`` when the block ends well and vanishes when not."""
    aside = part_folder(folder)
    remove_folder(aside)
    try:
        make_folder(aside)
        yield aside
        remove_folder(folder)
        aside.replace(folder)
    finally:
        if aside.exists():
            remove_folder(aside)


def check_input(videofile, *, advice=": check --videofile"):
    """The input as a path.

    Args:
        advice: what the user is told to do about a file that is none.

    Raises:
        UsageError: no input is named.
        MediaError: it is no file that can be read, or is empty.
    """
    if not videofile:
        raise UsageError("--videofile: name the video to work on")
    path = Path(videofile)
    if not path.exists():
        raise MediaError(f"{path}: no such file{advice}")
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, not a video{advice}")
    if not path.is_file():
        raise MediaError(f"{path}: is no plain file, and must be read more than once{advice}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise MediaError(f"{path}: cannot read it ({error.strerror}){advice}") from error
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty", code=NOT_MEDIA)
    return path
