"""The panel's section on the models: what is installed, and how more comes in or goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from mcsr.model_folders import drop_in_folder
from slicer.i18n import tr as _

from .environment import EnvironmentNotReady
from .launchers import Launcher, pythonExecutable
from .model_catalog import ModelInfo, WeightsInfo
from .panel_widgets import Dialogs

POLL_MS = 100
ADD_MODEL_SCRIPT = Path(__file__).resolve().parents[1] / "mcsr_add_model.py"


class ModelsSection:
    """Lists the models, adds and removes weights files.

    :param ui: the panel's widgets.
    :param launcher: starts the process that checks a file, which needs torch.
    :param dialogs: ask the user.
    :param ensure: has all that this process needs; raises `EnvironmentNotReady`.
    :param onChanged: called when there are other weights than before.
    :param scale: for which a checkpoint is imported, where it does not say so itself.
    :param log: receives what the process prints.
    """

    def __init__(
        self,
        ui: Any,
        launcher: Launcher,
        dialogs: Dialogs,
        ensure: Callable[[], None],
        onChanged: Callable[[], None],
        scale: Callable[[], int],
        log: Callable[[str], None],
    ) -> None:
        self._ui, self._launcher, self._dialogs = ui, launcher, dialogs
        self._ensure, self._onChanged, self._scale, self._log = ensure, onChanged, scale, log
        self._weights: list[WeightsInfo | None] = []
        self._lines: list[str] = []
        self._process: Any = None
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.connect("timeout()", self._poll)
        ui.addModelButton.connect("clicked()", self.onAdd)
        ui.importModelButton.connect("clicked()", self.onImport)
        ui.openModelsButton.connect("clicked()", self.onOpenFolder)
        ui.removeModelButton.connect("clicked()", self.onRemove)
        ui.modelsList.connect("currentRowChanged(int)", lambda row: self._updateButtons())

    @property
    def isBusy(self) -> bool:
        """Whether a file is being checked."""
        return self._process is not None

    def cleanup(self) -> None:
        """The panel goes."""
        self._timer.stop()
        if self._process is not None:
            self._process.kill()

    def fill(self, models: dict[str, ModelInfo]) -> None:
        """List networks, and under each its weights."""
        self._ui.modelsList.clear()
        self._weights = []
        for model in models.values():
            if not model.weights:
                self._add(_("{name}: no weights installed").format(name=model.name), model.summary, None)
            for weights in model.weights:
                origin = _("comes with the extension") if weights.isShipped else _("added by you")
                label = f"{model.name}  x{weights.scale}  {weights.id} ({origin})"
                self._add(label, model.summary, weights)
        self._updateButtons()

    def onAdd(self) -> None:
        """Ask for a weights file and add it."""
        file = self._dialogs.chooseFile(_("Add a weights file"), _("Weights files (*.safetensors)"))
        if file:
            self._start([file])

    def onImport(self) -> None:
        """Ask for a checkpoint of the authors' code and add what it becomes."""
        file = self._dialogs.chooseFile(
            _("Import a checkpoint"), _("Checkpoints (*.pth *.pt *.ckpt *.pkl);;All files (*)")
        )
        if file:
            self._start([file, "--checkpoint-scale", str(self._scale())])

    def onOpenFolder(self) -> None:
        """Show the folder of the user's own weights files, made if need be."""
        folder = drop_in_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._say(_("The folder {folder} cannot be made ({reason}).").format(folder=folder, reason=error.strerror))
        else:
            self._dialogs.openFolder(str(folder))
            self._say(_("Weights files that you put into {folder} are found.").format(folder=folder))

    def onRemove(self) -> None:
        """Delete the chosen file, if it is the user's own."""
        weights = self._chosen()
        if weights is None or weights.isShipped:
            return
        if not self._dialogs.confirm(_("Delete {file}?").format(file=weights.path)):
            return
        try:
            weights.path.unlink()
        except OSError as error:
            self._say(_("{file} could not be deleted ({reason}).").format(file=weights.path, reason=error.strerror))
        else:
            self._say(_("{file} was deleted.").format(file=weights.path.name))
        self._onChanged()

    def _start(self, arguments: list[str]) -> None:
        try:
            self._ensure()
            self._lines = []
            command = [pythonExecutable(), "-u", str(ADD_MODEL_SCRIPT), *arguments]
            self._process = self._launcher.start(command, self._onLine, self._onExit)
        except (EnvironmentNotReady, OSError) as error:
            self._say(str(error))
        else:
            self._timer.start()
            self._say(_("Checking {file}...").format(file=Path(arguments[0]).name))
        self._updateButtons()

    def _onLine(self, line: str) -> None:
        self._lines.append(line)
        self._log(line)

    def _onExit(self, exitCode: int) -> None:
        self._process = None
        self._timer.stop()
        answer = _answer(self._lines)
        if "added" in answer:
            notes = [str(note) for note in answer.get("notes", [])]
            self._say(" ".join([_("Added {file}.").format(file=Path(answer["added"]).name), *notes]))
        else:
            self._say(str(answer.get("error") or _("The file could not be checked; see the log.")))
        self._onChanged()

    def _poll(self) -> None:
        if self._process is not None:
            self._process.pump()

    def _add(self, label: str, tip: str, weights: WeightsInfo | None) -> None:
        self._weights.append(weights)
        self._ui.modelsList.addItem(label)
        self._ui.modelsList.item(len(self._weights) - 1).setToolTip(tip)

    def _chosen(self) -> WeightsInfo | None:
        row = self._ui.modelsList.currentRow
        return self._weights[row] if 0 <= row < len(self._weights) else None

    def _updateButtons(self) -> None:
        weights = self._chosen()
        self._ui.removeModelButton.enabled = weights is not None and not weights.isShipped and not self.isBusy
        self._ui.addModelButton.enabled = self._ui.importModelButton.enabled = not self.isBusy

    def _say(self, sentence: str) -> None:
        self._ui.modelsStatus.text = sentence


def _answer(lines: list[str]) -> dict[str, Any]:
    """The last line that is json."""
    for line in reversed(lines):
        if line.startswith("{"):
            try:
                return dict(json.loads(line))
            except ValueError:
                continue
    return {}
