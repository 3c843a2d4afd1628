"""The worker, in this process: what jobs give, what a warm worker does not do again, what it refuses."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import full_disk
from mcsr import worker_jobs, worker_results
from mcsr.errors import DeviceError, InputError
from mcsr.job import Settings
from mcsr.pipeline import enhance, simulate
from mcsr.worker_errors import describe_error, in_panel_words
from mcsr.worker_jobs import read_settings
from mcsr_slicer.job_folder import JobRequest, writeJob
from scenes import pair
from worker_jobs_by_hand import WorkerHere, handed, received, small_request

MAPS = "texture_lv2,channel_attention_lv1"


@pytest.fixture
def worker(tmp_path: Path) -> WorkerHere:
    return WorkerHere(tmp_path / "work")


def network_request(weights: Path, **more: Any) -> JobRequest:
    settings = {"model": "dcamsr-s", "weights": str(weights), **more.pop("settings", {})}
    return small_request(settings=settings, **more)


def expected(request: JobRequest, **changes: Any) -> Any:
    settings = read_settings({**request.settings, **changes})
    assert request.reference is not None
    return enhance(received(request.target), received(request.reference), settings)


def named(events: list[dict[str, Any]]) -> list[str]:
    return [event.get("name") or event["event"] for event in events]


def test_a_job_gives_what_the_pipeline_gives_result_first_then_maps(worker: WorkerHere, untrained_x2: Path) -> None:
    request = network_request(untrained_x2, settings={"maps": MAPS})
    assert named(worker.do(request)) == ["result", "maps", "done"]
    result = expected(request)
    arrays = worker.arrays("result") | worker.arrays("maps")
    assert arrays["sr"].dtype == np.int16
    np.testing.assert_array_equal(arrays["sr"], np.rint(result.sr.array_kji))
    for role, volume in {"residual": result.residual, "registered_reference": result.reference, **result.maps}.items():
        np.testing.assert_array_equal(arrays[role], volume.array_kji, err_msg=role)
    early, late = worker.part("result"), worker.part("maps")
    assert early.report["maps"] == {}
    assert set(late.report["maps"]) == set(MAPS.split(","))
    np.testing.assert_array_equal(np.array(early.volumes[0].ijk_to_ras), result.sr.ijk_to_ras)
    assert (
        dataclasses.asdict(late.volumes[0]).items()
        >= {
            "role": "map",
            "kind": "features",
            "colours": "sequential",
            "unit": "root mean square over channels",
            "limits": (None, None),
        }.items()
    )
    table = late.tables[0].columns
    np.testing.assert_allclose(table["1,3,13"], result.tables["channel_attention_lv1"][:, 1, 3, 13], rtol=1e-6)
    fractions = [event["fraction"] for event in worker.said if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.9


def test_a_second_job_on_the_same_volumes_is_warm(worker: WorkerHere, untrained_x2: Path) -> None:
    request = network_request(untrained_x2, settings={"registration": "rigid"})
    assert worker.do(request, "a")[-1]["recalled"] == []
    assert worker.do(request, "b")[-1]["recalled"] == ["network", "registration", "reference", "result"]
    np.testing.assert_array_equal(worker.arrays("result", "b")["sr"], worker.arrays("result", "a")["sr"])
    plain = dataclasses.replace(request, settings={**request.settings, "registration": "none"})
    assert plain.reference is not None
    worker.do(plain, "c")
    free = dataclasses.replace(plain, settings={**plain.settings, "consistency": False})
    assert worker.do(free, "d")[-1]["recalled"] == ["network", "reference", "result"]
    np.testing.assert_array_equal(
        worker.arrays("result", "d")["sr"], np.rint(expected(plain, consistency=False).sr.array_kji)
    )
    other = dataclasses.replace(plain.reference, array=plain.reference.array[::-1])
    assert worker.do(dataclasses.replace(plain, reference=other), "e")[-1]["recalled"] == ["network"]
    seed = dataclasses.replace(plain, settings={**plain.settings, "seed": 5})
    assert worker.do(seed, "f")[-1]["recalled"] == ["network"]


def test_maps_later_are_those_of_the_result_and_nothing_is_enhanced_again(
    worker: WorkerHere, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = network_request(untrained_x2, settings={"maps": MAPS})
    worker.do(request, "a")
    monkeypatch.setattr("mcsr.pipeline_steps.enhance_slices", None)
    maps = dataclasses.replace(request, kind="maps")
    assert named(worker.do(maps, "b")) == ["maps", "done"]
    cold = WorkerHere(worker.folder.parent / "cold")
    assert named(cold.do(maps)) == ["maps", "done"]
    first, later, anew = worker.arrays("maps", "a"), worker.arrays("maps", "b"), cold.arrays("maps")
    np.testing.assert_array_equal(later["texture_lv2"], first["texture_lv2"])
    np.testing.assert_array_equal(anew["texture_lv2"], first["texture_lv2"])
    none = dataclasses.replace(maps, settings={**maps.settings, "maps": "none"})
    assert "No maps were asked for" in cold.do(none, "c")[-1]["message"]


def test_maps_of_a_point_come_alone_and_go_into_no_folder(
    worker: WorkerHere, tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = network_request(untrained_x2, settings={"maps": "all"})
    result = expected(request, maps="none")
    inside = tuple(result.sr.grid.to_ras((22, 30, 4)))
    monkeypatch.setattr("mcsr.pipeline_steps.enhance_slices", None)
    point = dataclasses.replace(request, kind="maps", pointRas=inside, outputFolder=str(tmp_path / "out"))
    assert named(worker.do(point)) == ["maps", "done"]
    part = worker.part("maps")
    assert [volume.name for volume in part.volumes] == [f"attended_reference_lv{n}" for n in (1, 2, 3)]
    assert {(volume.role, volume.family) for volume in part.volumes} == {("point_map", "Attention of a point")}
    assert part.report["point_ras"] == pytest.approx(inside)
    for volume in part.volumes:
        np.testing.assert_array_equal(np.array(volume.ijk_to_ras), result.sr.ijk_to_ras)
        assert np.flatnonzero(worker.array(volume).any(axis=(1, 2))).tolist() == [4]
    assert not (tmp_path / "out").exists()
    assert worker.do(point, "b")[-1]["recalled"] == ["network", "slices"]
    outside = dataclasses.replace(point, pointRas=(1000.0, 0.0, 0.0))
    (error,) = worker.do(outside, "c")
    assert (error["code"], error["message"]) == ("input", "The point lies outside the result; choose one inside.")
    without = dataclasses.replace(point, settings={**request.settings, "model": "sinc", "weights": None})
    assert "no maps of one pixel" in worker.do(without, "d")[-1]["message"]


def test_a_simulated_job_is_scored_against_what_it_came_from(worker: WorkerHere) -> None:
    truth, reference = pair()
    request = dataclasses.replace(small_request(), target=handed(truth), reference=handed(reference), simulate=True)
    assert named(worker.do(request)) == ["result", "scores", "done"]
    low, _ = simulate(received(request.target), 2)
    arrays = worker.arrays("result")
    np.testing.assert_array_equal(arrays["simulated_target"], np.rint(low.array_kji))
    np.testing.assert_allclose(arrays["sr"] - truth.array_kji, arrays["error"], atol=0.51)
    result = enhance(low, reference, Settings(model="sinc", scale=2), ground_truth=truth)
    whole, by_slice = (table.columns for table in worker.part("scores").tables)
    assert whole["psnr"][0] == pytest.approx(result.scores["result"].psnr)
    assert np.mean(by_slice["psnr_result"]) == pytest.approx(whole["psnr"][0], rel=1e-4)
    assert by_slice["slice"] == list(range(len(truth.array_kji)))


def test_a_given_transform_places_the_reference(worker: WorkerHere, untrained_x2: Path) -> None:
    request = network_request(untrained_x2, settings={"registration": "rigid"})
    assert request.reference is not None
    away = np.eye(4)
    away[:3, 3] = (400, -300, 0)
    moved = dataclasses.replace(request.reference, ijkToRas=away @ request.reference.ijkToRas)
    worker.do(dataclasses.replace(request, reference=moved, referenceToTargetRas=np.linalg.inv(away)))
    np.testing.assert_allclose(
        worker.arrays("result")["sr"], expected(request, registration="none").sr.array_kji, atol=0.51
    )
    registration = worker.part("result").report["registration"]
    assert registration["message"] == "The reference lies where the given transform puts it."
    np.testing.assert_allclose(registration["reference_to_target_ras"], np.linalg.inv(away))
    (error,) = worker.do(dataclasses.replace(request, referenceToTargetRas=np.zeros((4, 4))), "b")
    assert (error["event"], error["code"]) == ("error", "input")


class Executed:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def _npy(folder: Path, array: np.ndarray, **more: Any) -> None:
    np.save(folder / "target.npy", array, **more)


def _truncate(folder: Path) -> None:
    content = (folder / "target.npy").read_bytes()
    (folder / "target.npy").write_bytes(content[:-5])


def _huge(folder: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999, 99999, 99999), }"
    (folder / "target.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def _link(folder: Path) -> None:
    (folder / "target.npy").rename(folder / "elsewhere.npy")
    (folder / "target.npy").symlink_to("elsewhere.npy")


def _other_id(folder: Path) -> None:
    record = json.loads((folder / "request.json").read_text())
    (folder / "request.json").write_text(json.dumps({**record, "id": "other"}))


HOSTILE = {
    "pickle": lambda folder: _npy(folder, np.array([[[Executed()]]], dtype=object), allow_pickle=True),
    "bare pickle": lambda folder: (folder / "target.npy").write_bytes(pickle.dumps(Executed())),
    "complex": lambda folder: _npy(folder, np.zeros((9, 9, 9), complex)),
    "structured": lambda folder: _npy(folder, np.zeros((9, 9, 9), [("a", "f4")])),
    "two axes": lambda folder: _npy(folder, np.zeros((9, 9))),
    "empty": lambda folder: _npy(folder, np.zeros((9, 0, 9))),
    "cut short": _truncate,
    "larger than it is": _huge,
    "no array": lambda folder: (folder / "target.npy").write_bytes(b"hello"),
    "missing": lambda folder: (folder / "target.npy").unlink(),
    "link": _link,
    "other id": _other_id,
    "no request": lambda folder: (folder / "request.json").unlink(),
    "half a request": lambda folder: (folder / "request.json").write_text('{"format": 1, '),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
def test_hostile_jobs_are_refused_with_a_sentence(
    spoil: Any, worker: WorkerHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(writeJob(worker.folder, "job", small_request()))
    (error,) = worker.work()
    assert (error["event"], error["job"], error["code"]) == ("error", "job", "input")
    assert error["message"].endswith(".")
    assert not (tmp_path / "executed").exists()


def test_what_is_no_job_is_left_alone_and_said_once(worker: WorkerHere, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    inbox = worker.folder / "inbox"
    (inbox / "link").symlink_to(own)
    (inbox / "folder").mkdir()
    (inbox / "notes.txt").write_text("mine")
    (worker.folder / "jobs" / "linked").symlink_to(own)
    (inbox / "linked").touch()
    events = worker.do(small_request())
    assert sorted(e["code"] for e in events if e["event"] == "error") == ["input", "refused", "refused", "refused"]
    assert "done" in named(events)
    assert sorted(path.name for path in inbox.iterdir()) == ["folder", "link", "notes.txt"]
    assert list(own.iterdir()) == []
    assert worker.work() == []


@pytest.mark.parametrize(
    "settings", [{"model": "sinc", "command": "x"}, {"scale": "4"}, {"scale": True}, {"weights": 3}, {"maps": None}]
)
def test_settings_of_other_names_or_types_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="setting"):
        read_settings(settings)


def test_failures_have_a_code_a_sentence_and_details_without_the_patient(
    worker: WorkerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = small_request()
    patient = dataclasses.replace(request, target=dataclasses.replace(request.target, name="SMITH^JOHN"))

    def failing(error: Exception) -> dict[str, Any]:
        def fail(*arguments: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(worker_jobs, "enhance", fail)
        (event,) = worker.do(patient, f"job{len(list((worker.folder / 'jobs').iterdir()))}")
        return event

    for error in (MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory")):
        event = failing(error)
        assert event["code"] == "memory"
        assert "choose fewer maps or a smaller model" in event["message"]
    event = failing(OSError(errno.ENOSPC, "No space left on device"))
    assert event["code"] == "disk"
    assert "free some space" in event["message"]
    event = failing(ZeroDivisionError("SMITH^JOHN in /data/doctor/study/t2.nii"))
    assert event["code"] == "internal"
    assert "ZeroDivisionError: <target> in .../t2.nii" in event["details"]
    assert "worker_jobs.py:" in event["details"]
    assert not any(word in str(event) for word in ("SMITH", "doctor"))


def test_sentences_are_for_the_panel() -> None:
    error = DeviceError("Not enough memory on cuda; close other programs or use --device cpu.")
    code, sentence, _ = describe_error(error)
    assert code == "memory"
    assert sentence.endswith('close other programs or use "Device: cpu" (Advanced).')
    assert in_panel_words("a finer reference, or --force to try.") == 'a finer reference, or "Force" (Advanced) to try.'
    assert in_panel_words("choose one with --weights: a, b.") == 'choose one with "Weights" (Advanced): a, b.'
    assert in_panel_words("check, or run `mcsr models list`.") == "check, or run the list of models."


def test_a_full_disk_leaves_no_half_file(worker: WorkerHere) -> None:
    folder = writeJob(worker.folder, "job", small_request())
    with full_disk(20_000):
        (error,) = worker.work()
    assert error["code"] == "disk"
    assert {path.name for path in folder.iterdir()} == {"request.json", "target.npy", "reference.npy"}


def test_files_for_the_user_are_written_whole(
    worker: WorkerHere, tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcsr.outputs.find_spec", lambda name: None)  # no matplotlib, as in Slicer
    place = tmp_path / "new" / "out"
    request = network_request(untrained_x2, settings={"maps": "texture_lv2"}, outputFolder=str(place))
    assert named(worker.do(request)) == ["result", "maps", "done"]
    assert {"sr.nii.gz", "residual.nii.gz", "result.h5", "report.json"} <= {path.name for path in place.iterdir()}
    more = dataclasses.replace(request, kind="maps", settings={**request.settings, "maps": "texture_lv1"})
    assert named(worker.do(more, "b")) == ["maps", "done"]
    assert "result" in worker.said[-1]["recalled"]
    assert [path.name for path in (place / "maps").iterdir()] == ["texture_lv1.nii.gz"]
    own = dataclasses.replace(request, inputFiles=(str(place / "sr.nii.gz"),))
    (error,) = worker.do(own, "c")
    assert (error["code"], "would overwrite the input" in error["message"]) == ("output", True)


@pytest.mark.parametrize(("stage", "handed_over"), [("Enhancing", []), ("Writing files", ["result"])])
def test_a_flag_cancels_and_no_file_is_left(
    stage: str,
    handed_over: list[str],
    worker: WorkerHere,
    tmp_path: Path,
    untrained_x2: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcsr.outputs.find_spec", lambda name: None)
    place = tmp_path / "new" / "out"
    folder = writeJob(worker.folder, "job", network_request(untrained_x2, outputFolder=str(place)))
    emit = worker.emit

    def flag_at_the_stage(event: str, **fields: Any) -> None:
        emit(event, **fields)
        if fields.get("stage") == stage:
            (folder / "cancel").touch()

    monkeypatch.setattr(worker.worker, "_emit", flag_at_the_stage)
    assert named(worker.work()) == [*handed_over, "cancelled"]
    assert (folder / "result.json").exists() == bool(handed_over)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_an_idle_worker_rests_then_leaves(worker: WorkerHere) -> None:
    worker.worker._rest_seconds, worker.worker._exit_seconds = 0.1, 0.3
    assert worker.worker.serve() == "idle"
    assert [event["event"] for event in worker.said] == ["idle"]


def test_columns_of_a_table_and_what_json_cannot_hold() -> None:
    table = np.array([[[1.0, 2.0]], [[np.nan, np.inf]]])
    assert worker_results._columns(table) == {"slice": [0, 1], "0,0": [1.0, None], "0,1": [2.0, None]}
    assert worker_results._columns(np.array([0.5])) == {"slice": [0], "value": [0.5]}
