"""Child processes: every line once, whole, in order, whatever pieces it comes in; and the exit code after the last."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from mcsr_slicer.launchers import ChildProcess, Launcher, LineSplitter, QProcessLauncher, SubprocessLauncher
from worker_jobs_by_hand import wait_until

TALK = "import sys; print('Müller'); print('x' * 200_000); sys.stderr.write('alas'); sys.stdout.write('end'); exit(3)"


class Heard:
    """What a process said, pumped until something is so."""

    def __init__(self, launcher: Launcher, *arguments: str) -> None:
        self.lines: list[str] = []
        self.exits: list[int] = []
        self.process: ChildProcess = launcher.start(arguments, self.lines.append, self.exits.append)

    def until(self, condition: Callable[[], Any], wait: float = 0.0) -> bool:
        def is_so() -> bool:
            self.process.pump(wait)
            return bool(condition())

        return wait_until(is_so)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_come_whole_in_pieces_of_any_size(size: int) -> None:
    text = "first\r\nMüller, 脳\n\nlast \N{BRAIN}"
    data, lines = text.encode(), []
    splitter = LineSplitter(lines.append)
    for start in range(0, len(data), size):
        splitter.feed(data[start : start + size])
    assert lines == ["first", "Müller, 脳", ""]
    splitter.feed(b"", final=True)
    assert lines == ["first", "Müller, 脳", "", "last \N{BRAIN}"]
    splitter.feed(b"\xff\n")
    assert lines[-1] == "\N{REPLACEMENT CHARACTER}"


def qt_core() -> Launcher:
    return QProcessLauncher(pytest.importorskip("PySide6.QtCore"))


@pytest.mark.parametrize("make", [SubprocessLauncher, qt_core])
def test_a_process_is_heard_to_its_end(make: Callable[[], Launcher]) -> None:
    heard = Heard(make(), sys.executable, "-X", "utf8", "-c", TALK)
    assert heard.until(lambda: heard.exits, wait=0.02)
    assert heard.exits == [3]
    assert sorted(heard.lines) == sorted(["Müller", "x" * 200_000, "alas", "end"])
    assert not heard.process.isRunning
    heard.process.pump()
    heard.process.kill()
    assert heard.exits == [3]


@pytest.mark.parametrize("make", [SubprocessLauncher, qt_core])
def test_lines_come_while_it_runs_and_kill_ends_it(make: Callable[[], Launcher]) -> None:
    heard = Heard(make(), sys.executable, "-u", "-c", "import time; print('ready'); time.sleep(60)")
    assert heard.until(lambda: heard.lines, wait=0.02)
    assert (heard.lines, heard.exits, heard.process.isRunning) == (["ready"], [], True)
    heard.process.kill()
    assert heard.until(lambda: heard.exits, wait=0.02)
    assert heard.exits[0] != 0


@pytest.mark.parametrize("make", [SubprocessLauncher, qt_core])
def test_what_cannot_be_started_is_an_os_error(make: Callable[[], Launcher]) -> None:
    with pytest.raises(OSError, match="no-such-program"):
        make().start(["/nowhere/no-such-program"], print, print)


class Words:
    """A QByteArray as PythonQt gives it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def data(self) -> bytes:
        return self.content


class FakeQt:
    """The module qt with a process that says what it is told to."""

    class QProcess:
        NotRunning, Running = 0, 2
        said: ClassVar[list[bytes]] = []

        def start(self, program: str, arguments: list[str]) -> None:
            self.command, self.now = [program, *arguments], self.Running

        def waitForStarted(self, milliseconds: int) -> bool:
            return True

        def processId(self) -> int:
            return 42

        def state(self) -> int:
            return self.now

        def readAllStandardOutput(self) -> Words:
            return Words(self.said.pop(0) if self.said else b"")

        def readAllStandardError(self) -> Words:
            return Words(b"")

        def exitCode(self) -> int:
            return 5


def test_a_process_of_python_qt() -> None:
    qt = FakeQt()
    qt.QProcess.said = [b"one\ntw", b"o\nM\xc3", b"\xbcller"]
    heard = Heard(QProcessLauncher(qt), "python", "-u")
    for expected in (["one"], ["one", "two"]):
        heard.process.pump()
        assert heard.lines == expected
    heard.process._process.now = qt.QProcess.NotRunning  # type: ignore[attr-defined]
    heard.process.pump()
    assert (heard.lines, heard.exits, heard.process.pid) == (["one", "two", "Müller"], [5], 42)
