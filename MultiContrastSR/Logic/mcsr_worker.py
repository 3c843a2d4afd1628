"""The child process that works for the panel: takes jobs out of an inbox and tells of them, one line an event.

Started by its path, so that its own folder comes first in sys.path; the panel's side is mcsr_slicer/job_runner.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

LOGIC_FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [LOGIC_FOLDER, *(folder for folder in sys.path if folder != LOGIC_FOLDER)]

from mcsr import __version__  # noqa: E402
from mcsr.temporary import liveness  # noqa: E402
from mcsr.threads import leave_cores_to_torch  # noqa: E402
from mcsr.worker_messages import CANCEL_FLAG, INBOX, JOBS, STOP_FLAG, event_line, is_job_id  # noqa: E402

_LOOK_SECONDS = 0.05
_WATCH_SECONDS = 0.5
_LEAVE_SECONDS = 3.0
"""What a job is given to stop by itself when there is no one left to work for."""


class Channel:
    """The way to the panel: stdout, for events alone; whatever else is printed here goes to stderr."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._stream = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        """Tell an event; where no one listens any more, the watch ends the process."""
        with self._lock, suppress(OSError):
            self._stream.write(event_line(event, **fields) + "\n")
            self._stream.flush()


class Watch(threading.Thread):
    """Notices that there is no one left to work for, and ends the process, in the midst of a computation too."""

    def __init__(self, work_folder: Path, parent: int) -> None:
        super().__init__(daemon=True)
        self._work_folder, self._is_alive = work_folder, liveness(parent)
        self.reason = ""
        """Why to leave; empty while there is someone."""

    def run(self) -> None:
        while not self.reason:
            time.sleep(_WATCH_SECONDS)
            if not (self._work_folder / INBOX).is_dir():
                self.reason = "folder"
            elif not self._is_alive():
                self.reason = "parent"
        time.sleep(_LEAVE_SECONDS)
        self.tidy()
        os._exit(0)

    def tidy(self) -> None:
        """Remove what a panel that is no more cannot remove."""
        if self.reason == "parent":
            for name in (INBOX, JOBS):
                shutil.rmtree(self._work_folder / name, ignore_errors=True)
            with suppress(OSError):  # something else is in it
                self._work_folder.rmdir()


class Worker:
    """Takes jobs until told to stop, idle for too long, or alone.

    Args:
        work_folder: with the inbox and the jobs.
        channel: for events.
        watch: see there.
        rest_seconds: idle time after which memory that the next job can do without is given back.
        exit_seconds: idle time after which the process ends.
    """

    def __init__(
        self, work_folder: Path, channel: Channel, watch: Watch, rest_seconds: float, exit_seconds: float
    ) -> None:
        from mcsr.job import Memory

        self._inbox, self._jobs = work_folder / INBOX, work_folder / JOBS
        self._emit, self._watch = channel.emit, watch
        self._rest_seconds, self._exit_seconds = rest_seconds, exit_seconds
        self._memory = Memory()
        self._refused: set[str] = set()

    def serve(self) -> str:
        """Work; returns why it ended: "stopped", "idle", "parent" or "folder"."""
        idle_since, resting = time.monotonic(), False
        while not self._watch.reason:
            name = self._next()
            if name == STOP_FLAG:
                return "stopped"
            if name is not None:
                self._do(name)
                idle_since, resting = time.monotonic(), False
                continue
            idle = time.monotonic() - idle_since
            if idle > self._exit_seconds:
                return "idle"
            if idle > self._rest_seconds and not resting:
                self._memory.rest()
                resting = True
                self._emit("idle")
            time.sleep(_LOOK_SECONDS)
        return self._watch.reason

    def _next(self) -> str | None:
        """The name of a job that was handed in, taken out of the inbox, or the flag to stop."""
        try:
            entries = sorted(os.scandir(self._inbox), key=lambda entry: entry.name)
        except OSError:
            return None
        for entry in entries:
            is_ours = entry.is_file(follow_symlinks=False) and (entry.name == STOP_FLAG or is_job_id(entry.name))
            if not is_ours:
                self._refuse(entry.name)
                continue
            with suppress(OSError):  # the panel has taken it back
                os.unlink(entry.path)
                return entry.name
        return None

    def _refuse(self, name: str) -> None:
        if name not in self._refused:
            self._refused.add(name)
            message = "Something in the worker's inbox is no job and was left alone; another program put it there."
            self._emit("error", job=None, code="refused", message=message, details=ascii(name)[:200])

    def _do(self, name: str) -> None:
        from mcsr.errors import Cancelled
        from mcsr.worker_errors import describe_error
        from mcsr.worker_jobs import read_request, run_job

        folder, request = self._jobs / name, None
        self._emit("accepted", job=name)

        def cancelled() -> bool:
            return bool(self._watch.reason) or os.path.lexists(folder / CANCEL_FLAG) or not folder.is_dir()

        try:
            request = read_request(folder)
            run_job(request, folder, self._memory, lambda event, **f: self._emit(event, job=name, **f), cancelled)
        except Cancelled:
            self._emit("cancelled", job=name)
        except Exception as error:
            code, message, details = describe_error(error, request)
            if code == "memory":
                self._memory = type(self._memory)()
            self._emit("error", job=name, code=code, message=message, details=details)
        else:
            self._emit("done", job=name, recalled=list(self._memory.recalled))


def _facts() -> dict[str, Any]:
    """What the panel shows of this process."""
    import numpy
    import torch
    from mcsr.inference import choose_device

    device = choose_device("auto")
    on_gpu = device == "cuda"
    return {
        "pid": os.getpid(),
        "version": __version__,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "device": device,
        "device_name": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        "memory_free_bytes": torch.cuda.mem_get_info()[0] if on_gpu else None,
    }


def main() -> int:
    """Serve until there is no more to do; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the inbox and the jobs")
    parser.add_argument("--parent", type=int, required=True, help="process to work for; this one ends with it")
    parser.add_argument("--rest-seconds", type=float, default=30.0, help="idle time before GPU memory is given back")
    parser.add_argument("--exit-seconds", type=float, default=300.0, help="idle time before the process ends")
    options = parser.parse_args()
    leave_cores_to_torch()
    if hasattr(os, "setpgrp"):
        with suppress(OSError):  # leads a group already
            os.setpgrp()
    channel = Channel()
    watch = Watch(options.work, options.parent)
    watch.start()
    try:
        worker = Worker(options.work, channel, watch, options.rest_seconds, options.exit_seconds)
        channel.emit("ready", **_facts())
    except ImportError as error:
        remedy = "install the PyTorch extension" if error.name == "torch" else "install it in the panel's setup"
        message = f"The package {error.name} is missing in Slicer's Python; {remedy}, then try again."
        channel.emit("error", job=None, code="environment", message=message, details=str(error))
        return 1
    channel.emit("stopping", reason=worker.serve())
    watch.tidy()
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    # Torch takes a second to fold up, for which a closing Slicer would wait.
    os._exit(exit_code)
