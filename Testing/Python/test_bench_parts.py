"""The parts of `mcsr bench`: what is run in turn, and that its figures are what they are called."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mcsr import bench_timing
from mcsr.bench_canvas import ON_CANVAS, WHOLE, measure_canvas, volumes_of
from mcsr.bench_jobs import (
    NETWORK_STAGE,
    REFERENCE_FILE,
    TARGET_FILE,
    JobCost,
    _NetworkClock,
    do_jobs,
    draw_on_request,
    hand_in,
    run_whole_job,
    write_scans,
)
from mcsr.bench_machine import CONV, MATMUL, Peaks, machine_facts, measure_peaks, probes_for
from mcsr.bench_networks import PLAIN, NetworkCost, make_scene, measure_network, work_of
from mcsr.bench_timing import Timed, in_own_process, in_turn
from mcsr.bench_training import LOADING, PLAIN_LOOP, PhantomSession, TrainingCost, measure_training, way
from mcsr.errors import Cancelled, McsrError
from mcsr.imageio import read_volume, write_volume
from mcsr.job import Settings
from mcsr.networks import create_network
from mcsr.networks.cost import gmac, parameter_count
from mcsr.phantom import DEMO_MOTION
from mcsr.pipeline import simulate
from mcsr.subjects import find_subject_pairs
from mcsr.subjects_hdf5 import write_subject_file
from mcsr.worker_jobs import read_request
from scenes import pair
from subject_files import write_subject
from torch.utils.flop_counter import FlopCounterMode

# --- Times


class Clock:
    """A clock that moves only when something is run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.order = 0.0, ""
        monkeypatch.setattr(bench_timing.time, "perf_counter", lambda: self.now)

    def run(self, name: str, seconds: list[float]) -> None:
        self.order += name
        self.now += seconds.pop(0)


def test_things_are_run_in_turn_after_a_round_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    slow, fast, told = [9.0, 2.0, 6.0, 3.0], [0.5, 1.0, 2.0, 1.0], list[float]()
    timed = in_turn({"a": lambda: clock.run("a", slow), "b": lambda: clock.run("b", fast)}, 3, told.append)
    assert clock.order == "abababab"
    assert timed.seconds == {"a": (2.0, 6.0, 3.0), "b": (1.0, 2.0, 1.0)}
    assert timed.of("a") == (3.0, 2.0, 6.0)
    assert timed.ratio("a", "b") == (3.0, 2.0, 3.0)
    assert told == [n / 8 for n in range(1, 9)]


def test_a_long_first_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = Clock(monkeypatch), [11.0, 12.0]
    assert in_turn({"a": lambda: clock.run("a", seconds)}, 2).seconds == {"a": (11.0, 12.0)}


def test_a_process_of_its_own_answers_fails_dies_and_is_stopped() -> None:
    assert in_own_process(sum, [1, 2, 3]) == 6
    assert in_own_process(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        in_own_process(int, "x")
    with pytest.raises(McsrError, match="died"):
        in_own_process(os._exit, 1)

    def stop() -> None:
        raise Cancelled("Stopped.")

    started = time.monotonic()
    with pytest.raises(Cancelled):
        in_own_process(time.sleep, 600, check=stop)
    assert time.monotonic() - started < 60


# --- The machine


def test_probes_count_their_operations() -> None:
    """By hand: a product of n x n takes 2 n^3 operations, a 3x3 convolution 2 * 9 * channels^2 * pixels."""
    probes = probes_for("cpu", ["fp32"])
    assert probes[f"{MATMUL} fp32"].gflops(1.0) == pytest.approx(2 * 1024**3 / 1e9)
    assert probes[f"{CONV} fp32"].gflops(0.5) == pytest.approx(2 * 2 * 9 * 64 * 64 * 256 * 256 / 1e9)
    for name, probe in probes.items():
        with FlopCounterMode(display=False) as counter:
            probe.run()
        assert counter.get_total_flops() == probe.flop, name


def test_peaks_are_the_best_of_what_was_run() -> None:
    peaks, lasting = measure_peaks({name: p for name, p in probes_for("cpu", []).items() if name.startswith(MATMUL)})
    (rate,) = peaks.gflops.values()
    probe = lasting[f"{MATMUL} fp32"]
    assert probe.gflops(2.0) == pytest.approx(probe.count * 1024**3 / 1e9)
    assert 0.1 < rate < 1e5
    both = Peaks({f"{CONV} fp32": 5.0, f"{CONV} fp32, channels last": 7.0, f"{CONV} bf16": 9.0})
    assert both.best(CONV, "fp32") == (f"{CONV} fp32, channels last", 7.0)


def test_facts_do_not_tell_whose_machine_it_is() -> None:
    facts = machine_facts("cpu")
    assert facts["threads"] == torch.get_num_threads()
    assert facts["processor"]
    said = str(facts).replace(facts["system"], "")
    assert not [name for name in (platform.node(), str(Path.home())) if len(name) > 1 and name in said]


def test_peak_memory_is_that_of_the_process() -> None:
    code = "from mcsr.bench_memory import peak_resident_bytes as peak; a = {}; del a; print(peak())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    small, large = (
        int(subprocess.check_output([sys.executable, "-c", code.format(array)], env=environment))
        for array in ("b'x'", "b'x' * 200_000_000")
    )
    assert 195e6 < large - small < 260e6


