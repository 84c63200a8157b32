# ruff: noqa: F811, fixtures are imported
"""The clips that the sync network is trained on: decoding, shifting, aligning, augmenting."""

import dataclasses
import json

import numpy as np
import pytest
from training_fixtures import SECONDS, faces, loaded  # noqa: F401

from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.frames import decode_frames
from training import common
from training.face.talking_face import render_clip
from training.syncnet import alignment, augment, clips, sync_loss
from training.syncnet import evaluate as evaluate_syncnet
from training.syncnet import train as train_syncnet


def test_nobody_is_both_trained_on_and_held_out():
    rows = [
        {"source": f"s{i % 3}", "person": f"p{i // 2}", "clip": f"{i}.mp4"} for i in range(120)
    ] + [{"source": "one man", "person": "him", "clip": f"him-{i}.mp4"} for i in range(20)]  # fmt: skip
    train, held_out = common.split_by_person(rows)
    assert {r["person"] for r in train}.isdisjoint(r["person"] for r in held_out)
    assert len(train) + len(held_out) == len(rows)
    assert 0.12 * len(rows) < len(held_out) < 0.28 * len(rows)
    assert "him" not in {r["person"] for r in held_out}
    assert common.split_by_person(rows[::-1])[1][::-1] == held_out


def test_decoded_clips(loaded):
    clip = loaded[0]
    assert set(clip.frames) == set(clips.VERSIONS)
    for frames in clip.frames.values():
        assert frames.shape == (40, 112, 112) and frames.dtype == np.uint8
    assert clip.windows == 35 and clip.confidence == 4.0
    direct = render_clip(0, SECONDS)
    assert np.abs(clip.audio[: len(direct.audio)].astype(int) - direct.audio).max() == 0
    grey = direct.frames[10].mean(-1).reshape(112, 2, 112, 2).mean((1, 3))
    assert np.abs(grey - clip.frames["jpeg"][10]).mean() < 12


def test_shifted_audio_is_in_the_file(faces, tmp_path):
    source = faces / "clips" / "person-1-0.avi"
    clips.shift_audio(source, tmp_path / "moved.mkv", 3 * clips.SAMPLES_PER_FRAME)
    before, after = clips.read_audio(source), clips.read_audio(tmp_path / "moved.mkv")
    assert (after[1920:] == before[: len(after) - 1920]).all() and not after[:1920].any()


def test_shifting_audio_leaves_the_video_unchanged(faces, tmp_path):
    """This includes H.264 with reordered frames."""
    source, moved = tmp_path / "source.mp4", tmp_path / "moved.mkv"
    name = common.read_index(faces)[0]["clip"]
    codecs = ("-c:v", "libx264", "-bf", "2", "-c:a", "flac", "-strict", "-2")
    Ffmpeg(["-i", faces / "clips" / name, *codecs, source], source=name).finish()
    clips.shift_audio(source, moved, 0)
    before, after = list(decode_frames(source)), list(decode_frames(moved))
    assert len(before) == len(after)
    assert all((a == b).all() for a, b in zip(before, after))


def test_clips_out_of_sync_are_not_trained_on(faces, loaded):
    row = {**common.read_index(faces)[0], "published_offset": "3"}
    assert [clips.clip_from_row({**row, "shift_applied": shift}).offset for shift in ("0", "3")] == [3, 0]
    assert clips.clip_from_row({**row, "published_confidence": "", "published_min_dist": ""}).offset is None
    late = dataclasses.replace(loaded[0], offset=3)
    assert train_syncnet.Sampler([late, *loaded[1:]]).clips == loaded[1:]


def test_mfcc_windows_are_the_scorers(loaded):
    coefficients = clips.mfcc(loaded[0].audio)
    windows = clips.mfcc_windows(coefficients, loaded[0].windows)
    assert windows.shape == (35, 13, 20)
    assert (windows[7] == coefficients[28:48].T).all()


def test_augmentation_is_seeded_and_keeps_shapes(loaded):
    frames = np.ascontiguousarray(loaded[0].frames["jpeg"][:8])
    for seed in range(12):
        one, two = (augment.augment_frames(np.random.default_rng(seed), frames) for _ in range(2))
        assert one.shape == frames.shape and one.dtype == np.uint8 and (one == two).all()
        altered = [
            augment.augment_audio(np.random.default_rng(seed), loaded[0].audio, loaded[1].audio) for _ in range(2)
        ]
        assert altered[0].dtype == np.int16 and altered[0].shape == loaded[0].audio.shape
        assert (altered[0] == altered[1]).all()
    assert not (augment.augment_frames(np.random.default_rng(1), frames) == frames).all()


