"""The panel while it works, with a worker that only pretends: progress, cancel, and whatever can go wrong."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed or lacks libEGL", exc_type=ImportError)

import mcsr
import mcsr_add_model
import slicer
from mcsr.volume import Volume
from panel_fixtures import PICTURES, add_volume

Phantom = tuple[Volume, Volume, Volume]
ADD_MODEL_SCRIPT = Path(mcsr_add_model.__file__)


@pytest.fixture
def ready(opened: SimpleNamespace, phantom: Phantom) -> SimpleNamespace:
    """Inputs are chosen."""
    opened.target, opened.reference = add_volume(phantom[0]), add_volume(phantom[1])
    opened.ui.targetSelector.setCurrentNode(opened.target)
    opened.ui.referenceSelector.setCurrentNode(opened.reference)
    return opened


def start(ready: SimpleNamespace) -> str:
    """Press Enhance; the worker has taken the job, whose id comes back."""
    ready.ui.applyButton.click()
    folder = ready.worker.jobFolder
    ready.worker.say("ready", pid=ready.worker.pid, version=mcsr.__version__, device="cpu", device_name="CPU")
    (folder.parents[1] / "inbox" / folder.name).unlink()
    return folder.name


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make packages look as if they were not installed."""
    find, version = importlib.util.find_spec, importlib.metadata.version

    def find_spec(name: str, *rest: Any) -> importlib.machinery.ModuleSpec | None:
        return None if name in names else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version(name))


def test_progress_in_words(ready: SimpleNamespace) -> None:
    job, ui = start(ready), ready.ui
    assert (ui.applyButton.text, ui.applyButton.enabled, ui.progressBar.visible) == ("Ca&ncel", True, False)
    assert not ui.progressBar.isHidden()
    assert not ui.inputsSection.enabled
    assert ui.statusLabel.text == "Starting..."
    ready.worker.say("progress", job=job, fraction=0.4, stage="Enhancing", remaining_s=None)
    assert ui.statusLabel.text == "Enhancing: 40 %"
    ready.worker.say("progress", job=job, fraction=0.5, stage="Enhancing", remaining_s=32.0)
    assert ui.statusLabel.text == "Enhancing: 50 %, about 30 s left"
    assert ui.progressBar.value == 500
    ready.panel.picture(PICTURES / "panel-busy.png")


