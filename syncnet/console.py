"""Console commands of an installed suite: each is the script of its name, with the same exit codes and signals.

pip makes a launcher for each function that ``[project.scripts]`` in pyproject.toml names.
"""

import importlib

from syncnet import cli, download


def correct_offset() -> None:
    run_script("correct_offset")


def demo_syncnet() -> None:
    run_script("demo_syncnet")


def filter_videos_by_sync_score() -> None:
    run_script("filter_videos_by_sync_score")


def run_pipeline() -> None:
    run_script("run_pipeline")


def run_syncnet() -> None:
    run_script("run_syncnet")


def run_visualise() -> None:
    run_script("run_visualise")


def score_video() -> None:
    run_script("score_video")


def download_models() -> None:
    cli.run(download.main)


def run_script(name: str) -> None:
    """Run the script of a top-level module and exit with its code."""
    cli.run(importlib.import_module(name).main)
