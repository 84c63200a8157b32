"""The detector's trainer on drawn faces: it learns, folds batch norm, resumes and matches as in the paper."""

import cv2
import numpy as np
import pytest
import torch

from detectors.s3fd.box_utils import decode, prior_boxes
from detectors.s3fd.nets import S3FDNet
from training.common import TrainingError, load_checkpoint, save_atomically
from training.s3fd import evaluate as evaluate_s3fd
from training.s3fd import face_batches, frames
from training.s3fd import train as train_s3fd

WIDTH = 0.0625
NOTHING = np.zeros((0, 4))


def drawn_frame(seed: int) -> frames.Frame:
    """Draw a head with eyes and a mouth in front of a plain wall."""
    rng = np.random.default_rng(seed)
    image = np.full((160, 240, 3), rng.integers(0, 256, 3), np.uint8)
    x, y, r = int(rng.integers(60, 180)), int(rng.integers(60, 100)), int(rng.integers(25, 45))
    cv2.ellipse(image, (x, y), (int(0.8 * r), r), 0, 0, 360, (224, 172, 140), -1)
    for side in (-1, 1):
        cv2.circle(image, (x + side * r // 3, y - r // 4), max(2, r // 8), (20, 20, 20), -1)
    cv2.ellipse(image, (x, y + r // 2), (r // 3, r // 8), 0, 0, 360, (150, 40, 50), -1)
    box = np.array([[x - 0.8 * r, y - r, x + 0.8 * r, y + r]])
    return frames.Frame(image, box, np.array([True]), person=str(seed), scale=4.0)


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread, because many threads on tiny layers wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def drawn():
    return [drawn_frame(seed) for seed in range(6)]


@pytest.fixture
def trainer(drawn, monkeypatch):
    monkeypatch.setattr(face_batches, "SIDES", (64, 96))
    monkeypatch.setattr(face_batches, "SIDE_SHARES", (0.5, 0.5))
    monkeypatch.setattr(face_batches, "PIXELS_PER_STEP", 8 * 64**2)
    return lambda **changes: train_s3fd.Trainer(
        face_batches.Batches(drawn, seed=0), **{"width": WIDTH, "steps": 30, **changes}
    )


def test_loss_falls(trainer):
    run = trainer()
    losses = [sum(run.step()) for _ in range(30)]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_seed_determines_the_run(trainer):
    first, again, other = trainer(), trainer(), trainer(seed=1)
    assert first.step() == again.step()
    assert not torch.equal(first.net.vgg[0][0].weight, other.net.vgg[0][0].weight)


def test_resumed_run_gives_the_same_numbers(trainer, tmp_path):
    whole = trainer()
    for _ in range(3):
        whole.step()
    whole.save(tmp_path / "checkpoint.pt")
    resumed = trainer(seed=5)
    resumed.resume(tmp_path / "checkpoint.pt")
    assert [whole.step() for _ in range(2)] == [resumed.step() for _ in range(2)]
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, resumed.weights()[name]), name


def test_folding_changes_no_output(trainer):
    run = trainer()
    for _ in range(3):  # move running statistics and scales away from their initial values
        run.step()
    net = run.net.eval()
    folded = train_s3fd.fold_batch_norm(net)
    pixels = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 50
    with torch.inference_mode():
        for expected, got in zip(net(pixels), folded(pixels)):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_training_continues_from_weights(trainer, tmp_path):
    run = trainer()
    for _ in range(3):
        run.step()
    save_atomically(tmp_path / "s3fd.pt", run.weights())
    more = trainer(start=tmp_path / "s3fd.pt", seed=3)
    pixels = run.batches.draw(0)[0]
    with torch.inference_mode():
        for expected, got in zip(run.average.module(pixels), more.net.eval()(pixels)):
            torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)
    assert sum(more.step()) < 1.2 * sum(run.step())


def test_other_weights_to_start_from_are_refused(trainer, tmp_path):
    save_atomically(tmp_path / "s3fd.pt", {"x": torch.zeros(1)})
    with pytest.raises(TrainingError, match="not weights of this network"):
        trainer(start=tmp_path / "s3fd.pt")


def test_saved_weights_have_the_detectors_layout(trainer, tmp_path):
    save_atomically(tmp_path / "s3fd.pt", trainer().weights())
    state = load_checkpoint(tmp_path / "s3fd.pt")
    expected = S3FDNet(WIDTH).state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in expected.items()}
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}


def test_score_shift_adds_to_the_log_odds(trainer):
    run = trainer()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 50
    odds = []
    for shift in (0.0, 1.5):
        net = S3FDNet(WIDTH).eval()
        net.load_state_dict({name: tensor.float() for name, tensor in run.weights(shift).items()})
        with torch.inference_mode():
            odds.append(torch.cat([part.flatten() for _, part in net.heads(pixels)]))
    torch.testing.assert_close(odds[1], odds[0] + 1.5, atol=5e-3, rtol=0)


