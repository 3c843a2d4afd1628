"""What data consistency does, measured; and what `mcsr consistency` says."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcsr import pipeline_steps
from mcsr.cli import app
from mcsr.cli_consistency import _table
from mcsr.evaluation_consistency import ConsistencyEffect, consistency_effect
from mcsr.evaluation_pairs import PairChoice, measure_pairs
from mcsr.job import Settings
from subject_files import write_subject
from typer.testing import CliRunner


def test_a_wrong_network_is_held_and_runs_once(
    tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_subject(tmp_path, "a1", "val", "anna")
    settings, runs, run = Settings(scale=2, weights=untrained_x2), [], pipeline_steps.enhance_slices

    def counted(*arguments: object, **options: object) -> object:
        runs.append(arguments)
        return run(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline_steps, "enhance_slices", counted)
    (effect,) = measure_pairs(consistency_effect, PairChoice(tmp_path, limit_slices=2), settings)
    assert len(runs) == 1
    assert effect.key == "a1 T2<-T1"
    assert effect.misfit_without > 1
    assert effect.misfit_with < 0.5
    assert effect.misfit_with < effect.largest_with < 10
    assert effect.psnr_with > effect.psnr_without + 1


def test_the_table_has_a_row_for_each_case() -> None:
    table = _table({"dcamsr-s-x4": [ConsistencyEffect("a1 T2<-T1", 27.0, 27.25, 0.99, 0.1234, 2.04)]})
    assert table.splitlines()[-1] == "| dcamsr-s-x4 | a1 T2<-T1 | 27.00 | 27.25 | +0.25 | 0.99 | 0.123 | 2.0 |"


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["consistency", str(tmp_path), "--models", "nothing"])
    assert result.exit_code == 4
    assert "No weights are installed for nothing" in " ".join(result.output.split())
