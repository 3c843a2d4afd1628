"""The runner with a worker of its own: jobs, cancel, crashes; nothing is left behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import POSIX_ONLY, full_disk
from mcsr import temporary
from mcsr.pipeline import enhance
from mcsr.worker_jobs import read_settings
from mcsr.worker_messages import event_line
from mcsr_slicer.job_folder import JobRequest, ResultPart
from mcsr_slicer.job_runner import JobListener, JobRefused, JobRunner
from mcsr_slicer.launchers import ChildProcess, OnExit, OnLine, SubprocessLauncher
from worker_jobs_by_hand import received, small_request, wait_until

LOGIC = Path(__file__).resolve().parents[2] / "MultiContrastSR" / "Logic"


class Listener(JobListener):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.reports: list[Any] = []
        self.stages: list[str] = []
        self.message = ""

    def onProgress(self, fraction: float, text: str, remainingSeconds: float | None) -> None:
        self.stages.append(text)

    def onPart(self, part: ResultPart) -> None:
        self.heard.append(part.name)
        self.arrays |= {volume.facts.role: volume.readArray() for volume in part.volumes}
        self.reports.append(part.report)

    def onFinished(self) -> None:
        self.heard.append("finished")

    def onCancelled(self) -> None:
        self.heard.append("cancelled")

    def onFailed(self, message: str, details: str) -> None:
        self.heard.append("failed")
        self.message = message


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobRunner]:
    """A runner whose worker stays warm from test to test."""
    runner = JobRunner(SubprocessLauncher(), tmp_path_factory.mktemp("shared") / "work")
    yield runner
    runner.shutdown()


def run(runner: JobRunner, request: JobRequest) -> Listener:
    listener = Listener()
    runner.submit(request, listener)
    assert runner.waitForFinished(120)
    return listener


def work_files(runner: JobRunner) -> list[str]:
    assert runner._workFolder is not None
    return sorted(path.name for path in runner._workFolder.rglob("*"))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def slow_request(tmp_path: Path, **more: Any) -> JobRequest:
    """A job that takes a while: registration and a network, with the maps of all features."""
    settings = {"model": "dcamsr-s", "registration": "rigid", "maps": "all"}
    return small_request(scale=4, settings=settings, outputFolder=str(tmp_path / "new" / "out"), **more)


def wait_for_stage(runner: JobRunner, listener: Listener, stage: str) -> None:
    def is_there() -> bool:
        runner.poll()
        return stage in listener.stages

    assert wait_until(is_there, 60)


def test_a_whole_job_gives_what_the_pipeline_gives_and_the_next_is_warm(shared: JobRunner) -> None:
    request = small_request(scale=4, settings={"model": "dcamsr-s"})
    first = run(shared, request)
    pid = shared.workerPid
    assert first.heard == ["result", "finished"]
    assert first.stages[0] == "Starting"
    assert request.reference is not None
    result = enhance(received(request.target), received(request.reference), read_settings(request.settings))
    np.testing.assert_array_equal(first.arrays["sr"], np.rint(result.sr.array_kji))
    np.testing.assert_array_equal(first.arrays["residual"], result.residual.array_kji)
    second = run(shared, request)
    assert second.reports[0]["recalled"] == ["network", "reference", "result"]
    assert "Starting" not in second.stages
    np.testing.assert_array_equal(second.arrays["residual"], first.arrays["residual"])
    assert (shared.workerPid, shared.workerIsWarm, shared.isBusy) == (pid, True, False)
    assert work_files(shared) == ["inbox", "jobs"]


def test_a_bad_job_ends_with_a_sentence_and_the_worker_stays(shared: JobRunner) -> None:
    run(shared, small_request())
    pid = shared.workerPid
    listener = run(shared, small_request(settings={"model": "dcamsr-x"}))
    assert listener.heard == ["failed"]
    assert "Unknown model 'dcamsr-x'; did you mean" in listener.message
    request = small_request(settings={"model": "dcamsr-s", "weights": "/nowhere/gone.safetensors"})
    assert "There is no weights file" in run(shared, request).message
    assert run(shared, small_request()).heard == ["result", "finished"]
    assert shared.workerPid == pid
    assert work_files(shared) == ["inbox", "jobs"]


def test_a_second_submit_is_refused_while_one_runs(shared: JobRunner) -> None:
    listener = Listener()
    shared.submit(small_request(), listener)
    with pytest.raises(JobRefused, match=r"Another enhancement is running; .*\."):
        shared.submit(small_request(), Listener())
    assert shared.waitForFinished(60)
    assert listener.heard == ["result", "finished"]


def test_what_cannot_be_handed_over_is_refused_and_leaves_nothing(shared: JobRunner) -> None:
    run(shared, small_request())
    with full_disk(5000), pytest.raises(JobRefused, match=r"The disk with temporary files is full .*; free some space"):
        shared.submit(small_request(), Listener())
    target = small_request().target
    nameless = dataclasses.replace(small_request(), target=dataclasses.replace(target, name="x" * 1000))
    with pytest.raises(JobRefused, match="'name'"):
        shared.submit(nameless, Listener())
    assert not shared.isBusy
    assert work_files(shared) == ["inbox", "jobs"]


def test_cancel_is_answered_at_once_and_nothing_is_left(shared: JobRunner, tmp_path: Path) -> None:
    listener = Listener()
    shared.submit(slow_request(tmp_path), listener)
    wait_for_stage(shared, listener, "Registering")
    pid, started = shared.workerPid, time.monotonic()
    shared.cancel()
    assert time.monotonic() - started < 0.5
    assert (listener.heard, shared.isBusy) == (["cancelled"], False)
    after = run(shared, small_request())
    assert after.heard == ["result", "finished"]
    assert listener.heard == ["cancelled"]
    assert shared.workerPid == pid, "it stopped by itself, so it is still there"
    assert work_files(shared) == ["inbox", "jobs"]
    assert list(tmp_path.iterdir()) == []


class Silent:
    """A launcher of processes that never say anything."""

    def __init__(self) -> None:
        self.isRunning, self.pid, self.starts, self.kills = False, 0, 0, 0

    def start(self, arguments: Sequence[str], onLine: OnLine, onExit: OnExit) -> ChildProcess:
        self.onLine, self.onExit, self.starts, self.isRunning = onLine, onExit, self.starts + 1, True
        return self

    def pump(self, seconds: float = 0.0) -> None:
        pass

    def kill(self) -> None:
        self.isRunning, self.kills = False, self.kills + 1


def test_a_job_that_was_not_taken_yet_is_taken_back(tmp_path: Path) -> None:
    runner = JobRunner(Silent(), tmp_path / "work")
    listener = Listener()
    runner.submit(small_request(), listener)
    runner.cancel()
    assert listener.heard == ["cancelled"]
    assert work_files(runner) == ["inbox", "jobs"]


def test_a_worker_that_left_as_a_job_came_is_followed_by_one_more(tmp_path: Path) -> None:
    launcher, listener = Silent(), Listener()
    runner = JobRunner(launcher, tmp_path / "work")
    runner.submit(small_request(), listener)
    launcher.isRunning = False
    launcher.onExit(0)
    runner.poll()
    assert (launcher.starts, runner.isBusy) == (2, True)
    launcher.onLine("Segmentation fault")
    launcher.onExit(139)
    runner.poll()
    assert (launcher.starts, runner.isBusy) == (2, False)
    assert "ended unexpectedly (exit code 139)" in listener.message
    assert work_files(runner) == ["inbox", "jobs"]


@pytest.mark.parametrize(
    "line",
    [
        event_line("ready", version="0.0.0", pid=0),
        event_line("error", job=None, code="environment", message="MultiContrastSR was not complete.", details=""),
    ],
)
def test_a_worker_that_cannot_work_is_not_started_again(line: str, tmp_path: Path) -> None:
    launcher, listener = Silent(), Listener()
    runner = JobRunner(launcher, tmp_path / "work")
    runner.submit(small_request(), listener)
    launcher.onLine(line)
    runner.poll()
    launcher.onExit(1)
    runner.poll()
    assert (launcher.starts, listener.heard) == (1, ["failed"])
    assert listener.message.startswith("MultiContrastSR was")


@POSIX_ONLY
def test_a_worker_that_does_not_stop_is_killed_and_the_next_job_has_another(shared: JobRunner, tmp_path: Path) -> None:
    """Stopped by a signal, it cannot answer; what it was writing for the user goes too."""
    listener, after = Listener(), Listener()
    shared.submit(slow_request(tmp_path), listener)
    wait_for_stage(shared, listener, "Registering")
    pid = shared.workerPid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    half_written = tmp_path / "new" / "out" / f".mcsr-{pid}-{temporary._HOST}-abc"
    half_written.mkdir(parents=True)
    started = time.monotonic()
    shared.cancel()
    shared.submit(small_request(), after)

    def is_over() -> bool:
        shared.poll()
        return is_gone(pid)

    assert wait_until(is_over, 10)
    assert time.monotonic() - started < 5
    assert shared.waitForFinished(60)
    assert (listener.heard, after.heard) == (["cancelled"], ["result", "finished"])
    assert not (tmp_path / "new").exists()
    assert work_files(shared) == ["inbox", "jobs"]


def test_an_abandoned_job_is_heard_of_no_more(shared: JobRunner) -> None:
    listener = Listener()
    shared.submit(small_request(), listener)
    shared.abandon()
    assert run(shared, small_request()).heard == ["result", "finished"]
    assert listener.heard == []
    assert work_files(shared) == ["inbox", "jobs"]


def test_a_listener_that_raises_loses_nothing_that_comes_after(shared: JobRunner) -> None:
    class Clumsy(Listener):
        def onPart(self, part: ResultPart) -> None:
            super().onPart(part)
            raise ZeroDivisionError

    listener = Clumsy()
    shared.submit(small_request(), listener)
    with pytest.raises(ZeroDivisionError):
        shared.waitForFinished(60)
    assert shared.waitForFinished(60)
    assert listener.heard == ["result", "finished"]


@POSIX_ONLY
def test_a_worker_without_work_leaves(tmp_path: Path) -> None:
    runner = JobRunner(SubprocessLauncher(), tmp_path / "work", ("--exit-seconds", "0.2"))
    run(runner, small_request())
    pid = runner.workerPid

    def has_left() -> bool:
        runner.poll()
        return runner.workerPid is None

    assert wait_until(has_left)
    assert pid is not None
    assert is_gone(pid)
    runner.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_a_lost_work_folder_is_made_again_with_another_worker(tmp_path: Path) -> None:
    launcher = Silent()
    runner = JobRunner(launcher, tmp_path / "work")
    runner.submit(small_request(), Listener())
    runner.abandon()
    os.rename(tmp_path / "work", tmp_path / "tidied")
    runner.submit(small_request(), Listener())
    assert (launcher.starts, launcher.kills) == (2, 1)
    assert len(list((tmp_path / "work" / "inbox").iterdir())) == 1


def test_temporary_files_go_where_slicer_keeps_them(tmp_path: Path) -> None:
    runner = JobRunner(Silent(), temporaryFolder=str(tmp_path))
    runner.submit(small_request(), Listener())
    (folder,) = tmp_path.iterdir()
    assert len(list((folder / "inbox").iterdir())) == 1
    runner.shutdown()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(JobRefused, match=r"cannot be handed to the worker .*; set another temporary folder"):
        JobRunner(Silent(), temporaryFolder=str(tmp_path / "gone")).submit(small_request(), Listener())


PANEL = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from mcsr_slicer.job_folder import JobRequest, VolumeData
from mcsr_slicer.job_runner import JobListener, JobRunner
from mcsr_slicer.launchers import SubprocessLauncher
noise = VolumeData(np.random.default_rng(0).random((8, 40, 40)), np.diag([1, 1, 3, 1]), "noise")
runner = JobRunner(SubprocessLauncher(), Path(sys.argv[1]))
runner.submit(JobRequest(noise, settings={"model": "sinc", "scale": 2}), JobListener())
while runner.workerPid is None:
    runner.poll()
    time.sleep(0.05)
print(runner.workerPid, "torch" in sys.modules, flush=True)
time.sleep(60)
"""


