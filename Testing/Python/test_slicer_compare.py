"""Four linked views, the map chooser, the blink comparison: on real slice views, rendered offscreen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)

import slicer
from grids import oblique_grid
from mcsr.geometry import AxisOrder, Grid, display_order, moved_grid, rigid_matrix
from mcsr_slicer import compare_layout
from mcsr_slicer.compare_layout import CHANGE_VIEW, INPUT_VIEW, MAP_VIEW, RESULT_VIEW, CompareLayout
from mcsr_slicer.map_chooser import MapChooser
from mcsr_slicer.results import ResultNodes
from mcsr_slicer.reveal import Reveal
from mcsr_slicer.volumes import worldGrid
from scene_nodes import Parts, new_volume, put_under
from slice_views import FOUR_UP, LayoutManager, SliceView, layout_manager

OURS = (INPUT_VIEW, RESULT_VIEW, CHANGE_VIEW, MAP_VIEW)
USERS = ("Red", "Green", "Yellow")
TURN = rigid_matrix((10.0, -20.0, 30.0), np.array([5.0, -7.0, 11.0]), np.zeros(3))


class Case(NamedTuple):
    """A result in the scene, and the views."""

    manager: LayoutManager
    layout: CompareLayout
    nodes: ResultNodes
    parts: Parts

    @property
    def result(self) -> slicer.vtkMRMLScalarVolumeNode:
        return self.nodes.node("sr")

    def view(self, name: str) -> SliceView:
        view = self.manager.sliceWidget(name)
        assert view is not None
        return view

    def background(self, name: str) -> slicer.vtkMRMLNode:
        return slicer.mrmlScene.GetNodeByID(self.view(name).mrmlSliceCompositeNode().GetBackgroundVolumeID())


def make_case(folder: Path, grid: Grid, across: int = 2, matrix: np.ndarray | None = None) -> Case:
    """A result of a target on this grid, slices stacked along the storage axis `across`, under a transform if given."""
    array = np.random.default_rng(0).normal(100, 30, grid.shape_kji).astype(np.float32)
    target = new_volume(slicer.mrmlScene, array, grid.ijk_to_ras)
    if matrix is not None:
        put_under(target, matrix)
    nodes, parts = ResultNodes(slicer.mrmlScene, target), Parts(folder, target, across)
    nodes.addPart(parts.result())
    return Case(layout_manager(), CompareLayout(layout_manager()), nodes, parts)


@pytest.fixture
def case(scene: slicer.vtkMRMLScene, tmp_path: Path) -> Iterator[Case]:
    layout_manager().setLayout(FOUR_UP)
    case = make_case(tmp_path, AxisOrder((0, 1, 2), (False, True, False)).apply_grid(oblique_grid()))
    yield case
    case.layout.restore()


def test_each_view_shows_its_volume(case: Case) -> None:
    case.layout.show(case.result)
    assert case.layout.isShown
    assert case.manager.sliceViewNames() == OURS
    shown = [case.background(name) for name in OURS]
    reference = case.nodes.node("registered_reference")
    assert shown == [case.nodes.node("interpolated"), case.result, case.nodes.node("residual"), reference]
    assert case.view(RESULT_VIEW).picture().std() > 10


@pytest.mark.parametrize("own", [True, False])
def test_opacity_of_a_layer_stays_the_views_own(case: Case, own: bool) -> None:
    """Slicer's controller of a view answers every change of its opacity as if the user had moved the slider."""
    case.layout.show(case.result)
    composites = {name: case.view(name).mrmlSliceCompositeNode() for name in OURS}
    if not own:  # what would happen without the flags
        composites[RESULT_VIEW].ResetInteractionFlagsModifier()
    logic = case.view(RESULT_VIEW).sliceLogic()
    logic.StartSliceCompositeNodeInteraction(slicer.vtkMRMLSliceCompositeNode.ForegroundOpacityFlag)
    composites[RESULT_VIEW].SetForegroundOpacity(0.7)
    logic.EndSliceCompositeNodeInteraction()
    others = {composites[name].GetForegroundOpacity() == 0.7 for name in OURS if name != RESULT_VIEW}
    assert others == {not own}


def test_users_layout_and_views_are_given_back_untouched(case: Case) -> None:
    composites = [case.view(name).mrmlSliceCompositeNode() for name in USERS]
    composites[0].SetBackgroundVolumeID(case.nodes.node("residual").GetID())

    def state() -> list[tuple]:
        ids = [(c.GetBackgroundVolumeID(), c.GetForegroundVolumeID(), c.GetLinkedControl()) for c in composites]
        places = [str(case.view(name).mrmlSliceNode().GetSliceToRAS()) for name in USERS]
        places = [slicer.util.arrayFromVTKMatrix(case.view(n).mrmlSliceNode().GetSliceToRAS()).tolist() for n in USERS]
        return [*ids, *places]

    before = state()
    case.layout.show(case.result)
    case.layout.show(case.result)
    case.view(RESULT_VIEW).sliceLogic().StartSliceOffsetInteraction()
    case.view(RESULT_VIEW).sliceLogic().SetSliceOffset(3.0)
    case.view(RESULT_VIEW).sliceLogic().EndSliceOffsetInteraction()
    assert state() == before
    case.layout.restore()
    assert case.manager.layout == FOUR_UP
    assert not case.layout.isShown
    assert state() == before


