"""Tracking and cropping against straightforward implementations."""

import wave

import clips
import cv2
import numpy as np
import pytest
import scipy.signal

from syncnet.faces.crops import CROP_SIZE, crop_face, cut_audio, smooth, write_crops
from syncnet.faces.scenes import Scene, detect_scenes, frame_numbers, new_manager
from syncnet.faces.tracks import Face, Track, iou, link_faces, track_faces
from syncnet.media import conversions
from syncnet.media.ffmpeg import Ffmpeg


def plain_chains(faces, num_failed_det):
    """The published algorithm, which removes faces from the lists that it iterates over."""
    left = [list(of_frame) for of_frame in faces]
    chains = []
    while True:
        chain = []
        for of_frame in left:
            for face in of_frame:
                if not chain:
                    chain.append(face)
                    of_frame.remove(face)  # on purpose: the loop then skips the next face
                elif face.frame - chain[-1].frame <= num_failed_det:
                    if iou(face.bbox, chain[-1].bbox) > 0.5:
                        chain.append(face)
                        of_frame.remove(face)
                else:
                    break
        if not chain:
            return chains
        chains.append(chain)


def random_faces(seed, frames=60, people=4):
    """Faces of people who move, come close to each other and are sometimes not detected."""
    random = np.random.default_rng(seed)
    centres = random.uniform(50, 250, (people, 2))
    faces = []
    for frame in range(frames):
        centres += random.normal(0, 6, centres.shape)
        found = []
        for x, y in centres[random.permutation(people)]:
            if random.random() < 0.75:
                half = random.uniform(25, 35)
                found.append(Face(frame=frame, bbox=(x - half, y - half, x + half, y + half), conf=0.95))
        faces.append(found)
    return faces


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("num_failed_det", [0, 2, 25])
def test_chains(seed, num_failed_det):
    faces = random_faces(seed)
    assert link_faces(faces, num_failed_det=num_failed_det) == plain_chains(faces, num_failed_det)


def test_face_after_a_taken_one_is_skipped():
    here, near = (0, 0, 10, 10), (0, 0, 10, 11)
    faces = [[Face(0, here, 1.0)], [Face(1, here, 1.0), Face(1, near, 0.9)]]
    assert [len(chain) for chain in link_faces(faces, num_failed_det=5)] == [2, 1]


def still(count, size=20, start=0, missing=()):
    return [[] if f in missing else [Face(f, (5, 5, 5 + size, 5 + size), 1.0)] for f in range(start, start + count)]


def track(faces, scenes, **changes):
    flags = {"min_track": 5, "num_failed_det": 3, "min_face_size": 10, **changes}
    return track_faces(faces, scenes, **flags)


def test_missed_frames_are_interpolated():
    faces = [[Face(0, (0, 0, 20, 20), 1.0)], [], [], [Face(3, (1.5, 3, 21.5, 26), 1.0)], *still(4, start=4)]
    found = track(faces, [Scene(0, 8)], min_track=4).tracks[0]
    assert found.frame.tolist() == list(range(8))
    np.testing.assert_allclose(found.bbox[1], [0.5, 1, 20.5, 22])
    assert found.found == 6


@pytest.mark.parametrize(("count", "kept"), [(5, 0), (6, 1)])
def test_min_track_is_exceeded(count, kept):
    assert len(track(still(count), [Scene(0, count)]).tracks) == kept


def test_scene_shorter_than_min_track():
    assert not track(still(10), [Scene(0, 4), Scene(4, 8)], min_track=5).tracks


@pytest.mark.parametrize(("size", "kept"), [(10, 0), (11, 1)])
def test_min_face_size_is_exceeded(size, kept):
    tracking = track(still(8, size=size), [Scene(0, 8)])
    assert (len(tracking.tracks), tracking.largest) == (kept, size)


def test_cut_ends_tracks_and_a_scene_may_end_late():
    tracking = track(still(16), [Scene(0, 8), Scene(8, 30)])
    assert [t.frame.tolist() for t in tracking.tracks] == [list(range(8)), list(range(8, 16))]


def test_longest_counts_tracks_that_are_too_short():
    tracking = track(still(9, missing=(3,)), [Scene(0, 9)], min_track=50)
    assert (tracking.tracks, tracking.longest, tracking.largest) == ([], 8, None)


def plain_crop(image, s, x, y, crop_scale):
    border = int(s * (1 + 2 * crop_scale))
    padded = np.pad(image, ((border, border), (border, border), (0, 0)), constant_values=110)
    x, y = x + border, y + border
    rows = slice(int(y - s), int(y + s * (1 + 2 * crop_scale)))
    columns = slice(int(x - s * (1 + crop_scale)), int(x + s * (1 + crop_scale)))
    return cv2.resize(padded[rows, columns], (224, 224))


