"""run_pipeline with another sound than the one that ffmpeg selects in the video."""

import json

import clips
import numpy as np
import pytest

from detectors import S3FD
from syncnet.constants import SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.errors import MediaError, UsageError
from syncnet.media import conversions
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.results.layout import Layout
from syncnet.steps import pipeline

pytestmark = pytest.mark.usefixtures("nothing_left_running")

SETTINGS = pipeline.PipelineSettings(facedet_scale=0.5, min_track=10)
LOW, HIGH, OTHER = 300, 900, 1500  # Hz
MP3_DELAY_MS = 35  # of the conversion, whatever the sound
CODEC_MS = 12  # delay of the sound's own encoder that its file does not declare: 10 ms of MP2, 7 ms of Opus


@pytest.fixture(scope="module")
def detector(weights):
    return S3FD("cpu", weights=weights["--s3fd_weights"])


def tone(pitch, *, seconds=1.4, silence=0.0):
    """lavfi source of a tone after silence."""
    return f"sine=frequency={pitch}:sample_rate=48000:duration={seconds},volume=0:enable='lt(t,{silence})'"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of 35 frames with two audio streams; the second is the default."""
    folder = tmp_path_factory.mktemp("sound")
    face = clips.face_clip(folder / "face.mkv", audio="")
    flags = ("-map", "0", "-map", "1", "-map", "2", "-c:v", "copy", "-c:a", "pcm_s16le")
    default = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    inputs = ("-i", face, "-f", "lavfi", "-i", tone(LOW), "-f", "lavfi", "-i", tone(HIGH))
    Ffmpeg([*inputs, *flags, *default, folder / "two.mkv"], source=face).finish()
    return folder / "two.mkv"


@pytest.fixture(scope="module")
def mute(clip):
    path = clip.with_name("mute.mkv")
    Ffmpeg(["-i", clip, "-an", "-c", "copy", path], source=clip).finish()
    return path


def run(video, folder, detector, **options):
    layout = Layout(folder, "me")
    return pipeline.run(video, layout, SETTINGS, load_detector=lambda: detector, **options), layout


def pitch(layout):
    samples = conversions.read_wav(layout.audio)
    return np.argmax(np.abs(np.fft.rfft(samples))) * SAMPLE_RATE / len(samples)


def starts_at(layout):
    """Milliseconds before the first sample that can be heard."""
    loud = np.abs(conversions.read_wav(layout.audio).astype(int)) > 500
    return 1000 * int(loud.argmax()) / SAMPLE_RATE


@pytest.mark.parametrize(("stream", "expected"), [(None, HIGH), (0, LOW), (1, HIGH)])
def test_audio_stream(clip, detector, tmp_path, stream, expected):
    result, layout = run(clip, tmp_path, detector, audio_stream=stream)
    assert pitch(layout) == pytest.approx(expected, abs=3)
    assert result.recipe["audio_stream"] == stream
    assert len(layout.crop_files()) == 1


def test_audio_stream_that_is_not_there(clip, mute, detector, tmp_path):
    with pytest.raises(MediaError, match=r"two\.mkv: has 2 audio streams, so --audio_stream 2 "):
        run(clip, tmp_path, detector, audio_stream=2)
    result, _ = run(mute, tmp_path, detector, audio_stream=2)
    assert [reason.code for reason in result.reasons] == ["no_audio"]


def test_audio_stream_that_cannot_be_decoded(clip, detector, tmp_path):
    video = tmp_path / "two.mov"
    Ffmpeg(["-i", clip, "-map", "0", "-c:a", "pcm_s16le", video], source=clip).finish()
    head, _, tail = video.read_bytes().rpartition(b"sowt")  # in the description of the second audio stream
    video.write_bytes(head + b"xxxx" + tail)
    with pytest.raises(MediaError, match=r"two\.mov: audio stream 1 cannot be decoded: choose another --audio_stream"):
        run(video, tmp_path, detector, audio_stream=1)
    _, layout = run(video, tmp_path, detector, audio_stream=0)
    assert pitch(layout) == pytest.approx(LOW, abs=3)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a.flac", "a.webm", "a.mka", "a.ts"])
def test_other_sound_starts_with_the_picture(clip, mute, detector, tmp_path, name):
    """In files with and without sound of their own; the picture stays as it is."""
    sound = clips.make(tmp_path / name, tone(OTHER, seconds=2, silence=0.5))
    _, plain = run(clip, tmp_path / "plain", detector)
    for video in (clip, mute):
        result, layout = run(video, tmp_path / video.stem, detector, audio=sound)
        assert pitch(layout) == pytest.approx(OTHER, abs=3)
        assert starts_at(layout) == pytest.approx(500 + MP3_DELAY_MS, abs=CODEC_MS)
        assert len(result.tracks) == 1 and result.reasons == []
        assert result.recipe["audio"] == str(sound)
        np.testing.assert_array_equal(clips.decode(layout.video), clips.decode(plain.video))
        assert conversions.wav_length(layout.audio) == result.faces.frames * SAMPLES_PER_FRAME


@pytest.mark.parametrize("rate", ["30", "24000/1001"])
def test_picture_at_other_rates(detector, tmp_path, rate):
    video = clips.face_clip(tmp_path / "face.mp4", rate=rate, seconds=2)
    sound = clips.make(tmp_path / "a.wav", tone(OTHER, seconds=3))
    _, plain = run(video, tmp_path / "plain", detector)
    result, layout = run(video, tmp_path / "other", detector, audio=sound)
    np.testing.assert_array_equal(clips.decode(layout.video), clips.decode(plain.video))
    assert conversions.wav_length(layout.audio) == result.faces.frames * SAMPLES_PER_FRAME


def test_stream_of_another_file(mute, clip, detector, tmp_path):
    for stream, expected in ((0, LOW), (1, HIGH), (None, HIGH)):
        _, layout = run(mute, tmp_path, detector, audio=clip, audio_stream=stream)
        assert pitch(layout) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("delay", [0, 0.3])
def test_own_sound_from_a_copy(detector, tmp_path, delay):
    """The sound of a copy of the video, also if it starts late, is the same as the video's own."""
    face = clips.face_clip(tmp_path / "face.mp4", audio="")
    inputs = ("-i", face, "-itsoffset", delay, "-f", "lavfi", "-i", tone(OTHER))
    Ffmpeg([*inputs, "-c:v", "copy", tmp_path / "own.mp4"], source=face).finish()
    _, own = run(tmp_path / "own.mp4", tmp_path / "own", detector)
    _, copied = run(face, tmp_path / "copied", detector, audio=tmp_path / "own.mp4")
    expected, found = conversions.read_wav(own.audio), conversions.read_wav(copied.audio)
    assert len(found) > SAMPLE_RATE
    np.testing.assert_array_equal(found, expected[: len(found)])


