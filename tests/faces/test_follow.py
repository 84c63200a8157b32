"""Tracking in a stream of frames against the functions that see a whole video."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from test_tracks import random_faces

from syncnet.faces.crops import smooth
from syncnet.faces.follow import Follower
from syncnet.faces.scenes import Cuts, Scene, detect_scenes, frame_numbers, new_manager, small_size, timecodes
from syncnet.faces.tracks import Face, interpolate, link_faces


def follow(faces, *, num_failed_det, every=1):
    """Return the ``Follower`` after it has seen every n-th frame."""
    follower = Follower(num_failed_det=num_failed_det)
    for frame in range(0, len(faces), every):
        follower.add(frame, faces[frame])
    follower.end_scene()
    return follower


@pytest.mark.parametrize("num_failed_det", [0, 2, 25])
def test_every_frame_gives_the_published_tracks(num_failed_det):
    for seed in range(30):
        faces = random_faces(seed, people=2 + seed % 5)
        expected = link_faces(faces, num_failed_det=num_failed_det)
        follower = follow(faces, num_failed_det=num_failed_det)
        assert [chain.faces for chain in follower.chains] == expected
        assert [chain.found for chain in follower.chains] == list(map(len, expected))
        assert all(chain.ended for chain in follower.chains)


def test_two_faces_that_overlap_in_one_frame():
    here, near = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 11.0)
    faces = [[Face(f, here, 1.0), Face(f, near, 0.9), Face(f, here, 0.8)] for f in range(4)]
    expected = link_faces(faces, num_failed_det=5)
    assert [chain.faces for chain in follow(faces, num_failed_det=5).chains] == expected
    assert len(expected) > 1


def still(frames):
    box = (5.0, 5.0, 25.0, 25.0)
    return [[Face(f, box, 1.0)] if f in frames else [] for f in range(60)]


def test_frames_between_two_looks_count():
    """A face in every look was there between them, too; not where a look between them did not find it."""
    [chain] = follow(still(range(60)), num_failed_det=25, every=5).chains
    assert (chain.first, chain.last, chain.found) == (0, 55, 56)
    [chain] = follow(still(set(range(60)) - {20}), num_failed_det=25, every=5).chains
    assert (chain.last, chain.found) == (55, 16 + 31)


@pytest.mark.parametrize(("missing", "chains"), [(20, 1), (30, 2)])
def test_num_failed_det_counts_frames(missing, chains):
    faces = still({f for f in range(60) if f <= 10 or f > 10 + missing})
    assert len(follow(faces, num_failed_det=25, every=5).chains) == chains


def test_scenes_end_tracks():
    follower = Follower(num_failed_det=25)
    for frame, [face] in enumerate(still(range(60))):
        if frame == 30:
            follower.end_scene()
        follower.add(frame, [face])
    assert [(chain.scene, chain.first, chain.last) for chain in follower.chains] == [(0, 0, 29), (1, 30, 59)]


@pytest.mark.parametrize("every", [1, 5])
def test_positions_are_those_of_the_whole_track(every):
    """Crops are cut long before the face's last frame is known, where its smoothed position no longer changes."""
    for seed in range(20):
        faces = random_faces(seed, frames=90, people=2)
        follower, pieces = Follower(num_failed_det=10), {}
        for frame in [*range(0, 90, every), None]:
            if frame is None:
                follower.end_scene()
            else:
                follower.add(frame, faces[frame])
            for index, chain in enumerate(follower.chains):
                first, last = chain.cropped, chain.ready()
                if first < last:
                    pieces.setdefault(index, []).append(chain.path(first, last))
                    chain.cropped = last
        assert pieces
        for index, found in pieces.items():
            whole = smooth(interpolate(follower.chains[index].faces))
            for axis in "sxy":
                joined = np.concatenate([getattr(piece, axis) for piece in found])
                np.testing.assert_allclose(joined, getattr(whole, axis), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("before", "after", "unsettled"),
    [
        ([(0, 0, 60, 60)], [(2, 0, 62, 60)], False),
        ([(0, 0, 60, 60)], [], True),
        ([], [(0, 0, 60, 60)], True),
        ([(0, 0, 20, 20)], [], False),  # too small to matter
        ([(0, 0, 60, 60)], [(100, 0, 160, 60)], True),
    ],
)
def test_unsettled_where_faces_come_or_go(before, after, unsettled):
    follower = Follower(num_failed_det=25)
    new = [Face(5, box, 1.0) for box in after]
    assert not follower.unsettled(new, least_size=50)  # nothing was looked at before
    follower.add(0, [Face(0, box, 1.0) for box in before])
    assert follower.unsettled(new, least_size=50) is unsettled


def film(seed, frames=260):
    """Return frames with cuts, flashes of one to three frames and slow changes, N x 90 x 120 x 3, BGR."""
    random = np.random.default_rng(seed)
    images, places = [], np.sort(random.choice(np.arange(2, frames), 12, replace=False))
    for first, last in pairwise([0, *places, frames]):
        image = cv2.resize(random.integers(0, 256, (3, 4, 3), dtype=np.uint8), (120, 90))
        images += [np.roll(image, step, axis=1) for step in range(last - first)]
    for place in random.choice(np.arange(5, frames - 5), 4, replace=False):
        for image in images[place : place + random.integers(1, 4)]:
            image[:] = 255
    return np.stack(images)


@pytest.mark.parametrize("seed", range(6))
def test_cuts_are_those_of_published_mode(seed, tmp_path):
    images = film(seed)
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 25, (120, 90))
    for image in images:
        writer.write(image)
    writer.release()
    capture, cuts, settled = cv2.VideoCapture(str(path)), Cuts(), [0]
    known = []
    while (frame := capture.read())[0]:
        cuts.add(frame[1])
        known.append([cut for cut in cuts.known if cut <= cuts.settled])
        settled.append(cuts.settled)
    cuts.finish()
    expected = frame_numbers(detect_scenes(path, new_manager()))
    edges = [0, *cuts.known, len(images)]
    assert [Scene(*edge) for edge in pairwise(edges)] == expected
    assert len(expected) > 3
    assert all(settled[i] <= settled[i + 1] for i in range(len(settled) - 1))
    for now, bound in zip(known, settled[1:]):
        assert now == [cut for cut in cuts.known if cut <= bound]  # nothing was added behind ``settled``


def test_size_and_form_of_scenes():
    assert small_size(256, 144) == (256, 144)
    assert small_size(1920, 1080)[0] < 400
    assert frame_numbers(timecodes([Scene(0, 33), Scene(33, 70)])) == [Scene(0, 33), Scene(33, 70)]
