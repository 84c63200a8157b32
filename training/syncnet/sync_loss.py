"""Loss of the sync network's trainer, and the samples of its batches.

The score of a clip is the shift with the smallest mean L2 distance of its windows, so the logits are those distances:
sqrt(scale^2 |video - audio|^2 + floor^2), times a learned inverse temperature. Scale and floor are folded into the
saved weights (``calibrate.py``). Negatives are other times of the same clip, so neither the face nor the room can
reveal the answer (InfoNCE: van den Oord et al., 2018, section 2.3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from syncnet.defaults import VSHIFT
from training.syncnet import augment
from training.syncnet.clips import VERSIONS, WINDOW_FRAMES, Clip, mfcc, mfcc_windows
from training.syncnet.half_lip import HalfS

SPAN = 64  # windows of a clip in one step
UNCERTAIN, CONFIDENT = 1.5, 5.0  # confidences: below the first a clip has the least weight, from the second full weight
LARGEST_LAG = 10  # frames by which training shifts the audio
UNKNOWN_WEIGHT = 0.5
SMALLEST_WEIGHT = 0.1
AUDIO_TO_VIDEO_SHARE = 0.3
CONFIDENCE_SHARE = 0.5
MIN_DIST_SHARE = 0.075
SMALLEST_RATIO = 0.05
RATIO_RATE = 0.05  # update rate of the running ratio of confidences


class Distance(nn.Module):
    """Calibrated distance and the inverse temperatures of the two softmaxes.

    Args:
        scale: Initial factor on the distance of the features.
        floor: Initial constant of the distance.
        beyond: Initial constant of the distance to the zeros beyond the ends of the audio. It keeps them about as far
            away as the audio of a wrong time.
        window: Initial inverse temperature of the softmax of windows.
        clip: Initial inverse temperature of the softmax of shifts.
    """

    def __init__(
        self, scale: float = 0.2, floor: float = 4.0, beyond: float = 7.5, window: float = 2.0, clip: float = 12.0
    ) -> None:
        super().__init__()
        self.log_beyond = nn.Parameter(torch.tensor(math.log(beyond)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.log_floor = nn.Parameter(torch.tensor(math.log(floor)))
        self.log_window = nn.Parameter(torch.tensor(math.log(window)))
        self.log_clip = nn.Parameter(torch.tensor(math.log(clip)))
        self.register_buffer("ratio", torch.tensor(0.3))  # of this network's confidence to the published one

    @torch.no_grad()
    def follow(self, ours: torch.Tensor, published: torch.Tensor) -> None:
        """Move the running ratio of confidences towards that of a batch."""
        ratio = ours.sum() / published.sum()
        self.ratio.lerp_(ratio.clamp(min=SMALLEST_RATIO), RATIO_RATE)

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """Return the distances, ... x V x A, of ... x V x D and ... x A x D features."""
        square = (
            (video**2).sum(-1)[..., :, None] + (audio**2).sum(-1)[..., None, :] - 2 * video @ audio.transpose(-1, -2)
        )
        return (square.clamp(min=0) * (2 * self.log_scale).exp() + (2 * self.log_floor).exp()).sqrt()

    def to_silence(self, video: torch.Tensor) -> torch.Tensor:
        """Return the distances, ... x V, of ... x V x D features to the zeros beyond the ends of the audio."""
        return ((video**2).sum(-1) * (2 * self.log_scale).exp() + (2 * self.log_beyond).exp()).sqrt()

    def calibration(self) -> dict[str, float]:
        """Return scale, floor and beyond."""
        return {name: self.learned()[name] for name in ("scale", "floor", "beyond")}

    def learned(self) -> dict[str, float]:
        """Return scale, floor, beyond and the two inverse temperatures."""
        return {name.removeprefix("log_"): math.exp(value.item()) for name, value in self.named_parameters()}


@dataclass
class Sample:
    """Part of a batch that comes from one clip.

    Attributes:
        windows: V x 5 x 112 x 112, uint8.
        coefficients: MFCCs, span x 13 x 20.
        places: Number of the window of every row of ``windows``.
        lag: Video window i belongs to audio window i - lag.
        weight: Weight of the clip in the loss.
        confidence: Published confidence, or None.
        min_dist: Published min dist, or None.
    """

    windows: torch.Tensor
    coefficients: torch.Tensor
    places: torch.Tensor
    lag: int
    weight: float
    confidence: float | None
    min_dist: float | None


def clip_weight(clip: Clip) -> float:
    """Return how far the synchronisation of a clip is trusted, ``SMALLEST_WEIGHT`` to 1."""
    if clip.confidence is None:
        return clip.extra.get("weight", UNKNOWN_WEIGHT)
    return trust(clip.confidence)


def trust(confidence: float) -> float:
    """Return the weight of a clip with this confidence."""
    return float(np.clip((confidence - UNCERTAIN) / (CONFIDENT - UNCERTAIN), SMALLEST_WEIGHT, 1.0))


def draw_places(rng: np.random.Generator, span: int, count: int) -> np.ndarray:
    """Draw ``count`` sorted window numbers below ``span``: pairs of close neighbours, spread evenly."""
    pairs = count // 2
    gap = int(rng.integers(1, 4))
    room = max(1, span - gap)
    first = ((np.arange(pairs) + rng.random(pairs)) * room / pairs).astype(int).clip(0, room - 1)
    return np.sort(np.concatenate([first, np.minimum(first + gap, span - 1)]))


def draw_sample(
    rng: np.random.Generator, clip: Clip, others: Sequence[Clip], count: int, strength: float = 1.0
) -> Sample:
    """Draw augmented windows of one clip.

    The audio is shifted: otherwise the zeros beyond its ends, which only wrong shifts reach, would reveal the answer.

    Args:
        rng: Generator.
        clip: The clip.
        others: Clips to take background voices from.
        count: Number of video windows; the audio covers the whole span of at most ``SPAN`` windows.
        strength: Strength of the augmentation, see ``training.syncnet.augment``.
    """
    speed = augment.draw_speed(rng, strength)
    windows = int(clip.windows / speed)
    lag = int(rng.integers(-LARGEST_LAG, LARGEST_LAG + 1))
    span = min(windows - abs(lag), SPAN)
    start = int(rng.integers(0, windows - abs(lag) - span + 1)) + max(0, -lag)
    places = draw_places(rng, span, count)
    needed = np.unique(places[:, None] + np.arange(WINDOW_FRAMES))
    version = VERSIONS[int(rng.random() < 0.4)]
    # the middle of a frame's time stays its middle at any speed
    frames = augment.augment_frames(rng, clip.frames_at(version, (start + needed + 0.5) * speed - 0.5), strength)
    rows = np.searchsorted(needed, places[:, None] + np.arange(WINDOW_FRAMES))
    other = others[int(rng.integers(len(others)))].audio
    audio = augment.augment_audio(rng, clip.audio_for(start + lag, span, speed), other, strength)
    return Sample(
        windows=torch.from_numpy(frames[rows]),
        coefficients=torch.from_numpy(np.ascontiguousarray(mfcc_windows(mfcc(audio), span))),
        places=torch.from_numpy(places),
        lag=lag,
        weight=clip_weight(clip),
        confidence=clip.confidence,
        min_dist=clip.min_dist,
    )


def shift_curve(distances: torch.Tensor, to_silence: torch.Tensor, places: torch.Tensor, span: int) -> torch.Tensor:
    """Return the mean distance at shifts -15 to 15, as in scoring (audio outside the span is zero).

    Args:
        distances: V x A.
        to_silence: Distance of every video row to a zero feature, V.
        places: Window number of every video row, V.
        span: Number of audio windows, A.
    """
    columns = places[:, None] + torch.arange(-VSHIFT, VSHIFT + 1, device=places.device)
    inside = (columns >= 0) & (columns < span)
    picked = distances.gather(1, columns.clamp(0, span - 1))
    return torch.where(inside, picked, to_silence[:, None]).mean(0)


def sync_loss(
    net: HalfS, distance: Distance, samples: Sequence[Sample], *, smoothing: float = 0.05
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss of a batch and its parts.

    Args:
        net: The network.
        distance: Its distance.
        samples: The batch, on the network's device.
        smoothing: Target probability of each neighbour of the right shift.
    """
    video = net.forward_lip(torch.cat([s.windows for s in samples]))
    audio = net.forward_aud(torch.cat([s.coefficients for s in samples]))
    video = video.split([len(s.windows) for s in samples])
    audio = audio.split([len(s.coefficients) for s in samples])
    window, backward, clip, right, known = [], [], [], [], []
    total = sum(s.weight for s in samples)
    for sample, v, a in zip(samples, video, audio):
        d = distance(v, a)
        # the clip's means encode speaker and room: they barely change the curve but mask the differences of windows
        logits = -distance.log_window.exp() * distance(v - v.mean(0), a - a.mean(0))
        weight = sample.weight / total
        true = sample.places - sample.lag
        inside = (true >= 0) & (true < len(a))
        window.append(weight * functional.cross_entropy(logits[inside], true[inside]))
        rows = torch.arange(len(true), device=v.device)[inside]
        backward.append(weight * functional.cross_entropy(logits[:, true[inside]].T, rows))
        curve = shift_curve(d, distance.to_silence(v), sample.places, len(a))
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
        # match the order of the clips, not the scale
        parts["confidence"] = functional.smooth_l1_loss(ours / distance.ratio, published)
        parts["min_dist"] = functional.smooth_l1_loss(nearest, min_dist)
        loss = loss + CONFIDENCE_SHARE * parts["confidence"] + MIN_DIST_SHARE * parts["min_dist"]
    return loss, {name: float(value.detach()) for name, value in parts.items()} | {"right": float(sum(right))}
