"""The panel: what is chosen becomes an enhancement, and the user sees how far it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qt
import slicer
from mcsr.errors import InputError, McsrError
from slicer.i18n import tr as _

from .dicom_export import exportSeries
from .enhancement import Enhancement, EnhancementListener, Inputs
from .environment import EnvironmentNotReady, Installer, SlicerInstaller, ensureEnvironment, freeMemory, missingSentence
from .estimate import duration, remember
from .job_runner import JobRefused
from .panel_choices import ModelChoices
from .panel_models import ModelsSection
from .panel_state import inputsOf, inputsOfResult, missing, missingForMaps, scoresSentence, stageWords, workOf
from .panel_views import ViewsSection
from .panel_widgets import Dialogs
from .parameters import MultiContrastSRParameterNode

DOUBLE_CLICK_SECONDS = 0.4
"""So soon after Enhance was pressed, another click is not meant to cancel."""

_MOST_LOG_LINES = 2000


class Panel(EnhancementListener):
    """Holds the sections together.

    :param ui: the widgets of the .ui file, by name.
    :param logic: of the module; does the work.
    :param dialogs: ask the user; tests answer instead.
    :param installer: changes Slicer's Python; tests only pretend.
    """

    def __init__(self, ui: Any, logic: Any, dialogs: Dialogs | None = None, installer: Installer | None = None) -> None:
        self._ui, self._logic = ui, logic
        self._dialogs = dialogs or Dialogs()
        self._installer = installer or SlicerInstaller(self._dialogs.confirm)
        self._parameters: MultiContrastSRParameterNode | None = None
        self._job: Enhancement | None = None
        self._work: tuple[str, str, float] | None = None
        self._startedAt = 0.0
        self._point: tuple[float, float, float] | None = None
        self._message = self._scores = ""
        self._summary: list[str] = []
        self._inputsShown: Inputs | None = None
        self.choices = ModelChoices(ui, self.parameters)
        self.views = ViewsSection(ui, self.parameters, self.onPoint)
        self.models = ModelsSection(
            ui, logic.launcher, self._dialogs, self._ensure, self._onModelsChanged, self._scale, self.log
        )
        ui.applyButton.connect("clicked()", self.onApply)
        ui.mapsButton.connect("clicked()", self.onMaps)
        ui.advancedSection.connect("contentsCollapsed(bool)", self._onAdvanced)
        ui.exportButton.connect("clicked()", self.onExport)
        ui.logText.maximumBlockCount = _MOST_LOG_LINES
        self.models.fill(self.choices.models)
        ui.progressBar.visible = False

    def parameters(self) -> MultiContrastSRParameterNode | None:
        """The parameter node in use; None while the scene is being closed."""
        return self._parameters

    def setParameters(self, parameters: MultiContrastSRParameterNode | None) -> None:
        """Show another parameter node."""
        self._parameters = parameters
        self.update()

    @property
    def isBusy(self) -> bool:
        """Whether an enhancement is on its way."""
        return self._job is not None and self._job.isRunning

    def update(self) -> None:
        """Show what the parameter node says, and what Enhance needs still."""
        if self._parameters is None:
            self._ui.applyButton.enabled = False
            return
        self.choices.update()
        self.views.update()
        sentence = missing(self._parameters, self.choices.models)
        for section in (self._ui.inputsSection, self._ui.modelSection, self._ui.outputsSection):
            section.enabled = not self.isBusy
        if not self.isBusy:
            self._ui.applyButton.text = _("E&nhance")
            self._ui.applyButton.enabled = not sentence
            self._ui.applyButton.toolTip = sentence or _("Enhance the target.")
            self._ui.statusLabel.text = self._message or sentence or self._readySentence()
        result = self.views.result
        lacking = missingForMaps(result, self._parameters)
        self._ui.mapsButton.enabled = not self.isBusy and not lacking
        self._ui.mapsButton.toolTip = lacking or _("The maps chosen under Advanced, without enhancing again.")
        self._ui.exportButton.enabled = not self.isBusy and result is not None

    def onParametersModified(self) -> None:
        """Show a change; where it is one of the inputs, what was said of the last enhancement is old."""
        if self._parameters is not None:
            inputs = inputsOf(self._parameters, self.choices.models)
            if inputs != self._inputsShown:
                self._inputsShown, self._message = inputs, ""
        self.update()

    def onApply(self) -> None:
        """Enhance; or cancel, while it runs."""
        if not self.isBusy:
            self._start("enhance")
        elif time.monotonic() - self._startedAt > DOUBLE_CLICK_SECONDS:
            self._logic.runner.cancel()

    def onMaps(self) -> None:
        """Compute the chosen maps for the result that is there."""
        self._start("maps")

    def onPoint(self, ras: tuple[float, float, float]) -> None:
        """Compute the maps of one pixel of the result."""
        if self.isBusy:
            self.views.sayOrigin(_("Wait for the end of what is running, then click again."))
        else:
            self._start("maps", ras)

    def onExport(self) -> None:
        """Write the result as a DICOM series."""
        result = self.views.result
        folder = self._dialogs.chooseFolder(_("Export as DICOM")) if result is not None else ""
        if not folder:
            return
        plugin = getattr(slicer.modules, "dicomPlugins", {}).get("DICOMScalarVolumePlugin")
        if plugin is None:
            self._message = _("Slicer's DICOM module is switched off. Switch it on in the settings, then try again.")
        else:
            try:
                series = exportSeries(result, Path(folder), plugin())
                self._message = _("Exported to {folder}.").format(folder=series)
            except McsrError as error:
                self._message = str(error)
        self.log(self._message)
        self.update()

    def onSceneClosing(self) -> None:
        """Nothing that is on its way has a place to go to."""
        self._logic.runner.abandon()
        self._job = None
        self._message = ""
        self._hideProgress()
        self.views.forget()

    def cleanup(self) -> None:
        """The panel goes."""
        self.views.forget()
        self.models.cleanup()
        self._logic.shutdown()

    def onProgress(self, fraction: float, text: str, remainingSeconds: float | None) -> None:
        self._ui.progressBar.value = int(1000 * fraction)
        sentence = _("{stage}: {percent} %").format(stage=stageWords(text), percent=int(100 * fraction))
        if remainingSeconds is not None:
            sentence = _("{stage}: {percent} %, about {time} left").format(
                stage=stageWords(text), percent=int(100 * fraction), time=duration(remainingSeconds)
            )
        self._ui.statusLabel.text = sentence

    def onNodes(self, part: Any, nodes: list[Any]) -> None:
        if self._parameters is None or self._job is None:
            return
        if part.name == "result":
            self._keepSpeed(part.report)
            self._parameters.result = self._job.output
            self._ui.viewsSection.collapsed = False
            self.views.show()
        elif part.name == "maps" and self._point is not None:
            self.views.showPoint(self._point)
        elif part.name == "maps":
            self.views.showMaps(nodes)
        elif part.name == "scores":
            self._scores = scoresSentence(part.report)
        self._summary = part.report.get("summary") or self._summary
        self._message = self._resultSentence(part.warnings)

    def onFinished(self) -> None:
        self.log(self._message)
        self._end(self._message)

    def onCancelled(self) -> None:
        self.views.stopAsking()
        self._end(_("Cancelled. Nothing was changed."))

    def onFailed(self, message: str, details: str) -> None:
        self.log(message)
        if details:
            self.log(details)
        self.views.stopAsking()
        self._end(message)

    def onLog(self, line: str) -> None:
        self.log(line)

    def log(self, text: str) -> None:
        """Write into the panel's log."""
        self._ui.logText.appendPlainText(f"{time.strftime('%H:%M:%S')}  {text}")

    def _start(self, kind: str, pointRas: tuple[float, float, float] | None = None) -> None:
        parameters = self._parameters
        self._message, self._scores, self._summary = "", "", []
        if parameters is None or self.isBusy or (kind == "enhance" and missing(parameters, self.choices.models)):
            self.update()
            return
        try:
            self._ensure()
            self._startedAt, self._point = time.monotonic(), pointRas
            self._job = self._logic.start(self._inputs(kind), self, kind)
        except (EnvironmentNotReady, InputError, JobRefused) as error:
            self.onFailed(str(error), "")
            return
        if kind == "enhance":
            model = self.choices.models[parameters.model]
            self._work = (model.name, parameters.device.value, workOf(parameters, model))
        self._ui.applyButton.text = _("Ca&ncel")
        self._ui.applyButton.toolTip = _("Stop the enhancement. Nothing will be changed.")
        self._ui.applyButton.enabled = True
        self._ui.statusLabel.text = _("Starting...")
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self.update()

    def _inputs(self, kind: str) -> Inputs:
        assert self._parameters is not None
        if kind == "maps":
            if self._point is not None:
                return inputsOfResult(self.views.result, "all", self._point)
            return inputsOfResult(self.views.result, self._parameters.maps, trust=self._parameters.trust)
        return inputsOf(self._parameters, self.choices.models)

    def _ensure(self) -> None:
        """All that the worker needs, installed if the user agrees."""
        ensureEnvironment(self._installer, self._dialogs.confirm)

    def _end(self, message: str) -> None:
        self._job = None
        self._message = message
        self._hideProgress()
        self.update()

    def _hideProgress(self) -> None:
        self._ui.progressBar.visible = False
        self._ui.progressBar.value = 0

    def _readySentence(self) -> str:
        return " ".join(s for s in (self.choices.expectedTime(), missingSentence()) if s)

    def _resultSentence(self, warnings: list[str]) -> str:
        assert self._job is not None
        name = self._job.output.GetName() if self._job.output is not None else ""
        done = _("Done: {name}.").format(name=name)
        first = f"{done} {self._scores}".strip()
        return "\n".join((first, *self._summary, *warnings, _("Research use only.")))

    def _keepSpeed(self, report: Mapping[str, Any]) -> None:
        if self._work is not None:
            model, device, gmac = self._work
            remember(qt.QSettings(), model, device, gmac, report.get("seconds") or {})

    def _onModelsChanged(self) -> None:
        self.choices.reread()
        self.models.fill(self.choices.models)
        self.update()

    def _onAdvanced(self, isCollapsed: bool) -> None:
        """Asked when it is looked at: the free memory of a GPU changes all the time."""
        if not isCollapsed:
            self._ui.deviceHint.text = freeMemory() or _("No NVIDIA GPU was found.")

    def _scale(self) -> int:
        return self._parameters.scale if self._parameters is not None else 4
