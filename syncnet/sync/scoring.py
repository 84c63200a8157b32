"""Offset and confidence of a face track: the computations, without files and networks.

Chung & Zisserman, ACCV workshops 2016, sections 2.1 (input windows) and 3 (offset and confidence). Min dist and
confidence are the metrics LSE-D and LSE-C of talking-head papers (Prajwal et al., "A Lip Sync Expert Is All You Need",
ACM MM 2020, section 4.1).
"""

from dataclasses import dataclass

import numpy as np
import python_speech_features
import torch
import torch.nn.functional as F
from python_speech_features import sigproc

from syncnet.constants import SAMPLE_RATE, SAMPLES_PER_FRAME, WINDOW_FRAMES
from SyncNetModel import AUDIO_WINDOW

WINDOW_STEPS = AUDIO_WINDOW[2]
STEPS_PER_FRAME = WINDOW_STEPS // WINDOW_FRAMES

# defaults of python_speech_features.mfcc, needed for computing it piece by piece
PREEMPHASIS = 0.97
STEP_SAMPLES = SAMPLE_RATE // 100
MFCC_WINDOW_SAMPLES = SAMPLE_RATE // 40
MFCC_PIECE = 1500  # steps, 15 s; limits memory use on long audio
DISTANCE_PIECE = 250  # windows; limits memory use on long clips


@dataclass(frozen=True)
class SyncScore:
    """Score of a face track.

    Attributes:
        dists: windows x (2 * vshift + 1) array of distances, float32; column k has the offset ``vshift - k``.
        offset: number of frames by which the audio is ahead of the video.
        min_dist: mean distance at the offset (LSE-D).
        confidence: median over shifts of the mean distance, minus ``min_dist`` (LSE-C).
        video_frames: length of the video, in frames.
        audio_frames: length of the audio, in frames.
    """

    dists: np.ndarray
    offset: int
    min_dist: float
    confidence: float
    video_frames: int
    audio_frames: int


class Rows:
    """Feature matrix that is filled batch by batch, without the second copy in memory that ``torch.cat`` makes.

    Args:
        limit: largest number of rows.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count, self.buffer = limit, 0, torch.empty(0)

    def append(self, part: torch.Tensor) -> None:
        """Append an N x D tensor."""
        if not self.count:
            self.buffer = part.new_empty(self.limit, *part.shape[1:])
        self.buffer[self.count : self.count + len(part)] = part
        self.count += len(part)

    def tensor(self) -> torch.Tensor:
        """Return all rows as an N x D tensor."""
        return self.buffer[: self.count]


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Compute MFCCs: ``python_speech_features.mfcc`` with its defaults, piece by piece.

    Args:
        samples: audio at 16 kHz, int16.

    Returns:
        13 x T array, float64, one column per 10 ms.
    """
    pieces = []
    for start in range(0, max(1, steps(len(samples))), MFCC_PIECE):
        first = start * STEP_SAMPLES
        last = first + (MFCC_PIECE - 1) * STEP_SAMPLES + MFCC_WINDOW_SAMPLES
        before = min(first, 1)  # pre-emphasis needs the previous sample
        emphasised = sigproc.preemphasis(samples[first - before : last], PREEMPHASIS)[before:]
        pieces.append(python_speech_features.mfcc(emphasised, SAMPLE_RATE, preemph=0.0))
    return np.concatenate(pieces).T


