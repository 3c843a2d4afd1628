"""Runs jobs in a worker process: submit, hear of it, cancel. Never blocks, and a crash over there stays over there."""

from __future__ import annotations

import errno
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcsr
from mcsr.errors import InputError, OutputError
from mcsr.temporary import make_temporary_folder, remove_leftovers, sole_writer
from mcsr.worker_messages import CANCEL_FLAG, INBOX, STOP_FLAG

from .job_folder import JobRequest, ResultPart, makeWorkFolder, readPart, removeFolder, writeJob
from .launchers import Launcher
from .worker_process import WorkerProcess

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""What a cancelled job is given to stop by itself before its process is killed."""

_SHUTDOWN_SECONDS = 1.0
_LOOK_SECONDS = 0.05


class JobRefused(Exception):
    """A job that was not started; its text is a sentence for the user."""


class JobListener:
    """Hears of one job, on the main thread; one of onFinished, onCancelled and onFailed ends it."""

    def onProgress(self, fraction: float, text: str, remainingSeconds: float | None) -> None:
        """How far the whole job is (0 to 1), what is being done, and an estimate of the seconds left."""

    def onPart(self, part: ResultPart) -> None:
        """Something is ready, "result" first; read its arrays now: the files go when the job ends."""

    def onFinished(self) -> None:
        """All parts were handed over."""

    def onCancelled(self) -> None:
        """`cancel` was called."""

    def onFailed(self, message: str, details: str) -> None:
        """A sentence for the user, and more for the log; parts that were handed over stay valid."""

    def onLog(self, line: str) -> None:
        """A line for the log."""


@dataclass
class _Job:
    """A job in hand.

    Args:
        id: name of its folder and of its ticket.
        folder: of its files.
        listener: hears of it.
        outputFolder: where files go for the user.
        missingFolders: those of it and above that were not there before, the innermost first.
        restarted: a second worker was started for it.
    """

    id: str
    folder: Path
    listener: JobListener
    outputFolder: Path | None
    missingFolders: Sequence[Path]
    restarted: bool = False

    @property
    def ticket(self) -> Path:
        """What lies in the inbox until the worker takes the job."""
        return self.folder.parents[1] / INBOX / self.id


class JobRunner:
    """One worker process, started by the first job and kept for the next; one job at a time.

    Listeners are called from within `submit`, `poll`, `cancel` and `waitForFinished`, never by themselves: a timer has
    to call `poll` about ten times a second.

    Args:
        launcher: starts the process.
        workFolder: new folder for the jobs' files; a temporary one by default. `shutdown` removes it.
        workerOptions: more arguments for the worker.
        temporaryFolder: where the temporary one is made; in Slicer `slicer.app.temporaryPath`. The system's by default.
    """

    def __init__(
        self,
        launcher: Launcher,
        workFolder: Path | None = None,
        workerOptions: Sequence[str] = (),
        temporaryFolder: str | None = None,
    ) -> None:
        self._launcher, self._temporaryFolder = launcher, temporaryFolder
        self._wantedFolder, self._workFolder = workFolder, workFolder
        self._workerOptions = workerOptions
        self._worker: WorkerProcess | None = None
        self._job: _Job | None = None
        self._stopping: _Job | None = None
        self._deadline = 0.0
        self._reasonToFail = ""

    @property
    def isBusy(self) -> bool:
        """Whether a job was submitted and has not ended; a cancelled one has."""
        return self._job is not None

    @property
    def workerIsWarm(self) -> bool:
        """Whether the worker has all loaded, and waits or works."""
        return self._workerIsRunning and bool(self.workerFacts)

    @property
    def workerFacts(self) -> dict[str, Any]:
        """What the worker said of itself: pid, version, versions, device, device_name, memory_free_bytes."""
        return self._worker.facts if self._worker is not None else {}

    @property
    def workerPid(self) -> int | None:
        """Of the worker itself, as it reported it; None while there is none."""
        return self._worker.pid if self._worker is not None and self._workerIsRunning else None

    def submit(self, request: JobRequest, listener: JobListener) -> str:
        """Hand a job to the worker, which is started where it is not running.

        Returns:
            The job's id.

        Raises:
            JobRefused: another job is running, the request cannot be handed over, the disk is full, or no process can
                be started.
        """
        if self._job is not None:
            raise JobRefused("Another enhancement is running; wait for it, or cancel it first.")
        outputFolder = Path(request.outputFolder) if request.outputFolder else None
        missing = [p for p in (outputFolder, *outputFolder.parents) if not p.exists()] if outputFolder else []
        jobId = secrets.token_hex(6)
        try:
            folder = writeJob(self._readyWorkFolder(), jobId, request)
        except InputError as error:
            raise JobRefused(str(error)) from error
        except OSError as error:
            raise JobRefused(_handOverFailed(error)) from error
        self._job = _Job(jobId, folder, listener, outputFolder, missing)
        try:
            self._startWorker()
        except OSError as error:
            self._drop(self._job)
            self._job = None
            raise JobRefused(f"The worker cannot be started ({error}); restart Slicer.") from error
        if not self.workerIsWarm:
            listener.onProgress(0.0, "Starting", None)
        return jobId

    def cancel(self) -> None:
        """End the job: its listener is told at once; the worker is given a moment to stop by itself, then killed."""
        job = self._job
        if job is not None:
            self._stop(job)
            job.listener.onCancelled()

    def abandon(self) -> None:
        """As `cancel`, but the listener hears nothing more: what it worked for, the scene, is gone."""
        if self._job is not None:
            self._stop(self._job)

    def poll(self) -> None:
        """Hear what the worker says, and kill it where its time is over; quick."""
        self._pump(0.0)

    def waitForFinished(self, timeout: float | None = None) -> bool:
        """Poll until the job has ended, for scripts; False where it has not after some seconds."""
        return self._pumpWhile(lambda: self._job is not None, float("inf") if timeout is None else timeout)

    def shutdown(self) -> None:
        """End everything: the job as `abandon` does, the worker, and the work folder. A later job starts anew."""
        self.abandon()
        if self._workFolder is not None and self._workerIsRunning and self._stopping is None:
            with suppress(OSError):
                (self._workFolder / INBOX / STOP_FLAG).touch()
            self._pumpWhile(lambda: self._workerIsRunning, _SHUTDOWN_SECONDS)
        self._endWorker()
        if self._workFolder is not None:
            removeFolder(self._workFolder)
            self._workFolder = self._wantedFolder

    @property
    def _workerIsRunning(self) -> bool:
        return self._worker is not None and self._worker.isRunning

    def _readyWorkFolder(self) -> Path:
        """The work folder; some systems tidy away temporary folders, and with them a worker's."""
        if self._workFolder is None or not (self._workFolder / INBOX).is_dir():
            self._endWorker()
            temporary = Path(self._temporaryFolder or tempfile.gettempdir())
            self._workFolder = self._wantedFolder or make_temporary_folder(temporary)
            makeWorkFolder(self._workFolder)
        return self._workFolder

    def _startWorker(self) -> None:
        assert self._workFolder is not None
        if not self._workerIsRunning:
            self._reasonToFail = ""
            self._worker = WorkerProcess(
                self._launcher, self._workFolder, self._workerOptions, self._onEvent, self._onLog, self._onExit
            )

    def _endWorker(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._pumpWhile(lambda: self._workerIsRunning, _SHUTDOWN_SECONDS)
            self._worker.forget()
        self._hasStopped(killed=True)
        self._worker = None

    def _pump(self, seconds: float) -> None:
        if self._worker is not None:
            self._worker.pump(seconds)
            if self._stopping is not None and time.monotonic() > self._deadline:
                self._deadline = float("inf")
                self._worker.kill()

    def _pumpWhile(self, isSo: Callable[[], bool], seconds: float) -> bool:
        """Poll while something is so; False where it still is after some seconds."""
        end = time.monotonic() + seconds
        while isSo():
            if time.monotonic() > end:
                return False
            self._pump(_LOOK_SECONDS)
        return True

    def _stop(self, job: _Job) -> None:
        """Of the job in hand: nobody listens to it any more."""
        self._job = None
        try:
            job.ticket.unlink()
        except OSError:  # the worker has taken it, so it has done with the one before
            self._hasStopped(killed=False)
            self._stopping, self._deadline = job, time.monotonic() + GRACE_SECONDS
            with suppress(OSError):
                (job.folder / CANCEL_FLAG).touch()
        else:
            self._drop(job)

    def _hasStopped(self, *, killed: bool) -> None:
        """The worker works no more for a job that was cancelled."""
        job, self._stopping = self._stopping, None
        if job is not None:
            self._drop(job, killed=killed)

    def _onLog(self, line: str) -> None:
        logger.debug("worker: %s", line)
        if self._job is not None:
            self._job.listener.onLog(line)

    def _onEvent(self, event: dict[str, Any]) -> None:
        kind, jobId, job = event["event"], event.get("job"), self._job
        if kind == "ready" and event.get("version") != mcsr.__version__:
            self._failAtStart("MultiContrastSR was updated while Slicer was open; restart Slicer.")
        elif kind == "error" and jobId is None:
            self._onLog(_told(event))
            if event.get("code") == "environment":
                self._failAtStart(_told(event))
        elif job is not None and jobId == job.id:
            self._onJobEvent(job, event)
        elif self._stopping is not None and jobId == self._stopping.id and kind in ("done", "cancelled", "error"):
            self._hasStopped(killed=False)

    def _onJobEvent(self, job: _Job, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            fraction, stage = event.get("fraction") or 0.0, event.get("stage") or ""
            job.listener.onProgress(fraction, stage, event.get("remaining_s"))
        elif kind == "part":
            try:
                part = readPart(job.folder, event.get("file"))
            except InputError as error:
                self._stop(job)
                job.listener.onFailed(str(error), "")
            else:
                job.listener.onPart(part)
        elif kind in ("done", "cancelled", "error"):
            self._job = None
            try:
                if kind == "done":
                    job.listener.onFinished()
                elif kind == "cancelled":
                    job.listener.onCancelled()
                else:
                    job.listener.onFailed(_told(event), str(event.get("details", "")))
            finally:
                self._drop(job)

    def _failAtStart(self, reason: str) -> None:
        self._reasonToFail = reason
        assert self._worker is not None
        self._worker.kill()

    def _onExit(self, exitCode: int) -> None:
        self._hasStopped(killed=True)
        job = self._job
        if job is None:
            return
        # It was leaving, or dying of the job before, as this one was handed in: another worker takes it.
        if job.ticket.exists() and not job.restarted and not self._reasonToFail:
            job.restarted = True
            with suppress(OSError):
                self._startWorker()
                return
        self._job = None
        self._drop(job, killed=True)
        message = self._reasonToFail or (
            f"The worker ended unexpectedly (exit code {exitCode}); memory may have run out. "
            "Close other programs or choose fewer maps, and try again."
        )
        job.listener.onFailed(message, "\n".join(self._worker.lastLines if self._worker is not None else ()))

    def _drop(self, job: _Job, *, killed: bool = False) -> None:
        """Remove a job's files; those in the user's folder too, where a worker was killed while it wrote them."""
        with suppress(OSError):
            job.ticket.unlink(missing_ok=True)
        removeFolder(job.folder)
        if killed and job.outputFolder is not None:
            with suppress(OutputError), sole_writer(job.outputFolder):
                remove_leftovers(job.outputFolder)
            for folder in job.missingFolders:
                with suppress(OSError):  # not empty, or never made
                    folder.rmdir()


def _told(event: dict[str, Any]) -> str:
    return str(event.get("message") or "The worker failed and did not say why; see the log, and try again.")


def _handOverFailed(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None), errno.EFBIG):
        return f"The disk with temporary files is full ({reason}); free some space, or set another temporary folder."
    return f"The images cannot be handed to the worker ({reason}); set another temporary folder in Slicer's settings."
