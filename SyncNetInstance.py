"""SyncNet on clips of a face: offset, confidence and distances, or features.

    from SyncNetInstance import SyncNetInstance

    net = SyncNetInstance()
    net.loadParameters("data/syncnet_v2.model")
    score = net.score("pycrop/me/00000.avi", folder=Path("/tmp/me"))
    print(score.offset, score.confidence, score.min_dist)

``evaluate`` and ``extract_feature`` are the interface of the published suite.
"""

import contextlib
import functools
import hashlib
import itertools
import logging
import time
from argparse import Namespace
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from syncnet import reasons
from syncnet.constants import FRAME_RATE, MIN_FRAMES, WINDOW_FRAMES
from syncnet.defaults import BATCH_SIZE, FLOAT32, VSHIFT
from syncnet.errors import MediaError, WeightsError
from syncnet.media import conversions
from syncnet.media.containers import check_streams, chosen_sound, frame_rate
from syncnet.media.ffmpeg import reading_output_of
from syncnet.media.frames import batches, decode_frames, growing_files, read_ahead, read_frame
from syncnet.models.devices import check_precision, in_parallel, select_device
from syncnet.models.fast import FastSyncNet
from syncnet.models.weights import Weights, load_syncnet
from syncnet.results.layout import check_input, check_unicode, clear_scratch, frame_files, scratch_audio, scratch_folder
from syncnet.sync import scoring
from syncnet.sync.framewise import window_confidence
from SyncNetModel import LIP_WINDOW

logger = logging.getLogger("syncnet")

RATE_TOLERANCE = 0.05  # frames per second
FRAME_SHAPE = (*LIP_WINDOW[2:], LIP_WINDOW[0])
PRINTED_CONFIDENCE = "{: 0.3f}"


@dataclass
class Clip:
    """A clip that is being scored.

    Attributes:
        path: path of the clip.
        face_crops, audio, audio_stream: as in ``SyncNetInstance.score``.
        samples: audio at 16 kHz, int16.
        video_frames: length of the video, in frames.
        audio_frames: length of the audio, in frames.
        features: video features so far, N x 1024.
        started: time at which the audio was available, from ``time.perf_counter()``.
        error: why the clip cannot be scored.
    """

    path: Path
    face_crops: bool = False
    audio: Path | None = None
    audio_stream: int | None = None
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    video_frames: int = 0
    audio_frames: int = 0
    features: scoring.Rows = field(default_factory=lambda: scoring.Rows(0))
    started: float = 0.0
    error: MediaError | None = None

    def set_audio(self, samples: np.ndarray) -> None:
        """Set the audio and everything that depends on it."""
        self.samples, self.audio_frames, self.started = samples, scoring.audio_frames(samples), time.perf_counter()
        self.features = scoring.Rows(self.audio_frames)


