"""A result as a derived DICOM series: what Slicer's exporter is told, and what is written into its files afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)

import pydicom
import slicer
from grids import oblique_grid
from mcsr.errors import InputError, OutputError
from mcsr_slicer.dicom_export import exportSeries, exportTags, newUid
from mcsr_slicer.results import ResultNodes
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from scene_nodes import REPORT, Parts, new_volume

STUDY_UID, FRAME_UID, SERIES_UID = newUid(), newUid(), newUid()


class Exportable:
    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.directory = ""

    def setTag(self, name: str, value: str) -> None:
        self.tags[name] = value


class Exporter:
    """Writes what Slicer's exporter writes of the tags it is told, two images of a made-up size."""

    def __init__(self, error: str = "", images: int = 2) -> None:
        self.error, self.images = error, images

    def examineForExport(self, subjectHierarchyItemID: int) -> list[Exportable]:
        assert subjectHierarchyItemID
        return [Exportable()]

    def export(self, exportables: list[Exportable]) -> str:
        (exportable,) = exportables
        folder = Path(exportable.directory) / "ScalarVolume_12"
        folder.mkdir()
        for number in range(self.images):
            write_image(folder / f"IMG{number:04}.dcm", exportable.tags, number)
        return self.error


def write_image(path: Path, tags: dict[str, str], number: int) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, newUid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    image.ImageType, image.InstanceNumber = ["ORIGINAL", "PRIMARY", "MPR"], number + 1
    image.FrameOfReferenceUID = tags["FrameOfReferenceInstanceUID"]
    for name in ("PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality"):
        setattr(image, name, tags[name])
    image.save_as(path)


@pytest.fixture
def result(scene: slicer.vtkMRMLScene, tmp_path: Path) -> slicer.vtkMRMLScalarVolumeNode:
    """Of a target that was loaded from DICOM."""
    grid = oblique_grid()
    name = "4: T2 TSE tra of the whole head, late"
    target = new_volume(scene, np.ones(grid.shape_kji, np.int16), grid.ijk_to_ras, name)
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Doe")
    study = tree.CreateStudyItem(patient, "Head")
    series = tree.CreateItem(study, target)
    for item, name, value in (
        (patient, "PatientName", "Doe^Jane"),
        (patient, "PatientID", "17"),
        (study, "StudyDate", "20260701"),
        (series, "FrameOfReferenceUID", FRAME_UID),
        (series, "SeriesNumber", "4"),
    ):
        tree.SetItemAttribute(item, f"DICOM.{name}", value)
    tree.SetItemUID(study, "DICOM", STUDY_UID)
    tree.SetItemUID(series, "DICOM", SERIES_UID)
    (tmp_path / "job").mkdir()
    nodes = ResultNodes(scene, target)
    nodes.addPart(Parts(tmp_path / "job", target).result())
    return nodes.node("sr")


def test_patient_and_study_are_kept_and_the_series_is_new(result) -> None:
    tags = exportTags(result)
    expected = {
        "PatientName": "Doe^Jane",
        "PatientID": "17",
        "StudyDate": "20260701",
        "StudyInstanceUID": STUDY_UID,
        "FrameOfReferenceInstanceUID": FRAME_UID,
        "Modality": "MR",
        "SeriesDate": "20260801",
        "SeriesTime": "102030",
        "Model": "dcamsr-s",
    }
    assert {name: tags[name] for name in expected} == expected
    assert tags["SeriesNumber"] != "4"
    assert tags["SeriesInstanceUID"] not in (SERIES_UID, exportTags(result)["SeriesInstanceUID"])
    assert all(isinstance(value, str) for value in tags.values())
    assert pydicom.uid.UID(tags["SeriesInstanceUID"]).is_valid


def test_description_says_what_it_is_and_fits(result) -> None:
    description = exportTags(result)["SeriesDescription"]
    assert description.startswith("4: T2 TSE")
    assert description.endswith(" [MultiContrastSR x2, research use only]")
    assert len(description) <= 64


def test_all_identifiers_are_there_without_a_study(result) -> None:
    """The exporter wants all three or none."""
    scene = result.GetScene()
    plain = new_volume(scene, np.ones((2, 3, 4), np.int16), np.eye(4), "plain")
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene).CreateItem(3, plain)
    tags = exportTags(plain)
    uids = [tags[f"{what}InstanceUID"] for what in ("Study", "Series", "FrameOfReference")]
    assert len({*uids, STUDY_UID, FRAME_UID}) == 5
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)


def test_files_say_that_they_are_derived(result, tmp_path) -> None:
    folder = exportSeries(result, tmp_path, Exporter())
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["IMG0000.dcm", "IMG0001.dcm"]
    for file in files:
        image = pydicom.dcmread(file)
        assert list(image.ImageType) == ["DERIVED", "SECONDARY"]
        assert "dcamsr-s" in image.DerivationDescription
        assert REPORT["weights_sha256"] in image.DerivationDescription
        assert image.ContentQualification == "RESEARCH"
        assert image.PatientName == "Doe^Jane"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "job"])


@pytest.mark.parametrize("exporter", [Exporter("Unable to get study"), Exporter(images=0)], ids=["error", "no file"])
def test_nothing_is_left_of_a_failed_export(result, tmp_path, exporter) -> None:
    with pytest.raises(InputError, match=r"did not take .*: (Unable to get study|it wrote no file)"):
        exportSeries(result, tmp_path, exporter)
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_an_earlier_series_is_not_overwritten(result, tmp_path) -> None:
    exportSeries(result, tmp_path, Exporter())
    with pytest.raises(OutputError, match="is there already"):
        exportSeries(result, tmp_path, Exporter())


def test_missing_folder_is_said(result, tmp_path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        exportSeries(result, tmp_path / "nowhere", Exporter())
