"""Jobs in processes of their own, and how they are killed; for `tools/faults.py`. POSIX alone, with Linux's /proc."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Process = tuple[int, int]
"""Number and time of its start, which no other process shares."""


class Child:
    """A forked process, which leads a group of its own: the packages that it needs are loaded already.

    Args:
        work: what it does; returns its exit code.
        log: file for what it prints.
        dies_at: it is killed just before it renames the file of this number, counted from 0.
    """

    def __init__(self, work: Callable[[], int], log: Path, dies_at: int | None = None) -> None:
        self.log = log
        self._renames, write_end = os.pipe()
        self.code: int | None = None
        """Exit code, or the negative number of the signal that ended it; None while it runs."""
        self.pid = os.fork()
        if not self.pid:
            os.close(self._renames)
            _be_child(work, log, write_end, dies_at)
        os.close(write_end)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def run_until(self, moment: Callable[[], bool], seconds: float = 600) -> None:
        """Let it run until something is so, or it ends."""
        end = time.monotonic() + seconds
        while self.is_running() and not moment():
            if time.monotonic() > end:
                raise TimeoutError(f"A job takes more than {seconds} s; it says: {self.log.read_text()[-2000:]}")
            time.sleep(0.0005)

    def count_renames(self) -> int:
        """How many files it renamed; of a process that has ended."""
        os.set_blocking(self._renames, False)  # what it started may still hold the other end
        with os.fdopen(self._renames, "rb") as pipe:
            return len(pipe.read() or b"")

    def kill(self) -> list[Process]:
        """Kill it, not its group (`kill -9`); returns the processes that it had started and its group."""
        family = descendants(self.pid)
        if self.is_running():
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        return [*family, *_group(self.pid)]


def ask(question: Callable[[], Any]) -> Any:
    """The answer (as json) of a function that runs in a process of its own, so that no library is at work in this one.

    Raises:
        RuntimeError: with its traceback, when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"

        def work() -> int:
            answer.write_text(json.dumps(question()), encoding="utf-8")
            return 0

        child = Child(work, Path(folder) / "log")
        child.run_until(lambda: False)
        child.count_renames()
        if child.code:
            raise RuntimeError(child.log.read_text())
        return json.loads(answer.read_text(encoding="utf-8"))


def descendants(pid: int) -> list[Process]:
    """All that a process started, and that they started, as far as it lives."""
    table = _table()
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        children = [(child, facts[2]) for child, facts in table.items() if facts[0] == parent]
        found += children
        waiting += [child for child, _ in children]
    return found


def survivors(processes: list[Process], seconds: float) -> list[Process]:
    """Those that still live after some time; returns as soon as there is none."""
    end = time.monotonic() + seconds
    while living := [p for p in processes if _table().get(p[0], (0, 0, -1))[2] == p[1]]:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return living


def _group(leader: int) -> list[Process]:
    return [(pid, start) for pid, (_, group, start) in _table().items() if group == leader]


def _table() -> dict[int, tuple[int, int, int]]:
    """Parent, group and time of start of all processes but those that are dead and not buried."""
    table = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                state, *facts = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if state not in "ZX":
                table[int(entry.name)] = int(facts[0]), int(facts[1]), int(facts[18])
    return table


def _be_child(work: Callable[[], int], log: Path, renames: int, dies_at: int | None) -> None:
    code: Any = 70
    try:
        os.setsid()
        for stream, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
            path = log if stream else os.devnull
            os.dup2(os.open(path, flags | (os.O_CREAT | os.O_APPEND if stream else 0)), stream)
        _count_renames(renames, dies_at)
        code = work()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # what is to be done at the end of the interpreter is its parent's


def _count_renames(pipe: int, dies_at: int | None) -> None:
    """Every file under its final name was renamed to it: between two of these moments nothing else can go wrong."""
    rename, done = os.replace, []

    def replace(*arguments: Any, **options: Any) -> None:
        if len(done) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(os.write(pipe, b"."))
        rename(*arguments, **options)

    os.replace = replace