# --- Networks


def test_rates_by_hand() -> None:
    """Two slices of 10 GMAC in half a second: 80 GFLOP/s, half of a peak of 160."""
    timed = Timed({PLAIN: (2.0, 4.0, 2.0), "fast fp32": (0.5, 0.5, 1.0), "peak": (0.1, 0.1, 0.1)})
    cost = NetworkCost("x", True, 1, 10.0, 2, timed, (160.0, 160.0, 80.0), {})
    assert cost.variants == [PLAIN, "fast fp32"]
    assert cost.seconds("fast fp32") == (0.25, 0.25, 0.5)
    assert cost.gflops("fast fp32") == (80.0, 40.0, 80.0)
    assert cost.share_of_peak("fast fp32") == (0.5, 0.5, 0.5)
    assert cost.speedup("fast fp32") == (4.0, 2.0, 8.0)


def test_a_network_is_measured_on_the_scene() -> None:
    scene = make_scene(64)
    assert scene.target.shape == (1, 16, 16)
    assert scene.reference.shape == (1, 64, 64)
    assert 0.5 < np.percentile(scene.reference, 99) < 1.2
    probe = probes_for("cpu", [])[f"{CONV} fp32"]
    cost = measure_network("hftn-sr-s", scene, "cpu", ["fp32", "bf16"], 2, probe, lambda share: None)
    assert cost.variants == [PLAIN, "fast fp32", "fast bf16"]
    assert [len(cost.timed.seconds[name]) for name in cost.variants] == [2, 2, 2]
    assert cost.has_weights
    assert cost.parameters == parameter_count(create_network("hftn-sr-s"))
    assert cost.gmac == pytest.approx(gmac("hftn-sr-s", 64, 64), rel=0.02)
    assert work_of("dcamsr", 320) is None
    for name in cost.variants:
        rates, seconds = cost.gflops(name), cost.seconds(name)
        assert rates is not None
        assert rates.highest == pytest.approx(2 * cost.gmac / seconds.lowest)


# --- What a user waits for


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    truth, reference = pair()
    write_volume(simulate(truth, 4)[0], tmp_path / TARGET_FILE)
    write_volume(reference, tmp_path / REFERENCE_FILE)
    return tmp_path


def test_the_stages_sum_up_to_the_job(scans: Path) -> None:
    settings, started = Settings(model="sinc", registration="none"), time.time() - 3
    stages, shape = run_whole_job(scans, settings, 1, started)
    assert sum(stages.values()) == pytest.approx(time.time() - started, abs=0.2)
    assert 3 <= next(iter(stages.values())) < 4
    assert min(stages.values()) >= 0
    assert {"Registering", "Resampling the reference", NETWORK_STAGE, "Checking consistency"} < set(stages)
    assert (scans / "result" / "sr.nii.gz").is_file()
    job = JobCost("sinc", "the phantom", shape, stages, (), {})
    assert job.total - job.outside_network == pytest.approx(stages[NETWORK_STAGE])
    assert set(draw_on_request(scans, Settings(model="hftn-sr-s", maps="all", registration="none"), 1)) == {
        "Drawing maps"
    }


