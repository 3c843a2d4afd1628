"""A result as a derived DICOM series, through Slicer's own exporter (DICOMScalarVolumePlugin).

The exporter is told patient, study, series and frame of reference as tags. What it cannot be told, since its program
(Create DICOM Series) has no option for it: ImageType, which it writes as ORIGINAL\\PRIMARY for MR;
DerivationDescription; ContentQualification; SoftwareVersions; references to the source images; parameters of the
acquisition. The first four are written into its files here, before they appear. The last two stay out: the result has
another grid than its source images, and was not acquired. Voxels become 16 bit integers, so a result of small fractions
loses its values.
"""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from pathlib import Path
from typing import Any, Protocol

import slicer
from mcsr.errors import InputError, OutputError
from slicer.i18n import tr as _

from .node_tags import TARGET, tag

_LONGEST_SERIES_DESCRIPTION = 64
_LONGEST_DERIVATION_DESCRIPTION = 1024
_SERIES_NUMBER = 7400
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientComments")
_STUDY = ("StudyID", "StudyDate", "StudyTime", "StudyDescription")


class ScalarVolumePlugin(Protocol):
    """The part of Slicer's DICOMScalarVolumePluginClass that is used here."""

    def examineForExport(self, subjectHierarchyItemID: int) -> list[Any]: ...
    def export(self, exportables: list[Any]) -> str: ...


def exportSeries(result: slicer.vtkMRMLScalarVolumeNode, folder: Path, plugin: ScalarVolumePlugin) -> Path:
    """Write a result as a DICOM series into a new folder, which appears only when complete.

    :param folder: an existing folder; the new one in it has the result's name.
    :param plugin: `DICOMScalarVolumePluginClass()` in Slicer.
    :returns: the new folder.
    :raises InputError: the exporter cannot take the result: it stands in no study, for example.
    :raises OutputError: the folder cannot be written, or holds such a series.
    """
    series = folder / (re.sub(r"[^\w.-]+", "_", result.GetName()) or "result")
    if series.exists():
        raise OutputError(_("{path} is there already; choose another folder.").format(path=series))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(result.GetScene())
    exportables = plugin.examineForExport(hierarchy.GetItemByDataNode(result))
    try:
        with tempfile.TemporaryDirectory(prefix=".mcsr-", dir=folder, ignore_cleanup_errors=True) as temporary:
            for exportable in exportables:
                exportable.directory = temporary
                for name, value in exportTags(result).items():
                    exportable.setTag(name, value)
            error = plugin.export(exportables)
            files = sorted(path for path in Path(temporary).rglob("*") if path.is_file())
            if error or not files:
                raise InputError(
                    _("Slicer's DICOM exporter did not take {name}: {error}").format(
                        name=result.GetName(), error=error or _("it wrote no file.")
                    )
                )
            for path in files:
                markDerived(path, result)
            os.replace(files[0].parent, series)
    except OSError as error:
        raise OutputError(_("{path} cannot be written: {error}").format(path=series, error=error.strerror)) from error
    return series


def exportTags(result: slicer.vtkMRMLScalarVolumeNode) -> dict[str, str]:
    """What Slicer's exporter is told: patient and study of the target, a new series in its frame of reference."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(result.GetScene())
    source = hierarchy.GetItemByDataNode(result.GetNodeReference(TARGET) or result)
    study = hierarchy.GetItemAncestorAtLevel(source, "Study")
    patient = hierarchy.GetItemAncestorAtLevel(source, "Patient")
    tags = {name: hierarchy.GetItemAttribute(patient, f"DICOM.{name}") if patient else "" for name in _PATIENT}
    tags |= {name: hierarchy.GetItemAttribute(study, f"DICOM.{name}") if study else "" for name in _STUDY}
    date, _t, time = re.sub(r"[-:]", "", tag(result, "Date"))[:15].partition("T")
    # The exporter wants all three identifiers or none.
    tags |= {
        "StudyInstanceUID": (hierarchy.GetItemUID(study, "DICOM") if study else "") or newUid(),
        "SeriesInstanceUID": newUid(),
        "FrameOfReferenceInstanceUID": hierarchy.GetItemAttribute(source, "DICOM.FrameOfReferenceUID") or newUid(),
    }
    return tags | {
        "Modality": hierarchy.GetItemAttribute(source, "DICOM.Modality") or "MR",
        "Manufacturer": "MultiContrastSR",
        "Model": tag(result, "ModelId"),
        "SeriesDescription": seriesDescription(result),
        "SeriesNumber": str(_SERIES_NUMBER + int(tag(result, "Scale") or 0)),
        **{f"{what}Date": date for what in ("Series", "Content")},
        **{f"{what}Time": time for what in ("Series", "Content")},
    }


def markDerived(path: Path, result: slicer.vtkMRMLNode) -> None:
    """Write into an exported file that its image was computed, by what, and for what; the file is replaced whole."""
    from pydicom import dcmread

    image = dcmread(path)
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.DerivationDescription = derivationDescription(result)
    image.ContentQualification = "RESEARCH"
    image.SoftwareVersions = tag(result, "Version")
    temporary = path.with_name(path.name + ".part")
    image.save_as(temporary)
    os.replace(temporary, path)


def seriesDescription(result: slicer.vtkMRMLNode) -> str:
    """The target's name, then what was done and what it is for; at most 64 characters."""
    ending = f"[MultiContrastSR x{tag(result, 'Scale')}, research use only]"
    name = (result.GetNodeReference(TARGET) or result).GetName()
    return f"{name[: _LONGEST_SERIES_DESCRIPTION - len(ending) - 1]} {ending}"


def derivationDescription(result: slicer.vtkMRMLNode) -> str:
    """Software, model and the weights' hash; at most 1024 characters."""
    words = (
        f"{tag(result, 'Version')}: super-resolution x{tag(result, 'Scale')}; model {tag(result, 'ModelId')}, "
        f"weights SHA-256 {tag(result, 'WeightsSHA256') or 'none'}; computed, not acquired; research use only"
    )
    return words[:_LONGEST_DERIVATION_DESCRIPTION]


def newUid() -> str:
    """A DICOM identifier from a random UUID, of which there is no second."""
    return f"2.25.{uuid.uuid4().int}"
