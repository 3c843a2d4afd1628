"""`mcsr models` as a user meets it."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
from mcsr.cli import app
from mcsr.errors import Cancelled, InputError
from mcsr.networks import create_network
from mcsr.weights import save_weights, shipped_models
from typer.testing import CliRunner, Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class _Interrupted(types.ModuleType):
    """A module in whose import Ctrl-C is pressed."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


def test_stopped_while_it_still_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcsr.model_facts", _Interrupted("mcsr.model_facts"))
    stopped = run("models", "show", "dcamsr-s")
    assert stopped.exit_code == Cancelled.exit_code
    assert "Cancelled; nothing was written." in stopped.output


def test_a_path_that_no_system_can_use_is_one_sentence(tmp_path: Path) -> None:
    refused = run("models", "add", tmp_path / ("x" * 300 + ".safetensors"))
    assert refused.exit_code == InputError.exit_code
    assert "cannot be used (File name too long); check the path." in " ".join(refused.output.split())


def test_models_list_and_show() -> None:
    listed = run("models", "list")
    assert listed.exit_code == 0, listed.output
    for name in ("dcamsr-s", "dcamsr", "sinc", "linear", "cubic"):
        assert name in listed.output
    shown = run("models", "show", "dcamsr-s")
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.output.split())
    assert "intended use research only; axial slices at x4, pixels of the result 0.51 to 1.00 mm" in said
    assert "limits Other anatomy, scanners and pixels" in said
    assert "Neuroinformatics 2017" in said
    assert "licence CC BY 4.0, with attribution to the data" in said
    sha256 = next(entry["sha256"] for entry in shipped_models() if entry["id"] == "dcamsr-s-x4")
    assert sha256 in "".join(shown.output.split())
    assert "| dcamsr-s-x4 | PSNR (dB) | over sinc |" in shown.output
    assert run("models", "show", "dcamrs").exit_code == 2


def test_models_show_says_what_a_model_is() -> None:
    shown = run("models", "show", "dcamsr")
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.output.split())
    assert "Dual Cross-Attention Transformer Network" in said
    assert "Parameters: 9,286,705." in said
    assert "109.2 for a slice of 256x256" in said
    assert "No weights are installed for it." in said
    facts = json.loads(run("models", "show", "dcamsr-s", "--json").stdout)
    network = create_network("dcamsr-s")
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())
    assert facts["gmac"]["348x384"] > facts["gmac"]["256x256"] > 5
    assert set(facts["maps"]) == set(network.map_specs())
    assert "MICCAI 2023" in facts["about"]
    assert [weights["card"]["scale"] for weights in facts["weights"]] == [2, 4]


def test_models_add_verify_and_list(untrained_x2: Path, models_folder: Path, tmp_path: Path) -> None:
    scale_3 = tmp_path / "own.safetensors"
    card = {"architecture": "dcamsr-s", "scale": 3, "degradation": "kspace", "plane": "axial"}
    save_weights(scale_3, create_network("dcamsr-s", scale=3), card)
    added = run("models", "add", scale_3)
    assert added.exit_code == 0, added.output
    assert run("models", "verify").exit_code == 0
    lines = [json.loads(line) for line in run("models", "list", "--json").stdout.splitlines()]
    assert 3 in next(line["scales"] for line in lines if line["name"] == "dcamsr-s")
    assert "own" in run("models", "show", "dcamsr-s").output
    content = bytearray((models_folder / "own.safetensors").read_bytes())
    content[-1] ^= 1
    (models_folder / "own.safetensors").write_bytes(content)
    verified = run("models", "verify", "--json")
    assert verified.exit_code == 4
    events = [json.loads(line) for line in verified.stdout.splitlines()]
    wrong = [event["name"] for event in events if event["event"] == "weights" and event["problem"]]
    assert wrong == ["own"]
    assert run("models", "add", tmp_path / "absent.safetensors").exit_code == 4
