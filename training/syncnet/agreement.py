"""Projection of the embedding onto the directions in which the video and audio features agree.

Most of what the features of a stream contain is specific to that stream. It adds to every distance, right or wrong,
and makes min dist large compared with confidence. Canonical correlation analysis (Hotelling, "Relations between two
sets of variates", Biometrika 1936) finds the directions in which each stream best predicts the other; the remaining
directions are dropped.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from training.syncnet.clips import CLIPS_PER_PERSON, VERSIONS, Clip
from training.syncnet.evaluate import audio_features, video_features
from training.syncnet.half_lip import HalfS

SMALLEST_VARIANCE = 0.01  # relative to the largest one; a direction with less is discarded
POWER = 1  # of the correlation, as a direction's weight; a higher one lowers min dist but makes frames noisier
CLIP_WINDOWS = 60  # windows used, from the start of a clip


def canonical(video: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the canonical correlations of the features of two streams.

    Args:
        video: N x D video features with zero mean.
        audio: N x D audio features with zero mean.

    Returns:
        The D x K matrices to multiply the video and the audio features by, and the K correlations, largest first.
    """
    whiten_video, whiten_audio = whitening(video), whitening(audio)
    shared = whiten_video.T @ (video.T @ audio / len(video)) @ whiten_audio
    left, correlations, right = torch.linalg.svd(shared, full_matrices=False)
    return whiten_video @ left, whiten_audio @ right.T, correlations


def whitening(features: torch.Tensor) -> torch.Tensor:
    """Return the D x K matrix that turns N x D features into K uncorrelated features of variance 1."""
    variances, directions = torch.linalg.eigh(features.T @ features / len(features))
    kept = variances > SMALLEST_VARIANCE * variances.max()
    return directions[:, kept] * variances[kept].rsqrt()


@torch.no_grad()
def keep_agreement(net: HalfS, clips: Iterable[Clip], *, power: float = POWER) -> torch.Tensor:
    """Reduce a network to the directions in which its streams agree, weighted by their correlation.

    Both streams have the same mean afterwards.

    Args:
        net: Network in evaluation mode, changed in place.
        clips: Clips in sync, to measure the correlations on.
        power: Exponent of the correlation that weights a direction.

    Returns:
        The K canonical correlations, largest first.
    """
    pairs = [stream_features(net, clip) for clip in limit_per_person(clips)]
    # remove each clip's mean: identity and room are not synchronisation
    video, audio = (torch.cat([f - f.mean(0) for f in stream]).double() for stream in zip(*pairs))
    *matrices, correlations = canonical(video, audio)
    for head, stream, matrix in zip((net.fclip, net.fcaud), zip(*pairs), matrices):
        project(head, (matrix * correlations**power).float(), torch.cat(stream).mean(0))
    return correlations


def limit_per_person(clips: Iterable[Clip]) -> list[Clip]:
    """Return at most ``CLIPS_PER_PERSON`` clips of every person."""
    persons = defaultdict(list)
    for clip in clips:
        persons[clip.person].append(clip)
    return [clip for group in persons.values() for clip in group[:CLIPS_PER_PERSON]]


def stream_features(net: HalfS, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the video and audio features, N x D each, of the first windows of a clip."""
    count = min(clip.windows, CLIP_WINDOWS)
    video = video_features(net, clip.frames[VERSIONS[0]], count, "cpu")
    return video, audio_features(net, clip.audio, count, "cpu")


def project(head: nn.Sequential, matrix: torch.Tensor, mean: torch.Tensor) -> None:
    """Change a head in place to return ``(features - mean) @ matrix``.

    Args:
        head: Head of one stream, as in ``half_lip.centred_head``.
        matrix: D x K; the other D - K dimensions of the output become zero.
        mean: D values.
    """
    *_, linear, norm = head
    last = fuse_linear_bn_eval(copy.deepcopy(linear), copy.deepcopy(norm))
    linear.weight.zero_()
    linear.bias.zero_()
    linear.weight[: matrix.shape[1]] = matrix.T @ last.weight
    linear.bias[: matrix.shape[1]] = matrix.T @ (last.bias - mean)
    norm.reset_parameters()
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