@pytest.mark.parametrize(
    ("s", "x", "y"),
    [
        (20, 60, 40),
        (20.7, 3.2, 2.9),
        (15, 118, 78),
        (30, 119.5, 79.9),
        (60, 60, 40),
        (200, 10, 70),
        (12, 60, 83),
        (9.4, 120, 5),
    ],
)
@pytest.mark.parametrize("crop_scale", [0.4, 0.1])
def test_crop(s, x, y, crop_scale):
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    expected = plain_crop(image, s, x, y, crop_scale)
    np.testing.assert_array_equal(crop_face(image, s=s, x=x, y=y, crop_scale=crop_scale), expected)


@pytest.mark.parametrize(("x", "y"), [(-500, 40), (60, -500), (900, 40), (60, 900)])
def test_crop_of_nothing(x, y):
    crop = crop_face(np.zeros((80, 120, 3), np.uint8), s=20, x=x, y=y, crop_scale=0.4)
    assert crop.shape == (CROP_SIZE, CROP_SIZE, 3)
    assert (crop == 110).all()


def test_smoothing():
    random = np.random.default_rng(0)
    boxes = np.concatenate([random.uniform(0, 50, (30, 2)), random.uniform(60, 99, (30, 2))], axis=1)
    path = smooth(Track(frame=np.arange(30), bbox=boxes, found=30))
    half = np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2
    np.testing.assert_allclose(path.s, scipy.signal.medfilt(half, 13))
    np.testing.assert_allclose(path.x, scipy.signal.medfilt((boxes[:, 0] + boxes[:, 2]) / 2, 13))
    np.testing.assert_allclose(path.y, scipy.signal.medfilt((boxes[:, 1] + boxes[:, 3]) / 2, 13))


def convert(source, output, *flags):
    Ffmpeg(["-i", source, *flags, output], source=source).finish()


@pytest.fixture(scope="module")
def audio_file(tmp_path_factory):
    """Two seconds of noise."""
    path = tmp_path_factory.mktemp("audio_file") / "audio.wav"
    return clips.make(path, "anoisesrc=d=2:r=16000:seed=1", flags=conversions.WAV_FLAGS)


@pytest.mark.parametrize(("first", "last"), [(0, 49), (7, 31), (13, 13), (30, 80), (60, 70)])
def test_cut_audio_equals_ffmpegs(audio_file, tmp_path, first, last):
    cut_audio(audio_file, tmp_path / "ours.wav", first=first, last=last, frame_rate=25)
    times = ["-ss", f"{first / 25:.3f}", "-to", f"{(last + 1) / 25:.3f}"]
    convert(audio_file, tmp_path / "ffmpegs.wav", *times)
    ours, ffmpegs = (conversions.read_wav(tmp_path / name) for name in ("ours.wav", "ffmpegs.wav"))
    np.testing.assert_array_equal(ours, ffmpegs)


def test_crops_have_video_and_audio(audio_file, tmp_path):
    frames, folder = tmp_path / "frames", tmp_path / "crops"
    frames.mkdir()
    folder.mkdir()
    for index in range(50):
        cv2.imwrite(str(frames / f"{index + 1:06d}.jpg"), np.full((90, 120, 3), index * 4, np.uint8))
    boxes = np.tile([30.0, 20, 60, 50], (50, 1))
    tracks = [
        Track(frame=np.arange(20), bbox=boxes[:20], found=20),
        Track(frame=np.arange(10, 50), bbox=boxes[:40], found=40),
    ]
    write_crops(tracks, frames=frames, audio=audio_file, folder=folder, crop_scale=0.4, frame_rate=25)
    assert sorted(path.name for path in folder.iterdir()) == ["00000.avi", "00001.avi"]
    assert [conversions.frame_count(path) for path in sorted(folder.iterdir())] == [20, 40]
    convert(folder / "00001.avi", tmp_path / "out.wav", *conversions.WAV_FLAGS)
    start, end = 10 * 640, 50 * 640
    np.testing.assert_array_equal(
        conversions.read_wav(tmp_path / "out.wav"), conversions.read_wav(audio_file)[start:end]
    )


def test_audio_ends_before_the_track(audio_file, tmp_path):
    cut_audio(audio_file, tmp_path / "cut.wav", first=60, last=70, frame_rate=25)
    with wave.open(str(tmp_path / "cut.wav")) as cut:
        assert cut.getnframes() == 0


def test_scenes(tmp_path):
    colours = "color=red:s=160x120:r=25:d=1", "color=blue:s=160x120:r=25:d=2"
    flags = ("-filter_complex", "concat=n=2:v=1", "-qscale:v", "2")
    video = clips.make(tmp_path / "video.avi", *colours, flags=flags)
    assert frame_numbers(detect_scenes(video, new_manager())) == [Scene(0, 25), Scene(25, 75)]
    assert frame_numbers(detect_scenes(video, new_manager(threshold=255))) == [Scene(0, 75)]
