"""Conversion of all kinds of videos: streams, frame rates, audio, scene cuts."""

import json

import clips
import numpy as np
import pytest
from scipy.io import wavfile

from syncnet.constants import SAMPLES_PER_FRAME
from syncnet.errors import MediaError
from syncnet.faces.crops import cut_audio
from syncnet.media import conversions
from syncnet.media.containers import Streams, probe
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.fingerprint import behaviour
from syncnet.media.frames import growing_files
from syncnet.results.layout import Layout

pytestmark = pytest.mark.usefixtures("nothing_left_running")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a function that creates a clip by name, once per module."""
    folder, clips_by_name = tmp_path_factory.mktemp("sources"), {}

    def make(name, function):
        if name not in clips_by_name:
            clips_by_name[name] = function(folder / name)
        return clips_by_name[name]

    return make


@pytest.mark.parametrize("rate", ["24", "30000/1001", "30", "50", "60", "15"])
def test_frame_rates(pipeline, run, sources, rate):
    """Two seconds at any rate give about 50 frames, all in the crop; some ffmpeg versions add up to four."""
    name = f"{rate.replace('/', '-')}.mp4"
    clip = sources(name, lambda path: clips.face_clip(path, seconds=2, rate=rate))
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    frames = json.loads(layout.pipeline.read_text())["faces"]["frames"]
    assert 49 <= frames <= 54
    assert [len(clips.decode(file)) for file in layout.crop_files()] == [frames]
    assert run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me").code == 0
    [track] = json.loads(layout.scores.read_text())["tracks"]
    assert track["windows"] >= 43


def variable_rate(path):
    """Create one second at 30 fps followed by one at 10 fps."""
    timing = "setpts='if(lt(N,30),N/30,1+(N-30)/10)/TB'"
    source = clips.canvas(seconds=4 / 3, rate="30") + clips.square(100, 60) + f",{timing}"
    return clips.make(path, source, clips.tone(seconds=2), flags=("-enc_time_base:v", "1:30", "-c:v", "mpeg4"))


def test_variable_frame_rate(pipeline, sources):
    ran, layout = pipeline(sources("variable.mkv", variable_rate))
    assert ran.code == 0, ran
    assert 49 <= json.loads(layout.pipeline.read_text())["faces"]["frames"] <= 54
    assert len(layout.crop_files()) == 1


def test_odd_sizes(pipeline, run, sources):
    flags = ("-c:v", "mpeg4", "-q:v", "2")
    clip = sources("odd.avi", lambda path: clips.face_clip(path, seconds=1, size="321x241", flags=flags))
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    assert len(layout.crop_files()) == 1
    assert run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me").code == 0
    assert run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me").code == 0
    drawn = clips.decode(layout.video_out)
    assert len(drawn) == len(list(layout.frames.iterdir()))
    assert drawn.shape[1:] == (240, 320, 3)  # codecs need even sizes


def test_rotation_is_applied(pipeline, sources, tmp_path):
    """Face positions refer to the rotated video."""
    clip = sources("flat.mp4", lambda path: clips.face_clip(path, seconds=1, x=200, y=60))
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the display matrix of the first track, the video
    unit = (1 << 16).to_bytes(4, "big")
    minus = ((1 << 32) - (1 << 16)).to_bytes(4, "big")
    zero = bytes(4)
    data[at : at + 36] = b"".join([zero, unit, zero, minus, zero, zero, zero, zero, (1 << 30).to_bytes(4, "big")])
    rotated = tmp_path / "rotated.mp4"
    rotated.write_bytes(data)
    ran, layout = pipeline(rotated)
    assert ran.code == 0, ran
    assert clips.decode(layout.video).shape[1:] == (320, 240, 3)
    [line] = [line for line in ran.out if line.startswith("Mean pos")]
    x, y = (float(line.split()[i]) for i in (3, 5))
    assert x == pytest.approx(130, abs=40)
    assert y == pytest.approx(250, abs=40)


@pytest.mark.parametrize("audio", ["5.1", "mono", "8000", "44100", "48000", "96000"])
def test_audio_formats(pipeline, sources, audio):
    rate = audio if audio.isdigit() else "48000"
    layout_name = audio if not audio.isdigit() else "stereo"
    source = f"{clips.tone(seconds=1.4, rate=rate)},aformat=channel_layouts={layout_name}"
    clip = sources(f"{audio}.mkv", lambda path: clips.face_clip(path, audio=source, flags=("-c:a", "pcm_s16le")))
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    rate, samples = wavfile.read(layout.audio)
    assert (rate, samples.ndim) == (16000, 1)
    assert len(samples) == pytest.approx(1.4 * 16000, abs=3200)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(440, abs=3)


DEFAULT = ("-disposition:a:1", "default")


def test_several_audio_streams(pipeline, tmp_path):
    """ffmpeg selects the default stream, as for the published scores."""
    low, high = (f"sine=frequency={pitch}:duration=1.4" for pitch in (300, 900))
    clip = clips.make(
        tmp_path / "two.mkv",
        clips.canvas(seconds=1.4) + clips.square(100, 60),
        low,
        high,
        flags=(*("-map", "0", "-map", "1", "-map", "2", "-c:a", "pcm_s16le"), "-disposition:a:0", "0", *DEFAULT),
    )
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    samples = conversions.read_wav(layout.audio)
    assert np.argmax(np.abs(np.fft.rfft(samples))) * 16000 / len(samples) == pytest.approx(900, abs=3)


def test_audio_longer_than_video(pipeline, run, sources):
    clip = sources("longer.mkv", lambda path: clips.face_clip(path, seconds=1, audio=clips.tone(seconds=3)))
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    assert run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me").code == 0
    report = json.loads(layout.scores.read_text())
    assert report["reasons"] == []
    assert [reason["code"] for reason in report["tracks"][0]["reasons"]] == ["few_windows", "low_confidence"]


def test_audio_shorter_than_video(pipeline, run, sources):
    clip = sources("shorter.mkv", lambda path: clips.face_clip(path, seconds=2.4, audio=clips.tone(seconds=1.2)))
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    assert "the audio ends" in ran.err[-1]
    ran = run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    assert ran.code == 0
    report = json.loads(layout.scores.read_text())
    assert [reason["code"] for reason in report["reasons"]] == ["audio_short"]
    [track] = report["tracks"]
    assert [reason["code"] for reason in track["reasons"]] == ["few_windows", "low_confidence", "audio_short"]
    assert 20 <= track["windows"] <= 28
    assert any(line.startswith("WARNING: ") for line in ran.out)
    assert run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me").code == 0
    assert len(clips.decode(layout.video_out)) == len(list(layout.frames.iterdir()))


def test_track_after_the_end_of_the_audio(pipeline, run, tmp_path):
    """A track whose clip has no audio gets a reason; the other tracks are scored."""
    face = clips.square(100, 60, enable="lt(t,1)") + clips.square(20, 100, enable="gte(t,1.4)")
    clip = clips.make(tmp_path / "a.mkv", clips.canvas(seconds=2.4) + face, clips.tone(seconds=1))
    ran, layout = pipeline(clip, "--num_failed_det", "2")
    assert ran.code == 0, ran
    assert len(layout.crop_files()) == 2
    ran = run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    assert ran.code == 0, ran
    first, second = json.loads(layout.scores.read_text())["tracks"]
    assert first["windows"] >= 18
    assert second["windows"] == 0
    assert second["reasons"][0]["code"] in ("too_short", "no_audio")
    assert layout.offsets.read_text().count("TRACK") == 1
    assert run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me").code == 0


def late_audio(path):
    """Create a video whose audio, noise, starts after 0.6 s."""
    plain = clips.make(path.with_suffix(".plain.mkv"), "anoisesrc=d=1:r=48000:seed=1", flags=("-c:a", "pcm_s16le"))
    source = clips.canvas(seconds=2) + clips.square(100, 60)
    inputs = ["-f", "lavfi", "-i", source, "-itsoffset", "0.6", "-i", plain]
    Ffmpeg([*inputs, "-c:v", "mpeg4", "-c:a", "copy", path], source=path).finish()
    return path


def test_audio_that_starts_late(pipeline, sources):
    ran, layout = pipeline(sources("late.mkv", late_audio))
    assert ran.code == 0, ran
    samples = conversions.read_wav(layout.audio).astype(float)
    loud = np.flatnonzero(np.abs(samples) > 500)
    assert loud[0] / 16000 == pytest.approx(0.6, abs=0.06)
    assert loud[-1] / 16000 == pytest.approx(1.6, abs=0.06)


@pytest.mark.parametrize("start", ["at once", "late"])
def test_async_filter_equals_the_flag(start, tmp_path, sources):
    """`-async 1` of ffmpeg up to 6 and the filter give the same samples."""
    clip = sources("late.mkv", late_audio) if start == "late" else sources("face.mkv", clips.face_clip)
    conversions.start_audio(clip, tmp_path / "filter.wav", streams=probe(clip)).finish()
    old = ["-i", clip, "-async", "1", *conversions.WAV_FLAGS, tmp_path / "flag.wav"]
    if not behaviour().has_async:
        pytest.skip("this ffmpeg has no such flag, or ignores it")
    Ffmpeg(old, source=clip).finish()
    filtered, flagged = (conversions.read_wav(tmp_path / f"{name}.wav") for name in ("filter", "flag"))
    assert len(flagged) > 16000
    np.testing.assert_array_equal(filtered, flagged)


@pytest.mark.parametrize(("first", "last"), [(0, 9), (3, 17), (7, 24), (11, 11), (20, 60), (40, 60)])
@pytest.mark.parametrize("frame_rate", [25, 30])
def test_cut_audio_equals_ffmpeg(tmp_path, first, last, frame_rate):
    clips.write_audio(tmp_path / "all.wav", np.ones(30))
    cut_audio(tmp_path / "all.wav", tmp_path / "ours.wav", first=first, last=last, frame_rate=frame_rate)
    times = ["-ss", f"{first / frame_rate:.3f}", "-to", f"{(last + 1) / frame_rate:.3f}"]
    Ffmpeg(["-i", tmp_path / "all.wav", *times, tmp_path / "theirs.wav"], source="all.wav").finish()
    ours, theirs = (conversions.read_wav(tmp_path / f"{name}.wav") for name in ("ours", "theirs"))
    np.testing.assert_array_equal(ours, theirs)
    assert (len(ours) > 0) == (first / frame_rate < 30 / 25)


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_mux_checks_the_frames(tmp_path, frames):
    video = clips.make(tmp_path / "a.avi", clips.canvas(seconds=frames / 25))
    clips.write_audio(tmp_path / "a.wav", np.ones(frames))
    conversions.mux(video, tmp_path / "a.wav", tmp_path / "out.avi", frames=frames)
    assert len(clips.decode(tmp_path / "out.avi")) == frames
    (tmp_path / "out.avi").unlink()
    with pytest.raises(MediaError, match=f"{frames} of {frames + 1} frames"):
        conversions.mux(video, tmp_path / "a.wav", tmp_path / "out.avi", frames=frames + 1)
    assert sorted(path.name for path in tmp_path.glob("*.avi")) == ["a.avi"]


def test_growing_files_are_all_frames(tmp_path):
    clip = clips.make(tmp_path / "a.avi", "testsrc2=s=320x240:r=25:d=1.2")
    (tmp_path / "frames").mkdir()
    with conversions.start_frames(clip, tmp_path / "frames") as writer:
        found = [(path, path.read_bytes()) for path in growing_files(tmp_path / "frames", writer)]
        writer.finish()
    assert [path for path, _ in found] == sorted((tmp_path / "frames").iterdir())
    assert len(found) == 30
    assert all(data == path.read_bytes() and data.endswith(b"\xff\xd9") for path, data in found)


@pytest.mark.parametrize("start", ["at once", "late"])
def test_start_unpacking_equals_separate_extraction(start, tmp_path, sources):
    clip = sources("late.mkv", late_audio) if start == "late" else sources("face.mkv", clips.face_clip)
    together, apart = tmp_path / "together", tmp_path / "apart"
    for folder in (together, apart):
        folder.mkdir()
    quality = {"quality": conversions.PIPELINE_QUALITY}
    conversions.start_unpacking(clip, together, together / "a.wav", **quality).finish()
    conversions.start_frames(clip, apart, **quality).finish()
    conversions.start_audio(clip, apart / "a.wav").finish()
    files = sorted(path.name for path in apart.iterdir())
    assert len(files) > 20
    assert sorted(path.name for path in together.iterdir()) == files
    assert all((together / name).read_bytes() == (apart / name).read_bytes() for name in files)


def test_two_scenes(pipeline, tmp_path):
    """A cut from grey to white gives two tracks at the same position."""
    white = clips.canvas(seconds=1, colour="white") + clips.square(100, 60)
    grey = clips.canvas(seconds=1) + clips.square(100, 60)
    joined = f"{grey},format=yuv420p[a];{white},format=yuv420p[b];[a][b]concat"
    clip = clips.make(tmp_path / "cut.mp4", joined, clips.tone(seconds=2))
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    assert ran.out[0].endswith("scenes detected 2")
    assert [line for line in ran.out if line.startswith("Written")] == [
        f"Written {layout.crops / '00000'}",
        f"Written {layout.crops / '00001'}",
    ]
    tracks = json.loads(layout.pipeline.read_text())["tracks"]
    assert tracks[0]["first_frame"] == 0
    assert tracks[1]["first_frame"] == tracks[0]["last_frame"] + 1
    assert tracks[1]["first_frame"] == pytest.approx(25, abs=2)


@pytest.mark.parametrize(("rate", "left_out"), [("15", 20), ("25", 0), ("30", 0)])
def test_last_scene_that_ends_early_is_said(pipeline, tmp_path, rate, left_out):
    """Below 25 frames a second the published scene list ends with the frames that the decoder delivers."""
    grey, white = (clips.canvas(seconds=1, rate=rate, colour=colour) for colour in ("gray", "white"))
    joined = (
        f"{grey}{clips.square(100, 60)},format=yuv420p[a];{white}{clips.square(100, 60)},format=yuv420p[b];[a][b]concat"
    )
    ran, layout = pipeline(clips.make(tmp_path / "cut.mp4", joined, clips.tone(seconds=2)))
    assert ran.code == 0, ran
    report = json.loads(layout.pipeline.read_text())
    assert len(report["scenes"]) == 2
    found = [reason for reason in report["reasons"] if reason["code"] == "scene_cut_short"]
    assert bool(found) == bool(left_out)
    for reason in found:
        missing = report["faces"]["frames"] - report["scenes"][-1]["end"]
        assert missing == pytest.approx(left_out, abs=2)
        assert f"the last {missing} of the " in reason["text"] and "-vf fps=25" in reason["text"]
        assert [line for line in ran.err if line.endswith(reason["text"])]


def test_scene_threshold(pipeline, tmp_path):
    white = clips.canvas(seconds=1, colour="white")
    clip = clips.make(
        tmp_path / "cut.mp4",
        f"{clips.canvas(seconds=1)},format=yuv420p[a];{white},format=yuv420p[b];[a][b]concat",
        clips.tone(seconds=2),
    )
    ran, _ = pipeline(clip, "--scene_threshold", "200")
    assert ran.out == [line for line in ran.out if line.endswith("scenes detected 1")]
    assert len(ran.out) == 1


@pytest.mark.parametrize("title", ["Stream #0:9: Audio: fake", "x\n  Stream #0:9: Audio: fake"])
def test_stream_names_in_metadata_are_ignored(tmp_path, title):
    clip = clips.make(tmp_path / "a.mkv", clips.canvas(seconds=0.2), flags=("-metadata", f"title={title}"))
    assert probe(clip) == Streams(video=True, audio=False)


def test_crops_have_equally_long_audio_and_video(finished):
    """The audio of each crop is as long as its video, or one frame shorter."""
    layout = Layout(finished, "me")
    [clip] = layout.crop_files()
    frames = len(clips.decode(clip))
    wav = finished / "clip.wav"
    conversions.start_audio(clip, wav).finish()
    assert len(conversions.read_wav(wav)) // SAMPLES_PER_FRAME in (frames - 1, frames)
    wav.unlink()
