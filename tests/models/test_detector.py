"""Comparison of priors, decoding, suppression and detect_faces with loops over single boxes."""

import math

import cv2
import numpy as np
import pytest
import standins
import torch

from detectors import S3FD
from detectors.s3fd.box_utils import decode, map_sizes, nms, prior_boxes
from detectors.s3fd.nets import S3FDNet


def plain_priors(height, width):
    """Compute priors one by one, with the map sizes of the network itself."""
    maps = S3FDNet(1 / 64).sources(torch.zeros(1, 3, height, width))
    boxes = []
    for k, feature_map in enumerate(maps):
        step, size = 4 * 2**k, 16 * 2**k
        for i in range(feature_map.shape[2]):
            for j in range(feature_map.shape[3]):
                boxes.append([(j + 0.5) * step / width, (i + 0.5) * step / height, size / width, size / height])
    return np.array(boxes)


def plain_iou(a, b):
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    both = max(0, right - left) * max(0, bottom - top)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def plain_nms(boxes, scores, threshold):
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(plain_iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("size", [(132, 244), (90, 161), (64, 64), (35, 33)])
def test_priors(size):
    assert len(prior_boxes(*size)) == sum(h * w for h, w in map_sizes(*size))
    np.testing.assert_allclose(prior_boxes(*size).numpy(), plain_priors(*size), rtol=1e-6)


def test_decoding():
    random = np.random.default_rng(0)
    offsets, priors = random.normal(size=(50, 4)), random.uniform(0.1, 1, (50, 4))
    expected = []
    for (dx, dy, dw, dh), (x, y, w, h) in zip(offsets, priors):
        x, y = x + dx * 0.1 * w, y + dy * 0.1 * h
        w, h = w * math.exp(dw * 0.2), h * math.exp(dh * 0.2)
        expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    np.testing.assert_allclose(decode(torch.from_numpy(offsets), torch.from_numpy(priors)).numpy(), expected)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_suppression(threshold):
    random = np.random.default_rng(0)
    corners = random.uniform(0, 60, (200, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 40, (200, 2))], axis=1)
    scores = random.permutation(200) / 200 + 0.001
    assert nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores, threshold)
    best = sorted(range(200), key=lambda i: -scores[i])[:20]
    expected = [best[i] for i in plain_nms(boxes[best], scores[best], threshold)]
    assert nms(boxes, scores, threshold, top_k=20).tolist() == expected


def test_suppression_of_nothing():
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.3).tolist() == []


def plain_detections(net, image, conf_th, scales):
    """Detect faces as specified, scale by scale and box by box."""
    height, width = image.shape[:2]
    found = []
    for scale in scales:
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(small.astype(np.float32) - np.array([123, 117, 104], np.float32))
        with torch.no_grad():
            locations, scores = net(pixels.permute(2, 0, 1)[None])
        boxes = decode(locations[0], torch.from_numpy(plain_priors(*small.shape[:2])).float()).numpy()
        scores = scores[0].numpy()
        likely = np.flatnonzero(scores > 0.05)
        kept = likely[plain_nms(boxes[likely], scores[likely], 0.3)[:750]]
        found += [[*(boxes[i] * [width, height, width, height]), scores[i]] for i in kept if scores[i] > conf_th]
    found = np.array(found).reshape(-1, 5)
    return found[plain_nms(found[:, :4], found[:, 4], 0.1)]


@pytest.fixture(scope="module")
def noisy_net(tmp_path_factory):
    """Return a network that detects faces everywhere."""
    torch.manual_seed(0)
    net = S3FDNet(0.125).eval()
    for layer in net.vgg:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    for conf in net.conf:
        conf.weight.data *= 3
    path = tmp_path_factory.mktemp("noisy") / "s3fd.pt"
    torch.save(net.state_dict(), path)
    return net, path


@pytest.mark.parametrize(("conf_th", "scales"), [(0.5, [1]), (0.05, [0.5]), (0.6, [1, 0.6, 0.4])])
def test_detect_faces(noisy_net, conf_th, scales):
    net, path = noisy_net
    image = np.random.default_rng(3).integers(0, 256, (90, 121, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3) * 2
    expected = plain_detections(net, image, conf_th, scales)
    assert len(expected) > 2
    detected = S3FD("cpu", weights=path).detect_faces(image, conf_th, scales)
    np.testing.assert_allclose(detected, expected, atol=2e-3)


def test_batch_equals_single_images(noisy_net):
    _, path = noisy_net
    images = np.random.default_rng(4).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)
    detector = S3FD("cpu", weights=path)
    batch = detector.detect_batch(images, 0.5, [1])
    assert sum(map(len, batch))
    for together, image in zip(batch, images):
        np.testing.assert_allclose(together, detector.detect_faces(image, 0.5, [1]), atol=2e-3)


def test_no_face(tmp_path):
    torch.save(standins.red_square_detector(), tmp_path / "s3fd.pt")
    detected = S3FD("cpu", weights=tmp_path / "s3fd.pt").detect_faces(np.zeros((64, 64, 3), np.uint8))
    assert detected.shape == (0, 5)
