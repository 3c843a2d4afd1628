"""What the tests of the panel share: host, pretended worker and user; conftest.py makes fixtures of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
from mcsr.volume import Volume
from mcsr.worker_messages import event_line
from module_host import ModuleHost, module_host

PICTURES = Path(os.environ.get("MCSR_PICTURES", Path(__file__).resolve().parents[2] / "build" / "pictures"))
"""Where the tests leave pictures of what they saw."""


class Dialogs:
    """Answers as the test says, and keeps the questions."""

    def __init__(self) -> None:
        self.answer = False
        self.questions: list[str] = []
        self.file = ""
        self.opened: list[str] = []

    def confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.answer

    def chooseFile(self, title: str, pattern: str) -> str:
        return self.file

    def chooseFolder(self, title: str) -> str:
        return self.file

    def openFolder(self, folder: str) -> None:
        self.opened.append(folder)


class Installer:
    """Installs nothing; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hasExtension = True
        self.effect: Callable[[str], None] = lambda what: None

    def hasTorchExtension(self) -> bool:
        return self.hasExtension

    def installTorchExtension(self) -> bool:
        self._do("extension")
        return True

    def installTorch(self) -> None:
        self._do("torch")

    def installPackages(self, requirements: Path) -> None:
        self._do("packages")

    def _do(self, what: str) -> None:
        self.asked.append(what)
        self.effect(what)


class PretendedWorker:
    """A launcher whose process says what the test wants, and does nothing."""

    def __init__(self) -> None:
        self.arguments: Sequence[str] = ()
        self.isRunning = False
        self.poll: Callable[[], None] = lambda: None

    def start(self, arguments: Sequence[str], onLine: Any, onExit: Any) -> Any:
        self.arguments, self._onLine, self._onExit, self.isRunning = arguments, onLine, onExit, True
        return self

    pid = 1 << 22  # no process

    def pump(self, seconds: float = 0.0) -> None:
        pass

    def kill(self) -> None:
        self.exit(-9)

    def say(self, event: str, **fields: Any) -> None:
        self.line(event_line(event, **fields))

    def line(self, text: str) -> None:
        self._onLine(text)
        self.poll()

    def exit(self, code: int = 0) -> None:
        if self.isRunning:
            self.isRunning = False
            self._onExit(code)
            self.poll()

    @property
    def jobFolder(self) -> Path:
        work = Path(self.arguments[list(self.arguments).index("--work") + 1])
        return next(iter((work / "jobs").iterdir()))


def clean_host() -> Iterator[ModuleHost]:
    """An empty Slicer; the test fails on whatever a user would find in the error log."""
    host = module_host()
    host.reset()
    yield host
    problems = host.problems()
    host.reset()
    assert not problems, "\n".join(problems)


def opened_panel(host: ModuleHost) -> Iterator[SimpleNamespace]:
    """The open panel with everything that a test may want to touch; the worker only pretends."""
    dialogs, installer, worker = Dialogs(), Installer(), PretendedWorker()
    panel = host.open(dialogs=dialogs, installer=installer)
    panel.widget.logic.runner._launcher = panel.widget.panel.models._launcher = worker
    worker.poll = panel.widget.logic.runner.poll
    yield SimpleNamespace(
        host=host,
        panel=panel,
        ui=panel.widget.ui,
        widget=panel.widget,
        dialogs=dialogs,
        installer=installer,
        worker=worker,
    )
    panel.close()


def add_volume(volume: Volume) -> Any:
    """A node of the scene."""
    node = slicer.util.addVolumeFromArray(volume.array_kji.round().astype("int16"), volume.ijk_to_ras, volume.name)
    node.CreateDefaultDisplayNodes()
    return node


def choose(box: Any, text: str) -> None:
    """Choose an entry of a combo box by what it says."""
    box.currentIndex = [box.itemText(n) for n in range(box.count)].index(text)
