"""SyncNet applied to clips of one face: offset, confidence and distances, or features.

    from SyncNetInstance import SyncNetInstance

    net = SyncNetInstance()
    net.loadParameters("data/syncnet_v2.model")
    score = net.score("pycrop/me/00000.avi", folder=Path("/tmp/me"))
    print(score.offset, score.confidence, score.min_dist)

``evaluate`` and ``extract_feature`` are the published interface to the same.
"""

import contextlib
import hashlib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from syncnet import reasons
from syncnet.constants import MIN_FRAMES, WINDOW_FRAMES
from syncnet.defaults import BATCH_SIZE, VSHIFT
from syncnet.errors import MediaError, WeightsError
from syncnet.media import conversions
from syncnet.media.containers import check_streams
from syncnet.media.ffmpeg import reading_output_of
from syncnet.media.frames import batches, decode_frames, growing_files, read_ahead, read_frame
from syncnet.models.devices import in_lanes, select_device
from syncnet.models.fast import FastSyncNet
from syncnet.models.weights import load_syncnet
from syncnet.results.layout import check_input, check_unicode, clear_scratch, frame_files, scratch_audio, scratch_folder
from syncnet.sync import scoring
from syncnet.sync.framewise import window_confidence
from SyncNetModel import LIP_WINDOW

FRAME_SHAPE = (*LIP_WINDOW[2:], LIP_WINDOW[0])
PRINTED_CONFIDENCES = {"formatter": {"float": "{: 0.3f}".format}}


@dataclass
class Clip:
    """A clip that is being scored.

    Attributes:
        samples: its sound, int16.
        seen, heard: frames of picture and of sound.
        features: ``Rows`` of lip features of its batches so far, N x 1024.
        started: when its sound was there, by time.perf_counter().
        error: ``MediaError`` that ended it.
    """

    path: Path
    samples: np.ndarray | None = None
    seen: int = 0
    heard: int = 0
    features: scoring.Rows | None = None
    started: float = 0.0
    error: MediaError | None = None

    def hear(self, samples):
        self.samples, self.heard, self.started = samples, scoring.audio_frames(samples), time.perf_counter()
        self.features = scoring.Rows(self.heard)


