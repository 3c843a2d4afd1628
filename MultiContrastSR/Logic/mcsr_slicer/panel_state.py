"""What the panel says and allows, worked out from the choices alone: no widgets here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import slicer
from mcsr.errors import InputError
from mcsr.geometry import slice_axis
from slicer.i18n import tr as _

from .enhancement import Inputs
from .estimate import work
from .model_catalog import ModelInfo, WeightsInfo
from .node_tags import tag
from .parameters import MultiContrastSRParameterNode, Registration
from .provenance import originOf
from .volumes import worldGrid


def missing(parameters: MultiContrastSRParameterNode, models: Mapping[str, ModelInfo]) -> str:
    """A sentence on what has to be chosen before Enhance; empty where all is."""
    if parameters.target is None:
        return _("Choose the target: the scan to enhance.")
    for node in (parameters.target, parameters.reference, parameters.groundTruth):
        if sentence := unusable(node):
            return sentence
    for node, role in ((parameters.reference, _("reference")), (parameters.groundTruth, _("ground truth"))):
        if node is parameters.target:
            return _("Target and {role} are the same volume. Choose another one.").format(role=role)
    if parameters.output is not None and parameters.output in (
        parameters.target,
        parameters.reference,
        parameters.groundTruth,
    ):
        return _("The result would overwrite an input. Choose another volume, or create a new one.")
    if chosenWeights(parameters, models) is None:
        return _("There are no weights for this model and scale. Choose others, or add a file under Models.")
    if parameters.registration is Registration.TRANSFORM and parameters.transform is None:
        return _("Choose the transform under Advanced, or another registration.")
    if parameters.registration is Registration.TRANSFORM and parameters.reference is None:
        return _("A transform needs a reference. Choose one, or another registration.")
    return ""


def unusable(node: slicer.vtkMRMLScalarVolumeNode | None) -> str:
    """Why a volume cannot be an input; empty where it can, or where there is none."""
    if node is None:
        return ""
    if node.GetImageData() is None:
        return _("{name} holds no image. Choose another volume.").format(name=node.GetName())
    try:
        worldGrid(node)
    except InputError as error:
        return str(error)
    return ""


def chosenWeights(parameters: MultiContrastSRParameterNode, models: Mapping[str, ModelInfo]) -> WeightsInfo | None:
    """The weights file in use; the first that fits where none is named."""
    model = models.get(parameters.model)
    fitting = model.weightsFor(parameters.scale) if model else []
    named = [weights for weights in fitting if weights.id == parameters.weights]
    return next(iter(named or ([] if parameters.weights else fitting)), None)


def inputsOf(parameters: MultiContrastSRParameterNode, models: Mapping[str, ModelInfo]) -> Inputs:
    """The choices as the logic takes them."""
    weights = chosenWeights(parameters, models)
    own = parameters.registration is Registration.TRANSFORM
    settings: dict[str, Any] = {
        "model": parameters.model,
        "scale": parameters.scale,
        "plane": parameters.plane.value,
        "registration": Registration.NONE.value if own else parameters.registration.value,
        "device": parameters.device.value,
        "precision": parameters.precision.value,
        "consistency": parameters.consistency,
        "fallback": parameters.fallback,
        "maps": parameters.maps,
        "trust": parameters.trust,
        "seed": parameters.seed,
    }
    if weights is not None and not weights.isShipped:
        settings["weights"] = str(weights.path)
    return Inputs(
        target=parameters.target,
        reference=parameters.reference,
        output=parameters.output,
        groundTruth=None if parameters.simulate else parameters.groundTruth,
        transform=parameters.transform if own else None,
        simulate=parameters.simulate,
        settings=settings,
        outputFolder=parameters.outputFolder,
    )


def missingForMaps(result: slicer.vtkMRMLScalarVolumeNode | None, parameters: MultiContrastSRParameterNode) -> str:
    """A sentence on why no maps can be computed for a result; empty where they can."""
    if result is None:
        return _("There is no result yet.")
    if tag(result, "ModelId") != parameters.model:
        return _("The result was made with {model}; choose that model, then its maps under Advanced.").format(
            model=tag(result, "ModelId")
        )
    if originOf(result) is None:
        return _("The target or the reference of this result has left the scene, so no maps can be computed for it.")
    if parameters.maps == "none" and not parameters.trust:
        return _("Choose maps or trust maps under Advanced first.")
    return ""


def inputsOfResult(
    result: slicer.vtkMRMLScalarVolumeNode,
    maps: str,
    pointRas: tuple[float, float, float] | None = None,
    trust: bool = False,
) -> Inputs:
    """What a result was made of and how, for maps of it, or of a point of it; nothing is registered again.

    :raises InputError: when what it was made of has left the scene.
    """
    origin = originOf(result)
    if origin is None:
        raise InputError(_("The target or the reference of this result has left the scene."))
    return Inputs(
        target=origin.target,
        reference=origin.reference,
        output=result,
        transform=origin.transform,
        simulate=origin.simulate,
        settings=origin.settings | {"maps": maps, "trust": trust},
        pointRas=pointRas,
    )


def sizesSentence(parameters: MultiContrastSRParameterNode) -> str:
    """Voxels of the target and of the result, for the panel."""
    target = parameters.target
    if target is None or unusable(target):
        return ""
    spacing, sliceAxis = target.GetSpacing(), _sliceAxis(target, parameters.plane.value)
    scale = 1 / parameters.scale if not parameters.simulate else 1.0
    finer = [mm * (1.0 if axis == sliceAxis else scale) for axis, mm in enumerate(spacing)]
    text = _("Voxels of {before} mm; the result has {after} mm.")
    if parameters.simulate:
        coarse = [mm * (1.0 if axis == sliceAxis else parameters.scale) for axis, mm in enumerate(spacing)]
        return _("Voxels of {before} mm, made {coarse} mm first; the result has {before} mm again.").format(
            before=_millimeters(spacing), coarse=_millimeters(coarse)
        )
    return text.format(before=_millimeters(spacing), after=_millimeters(finer))


def workOf(parameters: MultiContrastSRParameterNode, model: ModelInfo) -> float:
    """Multiply-accumulates (1e9) of enhancing the target."""
    target = parameters.target
    dimensions = target.GetImageData().GetDimensions()
    axis = _sliceAxis(target, parameters.plane.value)
    factor = 1 if parameters.simulate else parameters.scale
    pixels = 1.0
    for other in {0, 1, 2} - {axis}:
        pixels *= dimensions[other] * factor
    return work(model.gmac, pixels, dimensions[axis])


def figuresSentence(weights: WeightsInfo | None) -> str:
    """How good the weights were when they were released."""
    figures = weights.card.get("figures") if weights else None
    if not figures:
        return ""
    gains = [entry["psnr"] - entry["psnr_sinc"] for entry in figures.values()]
    values = [entry["psnr"] for entry in figures.values()]
    spread = f"{min(values):.1f}" if max(values) - min(values) < 0.05 else f"{min(values):.1f} to {max(values):.1f}"
    return _(
        "Measured on one patient that training never saw: "
        "{psnr} dB PSNR, {low:.1f} to {high:.1f} dB above interpolation."
    ).format(psnr=spread, low=min(gains), high=max(gains))


def scoresSentence(report: Mapping[str, Any]) -> str:
    """Of result and interpolated target against the ground truth."""
    words = {
        "result": _("Result: {psnr:.1f} dB PSNR, {ssim:.3f} SSIM."),
        "interpolated": _("Interpolated: {psnr:.1f} dB PSNR, {ssim:.3f} SSIM."),
    }
    scores = report.get("scores") or {}
    found = [(words[name], scores[name]) for name in words if name in scores]
    return " ".join(text.format(psnr=score["psnr"], ssim=score["ssim"]) for text, score in found if _isWhole(score))


def stageWords(stage: str) -> str:
    """What the worker is doing, in the user's language."""
    words = {
        "Starting": _("Starting"),
        "Registering": _("Registering"),
        "Resampling the reference": _("Resampling the reference"),
        "Enhancing": _("Enhancing"),
        "Checking consistency": _("Checking consistency"),
        "Drawing maps": _("Drawing maps"),
        "Drawing trust maps": _("Drawing trust maps"),
        "Writing files": _("Writing files"),
    }
    return words.get(stage, stage)


def weightsSentence(weights: WeightsInfo | None) -> str:
    """What the weights are for."""
    if weights is None:
        return ""
    contrasts = sorted({name for pair in weights.card.get("contrasts", []) for name in pair.split("<-")})
    spacing = weights.card.get("spacing_mm")
    if not contrasts or not spacing:
        return _("Your own file {file}.").format(file=weights.path.name)
    return _("Trained on brain MRI: {contrasts}, result pixels of {low:.1f} to {high:.1f} mm.").format(
        contrasts=", ".join(contrasts), low=spacing[0], high=spacing[1]
    )


def _isWhole(score: Mapping[str, float | None]) -> bool:
    """Equal images have no PSNR."""
    return score.get("psnr") is not None and score.get("ssim") is not None


def _sliceAxis(node: slicer.vtkMRMLVolumeNode, plane: str) -> int:
    return slice_axis(worldGrid(node), plane)


def _millimeters(spacing: Any) -> str:
    return " x ".join(f"{mm:.2f}".rstrip("0").rstrip(".") for mm in spacing)
