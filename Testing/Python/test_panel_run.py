"""The whole way of a click, with the real worker, the shipped weights and the phantom; pictures of it are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import POSIX_ONLY

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed or lacks libEGL", exc_type=ImportError)

import slicer
from mcsr.volume import Volume
from mcsr_slicer.compare_layout import CHANGE_VIEW, INPUT_VIEW, MAP_VIEW, RESULT_VIEW
from mcsr_slicer.node_tags import nodesOf, tag
from module_host import module_host
from panel_fixtures import PICTURES, Dialogs, Installer, add_volume, choose
from slice_views import save_png, screenshot

VIEWS = (INPUT_VIEW, RESULT_VIEW, CHANGE_VIEW, MAP_VIEW)


DOUBLE_CLICK_SECONDS = 0.5


@pytest.fixture(scope="module")
def session(phantom: tuple[Volume, Volume, Volume]) -> Iterator[SimpleNamespace]:
    """A panel whose Enhance was pressed, up to the result; the tests below go on from there, in their order."""
    host = module_host()
    host.reset()
    dialogs = Dialogs()
    panel = host.open(dialogs=dialogs, installer=Installer())
    ui, widget = panel.widget.ui, panel.widget
    target, reference, truth = (add_volume(volume) for volume in phantom)
    ui.targetSelector.setCurrentNode(target)
    ui.referenceSelector.setCurrentNode(reference)
    ui.groundTruthSelector.setCurrentNode(truth)
    widget._parameterNode.maps = "attention_spread_lv1,gain_lv1"
    ui.deviceSelector.currentIndex = 3
    ui.applyButton.click()
    assert ui.applyButton.text == "Ca&ncel"
    said: list[str] = []

    def finished() -> bool:
        if not said or said[-1] != ui.statusLabel.text:
            said.append(ui.statusLabel.text)
        return not widget.panel.isBusy

    assert host.process(finished, 240), said
    yield SimpleNamespace(
        host=host, panel=panel, ui=ui, widget=widget, dialogs=dialogs, said=said, target=target, truth=truth
    )
    panel.close()
    problems = host.problems()
    host.reset()
    assert not problems, "\n".join(problems)


def result(session: SimpleNamespace):
    return session.widget._parameterNode.result


def test_result_stands_in_the_scene(session: SimpleNamespace) -> None:
    assert session.ui.statusLabel.text.startswith("Done: Phantom T2 low resolution SRx4.")
    assert "Research use only." in session.ui.statusLabel.text
    assert any("Enhancing" in text for text in session.said)
    assert (session.ui.applyButton.text, session.ui.applyButton.enabled) == ("E&nhance", True)
    enhanced, truth = (slicer.util.arrayFromVolume(node).astype(float) for node in (result(session), session.truth))
    plain = slicer.util.arrayFromVolume(nodesOf(result(session), "interpolated")[0]).astype(float)
    assert enhanced.shape == truth.shape
    assert np.sqrt(np.mean((enhanced - truth) ** 2)) < 0.9 * np.sqrt(np.mean((plain - truth) ** 2))
    assert tag(result(session), "ModelId") == "dcamsr-s"
    assert len(nodesOf(result(session), "map")) == 2
    assert len(nodesOf(result(session), "table")) >= 1
    assert "dB PSNR" in session.ui.statusLabel.text
    assert session.ui.statusLabel.text in session.ui.logText.toPlainText()
    session.panel.picture(PICTURES / "panel-done.png")


def test_time_is_remembered(session: SimpleNamespace) -> None:
    session.ui.seedBox.value = 1
    assert session.ui.statusLabel.text.startswith("Expected time: about ")
    assert "guess" not in session.ui.statusLabel.text
    session.ui.seedBox.value = 0


def test_views_are_shown_and_linked(session: SimpleNamespace) -> None:
    layout = slicer.app.layoutManager()
    assert tuple(layout.sliceViewNames()) == VIEWS
    views = [layout.sliceWidget(name) for name in VIEWS]
    backgrounds = [slicer.mrmlScene.GetNodeByID(v.mrmlSliceCompositeNode().GetBackgroundVolumeID()) for v in views]
    assert [tag(node, "Role") for node in backgrounds] == ["interpolated", "sr", "residual", "sr"]
    before = {view.mrmlSliceNode().GetSliceOffset() for view in views}
    assert len(before) == 1
    logic = views[2].sliceLogic()
    logic.StartSliceOffsetInteraction()
    logic.SetSliceOffset(before.pop() + 8.0)
    logic.EndSliceOffsetInteraction()
    assert len({round(view.mrmlSliceNode().GetSliceOffset(), 6) for view in views}) == 1
    logic.StartSliceOffsetInteraction()
    logic.SetSliceOffset(views[0].mrmlSliceNode().GetSliceOffset() - 8.0)
    logic.EndSliceOffsetInteraction()


def test_maps_are_chosen_and_faded(session: SimpleNamespace) -> None:
    ui, composite = session.ui, slicer.app.layoutManager().sliceWidget(MAP_VIEW).mrmlSliceCompositeNode()
    first = composite.GetForegroundVolumeID()
    assert tag(slicer.mrmlScene.GetNodeByID(first), "Title") == ui.mapSelector.currentText
    assert ui.mapHint.text == tag(slicer.mrmlScene.GetNodeByID(first), "Meaning")
    ui.nextMapButton.click()
    assert composite.GetForegroundVolumeID() != first
    ui.previousMapButton.click()
    assert composite.GetForegroundVolumeID() == first
    ui.opacitySlider.value = 40.0
    assert composite.GetForegroundOpacity() == pytest.approx(0.4)
    ui.opacitySlider.value = 60.0


def test_pictures_of_the_result(session: SimpleNamespace) -> None:
    picture = screenshot(slicer.app.layoutManager())
    save_png(picture, PICTURES / "views.png")
    height, width = (size // 2 for size in picture.shape[:2])
    corners = [picture[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    assert all(corner.std() > 10 for corner in corners)
    assert not np.array_equal(corners[0], corners[1])


def test_reveal_and_blink(session: SimpleNamespace) -> None:
    ui, composite = session.ui, slicer.app.layoutManager().sliceWidget(RESULT_VIEW).mrmlSliceCompositeNode()
    ui.revealSlider.value = 70
    assert composite.GetForegroundOpacity() == pytest.approx(0.7)
    assert tag(slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID()), "Role") == "interpolated"
    ui.revealSlider.value = 0
    ui.blinkBox.checked = True
    assert session.host.process(lambda: composite.GetForegroundOpacity() == 1.0, 5)
    assert session.host.process(lambda: composite.GetForegroundOpacity() == 0.0, 5)
    ui.blinkBox.checked = False
    assert composite.GetForegroundOpacity() == 0.0


def test_origin_of_detail_is_explained(session: SimpleNamespace) -> None:
    """A click in the result: the network is asked what the pixel drew on, and the place is marked."""
    session.ui.probeBox.checked = True
    assert session.ui.probeHint.text == "Click in the view of the result."
    view = slicer.app.layoutManager().sliceWidget(RESULT_VIEW)
    interactor = view.sliceView().interactorStyle().GetInteractor()
    interactor.SetEventPosition(150, 150)
    interactor.InvokeEvent("LeftButtonPressEvent")
    interactor.InvokeEvent("LeftButtonReleaseEvent")
    assert session.widget.panel.isBusy
    assert session.host.process(lambda: not session.widget.panel.isBusy, 120)
    assert "mm away" in session.ui.probeHint.text
    (marks,) = nodesOf(result(session), "probe")
    clicked = view.mrmlSliceNode().GetXYToRAS().MultiplyPoint((150, 150, 0, 1))[:3]
    assert np.allclose(marks.GetNthControlPointPositionWorld(0), clicked)
    assert session.ui.familySelector.currentText.endswith("of a point")
    save_png(screenshot(slicer.app.layoutManager()), PICTURES / "views-point.png")
    session.ui.probeBox.checked = False
    assert session.ui.probeHint.text == ""


def test_maps_of_another_model_are_refused(session: SimpleNamespace) -> None:
    ui = session.ui
    choose(ui.modelSelector, "cd-dpe-s")
    ui.allMapsButton.click()
    assert not ui.mapsButton.enabled
    assert ui.mapsButton.toolTip.startswith("The result was made with dcamsr-s;")
    choose(ui.modelSelector, "dcamsr-s")
    ui.noMapsButton.click()
    assert ui.mapsButton.toolTip == "Choose maps or trust maps under Advanced first."


class Exporter:
    """Slicer's DICOM plugin, which refuses."""

    def examineForExport(self, item: int) -> list[Any]:
        return []

    def export(self, exportables: list[Any]) -> str:
        return "No patient."


