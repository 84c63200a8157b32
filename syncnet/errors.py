"""Errors that end a run with a one-line message instead of a traceback."""

from __future__ import annotations

import errno
import os

NO_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT)  # disk full, quota exceeded
NO_SPACE_TEXTS = tuple(map(os.strerror, NO_SPACE_ERRORS))  # the C library's texts, which ffmpeg prints too
MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")  # in torch's RuntimeErrors


class SyncNetError(Exception):
    """An error whose message names the file, what is wrong and what to do.

    Attributes:
        exit_code: exit code of the script.
    """

    exit_code = 1


class UsageError(SyncNetError):
    """An invalid value of a flag."""

    exit_code = 2


class ToolError(SyncNetError):
    """A missing or failing dependency, such as ffmpeg, or a worker process that failed."""


class DiskFullError(SyncNetError):
    """A full disk."""


class MediaError(SyncNetError):
    """A media file that is missing, damaged or unsuitable for the step.

    Args:
        message: text for the user.
        code: reason code from ``syncnet.reasons``; None if none applies.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class WeightsError(SyncNetError):
    """A weights file that is missing, damaged or of another network."""


def no_space(error: OSError) -> bool:
    """Return True if an ``OSError`` means that the disk is full.

    The text is checked too, because ``shutil.Error`` on a folder has no errno.
    """
    return error.errno in NO_SPACE_ERRORS or reports_no_space(str(error))


def reports_no_space(text: str) -> bool:
    """Return True if the output of a program contains an error message about a full disk."""
    return any(words in text for words in NO_SPACE_TEXTS)


def out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that memory ran out; torch's message differs between devices."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in MEMORY_TEXTS)
