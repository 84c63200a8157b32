"""Render data/sample.mp4: a shot of two people, one of them talking, then a cut to the other, who answers.

    python -m training.face.make_sample
    python -m training.face.make_sample --output /tmp/late.mp4 --delay_frames 5

The audio is in sync with the video (offset 0) unless it is delayed. Each shot is longer than run_pipeline's default
--min_track, each face larger than its --min_face_size.
"""

import argparse
import sys
import tempfile
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from syncnet.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.errors import SyncNetError
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg, absolute
from syncnet.results.layout import FRAME_PATTERN, new_file
from training.face.talking_face import Person, Voice, render_scene, speak
from training.syncnet.clips import delayed

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample.mp4"
SIZE = 640, 360
GUEST, HOST = 249, 234  # seeds of the two persons; the guest talks first
GUEST_VOICE = Voice(pitch=205.0, formant_scale=1.15, rate=4.6)
HOST_VOICE = Voice(pitch=112.0, formant_scale=0.99, rate=4.2)
SHOTS = (  # seed, seconds, persons from left to right, index of the speaker, voice, face height in pixels
    (68, 6.0, (GUEST, HOST), 0, GUEST_VOICE, 165),
    (64, 5.2, (HOST,), 0, HOST_VOICE, 185),
)
PAUSE = 0.06, 0.14  # seconds; short, because a listener's shut mouth fits silence as well as the speaker's
GRAIN = 1.0
VIDEO_FLAGS = ("-c:v", "libx264", "-preset", "slow", "-crf", "23", "-bf", "0", "-pix_fmt", "yuv420p")
# The MP3 in run_pipeline's AVI delays the audio by 1105 samples and the video by that, rounded up to whole frames:
# the audio ends up 5 ms early at 32 kHz and 17 ms early at 48 kHz.
AUDIO_FLAGS = ("-c:a", "aac", "-b:a", "80k", "-ar", "32000")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=SAMPLE, help="video to write (default: %(default)s)")
    parser.add_argument(
        "--delay_frames",
        type=int,
        default=0,
        metavar="N",
        help="delay the audio by N frames (negative: advance it); the AV offset is then -N",
    )
    return parser


def render_sample() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Render the sample.

    Returns:
        Frames (N x H x W x 3, uint8, BGR), audio (int16 samples at 16 kHz), and for each shot the face boxes
        (N x people x 4).
    """
    clips = [
        render_scene(
            seed,
            seconds,
            width=SIZE[0],
            height=SIZE[1],
            persons=[Person.random(who) for who in people],
            talking=talking,
            speech=speak(seconds, seed=seed, voice=voice, pause=PAUSE),
            face_height=height,
            grain=GRAIN,
        )
        for seed, seconds, people, talking, voice, height in SHOTS
    ]
    frames = np.concatenate([clip.frames for clip in clips])
    return frames, np.concatenate([clip.audio for clip in clips]), [clip.boxes for clip in clips]


def delay(audio: np.ndarray, frames: int) -> np.ndarray:
    """Delay audio by some frames (negative: advance it), keeping its length and filling the gap with silence."""
    return delayed(audio, frames * SAMPLES_PER_FRAME)


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    audio: np.ndarray,
    *,
    video_flags: Sequence[str] = VIDEO_FLAGS,
    audio_flags: Sequence[str] = AUDIO_FLAGS,
    container: str = "mp4",
) -> None:
    """Encode frames and audio into a video file.

    Args:
        path: File to write.
        frames: H x W x 3 each, uint8, BGR.
        audio: int16 samples at 16 kHz.
        video_flags: ffmpeg's options for the video stream.
        audio_flags: ffmpeg's options for the audio stream.
        container: ffmpeg's name of the container format.

    Raises:
        SyncNetError: The file cannot be encoded or written.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder, new_file(path) as temporary:
        for index, frame in enumerate(frames):
            name = FRAME_PATTERN.replace(".jpg", ".bmp") % (index + 1)
            cv2.imwrite(str(Path(folder) / name), frame)
        wav = Path(folder) / "audio.wav"
        with wave.open(str(wav), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(audio.astype("<i2").tobytes())
        video_input = ("-framerate", FRAME_RATE, "-i", FRAME_PATTERN.replace(".jpg", ".bmp"))
        flags = (*video_flags, *audio_flags, "-map_metadata", "-1", "-fflags", "+bitexact", "-f", container)
        Ffmpeg([*video_input, "-i", wav, *flags, *ERRORS_ONLY, absolute(temporary)], source=path, cwd=folder).finish()


def main(argv: Sequence[str] | None = None) -> int:
    arguments = get_parser().parse_args(argv)
    try:
        frames, audio, _ = render_sample()
        write_video(arguments.output, frames, delay(audio, arguments.delay_frames))
    except SyncNetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{arguments.output}: {len(frames)} frames, {arguments.output.stat().st_size / 1000:.0f} kB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
