"""Starting a child process and hearing what it prints, line by line, on the thread that asks.

In Slicer a `QProcessLauncher` is used, which Qt's event loop feeds; scripts and tests, which may have none, use a
`SubprocessLauncher`. Either hands out lines when `pump` is called, never by itself.
"""

from __future__ import annotations

import codecs
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, Protocol

HIDDEN = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
"""For `subprocess`: a console would flash up for every program that Slicer starts on Windows."""

_START_MS = 5000

OnLine = Callable[[str], None]
OnExit = Callable[[int], None]


class ChildProcess(Protocol):
    """A started process."""

    pid: int
    """Of what was started, which may be a launcher of the real process."""

    @property
    def isRunning(self) -> bool:
        """Whether `onExit` was not called yet."""

    def pump(self, seconds: float = 0.0) -> None:
        """Hand out what has arrived; where nothing has, wait for it up to some seconds."""

    def kill(self) -> None:
        """End what was started, at once; what that started lives on, see `killTree`."""


class Launcher(Protocol):
    """Starts child processes."""

    def start(self, arguments: Sequence[str], onLine: OnLine, onExit: OnExit) -> ChildProcess:
        """Start a program.

        Args:
            arguments: the program and its arguments.
            onLine: receives each line of its stdout and stderr, without its newline, when `pump` is called.
            onExit: receives the exit code, after the last line, likewise.

        Raises:
            OSError: when it cannot be started.
        """


class LineSplitter:
    """Makes lines of bytes that arrive in any pieces; what is no UTF-8 becomes replacement characters."""

    def __init__(self, onLine: OnLine) -> None:
        self._onLine = onLine
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> None:
        """Hand out the lines that are complete now; at the end, `final`, also one without a newline."""
        *lines, self._rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._onLine(line.removesuffix("\r"))


def pythonExecutable() -> str:
    """The Python that can load what Slicer's Python can: PythonSlicer in Slicer, else the one that runs this."""
    return shutil.which("PythonSlicer") or sys.executable


def killTree(pid: int) -> None:
    """End a process that leads a process group of its own, with all of the group; on Windows with all its children."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True, check=False, **HIDDEN)
        return
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
            return


class SubprocessLauncher:
    """Processes of the standard library; needs no event loop."""

    def start(self, arguments: Sequence[str], onLine: OnLine, onExit: OnExit) -> ChildProcess:
        """See `Launcher.start`."""
        return _Subprocess(arguments, onLine, onExit)


class _Subprocess:
    def __init__(self, arguments: Sequence[str], onLine: OnLine, onExit: OnExit) -> None:
        self._process = subprocess.Popen(
            list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **HIDDEN
        )
        self.pid = self._process.pid
        self._onExit: OnExit | None = onExit
        self._arrived: queue.SimpleQueue[tuple[LineSplitter, bytes]] = queue.SimpleQueue()
        self._open = 0
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            self._open += 1
            arguments_of_thread = (stream, LineSplitter(onLine))
            threading.Thread(target=self._read, args=arguments_of_thread, daemon=True).start()

    @property
    def isRunning(self) -> bool:
        return self._onExit is not None

    def pump(self, seconds: float = 0.0) -> None:
        with suppress(queue.Empty):
            while self._open:
                splitter, data = self._arrived.get(timeout=seconds) if seconds else self._arrived.get_nowait()
                splitter.feed(data, final=not data)
                self._open -= not data
                seconds = 0.0
        self._tellExit()

    def kill(self) -> None:
        with suppress(OSError):
            self._process.kill()

    def _read(self, stream: IO[bytes], splitter: LineSplitter) -> None:
        with stream:
            while data := os.read(stream.fileno(), 1 << 16):
                self._arrived.put((splitter, data))
        self._arrived.put((splitter, b""))

    def _tellExit(self) -> None:
        if self._onExit is None or self._open or self._process.poll() is None:
            return
        onExit, self._onExit = self._onExit, None
        onExit(self._process.returncode)


class QProcessLauncher:
    """Processes of Qt, fed by its event loop.

    Args:
        qt: the module that has QProcess.
    """

    def __init__(self, qt: Any) -> None:
        self._qt = qt

    def start(self, arguments: Sequence[str], onLine: OnLine, onExit: OnExit) -> ChildProcess:
        """See `Launcher.start`."""
        return _QtProcess(self._qt, arguments, onLine, onExit)


class _QtProcess:
    """PythonQt: everything of QProcess by call, bytes out of a QByteArray by `data()`.

    The event loop fills its buffers; they are read when asked, so that no signal can come amid something else.
    """

    def __init__(self, qt: Any, arguments: Sequence[str], onLine: OnLine, onExit: OnExit) -> None:
        self._out, self._err = LineSplitter(onLine), LineSplitter(onLine)
        self._onExit: OnExit | None = onExit
        self._notRunning = qt.QProcess.NotRunning
        self._process = qt.QProcess()
        self._process.start(arguments[0], list(arguments[1:]))
        if not self._process.waitForStarted(_START_MS):
            raise OSError(f"{os.path.basename(arguments[0])} cannot be started ({self._process.errorString()})")
        self.pid = int(self._process.processId())

    @property
    def isRunning(self) -> bool:
        return self._onExit is not None

    def pump(self, seconds: float = 0.0) -> None:
        if self._onExit is None:
            return
        if seconds:  # the caller keeps the event loop from running
            self._process.waitForReadyRead(max(1, int(1000 * seconds)))
        ended = self._process.state() == self._notRunning
        self._out.feed(_bytes(self._process.readAllStandardOutput()), final=ended)
        self._err.feed(_bytes(self._process.readAllStandardError()), final=ended)
        if ended:
            onExit, self._onExit = self._onExit, None
            onExit(self._process.exitCode())

    def kill(self) -> None:
        self._process.kill()


def _bytes(data: Any) -> bytes:
    """What is in a QByteArray, whatever the binding makes of it."""
    content = data.data() if hasattr(data, "data") else data
    return content.encode("utf-8", "surrogateescape") if isinstance(content, str) else bytes(content)