def test_double_click_starts_once(ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr_slicer.panel.DOUBLE_CLICK_SECONDS", 60.0)
    start(ready)
    ready.ui.applyButton.click()
    assert ready.ui.applyButton.text == "Ca&ncel"
    assert ready.widget.logic.runner.isBusy
    ready.widget.logic.runner.cancel()
    ready.worker.exit()


def test_cancel_is_answered_at_once(ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr_slicer.panel.DOUBLE_CLICK_SECONDS", 0.0)
    start(ready)
    ready.ui.applyButton.click()
    assert ready.ui.statusLabel.text == "Cancelled. Nothing was changed."
    assert (ready.ui.applyButton.text, ready.ui.applyButton.enabled) == ("E&nhance", True)
    assert ready.ui.progressBar.isHidden()
    assert ready.ui.inputsSection.enabled
    ready.worker.exit()


@pytest.mark.parametrize(
    ("code", "message"),
    [("memory", "Memory ran out; choose x2 or another model."), ("input", "The scans do not overlap; choose others.")],
)
def test_errors_of_the_worker_are_sentences(ready: SimpleNamespace, code: str, message: str) -> None:
    job = start(ready)
    ready.worker.say("error", job=job, code=code, message=message, details="Traceback: where it was")
    assert ready.ui.statusLabel.text == message
    assert "where it was" in ready.ui.logText.toPlainText()
    assert ready.ui.applyButton.text == "E&nhance"
    ready.ui.scaleSelector.currentIndex = 0
    assert ready.ui.statusLabel.text.startswith("Expected time")
    ready.worker.exit()


def test_a_crash_leaves_slicer_and_says_so(ready: SimpleNamespace) -> None:
    start(ready)
    ready.worker.line("terminate called")
    ready.worker.exit(-11)
    assert ready.ui.applyButton.text == "E&nhance"
    assert ready.ui.statusLabel.text.endswith(".")
    assert "terminate called" in ready.ui.logText.toPlainText()
    assert [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")] == [
        ready.target.GetName(),
        ready.reference.GetName(),
    ]


def test_deleted_target_ends_the_job(ready: SimpleNamespace) -> None:
    job = start(ready)
    slicer.mrmlScene.RemoveNode(ready.target)
    ready.worker.say("progress", job=job, fraction=0.4, stage="Enhancing", remaining_s=None)
    assert not ready.widget.logic.runner.isBusy
    assert "was deleted" in ready.ui.statusLabel.text
    ready.worker.exit()


def test_closed_scene_ends_the_job(ready: SimpleNamespace) -> None:
    job = start(ready)
    ready.host.scene.clear()
    assert not ready.widget.logic.runner.isBusy
    assert ready.ui.applyButton.text == "E&nhance"
    assert ready.ui.statusLabel.text.startswith("Choose the target")
    ready.worker.say("progress", job=job, fraction=0.9, stage="Enhancing", remaining_s=None)
    assert ready.ui.progressBar.isHidden()
    ready.worker.exit()


def test_left_panel_hears_the_end(ready: SimpleNamespace) -> None:
    job = start(ready)
    ready.panel.exit()
    ready.worker.say("error", job=job, code="input", message="No.", details="")
    ready.panel.enter()
    assert ready.ui.applyButton.text == "E&nhance"
    ready.worker.exit()


def test_full_disk_is_said(ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mcsr_slicer.job_folder._written", full)
    ready.ui.applyButton.click()
    assert "disk" in ready.ui.statusLabel.text.lower()
    assert ready.ui.applyButton.text == "E&nhance"


def test_unusable_target_is_said(ready: SimpleNamespace) -> None:
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
    ready.target.SetAndObserveTransformNodeID(warp.GetID())
    ready.ui.applyButton.click()
    assert "non-linear transform warp" in ready.ui.statusLabel.text
    assert not ready.ui.applyButton.enabled
    ready.target.SetAndObserveTransformNodeID(None)
    ready.ui.seedBox.value = 1
    assert ready.ui.applyButton.enabled


def test_refused_torch_leaves_a_usable_panel(ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch")
    ready.ui.scaleSelector.currentIndex = 0
    assert "Still to be installed, when you press Enhance and agree: PyTorch." in ready.ui.statusLabel.text
    ready.ui.applyButton.click()
    assert "Slicer does not respond for some minutes" in ready.dialogs.questions[0]
    assert ready.ui.statusLabel.text == "PyTorch is missing. Press Enhance again when you want to install it."
    assert (ready.installer.asked, ready.worker.isRunning, ready.ui.applyButton.enabled) == ([], False, True)
    ready.panel.picture(PICTURES / "panel-refused.png")
    ready.installer.hasExtension = False
    ready.ui.applyButton.click()
    assert "Install the extension PyTorch in the Extensions Manager" in ready.ui.statusLabel.text
    ready.dialogs.answer = True
    ready.ui.applyButton.click()
    assert ready.ui.statusLabel.text == "The PyTorch extension was installed. Restart Slicer, then press Enhance again."
    assert ready.installer.asked == ["extension"]


def test_torch_comes_after_consent(ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch")
    ready.dialogs.answer = True
    ready.installer.effect = lambda what: monkeypatch.undo()
    ready.ui.applyButton.click()
    assert ready.installer.asked == ["torch"]
    assert ready.worker.isRunning
    ready.worker.exit()


def test_installation_that_fails_is_said(ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(what: str) -> None:
        raise RuntimeError("no network")

    hide(monkeypatch, "h5py")
    ready.installer.effect = fail
    ready.ui.applyButton.click()
    assert ready.ui.statusLabel.text.startswith("The installation did not finish (no network).")
    ready.installer.effect = lambda what: None
    ready.ui.applyButton.click()
    assert ready.ui.statusLabel.text == "Not installed: h5py. Press Enhance again when you want to install them."
    assert not ready.worker.isRunning


def test_old_torch_is_refused(ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr_slicer.environment.torchVersion", lambda: "2.1.2+cpu")
    ready.ui.applyButton.click()
    assert ready.ui.statusLabel.text.startswith("PyTorch 2.1.2+cpu is too old")


def test_added_weights_are_listed_and_can_be_removed(
    opened: SimpleNamespace, untrained_x2: Path, models_folder: Path
) -> None:
    ui = opened.ui
    opened.dialogs.file = str(untrained_x2)
    ui.addModelButton.click()
    assert ui.modelsStatus.text == "Checking untrained.safetensors..."
    assert not ui.addModelButton.enabled
    assert str(untrained_x2) in opened.worker.arguments
    models_folder.mkdir()
    added = models_folder / untrained_x2.name
    added.write_bytes(untrained_x2.read_bytes())
    opened.worker.line('{"added": "' + str(added) + '", "notes": ["A note."]}')
    opened.worker.exit()
    assert ui.modelsStatus.text == "Added untrained.safetensors. A note."
    labels = [ui.modelsList.item(n).text() for n in range(ui.modelsList.count)]
    place = labels.index("dcamsr-s  x2  untrained (added by you)")
    ui.scaleSelector.currentIndex = 0
    assert [ui.weightsSelector.itemText(n) for n in range(ui.weightsSelector.count)] == ["dcamsr-s-x2", "untrained"]
    ui.weightsSelector.currentIndex = 1
    assert opened.widget._parameterNode.weights == "untrained"
    ui.modelsList.currentRow = place
    ui.removeModelButton.click()
    assert added.exists()
    opened.dialogs.answer = True
    ui.removeModelButton.click()
    assert not added.exists()
    assert ui.statusLabel.text.startswith("Choose the target")
    ui.openModelsButton.click()
    assert opened.dialogs.opened == [str(models_folder)]


def test_shipped_weights_cannot_be_removed(opened: SimpleNamespace) -> None:
    opened.ui.modelsList.currentRow = 0
    assert not opened.ui.removeModelButton.enabled


def test_refused_checkpoint_is_said(opened: SimpleNamespace, tmp_path: Path) -> None:
    opened.dialogs.file = str(tmp_path / "net.pth")
    opened.ui.importModelButton.click()
    assert list(opened.worker.arguments)[-2:] == ["--checkpoint-scale", "4"]
    opened.worker.line('{"error": "net.pth is no checkpoint that is known here."}')
    opened.worker.exit(1)
    assert opened.ui.modelsStatus.text == "net.pth is no checkpoint that is known here."
    assert opened.ui.importModelButton.enabled


def test_script_checks_and_copies(untrained_x2: Path, models_folder: Path) -> None:
    """The child process that adds a model, run as the panel runs it."""
    done = subprocess.run([sys.executable, str(ADD_MODEL_SCRIPT), str(untrained_x2)], capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"added": str(models_folder / untrained_x2.name), "notes": []}
    assert (models_folder / untrained_x2.name).read_bytes() == untrained_x2.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"), [((), "is not a whole"), (("--checkpoint-scale", "2"), "broken.safetensors")]
)
def test_script_says_what_is_wrong(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    monkeypatch.setattr(sys, "argv", [str(ADD_MODEL_SCRIPT), str(broken), *arguments])
    assert mcsr_add_model.main() == 1
    assert words in json.loads(capsys.readouterr().out)["error"]
