"""The directions of the embedding in which picture and sound agree.

Most of what the two streams' features hold is of one stream alone. It is in every distance, right or wrong, and makes
min dist large beside confidence. Canonical correlations (Hotelling, "Relations between two sets of variates",
Biometrika 1936) are the directions in which one stream tells most of the other; the others are left out.
"""

import copy
from collections import defaultdict

import torch
from torch.nn.utils.fusion import fuse_linear_bn_eval

from training.syncnet.clips import CLIPS_PER_PERSON, VERSIONS
from training.syncnet.evaluate import audio_features, video_features

SMALLEST_VARIANCE = 0.01  # of the largest one: a direction with less says nothing
POWER = 1  # of a direction's correlation, which is its weight: more makes min dist smaller, and single frames unsteady
CLIP_WINDOWS = 60  # of a clip's beginning


def canonical(video, audio):
    """Canonical correlations of two streams' features without their means.

    Args:
        video, audio: N x D.

    Returns:
        D x K and D x K matrices that the features are to be multiplied by, and the K correlations, largest first.
    """
    whiten_video, whiten_audio = whitening(video), whitening(audio)
    shared = whiten_video.T @ (video.T @ audio / len(video)) @ whiten_audio
    left, correlations, right = torch.linalg.svd(shared, full_matrices=False)
    return whiten_video @ left, whiten_audio @ right.T, correlations


def whitening(features):
    """N x D features -> D x K matrix to K uncorrelated features of variance 1."""
    variances, directions = torch.linalg.eigh(features.T @ features / len(features))
    kept = variances > SMALLEST_VARIANCE * variances.max()
    return directions[:, kept] * variances[kept].rsqrt()


@torch.no_grad()
def keep_agreement(net, clips, *, power=POWER):
    """Leave to a ``HalfS`` what its streams agree in, weighted by how far they do; their means become the same.

    Args:
        net: changed in place, in evaluation mode.
        clips: list of ``Clip`` to find that on, in step.

    Returns:
        The correlations, largest first.
    """
    pairs = [stream_features(net, clip) for clip in few_of_each(clips)]
    # within a clip: who it is, and in which room, are no agreement in time
    video, audio = (torch.cat([f - f.mean(0) for f in stream]).double() for stream in zip(*pairs))
    *matrices, correlations = canonical(video, audio)
    for head, stream, matrix in zip((net.fclip, net.fcaud), zip(*pairs), matrices):
        project(head, (matrix * correlations**power).float(), torch.cat(stream).mean(0))
    return correlations


def few_of_each(clips):
    """At most ``CLIPS_PER_PERSON`` clips of every person."""
    persons = defaultdict(list)
    for clip in clips:
        persons[clip.person].append(clip)
    return [clip for group in persons.values() for clip in group[:CLIPS_PER_PERSON]]


def stream_features(net, clip):
    """Video and audio features of a clip's first windows."""
    count = min(clip.windows, CLIP_WINDOWS)
    video = video_features(net, clip.frames[VERSIONS[0]], count, "cpu")
    return video, audio_features(net, clip.audio, count, "cpu")


def project(head, matrix, mean):
    """Have a head give the features less a mean, times a D x K matrix; the other D - K dimensions are zero."""
    *_, linear, norm = head
    last = fuse_linear_bn_eval(copy.deepcopy(linear), copy.deepcopy(norm))
    linear.weight.zero_()
    linear.bias.zero_()
    linear.weight[: matrix.shape[1]] = matrix.T @ last.weight
    linear.bias[: matrix.shape[1]] = matrix.T @ (last.bias - mean)
    norm.reset_parameters()
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
