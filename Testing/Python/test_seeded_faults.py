"""The list of seeded faults is in step with the engine, and the tool tells what is caught from what is missed."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "seeded_faults.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded_faults", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_fault_is_found_once_and_is_python(tool: ModuleType) -> None:
    faults = tool.listed_faults()
    assert len({fault.name for fault in faults}) == len(faults) >= 60
    assert {fault.module for fault in faults} == set(tool.OWN_TESTS)
    for fault in faults:
        assert fault.new != fault.old
        ast.parse(tool.seeded(fault), fault.name)


def test_a_fault_out_of_step_with_the_engine_is_an_error(tool: ModuleType) -> None:
    fault = tool.Fault("canvas", "gone", "", "what the canvas never held", "")
    with pytest.raises(ValueError, match=r"gone: its old text occurs 0 times in canvas\.py"):
        tool.seeded(fault)


def test_what_is_harmless_is_missed_and_the_copy_is_as_it_was(tool: ModuleType, tmp_path: Path) -> None:
    copy = tool.Copy(tmp_path)
    harmless = tool.Fault("canvas", "harmless", "", "MARGIN_HR = 16", "MARGIN_HR = 8 * 2")
    harmful = harmless._replace(new="MARGIN_HR = 12")
    assert (
        copy.caught_by(harmful)
        == "test_canvas.py::test_the_canvas_holds_the_signal_and_its_margin_in_the_asked_multiple"
    )
    assert copy.caught_by(harmless) is None
    source = tool.ENGINE / "canvas.py"
    assert (tmp_path / source).read_text() == (tool.ROOT / source).read_text()


def test_the_command_prints_the_figure() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--only", "blended-at-the-border"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    row, _, figure = done.stdout.splitlines()[-3:]
    assert row.startswith("| canvas | blended-at-the-border | ")
    assert row.endswith(" | test_canvas.py::test_the_rim_blends_except_at_the_image_border |")
    assert figure == "caught 1 of 1 (100 %)"
