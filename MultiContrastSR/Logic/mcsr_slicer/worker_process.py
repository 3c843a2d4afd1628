"""A worker process: started, heard event by event, ended with all that it started."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mcsr.worker_messages import read_event

from .launchers import Launcher, killTree, pythonExecutable

WORKER_SCRIPT = Path(__file__).resolve().parents[1] / "mcsr_worker.py"
_KEPT_LINES = 40


class WorkerProcess:
    """A started worker.

    Args:
        launcher: starts it.
        workFolder: with the inbox and the jobs.
        options: more arguments for it.
        onEvent: receives its events.
        onLog: receives what else it prints, line by line.
        onExit: receives its exit code, after all of these.

    Raises:
        OSError: when it cannot be started.
    """

    def __init__(
        self,
        launcher: Launcher,
        workFolder: Path,
        options: Sequence[str],
        onEvent: Callable[[dict[str, Any]], None],
        onLog: Callable[[str], None],
        onExit: Callable[[int], None],
    ) -> None:
        self._onEvent, self._onLog, self._onExit = onEvent, onLog, onExit
        self._heard: deque[Callable[[], None]] = deque()
        self._isTelling = False
        self.facts: dict[str, Any] = {}
        """What it said of itself when it was ready; empty before."""
        self.lastLines: deque[str] = deque(maxlen=_KEPT_LINES)
        """What it printed last."""
        arguments = [pythonExecutable(), "-u", str(WORKER_SCRIPT), "--work", str(workFolder)]
        arguments += ["--parent", str(os.getpid()), *options]
        self._process = launcher.start(
            arguments,
            lambda line: self._heard.append(lambda: self._tellLine(line)),
            lambda exitCode: self._heard.append(lambda: self._onExit(exitCode)),
        )

    @property
    def isRunning(self) -> bool:
        """Whether it has not ended."""
        return self._process.isRunning

    @property
    def pid(self) -> int | None:
        """Of the worker itself, as it reported it, which may not be what was started; None before it is ready."""
        pid = self.facts.get("pid")
        return pid if isinstance(pid, int) and pid > 1 else None

    def pump(self, seconds: float = 0.0) -> None:
        """Tell what has arrived; where nothing has, wait for it up to some seconds.

        One thing after the other: a listener that runs Qt's event loop may bring this about again while it works.
        """
        if self._isTelling:
            return
        self._process.pump(0.0 if self._heard else seconds)
        self._isTelling = True
        try:
            while self._heard:
                self._heard.popleft()()
        finally:
            self._isTelling = False

    def kill(self) -> None:
        """End it at once, and all that it started."""
        if self.isRunning:
            if self.pid is not None:
                killTree(self.pid)
            self._process.kill()

    def forget(self) -> None:
        """Tell nothing more."""
        self._heard = deque(maxlen=0)

    def _tellLine(self, line: str) -> None:
        event = read_event(line)
        if event is None:
            self.lastLines.append(line)
            self._onLog(line)
            return
        if event["event"] == "ready":
            self.facts = event
        self._onEvent(event)