def test_resuming_a_finished_run_writes_its_files_again(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(train_s3fd, "load_frames", lambda folder: (drawn[:4], drawn[4:]))
    monkeypatch.setattr(train_s3fd, "rendered_frames", lambda count, seed: drawn[:1])
    monkeypatch.setattr(train_s3fd, "FACELESS_TESTS", 4)
    monkeypatch.setattr(face_batches, "SIDES", (64,))
    monkeypatch.setattr(face_batches, "SIDE_SHARES", (1.0,))
    monkeypatch.setattr(face_batches, "PIXELS_PER_STEP", 2 * 64**2)
    flags = ["--data", "unused", "--output", str(tmp_path), "--steps", "2", "--width", str(WIDTH)]
    assert train_s3fd.main(flags) == 0
    before = load_checkpoint(tmp_path / "s3fd.pt")
    assert train_s3fd.main([*flags, "--resume", "--score_shift", "1"]) == 0
    after = load_checkpoint(tmp_path / "s3fd.pt")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"conf.{index}.bias" for index in range(6)}
    assert (tmp_path / "log.txt").read_text().count("held out: recall") == 2


@pytest.mark.parametrize("size", [14, 23, 45, 91, 180])
def test_every_face_size_gets_priors_that_decode_to_it(size):
    face = np.array([[30.3, 41.7, 30.3 + 0.75 * size, 41.7 + size]])
    labels, offsets = face_batches.match(face, NOTHING, 256)
    owned = labels == face_batches.FACE
    assert owned.sum() >= face_batches.WANTED_PRIORS
    boxes = decode(torch.from_numpy(offsets[owned]), prior_boxes(256, 256)[owned]).numpy() * 256
    np.testing.assert_allclose(boxes, np.broadcast_to(face, boxes.shape), atol=1e-2)


def test_ambiguous_boxes_are_neither_face_nor_background():
    ambiguous = np.array([[64.0, 64.0, 128.0, 128.0]])
    labels, _ = face_batches.match(NOTHING, ambiguous, 256)
    centres = prior_boxes(256, 256).numpy()[:, :2] * 256
    sizes = prior_boxes(256, 256).numpy()[:, 2] * 256
    within = (np.abs(centres - 96) < 20).all(axis=1) & (sizes < 64)
    assert (labels[within] == face_batches.AMBIGUOUS).all()
    away = (np.abs(centres - 96) > 80).any(axis=1) & (sizes < 64)
    assert (labels[away] == face_batches.BACKGROUND).all()


def test_crops_keep_boxes_on_faces(drawn):
    rng = np.random.default_rng(0)
    for _ in range(40):
        image, faces, _ = frames.face_crop(rng, drawn[rng.integers(len(drawn))], 128)
        for x1, y1, x2, y2 in faces:
            if x1 > 0 and y1 > 0 and x2 < 128 and y2 < 128 and y2 - y1 > 30:
                cheek = image[int(y1 + 0.55 * (y2 - y1)), int((x1 + x2) / 2)].astype(int)
                assert np.abs(cheek - [224, 172, 140]).max() < 30


def test_small_and_uncertain_faces_are_ambiguous(drawn):
    frame = drawn[0]
    frame.trusted[:] = False
    _, faces, ambiguous = frames.face_crop(np.random.default_rng(0), frame, 128)
    assert len(faces) == 0
    assert len(ambiguous) == 1


class FixedDetector:
    """Detector that returns given detections."""

    def __init__(self, rows):
        self.rows = np.array(rows, dtype=np.float64).reshape(-1, 5)

    def detect_faces(self, image, conf_th, scales=(1,)):
        return self.rows[self.rows[:, 4] > conf_th]


def test_score_counts_hits_misses_and_strays(drawn):
    frame = drawn[0]
    hit = [*frame.boxes[0], 0.99]
    stray = [200, 120, 235, 155, 0.95]
    tiny = [0, 0, 10, 10, 0.95]  # 40 pixels of the video: too small for this score
    assert evaluate_s3fd.evaluate(FixedDetector([hit]), [frame])["recall"] == 1
    result = evaluate_s3fd.evaluate(FixedDetector([hit, stray, tiny]), [frame])
    assert (result["recall"], result["precision"], result["wrong_small"]) == (1, 0.5, 1)
    assert result["iou"] == pytest.approx(1)
    assert evaluate_s3fd.evaluate(FixedDetector([]), [frame])["recall"] == 0
    false_scores = evaluate_s3fd.false_detections(FixedDetector([hit, stray]), [frame.image] * 3, confidence=0.97)
    assert false_scores.tolist() == [0.99] * 3


def test_missing_data_is_one_line(tmp_path, capsys):
    assert train_s3fd.main(["--data", str(tmp_path), "--output", str(tmp_path / "out"), "--steps", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "index.tsv" in error
    (tmp_path / "index.tsv").write_text("clip\tperson\n")
    for lines in (None, "{", "[1]", '{"file": "a.jpg"}', '{"file": "a.jpg", "boxes": [[1]]}'):
        if lines:
            (tmp_path / "boxes.jsonl").write_text(lines)
        with pytest.raises(TrainingError, match=r"boxes\.jsonl"):
            frames.load_frames(tmp_path)
