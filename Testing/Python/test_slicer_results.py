"""Parts of a result become nodes: place, names, display, hierarchy, provenance, and nothing half done. On real MRML."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)

import slicer
from grids import oblique_grid
from mcsr.errors import InputError
from mcsr.geometry import AxisOrder, rigid_matrix, same_space
from mcsr.worker_messages import PartTable
from mcsr_slicer.job_folder import ResultPart
from mcsr_slicer.node_tags import REFERENCE, TARGET, TRANSFORM, nodesOf, tag
from mcsr_slicer.results import ResultNodes
from mcsr_slicer.volumes import worldGrid
from scene_nodes import REPORT, Parts, fine_grid, new_volume, put_under

TURN = rigid_matrix((10.0, -20.0, 30.0), np.array([5.0, -7.0, 11.0]), np.zeros(3))
Volume = slicer.vtkMRMLScalarVolumeNode


@pytest.fixture
def target(scene: slicer.vtkMRMLScene) -> Volume:
    grid = AxisOrder((0, 1, 2), (False, True, False)).apply_grid(oblique_grid())
    node = new_volume(scene, np.random.default_rng(0).normal(100, 30, grid.shape_kji), grid.ijk_to_ras)
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(321, 123)
    return node


@pytest.fixture
def reference(scene: slicer.vtkMRMLScene) -> Volume:
    return new_volume(scene, np.ones((3, 4, 5), np.float32), np.eye(4), "T1")


@pytest.fixture
def parts(tmp_path: Path, target: Volume) -> Parts:
    return Parts(tmp_path, target)


def hierarchy() -> slicer.vtkMRMLSubjectHierarchyNode:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def path_of(node: slicer.vtkMRMLNode) -> list[str]:
    """Names of the items above a node, from the top."""
    names, item = [], hierarchy().GetItemParent(hierarchy().GetItemByDataNode(node))
    while item not in (0, hierarchy().GetSceneItemID()):
        names.insert(0, hierarchy().GetItemName(item))
        item = hierarchy().GetItemParent(item)
    return names


def names_of_nodes() -> list[str]:
    return sorted(f"{node.GetID()} {node.GetName()}" for node in slicer.util.getNodesByClass("vtkMRMLNode"))


def item_count() -> int:
    return hierarchy().GetNumberOfItems()


def put_in_study(node: slicer.vtkMRMLNode) -> None:
    patient = hierarchy().CreateSubjectItem(hierarchy().GetSceneItemID(), "Doe")
    study = hierarchy().CreateStudyItem(patient, "Head")
    hierarchy().CreateItem(study, node)


def test_result_stands_beside_its_target(scene, target, reference, parts) -> None:
    put_in_study(target)
    nodes = ResultNodes(scene, target, reference)
    made = nodes.addPart(parts.result())
    result = nodes.node("sr")
    assert made[0] is result
    assert result.GetName() == "T2 SRx2"
    assert path_of(result) == path_of(target) == ["Doe", "Head"]
    assert path_of(nodes.node("residual")) == ["Doe", "Head", "T2 SRx2 details"]
    names = ["T2 SRx2", *(f"T2 SRx2 {name}" for name in ("interpolated", "change", "reference"))]
    assert [node.GetName() for node in made] == [*names, "T2 SRx2 reference to target"]


def test_voxels_and_place_are_those_of_the_engine(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    part = parts.result()
    nodes.addPart(part)
    expected = next(volume for volume in part.volumes if volume.facts.role == "sr").readArray()
    assert np.array_equal(slicer.util.arrayFromVolume(nodes.node("sr")), expected)
    assert same_space(worldGrid(nodes.node("sr")), parts.grid, 1e-6)


def test_result_goes_where_its_target_goes(scene, target, tmp_path) -> None:
    """The target is under a transform, which the user changes while the job runs, and again afterwards."""
    transform = put_under(target, TURN)
    nodes = ResultNodes(scene, target)
    parts = Parts(tmp_path, target)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(TURN @ TURN))
    nodes.addPart(parts.result())
    for node in (nodes.node("sr"), nodes.node("residual")):
        assert node.GetParentTransformNode() is transform
        assert same_space(worldGrid(node), fine_grid(target), 1e-6)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.eye(4)))
    assert same_space(worldGrid(nodes.node("sr")), fine_grid(target), 1e-6)


def test_images_share_the_targets_window(scene, target, reference, parts) -> None:
    reference.GetDisplayNode().SetAutoWindowLevel(False)
    reference.GetDisplayNode().SetWindowLevel(7, 5)
    nodes = ResultNodes(scene, target, reference)
    nodes.addPart(parts.result())
    for role, window in {"sr": (321, 123), "interpolated": (321, 123), "registered_reference": (7, 5)}.items():
        display = nodes.node(role).GetDisplayNode()
        assert (display.GetWindow(), display.GetLevel()) == window
        assert not display.GetAutoWindowLevel()
        assert display.GetColorNode().GetName() == "Grey"


def test_change_has_a_symmetric_scale_about_black(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result())
    display, color = nodes.node("residual").GetDisplayNode(), [0.0] * 4
    assert display.GetLevel() == 0
    assert display.GetWindow() > 0
    assert not display.GetAutoWindowLevel()
    assert display.GetColorNode().GetColor(128, color)
    assert max(color[:3]) < 0.01
    assert tag(nodes.node("residual"), "Unit") == "signal"
    assert nodes.node("residual").GetDescription() == "Result minus input."


def test_provenance_is_on_the_result(scene, target, reference, parts) -> None:
    nodes = ResultNodes(scene, target, reference)
    nodes.addPart(parts.result())
    result = nodes.node("sr")
    expected = {
        "ModelId": "dcamsr-s",
        "ModelVersion": "0123456789ab",
        "WeightsSHA256": REPORT["weights_sha256"],
        "Scale": "2",
        "Device": "cpu",
        "Version": "MultiContrastSR 0.0",
        "Date": "2026-08-01T10:20:30+00:00",
        "Warnings": "Look closely.",
        "SliceAxis": "2",
    }
    assert {key: tag(result, key) for key in expected} == expected
    assert json.loads(tag(result, "Parameters")) == REPORT["settings"]
    assert result.GetNodeReference(TARGET) is target
    assert result.GetNodeReference(REFERENCE) is reference
    moved = slicer.util.arrayFromTransformMatrix(result.GetNodeReference(TRANSFORM))
    assert moved.tolist() == REPORT["registration"]["reference_to_target_ras"]


def test_no_transform_without_an_accepted_registration(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result(registration={"accepted": False, "reference_to_target_ras": np.eye(4).tolist()}))
    assert nodes.node("sr").GetNodeReference(TRANSFORM) is None
    assert not nodesOf(nodes.node("sr"), "transform")


def test_any_map_of_the_engine_is_shown(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result())
    whole = np.round(np.random.default_rng(0).uniform(0, 3, parts.grid.shape_kji))
    attention = parts.volume("map", "spread", family="Attention", title="Spread", limits=(0.0, 1000.0), colours="new")
    labels = parts.volume("map", "pattern", whole, family="Attention", kind="labels", colours="labels")
    heat, marks = nodes.addPart(parts.maps(attention, labels))
    assert heat.GetName() == "T2 SRx2 Spread"
    assert path_of(heat) == ["T2 SRx2 details", "Attention"]
    assert {key: tag(heat, key) for key in ("Role", "Map", "Family")} == {
        "Role": "map",
        "Map": "spread",
        "Family": "Attention",
    }
    assert nodesOf(nodes.node("sr"), "map") == [heat, marks]
    assert heat.GetDisplayNode().GetColorNode().GetNumberOfColors() == 256
    assert marks.GetDisplayNode().GetColorNode().GetNumberOfColors() == 4
    assert not marks.GetDisplayNode().GetInterpolate()


def test_scores_become_tables_and_a_plot(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result())
    made = nodes.addPart(parts.scores())
    overall, by_slice, chart, *series = made
    assert overall.GetName() == "T2 SRx2 Scores"
    assert [overall.GetCellText(row, 0) for row in range(2)] == ["PSNR (dB)", "SSIM"]
    assert overall.GetTable().GetValueByName(0, "result").ToDouble() == 31.5
    assert np.isnan(slicer.util.arrayFromTableColumn(by_slice, "psnr_result")[1])
    assert [one.GetYColumnName() for one in series] == ["psnr_result", "psnr_interpolated"]
    assert [chart.GetNthPlotSeriesNode(n) for n in range(2)] == series
    assert all(one.GetTableNode() is by_slice and one.GetXColumnName() == "slice" for one in series)
    assert all(path_of(node) == ["T2 SRx2 details"] for node in made)


def test_chosen_output_is_used_again_and_rid_of_the_old_maps(scene, target, parts) -> None:
    first = ResultNodes(scene, target)
    first.addPart(parts.result())
    (old,) = first.addPart(parts.maps(parts.volume("map", "spread", family="Attention")))
    result, residual = first.node("sr"), first.node("residual")
    displays = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeDisplayNode"))
    again = ResultNodes(scene, target, outputs={"sr": result, "residual": None})
    again.addPart(parts.result())
    assert again.node("sr") is result
    assert again.node("residual") is residual
    assert old.GetScene() is None
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeDisplayNode")) == displays - 1
    assert len(nodesOf(result, "transform")) == 1


def test_second_result_has_a_name_of_its_own(scene, target, parts) -> None:
    results = []
    for _job in range(2):
        nodes = ResultNodes(scene, target)
        nodes.addPart(parts.result())
        results.append(nodes.node("sr"))
    assert results[0].GetName() != results[1].GetName()
    assert nodesOf(results[0])
    assert not set(nodesOf(results[0])) & set(nodesOf(results[1]))


def test_maps_can_come_later_for_a_result(scene, target, parts) -> None:
    first = ResultNodes(scene, target)
    first.addPart(parts.result())
    for _time in range(2):
        later = ResultNodes(scene, target, outputs={"sr": first.node("sr")})
        made = later.addPart(parts.maps(parts.volume("map", "spread", family="Attention")))
    assert nodesOf(first.node("sr"), "map") == made


def test_inputs_are_never_outputs(scene, target, reference) -> None:
    for wrong in (target, reference):
        with pytest.raises(InputError, match="is an input and would be overwritten"):
            ResultNodes(scene, target, reference, {"sr": wrong})


def test_nothing_is_added_for_a_deleted_target(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    scene.RemoveNode(target)
    before = names_of_nodes()
    with pytest.raises(InputError, match="target volume has left the scene"):
        nodes.addPart(parts.result())
    assert names_of_nodes() == before


def test_nothing_is_added_to_another_scene(scene, target, parts) -> None:
    """After closing, the next volume gets the ID that the target had."""
    nodes = ResultNodes(scene, target)
    former = target.GetID()
    scene.Clear(0)
    other = new_volume(scene, np.ones((2, 2, 2), np.float32), np.eye(4), "other")
    assert other.GetID() == former
    before = names_of_nodes()
    with pytest.raises(InputError, match="target volume has left the scene"):
        nodes.addPart(parts.result())
    assert names_of_nodes() == before


def test_deleted_reference_is_left_out(scene, target, reference, parts) -> None:
    nodes = ResultNodes(scene, target, reference)
    scene.RemoveNode(reference)
    nodes.addPart(parts.result())
    assert nodes.node("sr").GetNodeReference(REFERENCE) is None


def test_maps_of_a_deleted_result_are_refused(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result())
    scene.RemoveNode(nodes.node("sr"))
    with pytest.raises(InputError, match="result has left the scene"):
        nodes.addPart(parts.maps(parts.volume("map", "spread")))


def test_deleted_output_is_made_anew(scene, target, parts) -> None:
    chosen = new_volume(scene, np.ones((2, 2, 2), np.float32), np.eye(4), "mine")
    nodes = ResultNodes(scene, target, outputs={"sr": chosen})
    scene.RemoveNode(chosen)
    nodes.addPart(parts.result())
    assert nodes.node("sr").GetName() == "T2 SRx2"


def test_damaged_part_leaves_nothing_behind(scene, target, parts) -> None:
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result())
    before, items = names_of_nodes(), item_count()
    good, bad = (parts.volume("map", name, family="New family") for name in ("good", "bad"))
    (parts.folder / "bad.npy").unlink()
    with pytest.raises(InputError, match=r"bad\.npy"):
        nodes.addPart(parts.maps(good, bad))
    assert names_of_nodes() == before
    # And where it shows only after nodes were made.
    wrong = PartTable("odd", "Odd", {"values": [object()]})
    with pytest.raises(TypeError):
        nodes.addPart(ResultPart("maps", [good], [wrong], {}, []))
    assert names_of_nodes() == before
    assert item_count() == items


def test_saved_scene_keeps_all_of_it(scene, target, parts, tmp_path) -> None:
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result())
    nodes.addPart(parts.maps(parts.volume("map", "spread", family="Attention")))
    file = str(tmp_path / "saved.mrb")
    assert scene.WriteToMRB(file)
    scene.Clear(0)
    assert scene.ReadFromMRB(file)
    result = scene.GetFirstNodeByName("T2 SRx2")
    (spread,) = nodesOf(result, "map")
    assert tag(result, "ModelId") == "dcamsr-s"
    assert result.GetNodeReference(TARGET).GetName() == "T2"
    assert spread.GetDisplayNode().GetColorNode().GetNumberOfColors() == 256
