"""What the trainer minimises, and the batches that it needs.

The score of a clip is the shift at which the mean L2 distance of its windows is smallest, so the logits are just
those distances: sqrt(scale^2 |video - audio|^2 + floor^2), times a learned temperature. Scale and floor are folded
into the saved weights (``calibrate.py``). Negatives are other times of the same clip, so neither the face nor
the room can give the answer away (InfoNCE: van den Oord et al., 2018, section 2.3).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from syncnet.defaults import VSHIFT
from training.syncnet import augment
from training.syncnet.clips import VERSIONS, WINDOW_FRAMES, mfcc, mfcc_windows

SPAN = 64  # windows of a clip looked at in one step
DOUBTFUL, CONFIDENT = 1.5, 5.0  # confidence from which a clip counts for more than the least, and fully
LARGEST_LAG = 10  # frames by which the sound is moved in training
UNKNOWN_WEIGHT = 0.5
SMALLEST_WEIGHT = 0.1
AUDIO_TO_VIDEO_SHARE = 0.3
CONFIDENCE_SHARE = 0.5
MIN_DIST_SHARE = 0.075
SMALLEST_RATIO = 0.05
RATIO_RATE = 0.05  # at which the running ratio of confidences follows


class Distance(nn.Module):
    """Calibrated distance and the inverse temperatures of the two softmaxes.

    ``beyond`` keeps the zeros that scoring puts beyond the ends of the sound about as far away as a wrong time is.
    """

    def __init__(self, scale=0.2, floor=4.0, beyond=7.5, window=2.0, clip=12.0):
        super().__init__()
        self.log_beyond = nn.Parameter(torch.tensor(math.log(beyond)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.log_floor = nn.Parameter(torch.tensor(math.log(floor)))
        self.log_window = nn.Parameter(torch.tensor(math.log(window)))
        self.log_clip = nn.Parameter(torch.tensor(math.log(clip)))
        self.register_buffer("ratio", torch.tensor(0.3))  # of our confidence to the published one

    @torch.no_grad()
    def follow(self, ours, published):
        """Move the running ratio towards that of a batch's confidences."""
        ratio = ours.sum() / published.sum()
        self.ratio.lerp_(ratio.clamp(min=SMALLEST_RATIO), RATIO_RATE)

    def forward(self, video, audio):
        """... x V x D and ... x A x D -> ... x V x A distances."""
        square = (
            (video**2).sum(-1)[..., :, None] + (audio**2).sum(-1)[..., None, :] - 2 * video @ audio.transpose(-1, -2)
        )
        return (square.clamp(min=0) * (2 * self.log_scale).exp() + (2 * self.log_floor).exp()).sqrt()

    def to_nothing(self, video):
        """... x V x D -> ... x V distances to the zeros beyond the ends of the sound."""
        return ((video**2).sum(-1) * (2 * self.log_scale).exp() + (2 * self.log_beyond).exp()).sqrt()

    def calibration(self):
        """Scale, floor and beyond as a dict of numbers."""
        return {name: self.learned()[name] for name in ("scale", "floor", "beyond")}

    def learned(self):
        """Scale, floor, beyond and the two inverse temperatures as a dict of numbers."""
        return {name.removeprefix("log_"): math.exp(value.item()) for name, value in self.named_parameters()}


@dataclass
class Sample:
    """One clip's part of a batch.

    ``places``: window of each video row; ``coefficients``: span x 13 x 20; ``lag``: the picture of window i belongs
    to the sound of window i - lag.
    """

    windows: torch.Tensor  # V x 5 x 112 x 112 uint8
    coefficients: torch.Tensor
    places: torch.Tensor
    lag: int
    weight: float
    confidence: float | None
    min_dist: float | None


def clip_weight(clip):
    """How far the synchronisation of a clip is to be trusted, SMALLEST_WEIGHT .. 1."""
    if clip.confidence is None:
        return clip.extra.get("weight", UNKNOWN_WEIGHT)
    return trust(clip.confidence)


def trust(confidence):
    """Weight of a clip that scores so."""
    return float(np.clip((confidence - DOUBTFUL) / (CONFIDENT - DOUBTFUL), SMALLEST_WEIGHT, 1.0))


def draw_places(rng, span, count):
    """``count`` window numbers below ``span``: neighbouring pairs, spread evenly over it."""
    pairs = count // 2
    gap = int(rng.integers(1, 4))
    room = max(1, span - gap)
    first = ((np.arange(pairs) + rng.random(pairs)) * room / pairs).astype(int).clip(0, room - 1)
    return np.sort(np.concatenate([first, np.minimum(first + gap, span - 1)]))


