"""A click on the result: where its detail came from, in every storage order, under transforms, before registration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)

import slicer
from grids import oblique_grid
from mcsr.errors import InputError
from mcsr.geometry import AxisOrder, Grid, display_order, rigid_matrix
from mcsr_slicer.compare_layout import MAP_VIEW, RESULT_VIEW, CompareLayout
from mcsr_slicer.node_tags import tag
from mcsr_slicer.point_probe import (
    ClickListener,
    PointRequest,
    PointSource,
    answerOfPoint,
    markSource,
    probePoint,
    probes,
    sourceOf,
    strongestPoint,
)
from mcsr_slicer.provenance import originOf
from mcsr_slicer.results import ResultNodes
from mcsr_slicer.volumes import worldGrid
from scene_nodes import Parts, new_volume, put_under
from slice_views import layout_manager

TURN = rigid_matrix((10.0, -20.0, 30.0), np.array([5.0, -7.0, 11.0]), np.zeros(3))
ORDERS = {
    "as shown": AxisOrder((0, 1, 2), (False, False, False)),
    "swapped": AxisOrder((1, 0, 2), (False, True, False)),
    "slices first": AxisOrder((2, 1, 0), (True, False, True)),
}


def make_result(
    scene: slicer.vtkMRMLScene, folder: Path, order: AxisOrder = ORDERS["as shown"], matrix: np.ndarray | None = None
) -> tuple[ResultNodes, Parts, int]:
    """A result whose slices are stacked along the last returned storage axis."""
    grid = order.apply_grid(oblique_grid())
    target = new_volume(scene, np.random.default_rng(0).normal(100, 30, grid.shape_kji), grid.ijk_to_ras)
    if matrix is not None:
        put_under(target, matrix)
    across = order.axes_ijk.index(2)
    parts = Parts(folder, target, across)
    nodes = ResultNodes(scene, target)
    nodes.addPart(parts.result())
    return nodes, parts, across


def shown_grid(nodes: ResultNodes, across: int) -> Grid:
    """Columns, rows and slices of a radiologist's display."""
    grid = worldGrid(nodes.node("sr"))
    return display_order(grid, across).apply_grid(grid)


def add_displacement(nodes: ResultNodes, parts: Parts, name: str, columns: float, rows: float) -> None:
    volumes = [
        parts.volume("map", f"{name}.{part}", np.full(parts.grid.shape_kji, value, np.float32), kind="displacement")
        for part, value in (("columns", columns), ("rows", rows))
    ]
    nodes.addPart(parts.maps(*volumes))


