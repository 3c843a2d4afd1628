"""Job folders and messages between panel and worker that are damaged, foreign or made to harm."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import POSIX_ONLY, one_sentence
from mcsr.errors import InputError
from mcsr.networks._map_spec import COLOURS, KINDS
from mcsr.worker_arrays import read_array, write_array
from mcsr.worker_messages import MAP_COLOURS, MAP_KINDS, Part, Request, event_line, read_event
from mcsr_slicer.job_folder import readPart, removeFolder, writeJob
from mcsr_slicer.job_runner import JobListener, JobRunner
from mcsr_slicer.launchers import ChildProcess, OnExit, OnLine
from test_worker_messages import PART, REQUEST
from worker_jobs_by_hand import WorkerHere, small_request

DEEP = '{"a":' * 900 + "1" + "}" * 900


def changed(text: str, change: dict[str, Any]) -> str:
    """Json with other entries; a dot leads into the first of a list, or into an object."""
    record = json.loads(text)
    for key, value in change.items():
        place = record
        *outer, last = key.split(".")
        for step in outer:
            place = place[step][0] if isinstance(place[step], list) else place[step]
        place[last] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": "rm"}, "an entry that there is not, 'command'"),
        ({"target.command": "rm"}, "target has an entry that there is not, 'command'"),
        ({"x" * 10_000: 1}, "an entry that there is not"),
        ({"output_folder": "/data/\0x"}, "'output_folder'"),
        ({"output_folder": ["/data"]}, "'output_folder'"),
        ({"input_files": ["a\0"]}, "'input_files'"),
        ({"settings": {"seed": float("nan")}}, "no json"),
        ({"settings": {"seed": float("inf")}}, "no json"),
        ({"target.name": "\ud800"}, "no json"),
        ({"target.file": "../../secret.npy"}, "'file'"),
        ({"target.file": "/secret.npy"}, "'file'"),
        ({"target.file": "a.npy\n"}, "'file'"),
        ({"target.file": "a\0.npy"}, "'file'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_requests_that_no_panel_writes_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        Request.from_json(changed(REQUEST.to_json(), change))
    assert one_sentence(error, words)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": "rm"}, "an entry that there is not, 'command'"),
        ({"volumes.command": "rm"}, "an entry that there is not"),
        ({"volumes.file": "../../.bashrc.npy"}, "'file'"),
        ({"volumes.kind": "table"}, "'kind'"),
        ({"volumes.colours": "infrared"}, "'colours'"),
        ({"volumes.role": "virus"}, "'role'"),
        ({"volumes.ijk_to_ras": [[0] * 4] * 4}, "'ijk_to_ras'"),
        ({"volumes.ijk_to_ras": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 2]]}, "'ijk_to_ras'"),
        ({"volumes.limits": [0, "1"]}, "'limits'"),
        ({"volumes": 3}, "'volumes'"),
        ({"tables.columns": {"a": [[1]]}}, "'columns'"),
        ({"tables.columns": {"a": [2**40]}}, "'columns'"),
        ({"tables.columns": {"a": ["x" * 1000]}}, "'columns'"),
        ({"tables.columns": [1]}, "'columns'"),
        ({"report": {"psnr": float("inf")}}, "no json"),
        ({"warnings": [1]}, "'warnings'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parts_that_no_worker_writes_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        Part.from_json(changed(PART.to_json(), change))
    assert one_sentence(error, words)


def test_depth_that_could_not_be_written_again_is_refused() -> None:
    """The panel keeps a report as json in the scene: what can be read must be writable."""
    for depth in (900, 5_000, 100_000):
        deep = f'{{"format": 1, "name": "maps", "report": {"[" * depth}{"]" * depth}}}'
        with pytest.raises(InputError):
            Part.from_json(deep)
    text = changed(PART.to_json(), {"report": {"seconds": {"a": {"b": {"c": [1]}}}}})
    assert Part.from_json(text).report == {"seconds": {"a": {"b": {"c": [1]}}}}


def test_both_sides_know_the_same_kinds_of_maps() -> None:
    assert MAP_KINDS == tuple(kind for kind in KINDS if kind != "table")
    assert MAP_COLOURS == COLOURS


@pytest.mark.parametrize(
    "line",
    [
        event_line("progress", job="a", fraction=0.5, stage="Enhancing")[:-9],
        '@mcsr {"event": "progress", "fraction": NaN}',
        '@mcsr {"event": "progress", "fraction": 1e999}',
        '@mcsr {"event": "progress", "fraction": "half"}',
        '@mcsr {"event": "progress", "fraction": 7}',
        '@mcsr {"event": "progress", "fraction": true}',
        '@mcsr {"event": "progress", "remaining_s": -1}',
        '@mcsr {"event": "progress", "remaining_s": [1]}',
        '@mcsr {"event": "progress", "stage": {}}',
        '@mcsr {"event": "ready", "pid": "1 2"}',
        '@mcsr {"event": "ready", "pid": true}',
        '@mcsr {"event": "ready", "pid": 1e99}',
        '@mcsr {"event": ["ready"]}',
        '@mcsr {"event": "done", "job": ["a"]}',
        '@mcsr {"event": "error", "message": "\\ud800"}',
        f'@mcsr {{"event": "done", "more": {DEEP * 20}}}',
        f'@mcsr {{"event": "done", "more": "{"x" * (2 << 20)}"}}',
    ],
    ids=lambda line: line[:60],
)
def test_odd_half_and_endless_lines_are_log_text(line: str) -> None:
    assert read_event(line) is None


def _npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + data


def _shape(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    return _npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", data)


@pytest.mark.parametrize(
    "content",
    [
        _shape("(-2, -3, 4)", bytes(96)),
        _shape("(2, 3, True)", bytes(24)),
        _shape("(99999999, 99999999, 99999999)"),
        _shape("(2, 3, 4)", bytes(95)),
        _shape("(2, 3, 4)", bytes(97)),
        _shape("(2, 3, 4)", bytes(192), "'|O'"),
        _shape("(2, 3, 4)", bytes(96), "[('a', '<f4')]"),
        _shape("(2, 3, 4)", bytes(96), "'<f4', 'more': 1"),
        _npy("(" * 2000),
        _npy("-" * 9000 + "1"),
        _npy("[" * 60_000),
        _npy("__import__('os').system('touch canary')"),
        _npy("{'descr': '<f4'}", version=b"\x09\x09"),
        b"\x93NUMPY",
        b"",
        b"PK\x03\x04" + bytes(100),
    ],
    ids=lambda content: str(content[:60]),
)
def test_arrays_that_lie_are_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError) as error:
        read_array(tmp_path, "a.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one_sentence(error, "a.npy")
    assert peak < 20e6
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_part_leads_nowhere_but_into_its_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "job", tmp_path / "outside"
    for made in (folder, outside):
        made.mkdir()
        (made / "maps.json").write_text(PART.to_json())
        write_array(made / "a.npy", np.ones((2, 3, 4), np.float32))
    (folder / "notes.txt").write_text("foreign files do not matter")
    (volume,) = readPart(folder, "maps.json").volumes
    assert volume.readArray().shape == (2, 3, 4)
    for name in ("../outside/maps.json", str(outside / "maps.json"), "maps.json\0", "notes.txt", None, 3):
        with pytest.raises(InputError) as error:
            readPart(folder, name)
        assert one_sentence(error)
    (folder / "a.npy").unlink()
    (folder / "a.npy").symlink_to(outside / "a.npy")
    (folder / "linked.json").symlink_to(outside / "maps.json")
    (tmp_path / "link").symlink_to(outside)
    for read in (
        volume.readArray,
        lambda: readPart(folder, "linked.json"),
        lambda: readPart(tmp_path / "link", "maps.json"),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert one_sentence(error, "is no plain file, so it was not read")


@POSIX_ONLY
def test_what_else_lies_in_a_job_folder_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    worker, victim = WorkerHere(tmp_path / "work"), tmp_path / "victim"
    victim.write_text("mine")
    (error,) = _with_foreign_files(worker, victim, request={"id": "another"})
    assert (error["event"], error["code"]) == ("error", "input")
    events = _with_foreign_files(worker, victim)
    assert [event["event"] for event in events] == ["part", "done"]
    folder = worker.folder / "jobs" / "job"
    assert victim.read_text() == "mine"
    assert (folder / "sr.npy").is_file()
    assert not (folder / "sr.npy").is_symlink()
    assert worker.arrays("result")["sr"].ndim == 3
    assert (folder / "notes.txt").read_text() == "foreign"


def _with_foreign_files(worker: WorkerHere, victim: Path, request: dict[str, Any] | None = None) -> list[Any]:
    """Do a job in whose folder another program has put files, links, a pipe and a folder."""
    removeFolder(worker.folder / "jobs" / "job")
    folder = writeJob(worker.folder, "job", small_request())
    (folder / "notes.txt").write_text("foreign")
    (folder / "sr.npy").symlink_to(victim)
    (folder / "result.json").symlink_to(victim)
    (folder / "more").mkdir()
    os.mkfifo(folder / "pipe.npy")
    if request:
        (folder / "request.json").write_text(changed((folder / "request.json").read_text(), request))
    return worker.work()


class _Speaking:
    """A launcher whose process says what a test makes it say."""

    def __init__(self) -> None:
        self.isRunning, self.pid = False, 0

    def start(self, arguments: Sequence[str], onLine: OnLine, onExit: OnExit) -> ChildProcess:
        self.onLine, self.onExit, self.isRunning = onLine, onExit, True
        return self

    def pump(self, seconds: float = 0.0) -> None:
        pass

    def kill(self) -> None:
        self.isRunning = False


class _Hearing(JobListener):
    def __init__(self) -> None:
        self.failures: list[str] = []
        self.log: list[str] = []
        self.fractions: list[float] = []

    def onFailed(self, message: str, details: str) -> None:
        self.failures.append(message)

    def onLog(self, line: str) -> None:
        self.log.append(line)

    def onProgress(self, fraction: float, text: str, remainingSeconds: float | None) -> None:
        self.fractions.append(fraction)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"event": "part", "file": "../request.json"}, "named a file that cannot be a part of the result"),
        ({"event": "part", "file": "/etc/passwd"}, "named a file that cannot be a part of the result"),
        ({"event": "part", "file": ["maps.json"]}, "named a file that cannot be a part of the result"),
        ({"event": "part"}, "named a file that cannot be a part of the result"),
        ({"event": "part", "file": "absent.json"}, "is missing"),
        ({"event": "part", "file": "request.json"}, "an entry that there is not"),
        ({"event": "error"}, "did not say why"),
        ({"event": "error", "message": ""}, "did not say why"),
    ],
    ids=str,
)
def test_events_that_mislead_end_the_job_with_a_sentence(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    launcher, listener = _Speaking(), _Hearing()
    runner = JobRunner(launcher, tmp_path / "work")
    job = runner.submit(small_request(), listener)
    (tmp_path / "work" / "inbox" / job).unlink()
    half = event_line("progress", job=job, fraction=0.5, stage="Enhancing")
    for line in (half[:30], half[30:], f'@mcsr {{"event": "progress", "job": "{job}", "fraction": "x"}}', half):
        launcher.onLine(line)
    launcher.onLine("@mcsr " + json.dumps({"job": job, **fields}))
    runner.poll()
    (message,) = listener.failures
    assert words in message
    assert message.endswith(".")
    assert len(listener.log) == 3
    assert listener.fractions == [0.0, 0.5]
    assert not runner.isBusy
    launcher.isRunning = False
    runner.shutdown()
