"""How a result was made, as attributes of its node; the same facts as in report.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import slicer

from .node_tags import setTags

_HASH_DIGITS = 12


def tagResult(node: slicer.vtkMRMLNode, report: Mapping[str, Any], warnings: Sequence[str]) -> None:
    """Write model, weights, settings, device, version, date and warnings.

    `ModelVersion` is the beginning of the weights' hash: weights have no other version.

    :param report: as in report.json; what it does not say is left out.
    """
    settings, plan = report.get("settings") or {}, report.get("plan") or {}
    weights = report.get("weights_sha256") or ""
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
        },
    )


def registrationMatrix(report: Mapping[str, Any]) -> list[list[float]] | None:
    """Reference to target, RAS mm (4 x 4); None where the reference was left where its header puts it."""
    registration = report.get("registration") or {}
    return registration.get("reference_to_target_ras") if registration.get("accepted") else None