def test_the_videos_own_file_as_other_sound(clip, detector, tmp_path):
    _, layout = run(clip, tmp_path, detector, audio=clip, audio_stream=0)
    assert pitch(layout) == pytest.approx(LOW, abs=3)


def test_sound_that_ends_before_the_picture(mute, detector, tmp_path):
    sound = clips.make(tmp_path / "a.wav", tone(OTHER, seconds=0.9))
    result, layout = run(mute, tmp_path, detector, audio=sound)
    assert [reason.code for reason in result.reasons] == ["audio_short"]
    assert conversions.wav_length(layout.audio) == pytest.approx(0.9 * SAMPLE_RATE, rel=0.1)


def test_sound_that_cannot_be_used(clip, mute, detector, tmp_path):
    """The error names the file of the sound, and a result of an earlier run stays."""
    _, layout = run(clip, tmp_path, detector)
    before = layout.pipeline.read_text()
    for sound, words in (
        (mute, "no audio stream"),
        (tmp_path / "none.wav", "no such file: check --audio"),
    ):
        with pytest.raises(MediaError, match=f"{sound}: .*{words}"):
            run(clip, tmp_path, detector, audio=sound)
        assert layout.pipeline.read_text() == before
    inside = layout.audio
    with pytest.raises(UsageError, match=str(inside)):
        run(clip, tmp_path, detector, audio=inside)
    assert json.loads(before)["recipe"]["audio"] is None