def steps(count: int) -> int:
    """Return the number of MFCC steps of ``count`` samples."""
    return 1 + max(0, -(-(count - MFCC_WINDOW_SAMPLES) // STEP_SAMPLES))


def audio_windows(samples: np.ndarray) -> np.ndarray:
    """Compute the audio inputs of SyncNet: window i has the MFCCs of the 0.2 s from the start of frame i.

    Args:
        samples: audio at 16 kHz, int16.

    Returns:
        N x 1 x 13 x 20 array, float32.
    """
    return mfcc_windows(mfcc(samples))


def audio_windows_within(samples: np.ndarray) -> np.ndarray:
    """Compute the audio inputs of SyncNet for a piece of longer audio, as ``audio_windows`` does for the whole.

    Args:
        samples: audio at 16 kHz, int16; the sample before the first window, and then those of N windows:
            1 + ``window_samples(N)``.

    Returns:
        N x 1 x 13 x 20 array, float32.
    """
    emphasised = sigproc.preemphasis(samples, PREEMPHASIS)[1:]
    return mfcc_windows(python_speech_features.mfcc(emphasised, SAMPLE_RATE, preemph=0.0).T)


def window_samples(count: int) -> int:
    """Return the number of samples that ``count`` consecutive audio windows need."""
    return ((count - 1) * STEPS_PER_FRAME + WINDOW_STEPS - 1) * STEP_SAMPLES + MFCC_WINDOW_SAMPLES


def mfcc_windows(coefficients: np.ndarray) -> np.ndarray:
    """Cut MFCCs, 13 x T, into SyncNet's windows, N x 1 x 13 x 20, float32."""
    coefficients = coefficients.astype(np.float32)
    if coefficients.shape[1] < WINDOW_STEPS:
        return np.zeros((0, *AUDIO_WINDOW), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(coefficients, WINDOW_STEPS, axis=1)
    return windows[:, ::STEPS_PER_FRAME].transpose(1, 0, 2)[:, None].copy()


def window_count(video_frames: int, audio_frames: int) -> int:
    """Return the number of windows that are scored in a clip.

    It is one less than the number of windows that fit: a quirk of the published suite, kept for comparability.
    """
    return max(0, min(video_frames, audio_frames) - WINDOW_FRAMES)


def audio_frames(samples: np.ndarray) -> int:
    """Return the length of audio samples, in frames."""
    return len(samples) // SAMPLES_PER_FRAME


def distances(video: torch.Tensor, audio: torch.Tensor, *, vshift: int) -> np.ndarray:
    """Compute the distance of every video feature to the audio features up to ``vshift`` frames before and after.

    Before the start and after the end of the audio, features are zero, as in the published suite.

    Args:
        video, audio: N x 1024 tensors.
        vshift: largest shift, in frames.

    Returns:
        N x (2 * vshift + 1) array, float32.
    """
    pieces = range(0, len(video), DISTANCE_PIECE)
    return torch.cat([_distances(video, audio, start, vshift) for start in pieces]).cpu().numpy()


def _distances(video: torch.Tensor, audio: torch.Tensor, start: int, vshift: int) -> torch.Tensor:
    """Compute the distances of ``DISTANCE_PIECE`` video features, beginning with ``start``."""
    piece = video[start : start + DISTANCE_PIECE]
    first, last = start - vshift, start + len(piece) + vshift
    padded = F.pad(audio[max(0, first) : last], (0, 0, max(0, -first), max(0, last - len(audio))))
    return shifted_distances(piece, padded)


def shifted_distances(video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    """Compute the distance of every video feature to the audio features around it.

    Args:
        video: N x 1024 features.
        audio: (N + 2 * vshift) x 1024 features; those of the time of the first video feature are in row vshift.

    Returns:
        N x (2 * vshift + 1) tensor.
    """
    columns = [F.pairwise_distance(video, audio[k : k + len(video)]) for k in range(len(audio) - len(video) + 1)]
    return torch.stack(columns, dim=1)


def score(dists: np.ndarray, *, video_frames: int, audio_frames: int) -> SyncScore:
    """Compute offset and confidence from distances (Chung & Zisserman 2016, section 3).

    Args:
        dists: windows x (2 * vshift + 1) array, from ``distances``.
        video_frames: length of the video, in frames.
        audio_frames: length of the audio, in frames.
    """
    mean = dists.mean(axis=0)
    best = int(mean.argmin())
    return SyncScore(
        dists=dists,
        offset=dists.shape[1] // 2 - best,
        min_dist=float(mean[best]),
        confidence=float(np.median(mean) - mean[best]),
        video_frames=video_frames,
        audio_frames=audio_frames,
    )
