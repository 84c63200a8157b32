"""Paths of the filter's results on disk: ``results.layout`` covers one video, this module a folder of videos.

OUTPUT_DIR/results.jsonl             the journal: one line per finished video
OUTPUT_DIR/recipes.json              the recipes that the journal's digests stand for
OUTPUT_DIR/sync_filter_results.json  all videos judged by the thresholds, derived from the journal
OUTPUT_DIR/results.csv               the same as a table
OUTPUT_DIR/good_quality/NAME         videos that pass; NAME is their path relative to the input folder
OUTPUT_DIR/poor_quality/NAME         videos that do not pass
OUTPUT_DIR/syncnet_outputs/NAME/     crops, overlay video and analysis of one video (--save_outputs)
OUTPUT_DIR/.placed.jsonl             record of the files that the filter put into the two quality folders
OUTPUT_DIR/.lock                     locked while a program writes to this folder
OUTPUT_DIR/.work                     scratch
"""

import glob
import hashlib
import json
import os
import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from syncnet.errors import DiskFullError, SyncNetError, no_space
from syncnet.filter.inputs import StrPath
from syncnet.results.layout import Layout, discard, remove_folder

GOOD, POOR, OUTPUTS = "good_quality", "poor_quality", "syncnet_outputs"
REFERENCE = "video"  # every worker has a scratch folder of its own, so one name is enough
DIGEST_LENGTH = 8
ORIGIN = "origin.json"  # the video and the recipe that kept outputs were made from


@dataclass(frozen=True)
class FilterLayout:
    """Paths of one output folder.

    Attributes:
        output_dir: The folder, as an absolute path without resolved links.
        prefix: The same with a trailing slash, as text.
    """

    output_dir: Path
    prefix: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", Path(os.path.abspath(self.output_dir)))  # noqa: PTH100, does not resolve links
        object.__setattr__(self, "prefix", f"{self.output_dir}/")

    @property
    def journal(self) -> Path:
        return self.output_dir / "results.jsonl"

    @property
    def recipes(self) -> Path:
        return self.output_dir / "recipes.json"

    @property
    def results(self) -> Path:
        return self.output_dir / "sync_filter_results.json"

    @property
    def table(self) -> Path:
        return self.output_dir / "results.csv"

    @property
    def placed(self) -> Path:
        return self.output_dir / ".placed.jsonl"

    @property
    def lock(self) -> Path:
        return self.output_dir / ".lock"

    @property
    def work(self) -> Path:
        return self.output_dir / ".work"

    def unfinished_outputs(self, scratch: Path) -> Path:
        """Return the temporary folder for the outputs of a worker's current video.

        Args:
            scratch: Scratch folder of the worker.
        """
        return self.work / f"{scratch.name}-outputs"

    @property
    def quality_folders(self) -> tuple[Path, Path]:
        return self.output_dir / GOOD, self.output_dir / POOR

    def placed_name(self, name: str, *, good: bool) -> str:
        """Return the path of a video's copy, relative to the output folder."""
        return f"{GOOD if good else POOR}/{name}"

    def file(self, placed_name: str) -> Path:
        return self.output_dir / placed_name

    def file_path(self, placed_name: str) -> str:
        """Return the same as ``file`` as text, which is faster for a million files."""
        return self.prefix + placed_name

    def outputs(self, name: str) -> Path:
        return self.output_dir / OUTPUTS / name


def other_name(placed_name: str, source: str) -> str:
    """Return an alternative to a name that is taken.

    It contains a digest of the source's path, so that it is the same in every run.
    """
    stem, suffix = os.path.splitext(placed_name)  # noqa: PTH122, faster than Path for a million files
    digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:DIGEST_LENGTH]
    return f"{stem}-{digest}{suffix}"


def scratch_root(tmp_dir: StrPath, filter_layout: FilterLayout) -> Path:
    """Return the folder that contains the workers' scratch folders.

    In a shared ``tmp_dir`` its name is unique to the output folder.
    """
    if not tmp_dir:
        return filter_layout.work
    digest = hashlib.sha256(os.fsencode(filter_layout.output_dir)).hexdigest()[:DIGEST_LENGTH]
    return Path(os.path.abspath(tmp_dir)) / f"syncnet-filter-{digest}"  # noqa: PTH100, does not resolve links


def worker_scratch(root: Path, worker: int | str) -> Path:
    """Return the scratch folder of a worker, unique by machine and process ID within ``root``."""
    return root / f"{own_prefix()}{os.getpid()}-{worker}"


def own_prefix() -> str:
    """Return the common prefix of the names of this machine's scratch folders."""
    return f"{platform.node()}~"


def discard_orphans(root: Path) -> None:
    """Remove scratch folders of processes of this machine that have ended; those of other machines stay."""
    for folder in root.glob(f"{glob.escape(own_prefix())}*"):
        process = folder.name.removeprefix(own_prefix()).partition("-")[0]
        if process.isdecimal() and not is_alive(int(process)):
            discard(folder)


def is_alive(process: int) -> bool:
    """Return True if a process with this ID exists, or if the system cannot say so."""
    if os.name != "posix":  # os.kill(process, 0) would end the process on Windows
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # the process of another user
    return True


def temporary_file(filter_layout: FilterLayout, suffix: str) -> Path:
    """Return the path of a copy until it is complete, on the disk of the output folder and hidden from users."""
    folder = worker_scratch(filter_layout.work, "copy")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"copy{suffix}"


def video_layout(scratch: Path) -> Layout:
    """Return the ``Layout`` of a worker's current video."""
    return Layout(scratch, REFERENCE)


def keep_outputs(layout: Layout, folder: Path, *, temporary: Path, origin: dict[str, str]) -> None:
    """Move one video's results from a worker's scratch folder to their final folder.

    Args:
        layout: Layout of the video.
        folder: Final folder; it appears complete or not at all.
        temporary: Folder on the same disk to collect the results in; it must not be in use.
        origin: The video and the recipe that the results were made from, for ``kept_origin``.

    Raises:
        DiskFullError: The disk is full.
        SyncNetError: The results cannot be moved for another reason.
    """
    discard(temporary)
    try:
        temporary.mkdir(parents=True)
        (temporary / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
        for step, name in (("pycrop", "crops"), ("pywork", "analysis")):
            if layout.folder(step).is_dir():
                shutil.move(layout.folder(step), temporary / name)
        for file in (layout.video_out, layout.audio):
            if file.exists():
                shutil.move(file, temporary / file.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(folder)
        temporary.replace(folder)
    except OSError as error:
        why = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror or error
        kind = DiskFullError if no_space(error) else SyncNetError
        raise kind(
            f"{folder}: cannot write this folder ({why}): free space or check its permissions, then run the same "
            "command again"
        ) from error
    finally:
        discard(temporary)


def kept_origin(folder: Path) -> dict[str, str] | None:
    """Return the ``origin`` that ``keep_outputs`` stored in a folder; None if there is none."""
    try:
        return json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