def test_export_is_offered_and_its_refusal_said(
    session: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.ui.exportButton.click()
    assert session.ui.statusLabel.text.startswith("Expected time")
    session.dialogs.file = str(tmp_path)
    session.ui.exportButton.click()
    assert session.ui.statusLabel.text.startswith("Slicer's DICOM module is switched off.")
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {"DICOMScalarVolumePlugin": Exporter}, raising=False)
    session.ui.exportButton.click()
    assert "DICOM exporter did not take Phantom T2 low resolution SRx4: No patient." in session.ui.statusLabel.text
    assert list(tmp_path.iterdir()) == []


def test_maps_can_come_later(session: SimpleNamespace) -> None:
    """Without enhancing again: the result's node is not touched."""
    choices = session.widget.panel.choices
    had = {tag(node, "Map") for node in nodesOf(result(session), "map")}
    other = next(entry.name for entry in choices.models["dcamsr-s"].maps if entry.name not in had)
    session.widget._parameterNode.maps = other
    before = result(session).GetImageData().GetMTime()
    session.ui.mapsButton.click()
    assert session.host.process(lambda: not session.widget.panel.isBusy, 120)
    assert {tag(node, "Map") for node in nodesOf(result(session), "map")} >= {other}
    assert result(session).GetImageData().GetMTime() == before


