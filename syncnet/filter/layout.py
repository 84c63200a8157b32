"""Where the filter's results live on disk: what ``results.layout`` is for one video, for a folder of them.

OUTPUT_DIR/results.jsonl             the journal: a line per finished video
OUTPUT_DIR/recipes.json              what the journal's recipes stand for
OUTPUT_DIR/sync_filter_results.json  everything judged by the thresholds, derived from the journal
OUTPUT_DIR/results.csv               the same as a table
OUTPUT_DIR/good_quality/NAME         the videos that pass; NAME is their path below the input folder
OUTPUT_DIR/poor_quality/NAME         those that do not
OUTPUT_DIR/syncnet_outputs/NAME/     crops, overlay video and analysis of one (--save_outputs)
OUTPUT_DIR/.placed.jsonl             which files in the two folders the filter put there
OUTPUT_DIR/.lock                     held while a program works here
OUTPUT_DIR/.work                     scratch
"""

import glob
import hashlib
import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from syncnet.errors import DiskFullError, SyncNetError, no_space
from syncnet.results.layout import Layout, discard, remove_folder

GOOD, POOR, OUTPUTS = "good_quality", "poor_quality", "syncnet_outputs"
REFERENCE = "video"  # in a scratch folder that is one worker's own
DIGEST_LENGTH = 8
ORIGIN = "origin.json"  # which video, and by which recipe


@dataclass(frozen=True)
class FilterLayout:
    """Paths of one output folder."""

    output_dir: Path

    def __post_init__(self):
        object.__setattr__(self, "output_dir", Path(os.path.abspath(self.output_dir)))  # noqa: PTH100, keeps links
        object.__setattr__(self, "prefix", f"{self.output_dir}/")

    @property
    def journal(self):
        return self.output_dir / "results.jsonl"

    @property
    def recipes(self):
        return self.output_dir / "recipes.json"

    @property
    def results(self):
        return self.output_dir / "sync_filter_results.json"

    @property
    def table(self):
        return self.output_dir / "results.csv"

    @property
    def placed(self):
        return self.output_dir / ".placed.jsonl"

    @property
    def lock(self):
        return self.output_dir / ".lock"

    @property
    def work(self):
        return self.output_dir / ".work"

    def unfinished_outputs(self, scratch):
        """Where the outputs of the video that a worker is at grow; ``scratch`` is the worker's own."""
        return self.work / f"{scratch.name}-outputs"

    @property
    def quality_folders(self):
        return self.output_dir / GOOD, self.output_dir / POOR

    def placed_name(self, name, *, good):
        """Where a video belongs, relative to the output folder."""
        return f"{GOOD if good else POOR}/{name}"

    def file(self, placed_name):
        return self.output_dir / placed_name

    def file_path(self, placed_name):
        """As ``file``, as text: for a million of them."""
        return self.prefix + placed_name

    def outputs(self, name):
        return self.output_dir / OUTPUTS / name


def other_name(placed_name, source):
    """A name beside one that is taken: it tells the source, so that it stays the same from run to run."""
    stem, suffix = os.path.splitext(placed_name)  # noqa: PTH122, a million times
    digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:DIGEST_LENGTH]
    return f"{stem}-{digest}{suffix}"


def scratch_root(tmp_dir, filter_layout):
    """Where workers keep a video's pictures and sound; a name of the output folder's own in a shared ``tmp_dir``."""
    if not tmp_dir:
        return filter_layout.work
    digest = hashlib.sha256(os.fsencode(filter_layout.output_dir)).hexdigest()[:DIGEST_LENGTH]
    return Path(os.path.abspath(tmp_dir)) / f"syncnet-filter-{digest}"  # noqa: PTH100, keeps links


def worker_scratch(root, worker):
    """Scratch of one worker process: machine and process number keep it apart from others' in one root."""
    return root / f"{own_prefix()}{os.getpid()}-{worker}"


def own_prefix():
    """What the names of this machine's scratch folders begin with."""
    return f"{platform.node()}~"


def discard_orphans(root):
    """Remove scratch of this machine's processes that are no more; that of other machines on the same disk stays."""
    for folder in root.glob(f"{glob.escape(own_prefix())}*"):
        process = folder.name.removeprefix(own_prefix()).partition("-")[0]
        if process.isdecimal() and not is_alive(int(process)):
            discard(folder)


def is_alive(process):
    """Whether there is a process of this number; yes where that cannot be asked harmlessly."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def aside_file(filter_layout, suffix):
    """Where a copy grows until it is complete: on the same disk, and where nobody looks for videos."""
    folder = worker_scratch(filter_layout.work, "copy")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"copy{suffix}"


def video_layout(scratch):
    """The ``Layout`` of the video that a worker is at."""
    return Layout(scratch, REFERENCE)


def keep_outputs(layout, folder, *, aside, origin):
    """Move one video's results out of a worker's scratch to where the user looks for them.

    Args:
        layout: ``Layout`` of the video.
        folder: the final place; it appears complete.
        aside: an empty place on the same disk.
        origin: dict of what they were made from, for ``kept_origin``.

    Raises:
        SyncNetError: they cannot be moved; ``DiskFullError`` where there is no room.
    """
    discard(aside)
    try:
        aside.mkdir(parents=True)
        (aside / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
        for step, name in (("pycrop", "crops"), ("pywork", "analysis")):
            if layout.folder(step).is_dir():
                shutil.move(layout.folder(step), aside / name)
        for file in (layout.video_out, layout.audio):
            if file.exists():
                shutil.move(file, aside / file.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(folder)
        aside.replace(folder)
    except OSError as error:
        why = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror or error
        kind = DiskFullError if no_space(error) else SyncNetError
        raise kind(f"{folder}: cannot write it ({why})") from error
    finally:
        discard(aside)


def kept_origin(folder):
    """What the outputs in a folder were made from; None where there are none."""
    try:
        return json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