@pytest.mark.parametrize("matrix", [None, TURN], ids=["", "under a transform"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_displacement_is_counted_as_displayed(scene, tmp_path, order, matrix) -> None:
    nodes, parts, across = make_result(scene, tmp_path, order, matrix)
    add_displacement(nodes, parts, "displacement_g6", columns=3.0, rows=-2.0)
    shown = shown_grid(nodes, across)
    clicked = shown.to_ras((5, 6, 1))
    found = sourceOf(nodes.node("sr"), tuple(clicked))
    assert found is not None
    assert found.name == "displacement_g6"
    assert np.array(found.source) == pytest.approx(shown.to_ras((8, 4, 1)), abs=1e-5)
    # The registration of the test's report moved the reference by 2 mm to the right.
    assert np.array(found.inReference) == pytest.approx(np.array(found.source) - [2, 0, 0], abs=1e-9)
    mm = np.linalg.norm(shown.to_ras((8, 4, 1)) - clicked)
    assert found.sentence == f"The detail here comes from {mm:.1f} mm away in the reference."


def test_score_of_the_same_ending_is_told(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    add_displacement(nodes, parts, "displacement_reference_2", 1.0, 0.0)
    trust = np.random.default_rng(1).random(parts.grid.shape_kji, dtype=np.float32)
    other = np.zeros_like(trust)
    nodes.addPart(
        parts.maps(parts.volume("map", "mask_reference_2", trust), parts.volume("map", "mask_reference_1", other))
    )
    found = sourceOf(nodes.node("sr"), tuple(worldGrid(nodes.node("sr")).to_ras((7, 8, 2))))
    assert found.score == pytest.approx(trust[2, 8, 7])
    assert found.sentence.endswith(f"weight for it is {trust[2, 8, 7]:.2f}.")


def test_last_step_is_asked_unless_another_is_named(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    names = [
        "displacement_reference_1",
        "displacement_common_1",
        "displacement_reference_10",
        "displacement_reference_2",
    ]
    for number, name in enumerate(names):
        add_displacement(nodes, parts, name, float(number), 0.0)
    result = nodes.node("sr")
    assert probes(result)[-2:] == ["displacement_reference_2", "displacement_reference_10"]
    ras = tuple(worldGrid(result).to_ras((4, 4, 1)))
    assert sourceOf(result, ras).name == "displacement_reference_10"
    assert sourceOf(result, ras, names[0]).source == pytest.approx(ras)


def test_no_answer_outside_or_without_displacements(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    result = nodes.node("sr")
    inside = tuple(worldGrid(result).to_ras((4, 4, 1)))
    assert probes(result) == []
    assert sourceOf(result, inside) is None
    add_displacement(nodes, parts, "displacement_g6", 1.0, 1.0)
    assert sourceOf(result, inside) is not None
    assert sourceOf(result, tuple(worldGrid(result).to_ras((4, 4, 90)))) is None


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_attention_of_a_point_leads_to_its_strongest_place(scene, tmp_path, order) -> None:
    nodes, parts, across = make_result(scene, tmp_path, order)
    array = np.zeros(parts.grid.shape_kji, np.float32)
    shown = display_order(parts.grid, across)
    plane = shown.apply(array)[1]  # a view
    plane[8:10, 4:6] = -0.2  # a block of 2 x 2 pixels that is subtracted most
    plane[2, 2] = 0.1
    attention = parts.volume("point_map", "attended_reference_lv1", array, colours="diverging", unit="arbitrary")
    (node,) = nodes.addPart(parts.maps(attention))
    grid = shown_grid(nodes, across)
    found = strongestPoint(node, tuple(grid.to_ras((1, 1, 1))))
    assert np.array(found.source) == pytest.approx(grid.to_ras((4.5, 8.5, 1)), abs=1e-5)
    assert found.score == pytest.approx(0.2 / 0.9)
    mm = np.linalg.norm(grid.to_ras((4.5, 8.5, 1)) - grid.to_ras((1, 1, 1)))
    assert found.sentence == (
        "The network draws on many places of the reference here; the one with the largest share, 22.2 %, "
        f"is {mm:.1f} mm away."
    )
    assert strongestPoint(node, tuple(grid.to_ras((1, 1, 0)))) is None


def test_scores_of_a_point_lead_to_the_best_not_to_the_worst(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    array = np.zeros(parts.grid.shape_kji, np.float32)
    array[1, 5, 7], array[1, 8, 2] = 0.75, -0.9
    (node,) = nodes.addPart(parts.maps(parts.volume("point_map", "match_scores", array, unit="cosine similarity")))
    grid = worldGrid(nodes.node("sr"))
    found = strongestPoint(node, tuple(grid.to_ras((1, 1, 1))))
    assert np.array(found.source) == pytest.approx(grid.to_ras((7, 5, 1)), abs=1e-5)
    assert found.sentence.endswith("mm away; its cosine similarity is 0.75.")


def test_a_click_is_answered_from_the_scene_or_says_what_to_ask(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    result = nodes.node("sr")
    ras = tuple(worldGrid(result).to_ras((4, 4, 1)))
    asked = probePoint(result, ras)
    assert isinstance(asked, PointRequest)
    assert asked.ras == ras
    origin = asked.origin
    assert origin.settings == {"model": "dcamsr-s", "scale": 2, "registration": "none", "maps": "all"}
    assert (origin.target, origin.reference, origin.simulate) == (slicer.util.getNode("T2"), None, False)
    matrix = slicer.util.arrayFromTransformMatrix(origin.transform)
    assert matrix[0, 3] == 2.0, "where the registration had found the reference"
    with pytest.raises(InputError, match=r"outside the result; click inside\."):
        probePoint(result, tuple(worldGrid(result).to_ras((4, 4, 90))))
    add_displacement(nodes, parts, "displacement_g6", 1.0, 1.0)
    assert isinstance(probePoint(result, ras), PointSource)


def test_a_click_that_cannot_be_answered_is_said(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    result = nodes.node("sr")
    ras = tuple(worldGrid(result).to_ras((4, 4, 1)))
    nodes.addPart(parts.result(point_maps=["attended_reference_lv1"]))
    assert isinstance(probePoint(result, ras), PointRequest)
    nodes.addPart(parts.result(point_maps=[]))
    with pytest.raises(InputError, match="compute its displacement maps first"):
        probePoint(result, ras)
    nodes.addPart(parts.result())
    scene.RemoveNode(slicer.util.getNode("T2"))
    with pytest.raises(InputError, match="has left the scene"):
        probePoint(result, ras)


def test_a_result_remembers_its_reference_its_simulation_and_the_users_own_weights(
    scene, tmp_path, models_folder
) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    target = slicer.util.getNode("T2")
    reference = new_volume(scene, np.ones((4, 4, 4)), np.eye(4), "T1")
    models_folder.mkdir()
    (models_folder / "mine.safetensors").touch()
    facts = {"inputs": {"target": "T2", "reference": "T1"}, "settings": {"scale": 2, "weights": "mine.safetensors"}}
    nodes = ResultNodes(scene, target, reference)
    part = parts.result(**facts)
    low = parts.volume("simulated_target", array=np.ones((2, 2, 2), np.float32))
    nodes.addPart(dataclasses.replace(part, volumes=[*part.volumes, low]))
    origin = originOf(nodes.node("sr"))
    assert (origin.reference, origin.simulate) == (reference, True)
    assert origin.settings["weights"] == str(models_folder / "mine.safetensors")
    scene.RemoveNode(reference)
    assert originOf(nodes.node("sr")) is None


def test_of_the_maps_of_a_point_the_clearest_answers_and_the_next_click_replaces_them(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    result, grid = nodes.node("sr"), worldGrid(nodes.node("sr"))
    ras = tuple(grid.to_ras((1, 1, 1)))
    assert answerOfPoint(result, ras) is None

    def attention(name: str, *places: tuple[int, int]) -> object:
        array = np.zeros(parts.grid.shape_kji, np.float32)
        for row, column in places:
            array[1, row, column] = 1 / len(places)
        facts = {"unit": "arbitrary", "family": "Attention of a point", "colours": "diverging"}
        return parts.volume("point_map", name, array, **facts)

    for clear in ((6, 9), (3, 4)):
        maps = [
            attention("attended_reference_lv1", (2, 2), (2, 8)),
            attention("attended_reference_lv2", clear),
            attention("attended_group2", (1, 1)),  # of the target's own surroundings
        ]
        made = nodes.addPart(dataclasses.replace(parts.maps(*maps), report={"point_ras": [1.5, clear[0], -3.0]}))
        assert {tag(node, "Point") for node in made} == {f"1.5 {clear[0]} -3"}
        found = answerOfPoint(result, ras)
        assert found.name == "attended_reference_lv2"
        assert found.sentence.endswith("mm away in the reference (100 % of the attention).")
        assert np.array(found.source) == pytest.approx(grid.to_ras((clear[1], clear[0], 1)), abs=1e-5)
    assert len(made) == 3
    assert [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if tag(node, "Map")] == made


def test_points_are_marked_once_and_moved(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    add_displacement(nodes, parts, "displacement_g6", 2.0, 0.0)
    result = nodes.node("sr")
    for place in ((4, 4, 1), (6, 6, 1)):
        found = sourceOf(result, tuple(worldGrid(result).to_ras(place)))
        node = markSource(found, result)
    assert slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode") == [node]
    points = [node.GetNthControlPointPositionWorld(n) for n in range(node.GetNumberOfControlPoints())]
    assert np.array(points) == pytest.approx(np.array([found.clicked, found.source]))
    assert tag(node, "Meaning") == found.sentence


def test_marks_stay_out_of_the_users_views(scene, tmp_path) -> None:
    nodes, parts, _ = make_result(scene, tmp_path)
    add_displacement(nodes, parts, "displacement_g6", 2.0, 0.0)
    result = nodes.node("sr")
    CompareLayout(layout_manager()).show(result)
    display = markSource(sourceOf(result, tuple(worldGrid(result).to_ras((4, 4, 1)))), result).GetDisplayNode()
    shown = {name: layout_manager().sliceWidget(name).mrmlSliceNode() for name in ("Red", RESULT_VIEW, MAP_VIEW)}
    assert {name: display.IsDisplayableInView(view.GetID()) for name, view in shown.items()} == {
        "Red": False,
        RESULT_VIEW: True,
        MAP_VIEW: True,
    }


def test_click_is_told_in_world_and_a_drag_is_not(scene) -> None:
    view = layout_manager().sliceWidget("Red")
    clicks: list[tuple[float, float, float]] = []
    listener = ClickListener(view, clicks.append)
    interactor = view.interactorStyle().GetInteractor()

    def press_and_release(start: tuple[int, int], end: tuple[int, int]) -> None:
        interactor.SetEventPosition(*start)
        interactor.InvokeEvent("LeftButtonPressEvent")
        interactor.SetEventPosition(*end)
        interactor.InvokeEvent("LeftButtonReleaseEvent")

    press_and_release((20, 30), (60, 30))
    assert clicks == []
    press_and_release((20, 30), (21, 30))
    expected = view.mrmlSliceNode().GetXYToRAS().MultiplyPoint((21, 30, 0, 1))[:3]
    assert clicks == [pytest.approx(expected)]
    listener.removeObservers()
    press_and_release((20, 30), (20, 30))
    assert len(clicks) == 1