def test_augmentation_without_strength_changes_almost_nothing(loaded):
    """It only mirrors frames and moves the audio on the grid of the MFCCs."""
    frames, audio = np.ascontiguousarray(loaded[0].frames["jpeg"][:4]), loaded[0].audio
    moved = [clips.delayed(audio, samples) for samples in range(-augment.MFCC_STEP, augment.MFCC_STEP)]
    for seed in range(12):
        changed = augment.augment_frames(np.random.default_rng(seed), frames, 0).astype(int)
        assert any(np.abs(changed - same).max() <= 1 for same in (frames, frames[:, :, ::-1]))
        altered = augment.augment_audio(np.random.default_rng(seed), audio, loaded[1].audio, 0)
        assert any((altered == same).all() for same in moved)
        assert augment.draw_speed(np.random.default_rng(seed), 0) == 1


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.12])
def test_frames_and_audio_have_the_same_speed(monkeypatch, speed):
    """Frames and samples carry the number of the frame they belong to."""
    count = 100
    frames = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 112, 112))
    audio = (np.arange(count * clips.SAMPLES_PER_FRAME) / 10).astype(np.int16)
    clip = clips.Clip("c", "p", "s", dict.fromkeys(clips.VERSIONS, frames), audio)
    monkeypatch.setattr(augment, "draw_speed", lambda rng, strength: speed)
    monkeypatch.setattr(augment, "augment_frames", lambda rng, frames, strength: frames)
    monkeypatch.setattr(augment, "augment_audio", lambda rng, audio, other, strength: audio)
    monkeypatch.setattr(sync_loss, "mfcc", lambda audio: audio[:: clips.SAMPLE_RATE // 100, None].repeat(13, 1))
    for seed in range(5):
        sample = sync_loss.draw_sample(np.random.default_rng(seed), clip, [clip], 8)
        video_frames = sample.windows[:, 0, 0, 0].numpy().astype(float)  # first frame of each window
        true = (sample.places - sample.lag).clamp(0, len(sample.coefficients) - 1)
        audio_frames = sample.coefficients[true, 0, 0].numpy().astype(float) * 10 / clips.SAMPLES_PER_FRAME
        inside = ((sample.places - sample.lag) == true).numpy()
        assert inside.sum() >= 3
        # audio marks the start of a frame, video the middle
        assert np.abs(video_frames - audio_frames)[inside].max() <= 0.5 + abs(speed - 1) / 2 + 0.01


def test_speeds_are_within_bounds_and_often_one():
    speeds = np.array([augment.draw_speed(np.random.default_rng(seed)) for seed in range(200)])
    assert 60 < (speeds == 1).sum() < 140
    assert np.abs(np.log(speeds)).max() <= augment.LARGEST_SPEED < 6 * np.abs(np.log(speeds)).mean()


@pytest.mark.parametrize("offset", [-5, 0, 3])
def test_realigned_clip_is_in_sync(loaded, offset):
    clip = loaded[0]
    out_of_sync = dataclasses.replace(clip, audio=clips.delayed(clip.audio, -offset * clips.SAMPLES_PER_FRAME))
    again = clips.realigned(out_of_sync, offset)
    first, cut = max(0, offset), abs(offset)
    assert again.windows == clip.windows - cut
    assert (again.frames["jpeg"] == clip.frames["jpeg"][first : first + len(again.frames["jpeg"])]).all()
    expected = clip.audio[first * clips.SAMPLES_PER_FRAME :]
    assert (again.audio == expected[: len(again.audio)]).all()


def test_clips_are_aligned_where_the_estimate_is_sure(loaded):
    own = dict(confidence=None, min_dist=None, offset=None)
    clip = dataclasses.replace(loaded[0], **own)
    several = dataclasses.replace(loaded[1], faces=2, **own)
    known = loaded[2]

    def after(clip, offset, confidence):
        [found] = alignment.aligned([clip], {clip.name: (offset, confidence)})
        return found

    sure, unsure = alignment.SURE + 1, alignment.SURE - 1
    assert after(clip, 4, sure).windows == clip.windows - 4
    assert after(clip, 4, unsure).windows == after(clip, 1, sure).windows == clip.windows
    assert after(clip, 4, unsure).extra["weight"] == sync_loss.SMALLEST_WEIGHT
    assert after(clip, 1, 9.0).extra["weight"] == 1.0
    assert after(clip, alignment.LARGEST_OFFSET + 1, sure).windows == clip.windows
    assert [after(several, 0, c).in_place for c in (unsure, sure)] == [False, True]
    assert alignment.aligned([known], {known.name: (4, 9.0)}) == [known]
    assert sync_loss.clip_weight(after(clip, 1, 9.0)) == 1.0


def test_alignment_is_estimated_and_read(faces, loaded, tmp_path, monkeypatch, capsys):
    unknown = [dataclasses.replace(c, offset=None) for c in loaded[:2]]
    monkeypatch.setattr(alignment, "load_clips", lambda *_: [*unknown, *loaded[2:]])
    monkeypatch.setattr(alignment, "load_half", lambda path: (None, {}))
    monkeypatch.setattr(alignment, "clip_squares", lambda net, clip: {0: clip})
    monkeypatch.setattr(alignment, "score", lambda clip: evaluate_syncnet.Score(3, 5.5, 8.0))
    out = tmp_path / "alignment.json"
    flags = ["--data", str(faces), "--cache", "cache", "--weights", "w.pt", "--output", str(out)]
    assert alignment.main(flags) == 0
    assert "2 clips, 2 of them clearly out of sync" in capsys.readouterr().out
    assert alignment.read_alignment(out) == {clip.name: (3, 5.5) for clip in unknown}
    out.write_text(json.dumps(["no", "names"]))
    with pytest.raises(common.TrainingError, match="not a file of"):
        alignment.read_alignment(out)


def test_two_programs_may_fill_one_cache(tmp_path, monkeypatch):
    file, save = tmp_path / "clip.npy", np.save

    def save_beside_another(target, array):
        monkeypatch.setattr(np, "save", save)
        save(target, array)
        clips._save(file, array)  # another program finishes first

    monkeypatch.setattr(np, "save", save_beside_another)
    clips._save(file, np.arange(9))
    assert np.array_equal(np.load(file), np.arange(9))
    assert [p.name for p in tmp_path.iterdir()] == ["clip.npy"]
