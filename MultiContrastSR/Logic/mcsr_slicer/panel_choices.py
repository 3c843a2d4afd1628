"""The panel's part on the model: which network, scale, weights and maps, and what to expect of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ctk
import qt

from .estimate import estimate
from .model_catalog import ModelInfo, readModels
from .panel_state import chosenWeights, figuresSentence, sizesSentence, unusable, weightsSentence, workOf
from .panel_widgets import CheckList, ChoiceBox
from .parameters import MultiContrastSRParameterNode, Registration


class ModelChoices:
    """Keeps the choices of model, scale, weights and maps equal to the parameter node, and explains them.

    :param ui: the panel's widgets.
    :param parameters: gives the parameter node in use, or None.
    """

    def __init__(self, ui: Any, parameters: Callable[[], MultiContrastSRParameterNode | None]) -> None:
        self._ui, self._parameters = ui, parameters
        self.models: dict[str, ModelInfo] = readModels()
        self._model = ChoiceBox(ui.modelSelector, self._onModel)
        self._scale = ChoiceBox(ui.scaleSelector, lambda scale: self._set(scale=scale, weights=""))
        self._weights = ChoiceBox(ui.weightsSelector, lambda identifier: self._set(weights=identifier))
        self._maps = CheckList(ui.mapsList, self._onMaps)
        ui.allMapsButton.connect("clicked()", lambda: self._set(maps="all"))
        ui.noMapsButton.connect("clicked()", lambda: self._set(maps="none"))
        ui.folderSelector.filters = ctk.ctkPathLineEdit.Dirs
        ui.folderSelector.connect("currentPathChanged(QString)", lambda path: self._set(outputFolder=path))

    def reread(self) -> None:
        """Look again which weights there are."""
        self.models = readModels()

    def update(self) -> None:
        """Show what the parameter node says."""
        parameters = self._parameters()
        if parameters is None:
            return
        model = self.models.get(parameters.model)
        usable = [m for m in self.models.values() if m.weights]
        self._model.fill([(m.name, m.name) for m in usable], parameters.model)
        self._scale.fill([(f"x{scale}", scale) for scale in (model.scales if model else [])], parameters.scale)
        weights = chosenWeights(parameters, self.models)
        fitting = model.weightsFor(parameters.scale) if model else []
        self._weights.fill([(w.id, w.id) for w in fitting], weights.id if weights else parameters.weights)
        severalWeights = len(fitting) > 1
        self._ui.weightsSelector.visible = self._ui.weightsLabel.visible = severalWeights
        maps = model.maps if model else ()
        self._maps.fill([(f"{m.family}: {m.title}", m.meaning, m.name) for m in maps], self.chosenMaps())
        sentences = (model.summary if model else "", weightsSentence(weights))
        self._ui.modelHint.text = " ".join(s for s in sentences if s)
        self._ui.figuresHint.text = figuresSentence(weights)
        self._ui.figuresHint.visible = bool(self._ui.figuresHint.text)
        if self._ui.folderSelector.currentPath != parameters.outputFolder:
            self._ui.folderSelector.currentPath = parameters.outputFolder
        self._explainInputs(parameters)

    def chosenMaps(self) -> list[str]:
        """Names of the maps to compute."""
        parameters = self._parameters()
        model = self.models.get(parameters.model) if parameters else None
        if parameters is None or model is None or parameters.maps == "none":
            return []
        if parameters.maps == "all":
            return [entry.name for entry in model.maps]
        return parameters.maps.split(",")

    def expectedTime(self) -> str:
        """A sentence on how long the enhancement will take; empty while there is nothing to enhance."""
        parameters = self._parameters()
        model = self.models.get(parameters.model) if parameters else None
        if model is None or parameters.target is None or unusable(parameters.target):
            return ""
        gmac = workOf(parameters, model)
        return estimate(qt.QSettings(), model.name, parameters.device.value, gmac).sentence()

    def _explainInputs(self, parameters: MultiContrastSRParameterNode) -> None:
        self._ui.inputsHint.text = sizesSentence(parameters)
        self._ui.inputsHint.visible = bool(self._ui.inputsHint.text)
        self._ui.groundTruthSelector.enabled = not parameters.simulate
        byTransform = parameters.registration is Registration.TRANSFORM
        self._ui.transformSelector.visible = self._ui.transformLabel.visible = byTransform
        self._ui.registrationSelector.enabled = parameters.reference is not None

    def _onModel(self, name: str) -> None:
        """Another network: its largest scale if it lacks the present one, and its own maps."""
        parameters, model = self._parameters(), self.models[name]
        if parameters is None:
            return
        scale = parameters.scale if parameters.scale in model.scales else model.scales[-1]
        maps = parameters.maps if parameters.maps in ("none", "all") else "none"
        self._set(model=name, scale=scale, weights="", maps=maps)

    def _onMaps(self, names: list[str]) -> None:
        model = self.models.get(self._ui.modelSelector.currentText)
        everything = model is not None and len(names) == len(model.maps)
        self._set(maps="none" if not names else "all" if everything else ",".join(names))

    def _set(self, **values: Any) -> None:
        parameters = self._parameters()
        if parameters is None:
            return
        before = parameters.StartModify()
        try:
            for name, value in values.items():
                if getattr(parameters, name) != value:
                    setattr(parameters, name, value)
        finally:
            parameters.EndModify(before)
