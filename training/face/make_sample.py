"""Make data/sample.mp4: two rendered people in one shot, one of them talking; then a cut to the other, who answers.

    python -m training.face.make_sample
    python -m training.face.make_sample --output /tmp/late.mp4 --delay_frames 5

The sound is in step with the picture (offset 0) unless it is delayed. Each shot is longer than run_pipeline's default
--min_track, each face larger than its --min_face_size.
"""

import argparse
import sys
import tempfile
import wave
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
GUEST, HOST = 249, 234  # seeds of the two people: the guest talks first
GUEST_VOICE = Voice(pitch=205.0, formant_scale=1.15, rate=4.6)
HOST_VOICE = Voice(pitch=112.0, formant_scale=0.99, rate=4.2)
SHOTS = (  # seed of the shot, seconds, who is in it from left to right, who talks, voice, face height in pixels
    (68, 6.0, (GUEST, HOST), 0, GUEST_VOICE, 165),
    (64, 5.2, (HOST,), 0, HOST_VOICE, 185),
)
PAUSE = 0.06, 0.14  # seconds: while the speaker is silent, the listener's shut mouth fits the sound as well
GRAIN = 1.0
VIDEO_FLAGS = ("-c:v", "libx264", "-preset", "slow", "-crf", "23", "-bf", "0", "-pix_fmt", "yuv420p")
# run_pipeline's AVI carries MP3, which delays the sound by 1105 samples and the picture by the whole frames above that:
# at 32 kHz the sound is 5 ms early in the end, at 48 kHz 17 ms
AUDIO_FLAGS = ("-c:a", "aac", "-b:a", "80k", "-ar", "32000")


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=SAMPLE, help="the video to write (default: %(default)s)")
    parser.add_argument(
        "--delay_frames",
        type=int,
        default=0,
        metavar="N",
        help="let the sound come N frames late, early if negative: the AV offset is then -N",
    )
    return parser


def render_sample():
    """The sample's (frames (N, H, W, 3) uint8 BGR, audio (samples,) int16 at 16 kHz, boxes: a list of (N, people, 4),
    a shot each)."""
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


def delay(audio, frames):
    """The sound so many frames later (earlier if negative), as long as before: what is missing is silence."""
    return delayed(audio, frames * SAMPLES_PER_FRAME)


def write_video(path, frames, audio, *, video_flags=VIDEO_FLAGS, audio_flags=AUDIO_FLAGS, container="mp4"):
    """Encode frames (N, H, W, 3) uint8 BGR and audio (samples,) int16 at 16 kHz into a video file.

    Raises:
        SyncNetError: it cannot be encoded or written.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder, new_file(path) as aside:
        for index, frame in enumerate(frames):
            name = FRAME_PATTERN.replace(".jpg", ".bmp") % (index + 1)
            cv2.imwrite(str(Path(folder) / name), frame)
        sound = Path(folder) / "audio.wav"
        with wave.open(str(sound), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(audio.astype("<i2").tobytes())
        pictures = ("-framerate", FRAME_RATE, "-i", FRAME_PATTERN.replace(".jpg", ".bmp"))
        flags = (*video_flags, *audio_flags, "-map_metadata", "-1", "-fflags", "+bitexact", "-f", container)
        Ffmpeg([*pictures, "-i", sound, *flags, *ERRORS_ONLY, absolute(aside)], source=path, cwd=folder).finish()


def main(argv=None):
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
