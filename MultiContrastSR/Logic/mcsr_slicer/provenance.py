"""How a result was made, as attributes of its node, the same facts as in report.json; and read back from there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import slicer
from mcsr.model_folders import added_files

from .node_tags import REFERENCE, TARGET, TRANSFORM, nodesOf, setTags, tag

_HASH_DIGITS = 12
_NONE = "none"


@dataclass(frozen=True)
class Origin:
    """What a result was made from, as far as it is still there.

    :param target: with `simulate` in high resolution.
    :param reference: None where there was none.
    :param transform: of the registration, from the reference to the target; None where none was found.
    :param settings: fields of the engine's settings; nothing is to be registered again.
    """

    target: slicer.vtkMRMLScalarVolumeNode
    reference: slicer.vtkMRMLScalarVolumeNode | None
    transform: slicer.vtkMRMLLinearTransformNode | None
    simulate: bool
    settings: dict[str, Any]


def tagResult(node: slicer.vtkMRMLNode, report: Mapping[str, Any], warnings: Sequence[str]) -> None:
    """Write model, weights, settings, device, version, date and warnings.

    `ModelVersion` is the beginning of the weights' hash: weights have no other version.

    :param report: as in report.json; what it does not say is left out.
    """
    settings, plan = report.get("settings") or {}, report.get("plan") or {}
    weights, pointMaps = report.get("weights_sha256") or "", report.get("point_maps")
    setTags(
        node,
        {
            "ModelId": settings.get("model"),
            "ModelVersion": weights[:_HASH_DIGITS],
            "WeightsSHA256": weights,
            "Scale": settings.get("scale"),
            "Device": plan.get("device"),
            "Version": report.get("software"),
            "Date": report.get("date"),
            "Parameters": json.dumps(settings, sort_keys=True) if settings else None,
            "Registration": (report.get("registration") or {}).get("message"),
            "Warnings": "\n".join(warnings),
            "Notice": report.get("notice"),
            "HadReference": bool((report.get("inputs") or {}).get("reference")),
            "PointMaps": None if pointMaps is None else ",".join(pointMaps) or _NONE,
        },
    )


def originOf(result: slicer.vtkMRMLScalarVolumeNode) -> Origin | None:
    """From what, and how, a result can be made once more; None where a volume that it takes has left the scene."""
    target, reference = result.GetNodeReference(TARGET), result.GetNodeReference(REFERENCE)
    if target is None or not tag(result, "Parameters") or (reference is None and tag(result, "HadReference") == "True"):
        return None
    settings = {key: value for key, value in json.loads(tag(result, "Parameters")).items() if value is not None}
    # Of the user's own weights the report tells no folder.
    own = next((path for path in added_files() if path.name == settings.get("weights")), None)
    settings |= {"registration": "none"} | ({"weights": str(own)} if own else {})
    isSimulated = bool(nodesOf(result, "simulated_target"))
    return Origin(target, reference, result.GetNodeReference(TRANSFORM), isSimulated, settings)


def offersPointMaps(result: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether the network can be asked about one pixel, as far as the result tells."""
    return tag(result, "PointMaps") != _NONE


def registrationMatrix(report: Mapping[str, Any]) -> list[list[float]] | None:
    """Reference to target, RAS mm (4 x 4); None where the reference was left where its header puts it."""
    registration = report.get("registration") or {}
    return registration.get("reference_to_target_ras") if registration.get("accepted") else None
