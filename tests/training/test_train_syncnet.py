# ruff: noqa: F811, fixtures are imported
"""The sync network's trainer on a few small rendered talking faces."""

import json

import numpy as np
import pytest
import torch
from training_fixtures import WIDTH, arguments, faces, loaded, randomise  # noqa: F401

from syncnet.defaults import VSHIFT
from SyncNetModel import S
from training import common
from training.syncnet import agreement, calibrate, clips
from training.syncnet import evaluate as evaluate_syncnet
from training.syncnet import train as train_syncnet
from training.syncnet.half_lip import LUMA, HalfS, full_state, load_full
from training.syncnet.sync_loss import SMALLEST_RATIO, Distance, draw_sample, shift_curve, sync_loss


def test_half_size_network_equals_the_full_one():
    net = randomise(HalfS(0.125))
    full = S(width=0.125).eval()
    full.load_state_dict(full_state(net, scale=2.0, floor=3.0, beyond=5.0))
    grey = torch.randint(0, 256, (2, 5, 112, 112), dtype=torch.uint8)
    frames = grey.float().repeat_interleave(2, 2).repeat_interleave(2, 3)[:, None].expand(-1, 3, -1, -1, -1)
    coefficients = torch.randn(2, 13, 20) * 10
    with torch.no_grad():
        video, expected = full.forward_lip(frames), net.forward_lip(grey)
        audio, expected_audio = full.forward_aud(coefficients[:, None]), net.forward_aud(coefficients)
    assert sum(LUMA) == pytest.approx(1)
    torch.testing.assert_close(video[:, :-1], 2 * expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(audio[:, :-1], 2 * expected_audio, rtol=1e-3, atol=1e-4)
    assert (video[:, -1] == 5).all() and (audio[:, -1] == 2).all()


def test_starting_from_saved_weights_restores_the_network():
    saved, again = randomise(HalfS(WIDTH)), HalfS(WIDTH).eval()
    full = S(width=WIDTH)
    full.load_state_dict(full_state(saved, scale=2.0, floor=3.0, beyond=5.0))
    load_full(again, full)
    torch.manual_seed(1)
    grey, coefficients = torch.randint(0, 256, (9, 5, 112, 112), dtype=torch.uint8), torch.randn(9, 13, 20) * 10
    common.pass_through([again.fclip[-1]], lambda: again.forward_lip(grey))
    common.pass_through([again.fcaud[-1]], lambda: again.forward_aud(coefficients))
    with torch.no_grad():
        torch.testing.assert_close(again.forward_lip(grey), 2 * saved.forward_lip(grey), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            again.forward_aud(coefficients), 2 * saved.forward_aud(coefficients), rtol=1e-3, atol=1e-3
        )
        in_training = again.train().forward_aud(coefficients)  # the statistics of this batch
    torch.testing.assert_close(in_training.mean(0), 2 * saved.forward_aud(coefficients).mean(0), rtol=0.05, atol=0.05)


def test_training_continues_from_weights(faces, trained, tmp_path):
    begin = ["--start", str(trained / "syncnet.pt"), "--steps", "1", "--rate", "1e-9"]
    assert train_syncnet.main(arguments(faces, tmp_path, *begin)) == 0
    before, after = (common.load_checkpoint(work / "syncnet.pt") for work in (trained, tmp_path))
    kernel = "netcnnlip.4.weight"
    torch.testing.assert_close(after[kernel], before[kernel], rtol=1e-2, atol=1e-3)


def test_colours_are_weighted_by_their_luma():
    net = randomise(HalfS(0.125))
    full = S(width=0.125).eval()
    full.load_state_dict(full_state(net))
    colours = torch.tensor([40.0, 100.0, 200.0])  # blue, green, red
    frames = colours.view(1, 3, 1, 1, 1).expand(1, 3, 5, 224, 224)
    level = float((colours * torch.tensor(LUMA)).sum())
    plain = torch.full((1, 3, 5, 224, 224), level)
    with torch.no_grad():
        torch.testing.assert_close(full.forward_lip(frames), full.forward_lip(plain), rtol=1e-3, atol=1e-4)


def test_scales_behind_pools_stay_positive():
    net = HalfS(0.125)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(-1.0)
    net.keep_scales_positive()
    pooled = [b for stream in (net.aud, net.lip) for a, b in zip(stream, list(stream)[1:])
              if isinstance(a, torch.nn.MaxPool2d)]  # fmt: skip
    assert len(pooled) == 5 and all((norm.weight > 0).all() for norm in pooled)


def test_score_follows_the_scorers_formula():
    torch.manual_seed(0)
    video, audio = torch.randn(40, 8), torch.randn(40, 8)
    audio[4:] = video[:-4] + 0.1 * audio[4:]  # the audio is four windows late
    padded = torch.nn.functional.pad(audio, (0, 0, VSHIFT, VSHIFT))
    curve = torch.stack([
        torch.nn.functional.pairwise_distance(video[i : i + 1], padded[i : i + 2 * VSHIFT + 1]) for i in range(40)
    ]).mean(0)  # fmt: skip
    found = evaluate_syncnet.score(evaluate_syncnet.lag_squares(video, audio))
    assert found.offset == VSHIFT - int(curve.argmin()) == -4
    assert found.min_dist == pytest.approx(float(curve.min()), abs=1e-4)
    assert found.confidence == pytest.approx(float(curve.median() - curve.min()), abs=1e-4)


def test_training_curve_is_the_scorers_curve():
    torch.manual_seed(0)
    video, audio = torch.randn(30, 8), torch.randn(30, 8)
    distance = Distance(scale=0.5, floor=2.0, beyond=3.0)
    curve = shift_curve(distance(video, audio), distance.to_silence(video), torch.arange(30), 30).detach()
    squares = evaluate_syncnet.lag_squares(
        *(torch.cat([0.5 * f, torch.full((30, 1), last)], 1) for f, last in ((video, 3.0), (audio, 1.0)))
    )
    torch.testing.assert_close(curve, squares.values.sqrt().mean(0), rtol=1e-4, atol=1e-4)
    raw = evaluate_syncnet.lag_squares(video, audio)
    assert float(curve.min()) == pytest.approx(evaluate_syncnet.score(raw, **distance.calibration()).min_dist, abs=1e-4)


def test_loss_is_small_for_features_in_sync(loaded):
    class Perfect:
        """Network whose features identify the window."""

        def forward_lip(self, windows):
            return self.table[: len(windows)] if self.right else self.table.flip(0)[: len(windows)]

        def forward_aud(self, coefficients):
            return self.table[: len(coefficients)]

    net = Perfect()
    sample = draw_sample(np.random.default_rng(0), loaded[0], loaded, 8)
    assert len(sample.places) == len(sample.windows) == 8 and sample.places.max() < len(sample.coefficients)
    net.table = 50 * torch.eye(64)[: len(sample.coefficients)]
    losses = {}
    for net.right in (True, False):
        sample.places, sample.lag = torch.arange(8), 0
        losses[net.right], parts = sync_loss(net, Distance(), [sample])
    assert losses[True] < losses[False] and parts["right"] < 1
    assert {"confidence", "min_dist"} < set(parts)
    sample.confidence = None
    assert not {"confidence", "min_dist"} & set(sync_loss(net, Distance(), [sample])[1])


def test_published_confidence_is_followed_at_any_scale():
    distance = Distance()
    published = torch.tensor([2.0, 4.0, 6.0])
    for _ in range(200):
        distance.follow(0.7 * published, published)
    assert distance.ratio.item() == pytest.approx(0.7, abs=1e-3)
    for _ in range(400):
        distance.follow(-published, published)
    assert distance.ratio.item() == pytest.approx(SMALLEST_RATIO)


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory):
    work = tmp_path_factory.mktemp("run")
    assert train_syncnet.main(arguments(faces, work, "--steps", "6")) == 0
    return work