def test_trust_maps_can_come_later_too(session: SimpleNamespace) -> None:
    """In a family of their own, with the three sentences; the result stays."""
    session.widget._parameterNode.maps = "none"
    assert not session.ui.mapsButton.enabled
    session.ui.trustBox.checked = True
    before = result(session).GetImageData().GetMTime()
    session.ui.mapsButton.click()
    assert session.host.process(lambda: not session.widget.panel.isBusy, 240)
    trust = {tag(node, "Map"): node for node in nodesOf(result(session), "map") if tag(node, "Family") == "Trust"}
    assert set(trust) >= {"consistency_error", "reference_influence", "expected_error", "registration_quality"}
    assert tag(trust["expected_error"], "Unit") == "% of the target's bright tissue"
    assert "Checks passed: " in session.ui.statusLabel.text
    assert "Reference used in all" in session.ui.statusLabel.text
    assert result(session).GetImageData().GetMTime() == before
    assert session.ui.familySelector.currentText == "Trust"
    choose(session.ui.mapSelector, "Expected error")
    save_png(screenshot(slicer.app.layoutManager()), PICTURES / "views-trust.png")
    session.ui.trustBox.checked = False


def test_second_time_is_warm_and_can_be_cancelled(session: SimpleNamespace) -> None:
    runner = session.widget.logic.runner
    pid = runner.workerPid
    assert runner.workerIsWarm
    volumes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    session.widget._parameterNode.maps = "none"
    session.ui.seedBox.value = 3
    session.ui.applyButton.click()
    assert session.host.process(lambda: session.ui.progressBar.value > 0 or not session.widget.panel.isBusy, 60)
    assert session.widget.panel.isBusy
    assert runner.workerPid == pid
    time.sleep(DOUBLE_CLICK_SECONDS)
    started = time.monotonic()
    session.ui.applyButton.click()
    assert time.monotonic() - started < 1
    assert session.ui.statusLabel.text == "Cancelled. Nothing was changed."
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == volumes


def test_layout_is_given_back(session: SimpleNamespace) -> None:
    session.ui.restoreButton.click()
    assert "Red" in slicer.app.layoutManager().sliceViewNames()
    assert not session.ui.restoreButton.enabled


@POSIX_ONLY
def test_closed_panel_leaves_no_process(session: SimpleNamespace) -> None:
    pid = session.widget.logic.runner.workerPid
    session.widget.logic.shutdown()
    if pid is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