@POSIX_ONLY
def test_the_worker_ends_with_the_panel_and_tidies_up(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PANEL, str(tmp_path / "work"), str(LOGIC)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as panel:
        assert panel.stdout is not None
        words = panel.stdout.readline().split()
        pid = int(words[0])
        assert words[1] == "False", "the panel's side loads no torch"
        assert not is_gone(pid)
        assert (tmp_path / "work" / "jobs").is_dir()
        panel.kill()
    assert wait_until(lambda: is_gone(pid))
    assert wait_until(lambda: not (tmp_path / "work").exists(), 2)


def test_poll_is_quick(shared: JobRunner) -> None:
    listener = Listener()
    shared.submit(small_request(scale=4, settings={"model": "dcamsr-s", "seed": 9}), listener)
    slowest, pause = 0.0, threading.Event()
    while shared.isBusy:
        started = time.monotonic()
        shared.poll()
        slowest = max(slowest, time.monotonic() - started)
        pause.wait(0.02)
    assert listener.heard == ["result", "finished"]
    assert slowest < 0.5


@POSIX_ONLY
def test_a_killed_worker_is_a_failed_job(shared: JobRunner, tmp_path: Path) -> None:
    """Last of those with the shared worker, which is gone then; another takes over in the test of one that is stuck."""
    listener = Listener()
    shared.submit(slow_request(tmp_path), listener)
    wait_for_stage(shared, listener, "Registering")
    pid = shared.workerPid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert shared.waitForFinished(10)
    assert listener.heard == ["failed"]
    assert "ended unexpectedly (exit code -9)" in listener.message
    assert not shared.workerIsWarm
    assert list(tmp_path.iterdir()) == []
    assert work_files(shared) == ["inbox", "jobs"]
