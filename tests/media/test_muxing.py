# ruff: noqa: F811, fixtures are imported
"""Files whose sound is moved: what is kept of everything else, and what is said to be lost."""

import av
import clips
import numpy as np
import pytest
from moved_sound import H264, LIMIT_MS, SECONDS, clip, heard_ms, moved, packets, rich, stamp_of, wav  # noqa: F401

from syncnet.media import muxing
from syncnet.media.containers import main_video, open_container
from syncnet.media.ffmpeg import Ffmpeg

OLD = int(av.__version__.split(".")[0]) < 18


def described(path):
    """Return what a reader sees of a file, apart from the sound itself."""
    with open_container(path) as container:
        streams = [
            (stream.type, muxing.name_of(stream), stream.metadata.get("language"), int(stream.disposition))
            for stream in container.streams
            if stream.type != "data"
        ]
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in container.chapters()
        ]
        tags = {key.lower(): container.metadata[key] for key in container.metadata if key.lower() != "encoder"}
        rate = main_video(container).average_rate
        data = sorted(stream.metadata.get("timecode", "") for stream in container.streams if stream.type == "data")
        frame = next(container.decode(main_video(container)))
        colours = frame.rotation, frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc
    return {"streams": streams, "chapters": chapters, "tags": tags, "rate": rate, "data": data, "colours": colours}


@pytest.mark.skipif(OLD, reason="PyAV before 18 does not pass on the frame rate, of which time codes are made")
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_everything_else_is_kept(rich, tmp_path, suffix):
    source, output = rich(suffix), tmp_path / f"out.{suffix}"
    content = source.read_bytes()
    assert moved(source, output, 120).notes == ()
    assert described(output) == described(source)
    assert packets(output, "subtitles") == packets(source, "subtitles")
    for stream in (0, 1):
        assert abs(heard_ms(output, stream)[0] - heard_ms(source, stream)[0] - 120) <= LIMIT_MS
    assert source.read_bytes() == content
    if suffix != "mkv":
        assert described(output)["colours"][0] in (90, -90)


def test_subtitles_of_the_same_time_keep_it(tmp_path, wav):
    lines = "".join(f"{n}\n00:00:01,000 --> 00:00:02,000\nLine {n}\n\n" for n in range(1, 5))
    (tmp_path / "s.srt").write_text(lines)
    source, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    clips.make(source, clips.canvas(seconds=2), flags=("-i", wav, "-i", tmp_path / "s.srt", "-c:a", "flac"))
    moved(source, output, 30)
    for path in (source, output):
        with open_container(path) as container:
            assert [stamp_of(packet) for packet in container.demux(subtitles=0) if packet.size] == [1] * 4


def test_cover_becomes_an_attachment_and_back(rich, tmp_path):
    source, there, back = rich("mp4"), tmp_path / "there.mkv", tmp_path / "back.mp4"
    assert moved(source, there, 120).notes == ("stream 3 (subtitle, mov_text) is left out: mkv cannot hold it",)
    assert moved(there, back, -120).notes == ()
    covers = [packets(path, "video", 1) for path in (source, there, back)]
    assert covers[0] == covers[1] == covers[2] and covers[0]
    assert described(back)["colours"] == described(source)["colours"] == described(there)["colours"]
    assert abs(heard_ms(back)[0] - heard_ms(source)[0]) <= LIMIT_MS


NOTES = {
    "avi": (
        "chapters are left out: avi has none",
        "stream 3 (subtitle, ass) is left out: avi cannot hold it",
        "stream 4 (attachment, font.ttf) is left out: avi cannot hold it",
        "stream 1: its language left out: avi does not hold it",
        "stream 2: its language left out: avi does not hold it",
    ),
    "mov": (
        "stream 1: sound becomes alac: mov cannot hold flac",
        "stream 2: sound becomes alac: mov cannot hold flac",
        "stream 3 (subtitle, ass) is left out: mov cannot hold it",
        "stream 4 (attachment, font.ttf) is left out: mov cannot hold it",
    ),
    "ts": (
        "chapters are left out: ts has none",
        "stream 1: sound becomes aac: ts cannot hold flac",
        "stream 2: sound becomes aac: ts cannot hold flac",
        "stream 3 (subtitle, ass) is left out: ts cannot hold it",
        "stream 4 (attachment, font.ttf) is left out: ts cannot hold it",
        "tags are left out: ts does not hold artist, title",
    ),
}