def test_scans_of_a_job_are_those_of_the_data_the_reference_moved(tmp_path: Path) -> None:
    write_subject(tmp_path, "b1", "val", "bert", all_native=True)
    pair = find_subject_pairs(tmp_path, "val")[0]
    folder = tmp_path / "scans"
    folder.mkdir()
    assert write_scans(folder, "small", tmp_path) == "b1, T2 with T1"
    low, reference = (read_volume(folder / name) for name in (TARGET_FILE, REFERENCE_FILE))
    rows, columns = pair.read("T2").array_kji.shape[1:]
    assert low.array_kji.shape[1:] == (rows // 4, columns // 4)
    assert np.allclose(reference.ijk_to_ras, DEMO_MOTION @ pair.read("T1").ijk_to_ras, atol=1e-4)


def test_a_worker_is_given_other_scans_and_then_the_same(scans: Path) -> None:
    hand_in(scans, "a", {"model": "sinc"}, 1.0, 1.0)
    hand_in(scans, "b", {"model": "sinc", "consistency": False}, 0.5, 1.0, DEMO_MOTION)
    first, second = (np.load(scans / name / "target.npy") for name in "ab")
    np.testing.assert_allclose(second, first / 2, rtol=1e-6)
    assert np.array_equal(*(np.load(scans / name / "reference.npy") for name in "ab"))
    places = [read_request(scans / name).reference_to_target_ras for name in "ab"]
    assert places[0] is None
    assert np.array_equal(places[1], DEMO_MOTION)
    assert read_request(scans / "b").settings == {"model": "sinc", "consistency": False}
    started = time.time()
    seconds = do_jobs(scans, ["a", "b"], 1, started - 5)
    wholes = [whole for whole, _ in seconds]
    assert sum(wholes) == pytest.approx(time.time() - started + 5, abs=0.2)
    assert wholes[0] > 5 > wholes[1]
    assert all(0 < network < whole for whole, network in seconds)
    assert all((scans / name / "result.json").is_file() for name in "ab")


def test_the_network_of_a_job_ends_where_the_next_stage_or_part_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr("mcsr.bench_jobs.time.time", lambda: next(moments))
    clock = _NetworkClock()
    for stage in ("Registering", NETWORK_STAGE, NETWORK_STAGE, "Checking consistency", NETWORK_STAGE):
        clock.hear("progress", stage=stage, fraction=0.5)
    clock.hear("part", name="result")
    assert clock.seconds == 3 + 1


# --- Canvas


def test_the_canvas_is_that_of_the_engine() -> None:
    """Signal of 40 x 48 pixels in 96 x 128, with the margin of 16 at each side."""
    slices = np.zeros((2, 96, 128), dtype=np.float32)
    slices[:, 24:64, 40:88] = 100
    gain = measure_canvas("box", slices, "hftn-sr-s", "cpu", 1, lambda share: None)
    assert gain.whole == (96, 128)
    rows, columns = gain.canvas
    assert 72 <= rows <= 80
    assert 80 <= columns <= 88
    assert gain.pixels == pytest.approx(96 * 128 / (rows * columns))
    assert set(gain.timed.seconds) == {WHOLE, ON_CANVAS}


def test_volumes_are_those_of_the_validation_split(tmp_path: Path) -> None:
    write_subject(tmp_path, "a1", "train", "anna")
    path = write_subject(tmp_path, "b1", "val", "bert", all_native=True)
    assert path.is_file()
    found = {name: slices.shape for name, slices in volumes_of(tmp_path)}
    assert list(found) == ["b1 T2", "b1 T1"]
    assert found["b1 T2"][1:] == (58, 50)
    ((name, slices),) = volumes_of(None)
    assert "phantom" in name
    assert slices.shape == (3, 256, 256)


# --- Training


def test_images_a_second_and_the_share_of_data_by_hand() -> None:
    """A step of 4 images takes 2 s, of which 0.5 s prepare the batch; with workers it takes 1.6 s."""
    seconds = {way("bf16"): (2.0,), way("bf16", 2): (1.6,), LOADING: (0.5,), PLAIN_LOOP: (4.0,)}
    cost = TrainingCost("r", "bf16", 4, Timed(seconds))
    assert cost.images_per_second(way("bf16")).middle == 2.0
    assert cost.images_per_second(LOADING).middle == 8.0
    assert cost.waiting(0) == pytest.approx(0.25)
    assert cost.waiting(2) == pytest.approx(1 - 1.5 / 1.6)


def test_a_phantom_session_is_one_to_train_on(tmp_path: Path) -> None:
    truth, _ = pair()
    volumes = {"T2": truth, "T1": truth.with_array(truth.array_kji[:, ::-1].copy())}
    origin = ("nobody", "none")
    session = PhantomSession(Path("train"), "train", ("T2", "T1"), ("T2",), False, origin, volumes)
    write_subject_file(session, "train", tmp_path)
    (found,) = find_subject_pairs(tmp_path, "train")
    assert (found.target, found.reference, found.native) == ("T2", "T1", True)
    np.testing.assert_allclose(found.read("T1").array_kji, volumes["T1"].array_kji, atol=0.5)


@pytest.mark.slow
def test_training_is_measured_each_way() -> None:
    cost = measure_training("small", 1, 1, lambda share: None)
    ways = [PLAIN_LOOP, way("32-true"), way(cost.precision), way(cost.precision, 2), LOADING]
    assert list(cost.timed.seconds) == ways
    assert cost.images_per_second(LOADING).middle > cost.images_per_second(PLAIN_LOOP).middle
