"""How far sound and picture of one face are apart: the numbers, without files and networks.

Chung & Zisserman, ACCV workshops 2016, sections 2.1 (input windows) and 3 (offset and confidence). LSE-D and LSE-C of
talking-head papers (Prajwal et al., "A Lip Sync Expert Is All You Need", ACM MM 2020, section 4.1) are min dist and
confidence.
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

# psf's defaults, named here because the sound is cut into pieces for it
PREEMPHASIS = 0.97
STEP_SAMPLES = SAMPLE_RATE // 100
MFCC_WINDOW_SAMPLES = SAMPLE_RATE // 40
MFCC_PIECE = 1500  # steps; a quarter of a minute at a time keeps ten minutes of sound out of memory
DISTANCE_PIECE = 250  # windows; likewise


@dataclass(frozen=True)
class SyncScore:
    """Score of one face track.

    Attributes:
        dists: windows x (2 * vshift + 1) array of distances; column k is shift ``vshift - k``.
        offset: frames by which the audio comes before the video.
        min_dist: mean distance at the offset (LSE-D).
        confidence: median of the mean distances less ``min_dist`` (LSE-C).
        video_frames: frames of picture.
        audio_frames: frames of sound.
    """

    dists: np.ndarray
    offset: int
    min_dist: float
    confidence: float
    video_frames: int
    audio_frames: int


class Rows:
    """Features of a clip, part by part; ``torch.cat`` would hold a long clip's twice.

    Args:
        limit: the most rows that will come.
    """

    def __init__(self, limit):
        self.limit, self.count, self.room = limit, 0, None

    def append(self, part):
        """Add an N x D tensor."""
        if self.room is None:
            self.room = part.new_empty(self.limit, *part.shape[1:])
        self.room[self.count : self.count + len(part)] = part
        self.count += len(part)

    def tensor(self):
        """All rows, N x D; the first part must have come."""
        return self.room[: self.count]


def mfcc(samples):
    """13 x T MFCCs of int16 samples at 16 kHz: ``python_speech_features.mfcc`` with its defaults, piece by piece."""
    pieces = []
    for start in range(0, max(1, steps(len(samples))), MFCC_PIECE):
        first = start * STEP_SAMPLES
        last = first + (MFCC_PIECE - 1) * STEP_SAMPLES + MFCC_WINDOW_SAMPLES
        before = min(first, 1)  # pre-emphasis looks back a sample
        emphasised = sigproc.preemphasis(samples[first - before : last], PREEMPHASIS)[before:]
        pieces.append(python_speech_features.mfcc(emphasised, SAMPLE_RATE, preemph=0.0))
    return np.concatenate(pieces).T


def steps(count):
    """How many MFCC steps ``count`` samples make."""
    return 1 + max(0, -(-(count - MFCC_WINDOW_SAMPLES) // STEP_SAMPLES))


def audio_windows(samples):
    """Every 0.2 s of sound that belongs to the five frames from frame i on.

    Returns:
        N x 1 x 13 x 20 float32 array.
    """
    coefficients = mfcc(samples).astype(np.float32)
    if coefficients.shape[1] < WINDOW_STEPS:
        return np.zeros((0, *AUDIO_WINDOW), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(coefficients, WINDOW_STEPS, axis=1)
    return windows[:, ::STEPS_PER_FRAME].transpose(1, 0, 2)[:, None].copy()


def window_count(video_frames, audio_frames):
    """How many windows are scored of a clip with so much picture and sound."""
    return max(0, min(video_frames, audio_frames) - WINDOW_FRAMES)


def audio_frames(samples):
    return len(samples) // SAMPLES_PER_FRAME


def distances(video, audio, *, vshift):
    """Distance of every video feature to the audio features up to ``vshift`` frames before and after.

    Args:
        video, audio: N x 1024 tensors.
        vshift: frames. Beyond both ends of the sound the features count as zero.

    Returns:
        N x (2 * vshift + 1) array, float32.
    """
    pieces = range(0, len(video), DISTANCE_PIECE)
    return torch.cat([_distances(video, audio, start, vshift) for start in pieces]).cpu().numpy()


def _distances(video, audio, start, vshift):
    """Those of the video features from ``start`` on."""
    piece = video[start : start + DISTANCE_PIECE]
    first, last = start - vshift, start + len(piece) + vshift
    heard = F.pad(audio[max(0, first) : last], (0, 0, max(0, -first), max(0, last - len(audio))))
    columns = [F.pairwise_distance(piece, heard[k : k + len(piece)]) for k in range(2 * vshift + 1)]
    return torch.stack(columns, dim=1)


def score(dists, *, video_frames, audio_frames):
    """The ``SyncScore`` of a clip's distances."""
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