def test_layout_that_the_user_chose_meanwhile_stays(case: Case) -> None:
    case.layout.show(case.result)
    case.manager.setLayout(2)
    case.layout.restore()
    assert case.manager.layout == 2


def test_layout_of_a_loaded_scene_can_be_left_too(case: Case) -> None:
    case.layout.show(case.result)
    another = CompareLayout(layout_manager())
    another.show(case.result)
    another.restore()
    assert case.manager.layout == FOUR_UP


def test_an_older_description_of_the_layout_is_replaced(case: Case) -> None:
    """An extension that was updated within one settings file, or a scene of an older version."""
    case.layout.show(case.result)
    case.layout.restore()
    node = case.manager.layoutLogic().GetLayoutNode()
    older = compare_layout.layoutDescription().replace(MAP_VIEW, "MCSROld")
    assert node.SetLayoutDescription(compare_layout.LAYOUT_ID, older)
    case.layout.show(case.result)
    assert node.GetLayoutDescription(compare_layout.LAYOUT_ID) == compare_layout.layoutDescription()
    assert case.manager.sliceViewNames() == OURS


SIDEWAYS = rigid_matrix((0.0, 90.0, 0.0), np.zeros(3), np.zeros(3))
UPRIGHT = rigid_matrix((90.0, 0.0, 0.0), np.zeros(3), np.zeros(3))
ACQUISITIONS = {
    "axial": (oblique_grid(), 2, None),
    "axial, slices stored first": (AxisOrder((2, 0, 1), (True, False, True)).apply_grid(oblique_grid()), 0, None),
    "sagittal": (moved_grid(oblique_grid(), SIDEWAYS), 2, None),
    "coronal": (moved_grid(oblique_grid(), UPRIGHT), 2, None),
    "under a transform": (oblique_grid(), 2, TURN),
}


@pytest.mark.parametrize(("grid", "across", "matrix"), ACQUISITIONS.values(), ids=ACQUISITIONS.keys())
def test_views_lie_in_the_slices_of_the_acquisition(case, tmp_path, grid, across, matrix) -> None:
    other = make_case(tmp_path, grid, across, matrix)
    other.layout.show(other.result)
    directions = worldGrid(other.result).directions
    for name in OURS:
        view = slicer.util.arrayFromVTKMatrix(other.view(name).mrmlSliceNode().GetSliceToRAS())
        assert abs(view[:3, 2] @ directions[:, across]) == pytest.approx(1, abs=1e-6)
    # Through the middle of a slice, not between two; and the right way round for a radiologist.
    place = worldGrid(other.result).to_ijk(view[:3, 3])[across]
    assert place == pytest.approx(round(place), abs=1e-3)
    shown = display_order(worldGrid(other.result), across).apply_grid(worldGrid(other.result)).directions
    assert view[:3, 0] @ shown[:, 0] > 0.99
    assert view[:3, 1] @ shown[:, 1] < -0.99  # a view's second axis points up, an image's rows run down
    other.layout.restore()


def test_moving_one_view_moves_the_four(case: Case) -> None:
    case.layout.show(case.result)
    assert {case.view(name).mrmlSliceNode().GetViewGroup() for name in OURS} == {compare_layout.VIEW_GROUP}
    logic = case.view(CHANGE_VIEW).sliceLogic()
    offset = logic.GetSliceOffset() + 4.0
    logic.StartSliceOffsetInteraction()
    logic.SetSliceOffset(offset)
    logic.EndSliceOffsetInteraction()
    assert [case.view(name).sliceLogic().GetSliceOffset() for name in OURS] == pytest.approx([offset] * 4)


def test_zoom_is_linked(case: Case) -> None:
    case.layout.show(case.result)
    node, logic = case.view(INPUT_VIEW).mrmlSliceNode(), case.view(INPUT_VIEW).sliceLogic()
    view = node.GetFieldOfView()
    logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.FieldOfViewFlag)
    node.SetFieldOfView(view[0] / 2, view[1] / 2, view[2])
    node.UpdateMatrices()
    logic.EndSliceNodeInteraction()
    widths = [case.view(name).mrmlSliceNode().GetFieldOfView()[0] for name in OURS]
    assert widths == pytest.approx([view[0] / 2] * 4)