class SyncNetInstance:
    """SyncNet on a device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` or a torch device.

    Attributes:
        weights: the ``Weights`` that ``loadParameters`` read.
    """

    def __init__(self, device="auto"):
        self.device = select_device(str(device))
        self.net = None
        self.weights = None
        self._heard = None, None

    def loadParameters(self, path=None):
        """Read weights of any width; without a path the published ones, else the starter.

        Raises:
            WeightsError: missing, damaged or not SyncNet's.
        """
        net, self.weights = load_syncnet(path)
        self.net = FastSyncNet(net, self.device)
        self._heard = None, None

    def _check_loaded(self):
        if self.net is None:
            raise WeightsError("SyncNetInstance: no weights yet: call loadParameters() first")

    def evaluate(self, opt, videofile):
        """Score a clip and print the result.

        Args:
            opt: has ``tmp_dir``, ``reference``, ``batch_size`` and ``vshift``.
            videofile: path of a 224x224 clip of one face, with sound.

        Returns:
            offset (frames), confidence, distances (windows x (2 * vshift + 1) array).
        """
        folder = scratch_folder(opt.tmp_dir, opt.reference)
        score = self.score(videofile, folder=folder, batch_size=opt.batch_size, vshift=opt.vshift)
        return score.offset, score.confidence, score.dists

    def score(self, videofile, *, folder, batch_size=BATCH_SIZE, vshift=VSHIFT, print_line=print):
        """Score a clip.

        Args:
            videofile: path of a 224x224 clip of one face, with sound.
            folder: for the clip's pictures and sound; what an earlier clip left there is replaced.
            batch_size: windows that go through the network together.
            vshift: frames that are tried in both directions.
            print_line: takes the lines that the published suite prints.

        Returns:
            ``SyncScore``.

        Raises:
            MediaError: no sound, too short, or not 224x224.
        """
        options = {"batch_size": batch_size, "vshift": vshift, "print_line": print_line}
        [found] = self.score_all([videofile], folder=folder, **options)
        if isinstance(found, MediaError):
            raise found
        return found

    def score_all(self, videofiles, *, folder, batch_size=BATCH_SIZE, vshift=VSHIFT, print_line=print):
        """Score clips one after the other: ffmpeg is at the next one while the network is still at the last.

        Args:
            videofiles: iterable of paths.
            folder, batch_size, vshift, print_line: as in ``score``.

        Yields:
            Per clip its ``SyncScore``, or the ``MediaError`` that ``score`` raises.
        """

        self._check_loaded()

        def features(part):
            clip, frames = part
            return clip, None if frames is None else self.net.video_features(frames)

        with contextlib.ExitStack() as stack:
            parts = stack.enter_context(
                contextlib.closing(self._parts(videofiles, folder=folder, batch_size=batch_size))
            )
            for clip, found in stack.enter_context(contextlib.closing(in_lanes(features, parts, self.device))):
                if found is None:
                    yield self._conclude(clip, batch_size=batch_size, vshift=vshift, print_line=print_line)
                else:
                    clip.features.append(found)

    def _parts(self, videofiles, *, folder, batch_size):
        """Every ``Clip`` with each batch of its frames, and with None behind its last."""
        for videofile in videofiles:
            clip = Clip(Path(videofile or ""))
            try:
                check_input(videofile)
                for batch in self._unpacked(clip, folder=folder, batch_size=batch_size):
                    yield clip, batch
            except MediaError as error:
                clip.error = error
            yield clip, None

    def _unpacked(self, clip, *, folder, batch_size):
        """Batches of a clip's frames; its sound is there with the first of them."""
        clear_scratch(folder, clip=clip.path)
        streams = check_streams(clip.path)
        if not streams.audio:
            raise MediaError(f"{clip.path}: {reasons.no_audio().text}", code=reasons.NO_AUDIO)
        with (
            conversions.start_frames(clip.path, folder) as pictures,
            conversions.start_audio(clip.path, scratch_audio(folder), streams=streams) as sound,
        ):
            sound.finish()
            clip.hear(conversions.read_wav(scratch_audio(folder)))
            # no window reaches the last frame
            files = itertools.islice(growing_files(folder, pictures), max(0, clip.heard - 1))
            frames = read_ahead(files, lambda path: checked_frame(read_frame(path), clip.path))
            with reading_output_of(pictures):
                yield from self._frame_batches(frames, batch_size=batch_size)
            pictures.finish()
        clip.seen = len(frame_files(folder))

    def _conclude(self, clip, *, batch_size, vshift, print_line):
        """Score and print a clip whose features are there: its ``SyncScore``, or the error."""
        count = scoring.window_count(clip.seen, clip.heard)
        if not clip.error and not count:
            reason = reasons.too_short(frames=min(clip.seen, clip.heard), needed=MIN_FRAMES)
            clip.error = MediaError(f"{clip.path}: {reason.text}", code=reason.code)
        if clip.error:
            return clip.error
        if clip.seen != clip.heard:
            print_line(
                f"WARNING: {clip.path}: {clip.seen} frames of video and {clip.heard} of audio: "
                "only what has both is scored"
            )
        video = clip.features.tensor()
        audio = self._audio_features(clip.samples, count=count, batch_size=batch_size)
        dists = scoring.distances(video[:count], audio, vshift=vshift)
        if not np.isfinite(dists).all():
            raise WeightsError(
                f"{self.weights.path if self.weights else clip.path}: gives no numbers for {clip.path}: name other "
                "weights with --initial_model"
            )
        result = scoring.score(dists, video_frames=clip.seen, audio_frames=clip.heard)
        print_line(f"Compute time {time.perf_counter() - clip.started:.3f} sec.")
        with np.printoptions(**PRINTED_CONFIDENCES):
            print_line(f"Framewise conf: \n{window_confidence(dists)}")
        print_line(
            f"AV offset: \t{result.offset} \nMin dist: \t{result.min_dist:.3f}\nConfidence: \t{result.confidence:.3f}"
        )
        return result

    def extract_feature(self, opt, videofile):
        """Lip features of every window of a clip, before the last layers.

        Args:
            opt: has ``batch_size``.
            videofile: path of a 224x224 clip of one face.

        Returns:
            (frames - 4) x 512 tensor; with weights of another width, that times 512.
        """
        self._check_loaded()
        videofile = check_input(videofile)
        check_unicode(videofile, flag="--videofile")
        check_streams(videofile)
        decoded = decode_frames(videofile)
        with contextlib.closing(read_ahead(decoded, lambda image: checked_frame(image, videofile))) as frames:
            windows = self._frame_batches(frames, batch_size=opt.batch_size)
            features = [found.cpu() for found in in_lanes(self.net.lip_features, windows, self.device)]
        if not features:
            raise MediaError(f"{videofile}: fewer than {WINDOW_FRAMES} frames", code=reasons.TOO_SHORT)
        return torch.cat(features)

    def _frame_batches(self, frames, *, batch_size):
        """Batches of at most ``batch_size`` windows: that many frames and the rest of the last window."""
        size = max(1, batch_size // self.net.group) * self.net.group
        overlap = WINDOW_FRAMES - 1
        for batch in batches(frames, size + overlap, overlap=overlap):
            if len(batch) > overlap:
                yield batch

    def _audio_features(self, samples, *, count, batch_size):
        """Features of the first ``count`` windows of the sound, N x 1024.

        Faces of one shot have the same sound, so the last clip's features are kept.
        """
        key = count, hashlib.sha256(samples.tobytes()).digest()
        if self._heard[0] != key:
            windows = scoring.audio_windows(samples)[:count]
            parts = (windows[i : i + batch_size] for i in range(0, count, batch_size))
            rows = scoring.Rows(count)
            for part in in_lanes(self.net.audio_features, parts, self.device):
                rows.append(part)
            self._heard = key, rows.tensor()
        return self._heard[1]


def checked_frame(image, clip):
    """A picture of a clip, if it is a face crop.

    Raises:
        MediaError: it is not 224x224.
    """
    if image.shape != FRAME_SHAPE:
        height, width = image.shape[:2]
        raise MediaError(
            f"{clip}: is {width}x{height}, and SyncNet scores face crops of {FRAME_SHAPE[1]}x{FRAME_SHAPE[0]}: "
            "make them with run_pipeline.py"
        )
    return image