class SyncNetInstance:
    """SyncNet on a device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` or a torch device.
        precision: one of ``defaults.PRECISIONS``; published numbers are float32.

    Attributes:
        device: torch device that runs the network.
        precision: that of the network.
        net: the network; None before ``loadParameters``.
        weights: ``Weights`` that ``loadParameters`` loaded.
    """

    def __init__(self, device: str | torch.device = "auto", *, precision: str = FLOAT32) -> None:
        self.device: torch.device = select_device(str(device))
        self.precision = check_precision(precision, self.device)
        self.net: FastSyncNet | None = None
        self.weights: Weights | None = None
        self._last_audio: tuple[tuple[int, bytes], torch.Tensor] | None = None

    def loadParameters(self, path: str | Path | None = None) -> None:
        """Load weights of any width.

        Args:
            path: weights file; None for the published weights or, if these are missing, the starter weights.

        Raises:
            WeightsError: the file is missing, damaged or not of SyncNet.
        """
        net, self.weights = load_syncnet(path)
        self.net = FastSyncNet(net, self.device, precision=self.precision)
        self._last_audio = None

    def _loaded(self) -> FastSyncNet:
        if self.net is None:
            raise WeightsError("SyncNetInstance: no weights loaded: call loadParameters() first")
        return self.net

    def evaluate(self, opt: Namespace | SimpleNamespace, videofile: str | Path) -> tuple[int, float, np.ndarray]:
        """Score a clip and print the result.

        Args:
            opt: has the attributes ``tmp_dir``, ``reference``, ``batch_size`` and ``vshift``.
            videofile: path of a 224x224 clip of a face with audio.

        Returns:
            Offset in frames; confidence; distances, windows x (2 * vshift + 1) array.
        """
        folder = scratch_folder(opt.tmp_dir, opt.reference)
        score = self.score(videofile, folder=folder, batch_size=opt.batch_size, vshift=opt.vshift)
        return score.offset, score.confidence, score.dists

    def score(
        self,
        videofile: str | Path,
        *,
        folder: Path,
        batch_size: int = BATCH_SIZE,
        vshift: int = VSHIFT,
        face_crops: bool = False,
        audio: Path | None = None,
        audio_stream: int | None = None,
        print_line: Callable[[str], object] = print,
    ) -> scoring.SyncScore:
        """Score a clip.

        Args:
            videofile: path of a clip of a face, 224x224 and with audio.
            folder: folder for temporary frames and audio; those of an earlier clip are removed.
            batch_size: number of windows per batch.
            vshift: largest offset to try in both directions, in frames.
            face_crops: the clip may have any size: its frames are resized to 224x224.
            audio: media file whose sound replaces the clip's own, which may be missing; both start together.
            audio_stream: index among the audio streams of the file that gives the sound; None for the one that ffmpeg
                selects.
            print_line: called with the lines that the published suite prints.

        Raises:
            MediaError: the clip has no audio, is too short, damaged or, without ``face_crops``, not 224x224; or
                ``audio`` cannot be used.
            WeightsError: no weights are loaded, or they produce NaN or infinite values.
        """
        [found] = self.score_all(
            [videofile],
            folder=folder,
            batch_size=batch_size,
            vshift=vshift,
            face_crops=face_crops,
            audio=audio,
            audio_stream=audio_stream,
            print_line=print_line,
        )
        if isinstance(found, MediaError):
            raise found
        return found

    def score_all(
        self,
        videofiles: Iterable[str | Path],
        *,
        folder: Path,
        batch_size: int = BATCH_SIZE,
        vshift: int = VSHIFT,
        face_crops: bool = False,
        audio: Path | None = None,
        audio_stream: int | None = None,
        print_line: Callable[[str], object] = print,
        on_fault: Callable[[str], object] = lambda fault: None,
    ) -> Generator[scoring.SyncScore | MediaError, None, None]:
        """Score several clips; ffmpeg unpacks the next clip while the network processes the current one.

        Args:
            videofiles: paths of the clips.
            folder, batch_size, vshift, face_crops, audio, audio_stream, print_line: as in ``score``.
            on_fault: called with every ``Ffmpeg.fault``, which is empty if all of a clip could be decoded.

        Yields:
            Per clip its ``SyncScore``, or the ``MediaError`` that ``score`` would raise.
        """
        net = self._loaded()

        def features(part: tuple[Clip, np.ndarray | None]) -> tuple[Clip, torch.Tensor | None]:
            clip, frames = part
            return clip, None if frames is None else net.video_features(frames)

        def new_clip(videofile: str | Path) -> Clip:
            return Clip(Path(videofile or ""), face_crops=face_crops, audio=audio, audio_stream=audio_stream)

        with contextlib.ExitStack() as stack:
            parts = stack.enter_context(
                contextlib.closing(
                    self._parts(map(new_clip, videofiles), folder=folder, batch_size=batch_size, on_fault=on_fault)
                )
            )
            for clip, found in stack.enter_context(contextlib.closing(in_parallel(features, parts, self.device))):
                if found is None:
                    yield self._conclude(clip, batch_size=batch_size, vshift=vshift, print_line=print_line)
                else:
                    clip.features.append(found)

    def _parts(
        self, clips: Iterable[Clip], *, folder: Path, batch_size: int, on_fault: Callable[[str], object]
    ) -> Generator[tuple[Clip, np.ndarray | None], None, None]:
        """Yield every ``Clip`` with each batch of its frames, and once more with None after the last batch."""
        for clip in clips:
            try:
                check_input(clip.path)
                for batch in self._unpacked(clip, folder=folder, batch_size=batch_size, on_fault=on_fault):
                    yield clip, batch
            except MediaError as error:
                clip.error = error
            yield clip, None

    def _unpacked(
        self, clip: Clip, *, folder: Path, batch_size: int, on_fault: Callable[[str], object]
    ) -> Iterator[np.ndarray]:
        """Unpack a clip and yield batches of its frames; its audio is set before the first batch."""
        clear_scratch(folder, clip=clip.path)
        streams, source, index = check_streams(clip.path), clip.path, None
        sound = chosen_sound(clip.path, streams=streams, audio=clip.audio, audio_stream=clip.audio_stream)
        if sound:
            streams, source, index = sound.streams, sound.path, sound.index
        if not streams.audio:
            raise MediaError(f"{clip.path}: {reasons.no_audio().text}", code=reasons.NO_AUDIO)
        if clip.face_crops:
            check_rate(clip.path)
        prepare = to_face_crop if clip.face_crops else functools.partial(checked_frame, clip=clip.path)
        with (
            conversions.start_frames(clip.path, folder) as frames_process,
            conversions.start_audio(source, scratch_audio(folder), streams=streams, index=index) as audio_process,
        ):
            audio_process.finish()
            clip.set_audio(conversions.read_wav(scratch_audio(folder)))
            # the last window that fits is not scored, so the last frame is not needed
            files = itertools.islice(growing_files(folder, frames_process), max(0, clip.audio_frames - 1))
            frames = read_ahead(files, lambda path: prepare(read_frame(path)))
            with reading_output_of(frames_process):
                yield from self._frame_batches(frames, batch_size=batch_size)
            frames_process.finish()
            for process in (frames_process, audio_process):
                on_fault(process.fault)
        clip.video_frames = len(frame_files(folder))

    def _conclude(
        self, clip: Clip, *, batch_size: int, vshift: int, print_line: Callable[[str], object]
    ) -> scoring.SyncScore | MediaError:
        """Score a clip whose video features are complete, print the result and return it, or the clip's error."""
        count = scoring.window_count(clip.video_frames, clip.audio_frames)
        if not clip.error and not count:
            reason = reasons.too_short(frames=min(clip.video_frames, clip.audio_frames), needed=MIN_FRAMES)
            clip.error = MediaError(f"{clip.path}: {reason.text}", code=reason.code)
        if clip.error:
            return clip.error
        if clip.video_frames != clip.audio_frames:
            print_line(
                f"WARNING: {clip.path}: {clip.video_frames} frames of video and {clip.audio_frames} of audio: "
                "only what has both is scored"
            )
        video = clip.features.tensor()
        audio = self._audio_features(clip.samples, count=count, batch_size=batch_size)
        dists = scoring.distances(video[:count], audio, vshift=vshift)
        if not np.isfinite(dists).all():
            raise WeightsError(
                f"{self.weights.path if self.weights else clip.path}: produces NaN or infinite values for {clip.path}: "
                "name other weights with --initial_model"
            )
        result = scoring.score(dists, video_frames=clip.video_frames, audio_frames=clip.audio_frames)
        print_line(f"Compute time {time.perf_counter() - clip.started:.3f} sec.")
        with np.printoptions(formatter={"float": PRINTED_CONFIDENCE.format}):
            print_line(f"Framewise conf: \n{window_confidence(dists)}")
        print_line(
            f"AV offset: \t{result.offset} \nMin dist: \t{result.min_dist:.3f}\nConfidence: \t{result.confidence:.3f}"
        )
        return result

    def extract_feature(self, opt: Namespace | SimpleNamespace, videofile: str | Path) -> torch.Tensor:
        """Compute the lip features of every window of a clip, before the fully connected layers.

        Args:
            opt: has the attribute ``batch_size``.
            videofile: path of a 224x224 clip of a face.

        Returns:
            (frames - 4) x D tensor on the CPU, float32; D is 512 times the width of the network.

        Raises:
            MediaError: the clip is too short, damaged or not 224x224.
        """
        net = self._loaded()
        videofile = check_input(videofile)
        check_unicode(videofile, flag="--videofile")
        check_streams(videofile)
        decoded = decode_frames(videofile)
        with contextlib.closing(read_ahead(decoded, lambda image: checked_frame(image, videofile))) as frames:
            windows = self._frame_batches(frames, batch_size=opt.batch_size)
            features = [found.cpu() for found in in_parallel(net.lip_features, windows, self.device)]
        if not features:
            raise MediaError(f"{videofile}: fewer than {WINDOW_FRAMES} frames", code=reasons.TOO_SHORT)
        return torch.cat(features)

    def _frame_batches(self, frames: Iterable[np.ndarray], *, batch_size: int) -> Iterator[np.ndarray]:
        """Yield batches of frames for about ``batch_size`` windows, N x H x W x 3 arrays; batches overlap by 4 frames.

        The number of windows is a multiple of the network's group size, except in the last batch.
        """
        group = self._loaded().group
        size = max(1, batch_size // group) * group
        overlap = WINDOW_FRAMES - 1
        for batch in batches(frames, size + overlap, overlap=overlap):
            if len(batch) > overlap:
                yield batch

    def _audio_features(self, samples: np.ndarray, *, count: int, batch_size: int) -> torch.Tensor:
        """Compute the features of the first ``count`` windows of the audio, count x 1024.

        The last result is cached, because several faces in one scene have the same audio.
        """
        key = count, hashlib.sha256(samples.tobytes()).digest()
        if self._last_audio is None or self._last_audio[0] != key:
            windows = scoring.audio_windows(samples)[:count]
            parts = (windows[i : i + batch_size] for i in range(0, count, batch_size))
            rows = scoring.Rows(count)
            for part in in_parallel(self._loaded().audio_features, parts, self.device):
                rows.append(part)
            self._last_audio = key, rows.tensor()
        return self._last_audio[1]


def checked_frame(image: np.ndarray, clip: Path) -> np.ndarray:
    """Return a frame unchanged if it has the size of a face crop.

    Args:
        image: H x W x 3 array.
        clip: path of its clip, for the error message.

    Raises:
        MediaError: the frame is not 224x224.
    """
    if image.shape != FRAME_SHAPE:
        height, width = image.shape[:2]
        raise MediaError(
            f"{clip}: is {width}x{height}, but SyncNet scores face crops of {FRAME_SHAPE[1]}x{FRAME_SHAPE[0]}: "
            "create them with run_pipeline.py, or resize crops of another size with --face_crops"
        )
    return image


def check_rate(clip: Path) -> None:
    """Warn if a face crop has another frame rate than SyncNet needs; published evaluations do not convert it either."""
    rate = frame_rate(clip)
    if abs(rate - FRAME_RATE) > RATE_TOLERANCE:
        logger.warning(
            "%s: has %.4g frames per second, but is scored as if it had %d: convert it first", clip, rate, FRAME_RATE
        )


def to_face_crop(image: np.ndarray) -> np.ndarray:
    """Resize a frame that shows a face to the size of a face crop.

    Args:
        image: H x W x 3 array.

    Returns:
        224 x 224 x 3 array.
    """
    return cv2.resize(image, FRAME_SHAPE[1::-1])
