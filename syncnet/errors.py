"""Errors that end a run with one line for the user instead of a traceback."""

import errno
import os

NO_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT)  # a full disk, or a user's full share of it
NO_SPACE_TEXTS = tuple(map(os.strerror, NO_SPACE_ERRORS))  # in the C library's words, which ffmpeg prints, too
MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")  # torch's, in a plain RuntimeError


class SyncNetError(Exception):
    """Something outside the program is wrong: names the file, what is wrong and what to do about it."""

    exit_code = 1


class UsageError(SyncNetError):
    """A flag has a value that cannot work."""

    exit_code = 2


class ToolError(SyncNetError):
    """ffmpeg or another thing that the suite stands on is missing or broke down."""


class DiskFullError(SyncNetError):
    """There is no room left for results."""


class MediaError(SyncNetError):
    """A media file is missing, damaged or not what the step needs.

    Args:
        message: the line for the user.
        code: one of the words of ``syncnet.reasons``, for programs; None where none fits.
    """

    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code


class WeightsError(SyncNetError):
    """A weights file is missing, damaged or of another network."""


def no_space(error):
    """Whether an ``OSError`` says that the disk is full; that of ``shutil`` on a folder has no number."""
    return error.errno in NO_SPACE_ERRORS or tells_no_space(str(error))


def tells_no_space(text):
    """Whether what a program printed says that the disk is full."""
    return any(words in text for words in NO_SPACE_TEXTS)


def out_of_memory(error):
    """Whether an error means that there was too little memory: torch has other words for it on every device."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in MEMORY_TEXTS)