def draw_sample(rng, clip, others, count, strength=1.0):
    """Augmented windows of one clip: ``count`` of the picture, all of the sound in a span of at most ``SPAN``.

    ``strength`` of the augmentation is as in ``training.syncnet.augment``.

    The sound is moved, for otherwise the zeros beyond the ends, which only wrong shifts meet, would give the answer.
    """
    speed = augment.speed(rng, strength)
    windows = int(clip.windows / speed)
    lag = int(rng.integers(-LARGEST_LAG, LARGEST_LAG + 1))
    span = min(windows - abs(lag), SPAN)
    start = int(rng.integers(0, windows - abs(lag) - span + 1)) + max(0, -lag)
    places = draw_places(rng, span, count)
    needed = np.unique(places[:, None] + np.arange(WINDOW_FRAMES))
    version = VERSIONS[int(rng.random() < 0.4)]
    # the middle of a frame's time stays its middle, however fast the clip is played
    frames = augment.picture(rng, clip.pictures(version, (start + needed + 0.5) * speed - 0.5), strength)
    rows = np.searchsorted(needed, places[:, None] + np.arange(WINDOW_FRAMES))
    other = others[int(rng.integers(len(others)))].audio
    sound = augment.sound(rng, clip.sound(start + lag, span, speed), other, strength)
    return Sample(
        windows=torch.from_numpy(frames[rows]),
        coefficients=torch.from_numpy(np.ascontiguousarray(mfcc_windows(mfcc(sound), span))),
        places=torch.from_numpy(places),
        lag=lag,
        weight=clip_weight(clip),
        confidence=clip.confidence,
        min_dist=clip.min_dist,
    )


def shift_curve(distances, to_nothing, places, span):
    """V x A distances -> mean distance at shifts -15 .. 15 as scoring has it (sound outside the span is zero).

    ``to_nothing``: distance of every video row to a zero feature.
    """
    columns = places[:, None] + torch.arange(-VSHIFT, VSHIFT + 1, device=places.device)
    inside = (columns >= 0) & (columns < span)
    picked = distances.gather(1, columns.clamp(0, span - 1))
    return torch.where(inside, picked, to_nothing[:, None]).mean(0)


def sync_loss(net, distance, samples, *, smoothing=0.05):
    """(loss, dict of its parts) of a batch of samples on the network's device."""
    video = net.forward_lip(torch.cat([s.windows for s in samples]))
    audio = net.forward_aud(torch.cat([s.coefficients for s in samples]))
    video = video.split([len(s.windows) for s in samples])
    audio = audio.split([len(s.coefficients) for s in samples])
    window, backward, clip, right, known = [], [], [], [], []
    total = sum(s.weight for s in samples)
    for sample, v, a in zip(samples, video, audio):
        d = distance(v, a)
        # the clip's means say who speaks where; they hardly touch the curve, but they hide the differences of windows
        logits = -distance.log_window.exp() * distance(v - v.mean(0), a - a.mean(0))
        weight = sample.weight / total
        true = sample.places - sample.lag
        heard = (true >= 0) & (true < len(a))
        window.append(weight * functional.cross_entropy(logits[heard], true[heard]))
        rows = torch.arange(len(true), device=v.device)[heard]
        backward.append(weight * functional.cross_entropy(logits[:, true[heard]].T, rows))
        curve = shift_curve(d, distance.to_nothing(v), sample.places, len(a))
        answer = VSHIFT - sample.lag
        target = torch.zeros_like(curve)
        target[answer - 1 : answer + 2] = target.new_tensor([smoothing, 1 - 2 * smoothing, smoothing])
        scores = -distance.log_clip.exp() * curve
        clip.append(weight * functional.cross_entropy(scores[None], target[None]))
        right.append(weight * (curve.detach().argmin() == answer).float())
        if sample.confidence is not None:
            known.append((curve.median() - curve[answer], curve[answer], sample.confidence, sample.min_dist))
    parts = {"window": sum(window), "backward": sum(backward), "clip": sum(clip)}
    loss = parts["window"] + AUDIO_TO_VIDEO_SHARE * parts["backward"] + parts["clip"]
    if known:
        ours, nearest, published, min_dist = (torch.stack([torch.as_tensor(v) for v in c]).float() for c in zip(*known))
        published, min_dist = published.to(ours.device), min_dist.to(ours.device)
        distance.follow(ours, published)
        # the order of clips is to be the published one; the scale may be another
        parts["confidence"] = functional.smooth_l1_loss(ours / distance.ratio, published)
        parts["min_dist"] = functional.smooth_l1_loss(nearest, min_dist)
        loss = loss + CONFIDENCE_SHARE * parts["confidence"] + MIN_DIST_SHARE * parts["min_dist"]
    return loss, {name: float(value.detach()) for name, value in parts.items()} | {"right": float(sum(right))}
