"""A synthetic voice of known articulation: audio and mouth movements come from the same curves.

Source-filter synthesis (Fant, "Acoustic Theory of Speech Production", 1960; vowel formants after Peterson and Barney,
1952): a train of glottal pulses and noise is shaped by formants that glide from phone to phone. Phones are drawn at
random into syllables, phrases and pauses; no language is spoken. Every curve has 1000 values per second on one clock
and is smoothed with symmetric windows only. Lip movements precede the audio a little (Schwartz and Savariaux, PLoS
Computational Biology 2014), so recordings that count as synchronous have that lead, and so do the rendered ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from syncnet.constants import FRAME_RATE, SAMPLE_RATE

CONTROL_RATE = 1000  # values per second of every curve
HOP = SAMPLE_RATE // 200
WINDOW = 4 * HOP
FFT_SIZE = 1024
PEAK = 0.5  # loudest sample of a clip, relative to full scale
VISUAL_LEAD = 0.012  # seconds, a third of a frame; SyncNet, trained on real people, calls this offset 0
SHUTTER = 0.5  # middle share of a frame's time that the curves are averaged over


class Articulation(NamedTuple):
    """Position of the mouth at one moment, or in one frame.

    Attributes:
        jaw: 0 (shut) to 1 (wide open).
        width: -1 (rounded) to 1 (spread).
        closure: 0 to 1 (lips pressed together, whatever the jaw does).
        tongue: 0 (low) to 1 (behind the teeth).
    """

    jaw: float = 0.0
    width: float = 0.0
    closure: float = 0.0
    tongue: float = 0.0

    @property
    def opening(self) -> float:
        """Distance of the lips, 0 to 1."""
        return self.jaw * (1.0 - self.closure)


class Speech(NamedTuple):
    """Audio and the mouth movements that belong to it.

    Attributes:
        audio: int16 mono samples at ``SAMPLE_RATE``.
        articulation: frames x 4, float32, with the columns of ``Articulation``.
    """

    audio: np.ndarray
    articulation: np.ndarray


@dataclass(frozen=True)
class Voice:
    """A speaker's voice.

    Attributes:
        pitch: In Hz.
        formant_scale: 1 for the average man; longer vocal tracts have less.
        rate: Syllables per second.
        breath: Share of noise in voiced sounds.
        effort: How far the mouth opens.
    """

    pitch: float = 120.0
    formant_scale: float = 1.0
    rate: float = 4.5
    breath: float = 0.03
    effort: float = 1.0

    @classmethod
    def random(cls, rng: np.random.Generator, *, feminine: bool | None = None) -> Voice:
        """Draw a voice; ``feminine`` None draws that too."""
        feminine = bool(rng.random() < 0.5) if feminine is None else feminine
        pitch = rng.uniform(165, 250) if feminine else rng.uniform(85, 150)
        scale = rng.uniform(1.1, 1.22) if feminine else rng.uniform(0.93, 1.07)
        return cls(pitch, scale, rng.uniform(3.4, 5.8), rng.uniform(0.01, 0.08), rng.uniform(0.75, 1.1))


class Phone(NamedTuple):
    """Target of the articulators and the acoustic source for one phone; positions as in ``Articulation``."""

    jaw: float
    width: float
    closure: float
    tongue: float
    formants: tuple  # Hz of the first three; () glides between the neighbours
    voice: float  # level of the glottal source
    noise: float = 0.0  # level of the frication
    centre: float = 4000.0  # Hz of the frication's peak
    spread: float = 0.35  # width of the frication's peak, natural logarithm of frequency
    breath: float = 0.0  # level of noise through the formants
    seconds: float = 0.1


VOWELS = {
    "a": Phone(1.00, 0.10, 0, 0.0, (730, 1090, 2440), 1.0),
    "ae": Phone(0.85, 0.45, 0, 0.1, (660, 1720, 2410), 1.0),
    "e": Phone(0.60, 0.55, 0, 0.3, (530, 1840, 2480), 0.95),
    "i": Phone(0.28, 0.90, 0, 0.6, (270, 2290, 3010), 0.85),
    "er": Phone(0.42, -0.15, 0, 0.4, (490, 1350, 1690), 0.9),
    "uh": Phone(0.65, 0.05, 0, 0.1, (640, 1190, 2390), 0.95),
    "o": Phone(0.62, -0.65, 0, 0.0, (570, 840, 2410), 0.95),
    "u": Phone(0.26, -1.00, 0, 0.1, (300, 870, 2240), 0.85),
}
CONSONANTS = {  # phones in sequence: stops are a closure and a burst
    "m": [Phone(0.10, 0.0, 1.0, 0.1, (250, 1000, 2200), 0.32, seconds=0.085)],
    "b": [
        Phone(0.10, 0.0, 1.0, 0.1, (200, 800, 2200), 0.10, seconds=0.075),
        Phone(0.25, 0.0, 0.3, 0.1, (), 0.3, 0.25, 900, 0.8, seconds=0.015),
    ],
    "p": [
        Phone(0.10, 0.0, 1.0, 0.1, (), 0.0, seconds=0.09),
        Phone(0.30, 0.0, 0.2, 0.1, (), 0.0, 0.4, 1000, 0.8, breath=0.3, seconds=0.03),
    ],
    "f": [Phone(0.12, 0.2, 0.75, 0.1, (), 0.0, 0.22, 5000, 0.9, seconds=0.10)],
    "v": [Phone(0.12, 0.2, 0.75, 0.1, (250, 1100, 2200), 0.35, 0.08, 5000, 0.9, seconds=0.07)],
    "s": [Phone(0.14, 0.35, 0, 0.9, (), 0.0, 0.50, 5800, 0.2, seconds=0.11)],
    "sh": [Phone(0.18, -0.6, 0, 0.7, (), 0.0, 0.50, 3000, 0.3, seconds=0.11)],
    "z": [Phone(0.14, 0.3, 0, 0.9, (280, 1700, 2500), 0.35, 0.3, 5500, 0.25, seconds=0.08)],
    "t": [
        Phone(0.16, 0.2, 0, 1.0, (), 0.0, seconds=0.05),
        Phone(0.25, 0.2, 0, 0.7, (), 0.0, 0.5, 4200, 0.4, breath=0.2, seconds=0.025),
    ],
    "d": [
        Phone(0.18, 0.2, 0, 1.0, (240, 1700, 2600), 0.12, seconds=0.045),
        Phone(0.25, 0.2, 0, 0.7, (), 0.4, 0.3, 3600, 0.4, seconds=0.012),
    ],
    "k": [
        Phone(0.30, 0.0, 0, 0.2, (), 0.0, seconds=0.055),
        Phone(0.35, 0.0, 0, 0.2, (), 0.0, 0.4, 1900, 0.3, breath=0.3, seconds=0.03),
    ],
    "n": [Phone(0.20, 0.15, 0, 1.0, (250, 1500, 2500), 0.35, seconds=0.07)],
    "l": [Phone(0.30, 0.10, 0, 1.0, (360, 1300, 2700), 0.6, seconds=0.07)],
    "r": [Phone(0.24, -0.45, 0, 0.5, (330, 1150, 1550), 0.6, seconds=0.07)],
    "w": [Phone(0.12, -1.0, 0.15, 0.1, (290, 650, 2200), 0.5, seconds=0.08)],
    "y": [Phone(0.18, 0.70, 0, 0.6, (260, 2200, 3000), 0.6, seconds=0.06)],
    "h": [Phone(0.50, 0.0, 0, 0.1, (), 0.0, breath=0.5, seconds=0.06)],
}
ONSET_WEIGHTS = {"m": 3, "b": 3, "p": 3}  # others 1; lip closures are what the eye can distinguish
HIGH_FORMANTS = (3500.0, 4500.0, 5500.0, 6500.0, 7500.0, 8500.0)  # Hz, those of a uniform tube
HIGHER_FORMANTS = range(9500, 40000, 1000)
BANDWIDTHS = (70.0, 90.0, 130.0, 200.0, 280.0, 380.0, 480.0, 600.0, 700.0)
# smoothing windows in seconds: the jaw is slower than the lips; larynx and tongue are faster than both
SMOOTHING = {"jaw": 0.10, "width": 0.11, "closure": 0.05, "tongue": 0.06, "formants": 0.05, "level": 0.018}


def speak(
    seconds: float,
    *,
    seed: int,
    voice: Voice | None = None,
    pause: tuple[float, float] = (0.25, 0.8),
    frame_rate: int = FRAME_RATE,
) -> Speech:
    """Synthesise random speech.

    The same arguments give the same samples.

    Args:
        seconds: Length; there are round(seconds * frame_rate) frames and frames * SAMPLE_RATE / frame_rate samples.
        seed: Seed.
        voice: The voice; None draws one.
        pause: Shortest and longest pause between phrases, in seconds.
        frame_rate: Frames per second of the articulation.

    Raises:
        ValueError: ``seconds`` is not positive.
    """
    if seconds <= 0:
        raise ValueError(f"seconds={seconds}: speech needs a positive duration")
    rng = np.random.default_rng(seed)
    voice = voice or Voice.random(rng)
    frames = max(1, round(seconds * frame_rate))
    samples = frames * SAMPLE_RATE // frame_rate
    curves = _curves(_phones(seconds, voice, pause, rng), samples * CONTROL_RATE // SAMPLE_RATE, voice, rng)
    audio = _synthesise(curves, samples, voice, rng)
    articulation = np.stack([_per_frame(curves[name], frames, frame_rate) for name in Articulation._fields], axis=1)
    return Speech(np.round(audio * 32767).astype(np.int16), articulation.astype(np.float32))


def _phones(seconds, voice, pause, rng):
    """Return phones that fill ``seconds``, as (phone, seconds, level, pitch factor)."""
    onsets = list(CONSONANTS)
    weights = np.array([ONSET_WEIGHTS.get(name, 1) for name in onsets], dtype=float)
    weights /= weights.sum()
    vowels = list(VOWELS)
    rest = Phone(0.0, 0.0, 0.0, 0.1, (), 0.0)
    line, length = [(rest, rng.uniform(0.08, 0.3), 0.0, 1.0)], 0.0
    while length < seconds + 0.5:
        syllables = int(rng.integers(3, 10))
        tune = rng.uniform(1.05, 1.2)
        for index in range(syllables):
            stress = rng.uniform(0.6, 1.0)
            bend = tune - 0.25 * index / syllables + 0.12 * (stress - 0.8)
            beat = rng.uniform(0.75, 1.3) / voice.rate
            if rng.random() < 0.92:
                for phone in CONSONANTS[onsets[rng.choice(len(onsets), p=weights)]]:
                    line.append((phone, phone.seconds * rng.uniform(0.9, 1.3), stress, bend))
            vowel = VOWELS[vowels[rng.integers(len(vowels))]]
            line.append((vowel._replace(jaw=vowel.jaw * (0.55 + 0.45 * stress)), max(0.08, beat - 0.08), stress, bend))
            if rng.random() < 0.25:
                coda = CONSONANTS[("n", "s", "m", "l")[rng.integers(4)]][0]
                line.append((coda, coda.seconds, 0.8 * stress, bend))
        line.append((rest, rng.uniform(*pause), 0.0, 1.0))
        length = sum(entry[1] for entry in line)
    return line


def _curves(line, steps, voice, rng):
    """Return every control curve of the phones, ``steps`` float64 values each; "formants" is 9 x steps, in Hz."""
    ends = np.minimum(np.round(np.cumsum([entry[1] for entry in line]) * CONTROL_RATE).astype(int), steps)
    index = np.searchsorted(ends, np.arange(steps), side="right").clip(max=len(line) - 1)

    def curve(values, window):
        return _smooth(np.asarray(values, dtype=float)[index], window)

    phones = [entry[0] for entry in line]
    curves = {name: curve([getattr(phone, name) for phone in phones], SMOOTHING[name]) for name in Articulation._fields}
    curves["jaw"] = curves["jaw"] * voice.effort
    known = [i for i, phone in enumerate(phones) if phone.formants]
    scale = voice.formant_scale
    formants = [
        curve(
            np.interp(np.arange(len(phones)), known, [phones[i].formants[k] for i in known]) * scale,
            SMOOTHING["formants"],
        )
        for k in range(3)
    ]
    curves["formants"] = np.stack([*formants, *(np.full(steps, hz * scale) for hz in HIGH_FORMANTS)])
    levels = np.array([entry[2] for entry in line])
    # an open mouth radiates more, so the level follows the lips that are drawn
    opening = np.clip(curves["jaw"] * (1.0 - curves["closure"]), 0.0, 1.0)
    for name in ("voice", "noise", "breath"):
        curves[name] = curve([getattr(phone, name) for phone in phones] * levels, SMOOTHING["level"])
    curves["voice"] = curves["voice"] * (0.35 + 0.65 * opening)
    curves["centre"] = curve([phone.centre for phone in phones], SMOOTHING["level"])
    curves["spread"] = curve([phone.spread for phone in phones], SMOOTHING["level"])
    time = np.arange(steps) / CONTROL_RATE
    vibrato = 1.0 + 0.012 * np.sin(2 * np.pi * rng.uniform(4.5, 6.0) * time + rng.uniform(0, 6))
    drift = 1.0 + 0.02 * _smooth(rng.standard_normal(steps) * 8.0, 0.25)
    curves["pitch"] = voice.pitch * curve([entry[3] for entry in line], 0.15) * vibrato * drift
    return curves


def _synthesise(curves, samples, voice, rng):
    """Return the waveform of the curves, ``samples`` float64 values, with its peak at ``PEAK``."""
    clock = np.arange(samples) * (CONTROL_RATE / SAMPLE_RATE)

    def at_samples(values):
        return np.interp(clock, np.arange(len(values)) + 0.5, values)

    source = _pulses(at_samples(curves["pitch"]), rng) * at_samples(curves["voice"])
    white = rng.standard_normal(samples)
    source += white * at_samples(curves["breath"] * 0.15 + voice.breath * curves["voice"])
    hops = samples // HOP + WINDOW // HOP + 1
    centres = (np.arange(hops) * HOP - WINDOW / 2) * (CONTROL_RATE / SAMPLE_RATE)  # centres of the blocks of _filter
    picks = np.clip(centres.astype(int), 0, len(curves["jaw"]) - 1)
    frequency = np.fft.rfftfreq(FFT_SIZE, 1.0 / SAMPLE_RATE)[None]
    tract = (frequency + 60.0) / (1.0 + (frequency / 330.0) ** 1.75) / 60.0  # radiation and glottal slope
    for formant in HIGHER_FORMANTS:  # Fant's correction for the higher resonances
        tract = tract / (1.0 - (frequency / (formant * voice.formant_scale)) ** 2)
    for formant, bandwidth in zip(curves["formants"][:, picks], BANDWIDTHS):
        ratio = frequency / formant[:, None]
        tract = tract / np.sqrt((1.0 - ratio**2) ** 2 + (ratio * bandwidth / formant[:, None]) ** 2)
    audio = _filter(source, tract)
    logs = np.log((frequency + 1.0) / curves["centre"][picks, None]) / curves["spread"][picks, None]
    audio += _filter(white * at_samples(curves["noise"]) * 0.7, np.exp(-0.5 * logs**2))
    room = rng.standard_normal(samples) * 10 ** rng.uniform(-3.6, -2.8)
    audio = audio / max(np.abs(audio).max(), 1e-9) * PEAK + room * PEAK * 0.5
    return np.clip(audio, -1.0, 1.0)


def _pulses(pitch, rng):
    """Return glottal pulses, one per period of ``pitch`` (samples, in Hz), with a little jitter and shimmer."""
    phase = np.cumsum(pitch / SAMPLE_RATE)
    count = int(phase[-1])
    if count < 1:
        return np.zeros_like(pitch)
    marks = np.arange(1, count + 1) + rng.normal(0, 0.008, count)
    places = np.interp(np.clip(marks, phase[0], phase[-1]), phase, np.arange(len(phase)))
    whole = np.minimum(places.astype(int), len(pitch) - 2)
    part = places - whole
    # keep the energy per second independent of the pitch
    height = (1.0 + rng.normal(0, 0.03, count)) * np.sqrt(SAMPLE_RATE / pitch[whole])
    train = np.zeros_like(pitch)
    np.add.at(train, whole, (1.0 - part) * height)
    np.add.at(train, whole + 1, part * height)
    return train


def _filter(signal, response):
    """Filter a signal with a magnitude response per hop, hops x (FFT_SIZE / 2 + 1), by overlap-add without delay."""
    hops = len(response)
    padded = np.zeros(hops * HOP + FFT_SIZE + WINDOW)
    padded[WINDOW : WINDOW + len(signal)] = signal
    window = np.hanning(WINDOW + 1)[:-1] * (2.0 * HOP / WINDOW)
    blocks = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:hops] * window
    shaped = np.fft.irfft(np.fft.rfft(blocks, FFT_SIZE) * response, FFT_SIZE)
    # zero phase: the response before a block's start wraps to the end of its transform
    shaped = np.roll(shaped, (FFT_SIZE - WINDOW) // 2, axis=1)
    out = np.zeros(hops * HOP + 2 * FFT_SIZE)
    for index in range(hops):
        out[index * HOP : index * HOP + FFT_SIZE] += shaped[index]
    start = WINDOW + (FFT_SIZE - WINDOW) // 2
    return out[start : start + len(signal)]


def _smooth(values, seconds):
    """Return a weighted moving average with a symmetric Hann window; the end values are repeated beyond the ends."""
    taps = max(1, round(seconds * CONTROL_RATE)) | 1
    window = np.hanning(taps + 2)[1:-1]
    padded = np.pad(values, taps // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _per_frame(values, frames, frame_rate):
    """Return the mean of a curve over the middle of every frame's time, ``VISUAL_LEAD`` later."""
    step = CONTROL_RATE / frame_rate
    total = np.concatenate([[0.0], np.cumsum(values)])
    grid = np.arange(len(total))
    first = (np.arange(frames) + (1 - SHUTTER) / 2) * step + VISUAL_LEAD * CONTROL_RATE
    first = np.minimum(first, len(values) - 1)
    last = np.minimum(first + SHUTTER * step, len(values))
    return (np.interp(last, grid, total) - np.interp(first, grid, total)) / np.maximum(last - first, 1e-9)
