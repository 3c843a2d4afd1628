"""One enhancement of nodes: what the worker is asked, and what becomes of its answer in the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import slicer
from mcsr.errors import InputError
from slicer.i18n import tr as _

from .job_folder import JobRequest, ResultPart
from .job_runner import JobListener, JobRunner
from .node_tags import NodeHandle
from .results import ResultNodes
from .volumes import parentToWorld, volumeData


@dataclass
class Inputs:
    """What is enhanced, and how.

    :param target: in low resolution; with `simulate` in high resolution.
    :param reference: None: the target is its own.
    :param output: to use again; None: a new volume.
    :param groundTruth: of the target.
    :param transform: linear, from the reference to the target; then nothing is registered.
    :param settings: fields of the engine's settings: model, scale, plane, ...
    :param outputFolder: where files go, "" for none.
    :param pointRas: of maps: mm, in the world; the maps of the pixel there.
    """

    target: slicer.vtkMRMLScalarVolumeNode
    reference: slicer.vtkMRMLScalarVolumeNode | None = None
    output: slicer.vtkMRMLScalarVolumeNode | None = None
    groundTruth: slicer.vtkMRMLScalarVolumeNode | None = None
    transform: slicer.vtkMRMLLinearTransformNode | None = None
    simulate: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    outputFolder: str = ""
    pointRas: tuple[float, float, float] | None = None


class EnhancementListener:
    """Hears of one enhancement; one of onFinished, onCancelled and onFailed ends it."""

    def onProgress(self, fraction: float, text: str, remainingSeconds: float | None) -> None:
        """How far the whole is (0 to 1), what is being done, and an estimate of the seconds left."""

    def onNodes(self, part: ResultPart, nodes: list[slicer.vtkMRMLNode]) -> None:
        """A part has come into the scene: "result" first, then "scores" and "maps"."""

    def onFinished(self) -> None:
        """All is there."""

    def onCancelled(self) -> None:
        """The user cancelled."""

    def onFailed(self, message: str, details: str) -> None:
        """A sentence for the user, and more for the log."""

    def onLog(self, line: str) -> None:
        """A line for the log."""


class Enhancement(JobListener):
    """One job on its way.

    :param runner: does it.
    :param inputs: see there.
    :param listener: hears of it.
    :param kind: "enhance", or "maps" for the maps of the result that `inputs.output` is.
    :raises InputError: for inputs that cannot be used.
    :raises JobRefused: when it cannot be started.
    """

    def __init__(
        self, runner: JobRunner, inputs: Inputs, listener: EnhancementListener | None = None, kind: str = "enhance"
    ) -> None:
        self._runner, self._listener = runner, listener or EnhancementListener()
        self._target = NodeHandle(inputs.target)
        request = makeRequest(inputs, kind)
        self.results = ResultNodes(inputs.target.GetScene(), inputs.target, inputs.reference, {"sr": inputs.output})
        self.model = str(inputs.settings.get("model", ""))
        self.failure = ""
        self.isRunning = True
        runner.submit(request, self)

    @property
    def output(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The enhanced volume, once it is there."""
        return self.results.node("sr")

    def onProgress(self, fraction: float, text: str, remainingSeconds: float | None) -> None:
        if self._target.node is None:
            self._giveUp(_("The target volume was deleted, so the enhancement was stopped."))
            return
        self._listener.onProgress(fraction, text, remainingSeconds)

    def onPart(self, part: ResultPart) -> None:
        try:
            nodes = self.results.addPart(part)
        except (InputError, OSError) as error:
            self._giveUp(str(error))
        else:
            self._listener.onNodes(part, nodes)

    def onFinished(self) -> None:
        self.isRunning = False
        self._listener.onFinished()

    def onCancelled(self) -> None:
        self.isRunning = False
        self.failure = _("Cancelled.")
        self._listener.onCancelled()

    def onFailed(self, message: str, details: str) -> None:
        self.isRunning = False
        self.failure = message
        self._listener.onFailed(message, details)

    def onLog(self, line: str) -> None:
        self._listener.onLog(line)

    def _giveUp(self, message: str) -> None:
        self._runner.abandon()
        self.onFailed(message, "")


def makeRequest(inputs: Inputs, kind: str = "enhance") -> JobRequest:
    """What the worker is asked.

    :raises InputError: for volumes and transforms that cannot be used.
    """
    if inputs.target is None:
        raise InputError(_("Choose the target: the scan to enhance."))
    if inputs.target is inputs.reference:
        raise InputError(_("Target and reference are the same volume; choose another contrast as reference, or none."))
    return JobRequest(
        target=volumeData(inputs.target),
        reference=inputs.reference and volumeData(inputs.reference),
        groundTruth=None if inputs.simulate or inputs.groundTruth is None else volumeData(inputs.groundTruth),
        settings=dict(inputs.settings),
        kind=kind,
        referenceToTargetRas=None if inputs.transform is None else _matrix(inputs.transform),
        simulate=inputs.simulate,
        outputFolder=inputs.outputFolder or None,
        inputFiles=_files(inputs),
        pointRas=inputs.pointRas,
    )


def _matrix(transform: slicer.vtkMRMLLinearTransformNode) -> Any:
    """From the reference's world to the target's."""
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    return parentToWorld(transform) @ matrix


def _files(inputs: Inputs) -> list[str]:
    """Where the inputs were loaded from."""
    found = []
    for node in (inputs.target, inputs.reference, inputs.groundTruth):
        storage = node.GetStorageNode() if node is not None else None
        if storage is not None and storage.GetFullNameFromFileName():
            found.append(storage.GetFullNameFromFileName())
    return found