@pytest.mark.parametrize("suffix", NOTES)
def test_what_the_container_cannot_hold_is_said(rich, tmp_path, suffix):
    source, output = rich("mkv"), tmp_path / f"out.{suffix}"
    assert moved(source, output, -45).notes == NOTES[suffix]
    by_stamps, plain = heard_ms(output)
    assert abs(by_stamps + 45) <= LIMIT_MS and abs(plain + 45) <= LIMIT_MS
    assert len(clips.decode(output)) == 25 * SECONDS


def test_rotation_that_is_lost_is_said(rich, tmp_path):
    notes = moved(rich("mp4"), tmp_path / "out.ts", 30).notes
    assert any(note.startswith("rotation by ") for note in notes)


PICTURES = [  # what players need to know of a picture
    ("mov", ("-c:v", "prores_ks", "-profile:v", "4444", "-c:a", "alac"), "mkv"),
    ("mov", ("-c:v", "prores_ks", "-profile:v", "4444", "-c:a", "alac"), "mov"),
    ("avi", ("-c:v", "mpeg4", "-vtag", "XVID", "-c:a", "pcm_s16le"), "avi"),
    ("mp4", (*H264, "-vf", "setsar=4/3"), "mp4"),
    ("mp4", (*H264, "-vf", "setsar=4/3"), "mkv"),
    ("mp4", (*H264, "-r", "30000/1001"), "mkv"),
    ("mp4", (*H264, "-r", "30000/1001"), "avi"),
]


@pytest.mark.skipif(OLD, reason="PyAV before 18 does not pass on the frame rate")
@pytest.mark.parametrize(("suffix", "flags", "target"), PICTURES)
def test_picture_is_decoded_as_before(clip, tmp_path, suffix, flags, target):
    source, output = clip(suffix, "aac" if suffix == "mp4" else "pcm_s16le", flags=flags), tmp_path / f"out.{target}"
    moved(source, output, 30)
    assert np.array_equal(clips.decode(output), clips.decode(source))
    with open_container(source) as before, open_container(output) as after:
        one, other = main_video(before), main_video(after)
        assert other.sample_aspect_ratio in (one.sample_aspect_ratio, None if one.sample_aspect_ratio == 1 else 0)
        assert other.average_rate == one.average_rate
        if suffix == target:
            assert other.codec_tag == one.codec_tag


def test_picture_of_changing_rate_in_avi(clip, tmp_path):
    source = clip("mkv", "flac", flags=("-vf", "select='mod(n\\,5)'", "-vsync", "vfr"))
    moved(source, tmp_path / "out.avi", 30)
    assert abs(heard_ms(tmp_path / "out.avi")[0] - heard_ms(source)[0] - 30) <= LIMIT_MS


def test_sound_of_an_unknown_codec_is_left_out(clip, tmp_path):
    source = tmp_path / "source.mkv"
    remuxed = ["-i", clip("mp4", "aac"), "-i", clip("mp4", "ac3"), "-map", "0", "-map", "1:a", "-c", "copy", source]
    Ffmpeg(remuxed, source=source).finish()
    source.write_bytes(source.read_bytes().replace(b"A_AC3", b"A_XC3"))
    found = moved(source, tmp_path / "out.mkv", 30)
    assert found.notes == ("stream 2 (audio, unknown) is left out: mkv cannot hold it",)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_chapter_that_starts_before_the_picture(clip, tmp_path, suffix):
    (tmp_path / "m.txt").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n")
    source, output = tmp_path / "in.mkv", tmp_path / f"out.{suffix}"
    late = clip("mkv", "aac", before_video=("-itsoffset", "0.04"))
    Ffmpeg(["-i", late, "-i", tmp_path / "m.txt", "-map_chapters", "1", "-c", "copy", source], source=late).finish()
    assert moved(source, output, 30).notes == ()
    with open_container(output) as container:
        (chapter,) = container.chapters()
        assert (chapter["start"], chapter["end"] * chapter["time_base"]) == (0, pytest.approx(0.96, abs=0.03))


@pytest.mark.parametrize(("flags", "suffix", "said"), [(H264, "mp4", 1), (H264, "avi", 0), (("-bf", "2"), "mp4", 0)])
def test_order_of_pictures_that_avi_does_not_tell(clip, tmp_path, flags, suffix, said):
    notes = moved(clip("avi", "libmp3lame", flags=flags), tmp_path / f"out.{suffix}", 30).notes
    assert sum("order" in note for note in notes) == said