def test_window_of_input_and_result_is_one(case: Case) -> None:
    first, second = (case.nodes.node(role).GetDisplayNode() for role in ("interpolated", "sr"))
    change = case.nodes.node("residual").GetDisplayNode().GetWindow()
    case.layout.show(case.result)
    second.SetWindowLevel(11, 22)
    assert (first.GetWindow(), first.GetLevel()) == (11, 22)
    first.SetWindowLevel(33, 44)
    assert (second.GetWindow(), second.GetLevel()) == (33, 44)
    assert case.nodes.node("residual").GetDisplayNode().GetWindow() == change
    case.layout.restore()
    first.SetWindowLevel(1, 2)
    assert second.GetWindow() == 33


def test_views_survive_a_closed_scene(case: Case) -> None:
    case.layout.show(case.result)
    slicer.mrmlScene.Clear(0)
    case.layout.restore()
    assert case.view(RESULT_VIEW).picture().max() == 0


def test_without_a_main_window_nothing_happens(case: Case) -> None:
    layout = CompareLayout(None)
    layout.show(case.result)
    layout.restore()
    chooser, reveal = MapChooser(layout), Reveal(layout)
    chooser.setResult(case.result)
    (spread,) = case.nodes.addPart(case.parts.maps(case.parts.volume("map", "spread", family="Attention")))
    assert chooser.step() is spread
    reveal.start(case.result)
    reveal.toggle()
    assert not layout.isShown
    assert not reveal.showsInput


def add_maps(case: Case) -> list[slicer.vtkMRMLNode]:
    facts = [
        ("texture", "Texture"),
        ("texture.pc1", "Texture (1st component)"),
        ("texture.channel3", "Texture (channel 3)"),
    ]
    volumes = [case.parts.volume("map", name, family="Features", title=title) for name, title in facts]
    spread = case.parts.volume(
        "map", "spread", family="Attention", title="Spread", unit="entropy", colours="sequential"
    )
    return case.nodes.addPart(case.parts.maps(*volumes, spread))


def test_chooser_lists_families_tensors_and_channels(case: Case) -> None:
    add_maps(case)
    chooser = MapChooser(case.layout)
    assert chooser.families() == {}
    chooser.setResult(case.result)
    families = chooser.families()
    assert list(families) == ["Features", "Attention"]
    (texture,) = families["Features"]
    assert (texture.key, texture.title, list(texture.channels)) == ("texture", "Texture", ["", "pc1", "channel3"])


def test_chooser_steps_round_and_shows_each_over_the_result(case: Case) -> None:
    nodes = add_maps(case)
    case.layout.show(case.result)
    chooser = MapChooser(case.layout)
    chooser.setResult(case.result)
    assert [chooser.step() for _step in range(5)] == [*nodes, nodes[0]]
    assert chooser.step(-1) is nodes[-1]
    chooser.setOpacity(0.4)
    composite = case.view(MAP_VIEW).mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == case.result.GetID()
    assert composite.GetForegroundVolumeID() == nodes[-1].GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.4)
    slicer.mrmlScene.RemoveNode(nodes[-1])
    assert chooser.current is None
    assert chooser.step() is nodes[0]


def test_only_the_chosen_map_has_a_legend(case: Case) -> None:
    nodes = add_maps(case)
    case.layout.show(case.result)
    chooser = MapChooser(case.layout)
    chooser.setResult(case.result)
    plain = case.view(MAP_VIEW).picture()
    chooser.choose(nodes[0])
    chooser.choose(nodes[-1])
    first, last = (slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node) for node in (nodes[0], nodes[-1]))
    assert not first.GetVisibility()
    assert last.GetVisibility()
    assert last.GetTitleText() == "Spread\n(entropy)"
    with_map = case.view(MAP_VIEW).picture()
    assert np.ptp(with_map.astype(int), axis=2).max() > 50 > np.ptp(plain.astype(int), axis=2)[:100].max()
    last.SetVisibility(False)
    rows, columns = np.nonzero((case.view(MAP_VIEW).picture() != with_map).any(axis=2))
    height, width = with_map.shape[:2]
    assert rows.max() < height / 2, "the legend stays in the upper right corner"
    assert columns.min() > 0.7 * width


def test_blink_shows_input_and_result_by_turns(case: Case) -> None:
    case.layout.show(case.result)
    result_alone, input_alone = (case.view(name).picture() for name in (RESULT_VIEW, INPUT_VIEW))
    reveal = Reveal(case.layout)
    reveal.start(case.result)
    assert not reveal.showsInput
    assert np.array_equal(case.view(RESULT_VIEW).picture(), result_alone)
    reveal.toggle()
    assert reveal.showsInput
    blinked = case.view(RESULT_VIEW).picture()
    assert np.abs(blinked.astype(int) - input_alone).mean() < np.abs(blinked.astype(int) - result_alone).mean() / 10
    reveal.toggle()
    assert not reveal.showsInput
    reveal.setShare(0.7)
    assert reveal.showsInput
    reveal.setShare(0.0)
    assert np.array_equal(case.view(RESULT_VIEW).picture(), result_alone)
