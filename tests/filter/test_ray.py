"""Tests of the filter on a Ray cluster of two nodes on this machine. They are skipped if Ray is not installed."""

import json
import os
import threading

import filter_stub
import pytest
from filter_program import TESTS, records, times_finished, wait_until

import filter_videos_by_sync_score as script
from syncnet.filter import ray_engine, scorer

ray = pytest.importorskip("ray", reason="Ray is optional and not installed: pip install -r requirements-ray.txt")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.slow

SCORED = "v{:03d}.slow.c{}.o1.mp4"
SILENCE_SECONDS = 4.0


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """Use the scorer of filter_stub, here and on the nodes; return a function that lists the started videos."""
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.setattr(scorer, "load_scorer", filter_stub.load_scorer)
    monkeypatch.setattr(
        ray_engine.RayEngine.__init__,
        "__kwdefaults__",
        {**ray_engine.RayEngine.__init__.__kwdefaults__, "silence": SILENCE_SECONDS},
    )
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "log").touch()
    return lambda: (tmp_path / "log").read_text().splitlines()


@pytest.fixture
def cluster(stub):
    """Cluster with a head node of two cores."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def run_filter(tmp_path, capfd):
    def call(output, *flags):
        weights = ["--initial_model", str(tmp_path / "a.pt"), "--s3fd_weights", str(tmp_path / "b.pt")]
        folders = ["--input_dir", str(tmp_path / "videos"), "--output_dir", str(tmp_path / output)]
        code = script.main([*folders, *weights, *map(str, flags)])
        path = tmp_path / output / "sync_filter_results.json"
        return code, json.loads(path.read_text()) if path.exists() else None, capfd.readouterr().err

    return call


def make_videos(tmp_path, count, *more):
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [*(SCORED.format(number, number % 10) for number in range(count)), *more]
    for name in names:
        (folder / name).write_text(name)
    return names


def without_times(results):
    times = ("start_time", "end_time", "processing_time", "timestamp")
    kept = {key: value for key, value in results.items() if key not in (*times, "results")}
    videos = [{key: value for key, value in r.items() if key not in times} for r in results["results"]]
    return {**kept, "results": videos}


def test_node_removed_half_way(cluster, stub, run_filter, tmp_path):
    """Every video has one result, equal to that of the local engine."""
    names = make_videos(tmp_path, 60, "none.mp4", "x.raises.mp4")
    node = cluster.add_node(num_cpus=2)
    removed = threading.Event()

    def remove():
        wait_until(lambda: len(times_finished(tmp_path / "ray")) > 20, seconds=120)
        cluster.remove_node(node, allow_graceful=False)
        removed.set()

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    flags = ("--engine", "ray", "--ray_address", cluster.address, "--max_workers", 4, "--transfer", "hardlink")
    code, results, err = run_filter("ray", *flags)
    thread.join(30)
    assert removed.is_set() and code == 3, err
    assert times_finished(tmp_path / "ray") == dict.fromkeys(names, 1)
    assert len(stub()) <= len(names) + 4  # videos in progress were started again
    code, local, _ = run_filter("local", "--transfer", "hardlink")
    assert code == 3
    assert without_times(results) == without_times(local)
    good = sorted(path.name for path in (tmp_path / "ray/good_quality").iterdir())
    assert good == sorted(path.name for path in (tmp_path / "local/good_quality").iterdir()) and good


def test_actor_that_dies_costs_one_retry(cluster, stub, run_filter, tmp_path):
    names = make_videos(tmp_path, 4, "y.dies-once.c7.o0.mp4", "x.dies.mp4", "z.hang.mp4")
    flags = ("--engine", "ray", "--ray_address", cluster.address, "--max_workers", 2, "--timeout", 15)
    code, _, err = run_filter("ray", *flags)
    assert code == 3, err
    by_name = {record["name"]: record for record in records(tmp_path / "ray")}
    assert sorted(by_name) == sorted(names)
    assert by_name["y.dies-once.c7.o0.mp4"]["status"] == "success"
    assert by_name["x.dies.mp4"]["error"] == "its worker died, twice: run again with --retry_failed"
    assert by_name["z.hang.mp4"]["error"] == "took longer than --timeout 15 seconds"
    tries = {name: stub().count(name) for name in names}
    assert tries == {name: 2 if "dies" in name else 1 for name in names}
    assert run_filter("ray", *flags)[0] == 3 and len(stub()) == len(names) + 2  # nothing left to do


def test_errors_of_the_whole_run(cluster, run_filter, tmp_path):
    make_videos(tmp_path, 2)
    flags = ("--engine", "ray", "--ray_address", cluster.address)
    code, _, err = run_filter("ray", *flags, "--device", "broken")
    assert code == 1 and "--device broken: not a device" in err


def test_few_tasks_wait(cluster, stub, run_filter, tmp_path, monkeypatch):
    """Every actor has one video at a time, however many there are."""
    make_videos(tmp_path, 30)
    most, give = [], ray_engine.Slot.give

    def counting(slot, video):
        give(slot, video)
        most.append(sum(1 for other in engines[-1].slots if other.video))

    engines, run = [], ray_engine.RayEngine.run

    def keep(engine, videos):
        engines.append(engine)
        return run(engine, videos)

    monkeypatch.setattr(ray_engine.Slot, "give", counting)
    monkeypatch.setattr(ray_engine.RayEngine, "run", keep)
    code, _, _ = run_filter("ray", "--engine", "ray", "--ray_address", cluster.address, "--max_workers", 2)
    assert code == 0 and len(most) == 30 and max(most) == 2