def test_loss_falls(loaded):
    sampler = train_syncnet.Sampler(loaded)
    trainer = train_syncnet.Trainer(
        width=WIDTH, device="cpu", rate=0.003, seed=0, decay=0.9, precision="float32"
    )  # fmt: skip
    progress = common.Progress(steps=40)
    losses = [
        trainer.step(sampler.draw(common.step_generator(0, step), 4, 8), progress)[0] for step in range(40)
    ]  # fmt: skip
    assert np.isfinite(losses).all()
    assert np.mean(losses[-8:]) < np.mean(losses[:4]) - 0.5


def test_resumed_run_is_the_same_run(faces, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_syncnet.main(arguments(faces, whole, "--steps", "4")) == 0
    assert train_syncnet.main(arguments(faces, parts, "--steps", "4", "--stop_after", "2")) == 0
    assert common.load_checkpoint(parts / "checkpoint.pt")["step"] == 2
    assert train_syncnet.main(arguments(faces, parts, "--steps", "4", "--resume")) == 0
    one, two = (common.load_checkpoint(work / "checkpoint.pt") for work in (whole, parts))
    assert one["step"] == two["step"] == 4
    for name, value in one["net"].items():
        assert torch.equal(value, two["net"][name]), name
    for name, value in one["average"].items():
        assert torch.equal(value, two["average"][name]), name


def test_saved_weights_are_plain_half_precision(trained):
    state = torch.load(trained / "syncnet.pt", weights_only=True)
    assert {v.dtype for v in state.values()} == {torch.float16, torch.int64}
    S(width=WIDTH).load_state_dict(state)
    assert not list(trained.glob("*.part"))
    assert "held out at step 6" in (trained / "train.log").read_text()


def test_fit_finds_scale_and_floor():
    generator = torch.Generator().manual_seed(0)
    columns = torch.arange(50)[:, None] + torch.arange(-VSHIFT, VSHIFT + 1)
    beyond = (columns < 0) | (columns >= 50)
    squares = []
    for _ in range(12):
        distances = 2 + torch.randn(50, 31, generator=generator).abs()
        distances[:, VSHIFT] -= 2 * torch.rand(1, generator=generator)
        squares.append(evaluate_syncnet.Squares(distances.square(), beyond))
    targets = calibrate.scores(squares, scale=3.0, floor=5.0, beyond=5.0)
    found = calibrate.fit(squares, targets)
    assert (found["scale"], found["floor"]) == (pytest.approx(3.0, rel=0.05), pytest.approx(5.0, rel=0.05))
    found = calibrate.left_out(squares, targets, [f"p{i // 3}" for i in range(12)])
    assert np.abs(found - targets).mean() < 0.05


def test_report_counts():
    def clip(confidence, faces=1):
        return clips.Clip("c", "p", "s", None, None, faces, confidence, 12 - confidence if confidence else None, 0)

    score = evaluate_syncnet.Score
    results = [
        (score(0, 6.0, 8.0), {4: score(-4, 6.0, 8.0)}),
        (score(1, 4.0, 9.0), {4: score(-2, 4.0, 9.0)}),
        (score(9, 1.0, 9.0), {4: score(5, 4.0, 9.0)}),
        (score(3, 2.0, 9.0), {4: score(-1, 4.0, 9.0)}),
        (score(12, 2.0, 9.0), {4: score(8, 4.0, 9.0)}),
    ]
    figures = evaluate_syncnet.report([clip(7.0), clip(5.0), clip(2.0), clip(None), clip(None, faces=2)], results)
    assert figures["published_sure"] == 2 and figures["others"] == 1
    assert (figures["within_1"], figures["exact"], figures["others_within_1"]) == (1.0, 0.5, 0.0)
    assert (figures["others_sure"], figures["follows_shift"]) == (0, pytest.approx(0.8))
    assert figures["sure_follows_shift"] == 0.5
    assert figures["confidence_spearman"] == pytest.approx(1.0)


@pytest.mark.parametrize("more, words", [
    (["--data", "nowhere", "--steps", "1"], "nowhere/index.tsv: no such file; give the folder"),
    ([], "use --steps, --minutes or both"),
    (["--steps", "1", "--resume"], "checkpoint.pt: no such file: give existing weights, or leave out --resume"),
])  # fmt: skip
def test_faults_are_one_line(faces, tmp_path, capsys, more, words):
    assert train_syncnet.main(arguments(faces, tmp_path / "new", *more)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("syncnet.train: error: ") and words in error


def test_a_report_on_missing_weights_is_one_line(faces, capsys):
    assert evaluate_syncnet.main(["--data", str(faces), "--weights", "nowhere.pt"]) == 1
    assert capsys.readouterr().err.startswith("syncnet.evaluate: error: nowhere.pt: ")


def test_checkpoint_of_another_width_is_refused(faces, trained, capsys):
    more = ["--width", "0.125", "--steps", "9", "--resume"]
    assert train_syncnet.main(arguments(faces, trained, *more)) == 1
    assert f"give --width {WIDTH}" in capsys.readouterr().err


def test_canonical_correlations():
    """Two shared sources in two mixtures with independent noise are found, in order."""
    generator = torch.Generator().manual_seed(0)
    sources, *noise = (torch.randn(5000, size, generator=generator) for size in (2, 6, 6))
    mixtures = [torch.randn(8, 8, generator=generator) for _ in noise]
    strengths = torch.tensor([3.0, 1.0])
    streams = [torch.cat([strengths * sources + own[:, :2], own], 1) @ m for own, m in zip(noise, mixtures)]
    video, audio = (features - features.mean(0) for features in streams)
    left, right, correlations = agreement.canonical(video, audio)
    assert correlations[0] > 0.9 and 0.2 < correlations[1] < 0.9 and (correlations[2:] < 0.1).all()
    found = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip((video @ left).T, (audio @ right).T)]
    torch.testing.assert_close(torch.stack(found), correlations, rtol=0, atol=1e-3)


def test_only_what_both_streams_share_is_kept(loaded):
    """The heads return the weighted canonical variates, and both streams have the same mean."""
    net = randomise(HalfS(WIDTH))
    before = [agreement.stream_features(net, clip) for clip in loaded]
    correlations = agreement.keep_agreement(net, loaded, power=2)
    after = [agreement.stream_features(net, clip) for clip in loaded]
    count = len(correlations)
    for old, new in zip(zip(*before), zip(*after)):
        assert torch.cat(new)[:, count:].abs().max() == 0
        assert torch.cat(new).mean(0).abs().max() < 1e-3 < torch.cat(old).mean(0).abs().max()
    within = [torch.cat([f - f.mean(0) for f in stream])[:, :count] for stream in zip(*after)]
    expected = torch.diag(correlations.float() ** 5)  # of variances 1, weighted twice
    torch.testing.assert_close(within[0].T @ within[1] / len(within[0]), expected, rtol=0, atol=1e-2)


def test_calibration_writes_weights(faces, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(common, "split_by_person", lambda rows: (rows, rows))
    out = tmp_path / "starter" / "syncnet.pt"
    cache = ["--cache", str(faces / "cache")]
    flags = ["--data", str(faces), "--work", str(trained), "--output", str(out), *cache]
    assert calibrate.main(flags) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["clips"] == 5 and figures["scale"] > 0
    S(width=WIDTH).load_state_dict(torch.load(out, weights_only=True))
