"""Expected against real errors: the calibration, its reliability, and what `mcsr reliability` says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mcsr.cli import app
from mcsr.errors import Cancelled, InputError
from mcsr.evaluation_pairs import PairChoice, measure_pairs
from mcsr.evaluation_trust import Observed, calibration_of, observe_pair, reliability_of
from mcsr.evaluation_trust_plot import write_reliability
from mcsr.job import Settings
from mcsr.progress import Event
from mcsr.trust_calibration import Calibration
from subject_files import write_subject
from typer.testing import CliRunner


def made_up(seed: int, noise: float = 0.0) -> Observed:
    """Errors of twice the spread and 0.02, as they scatter."""
    rng = np.random.default_rng(seed)
    features = rng.random((3, 5000)) * 0.1
    errors = np.abs(2 * features[0] + 0.02 + noise * rng.normal(size=5000))
    return Observed(f"case {seed}", features, errors)


def test_a_right_calibration_is_on_the_line() -> None:
    calibration = calibration_of([made_up(1), made_up(2)])
    assert calibration.sessions == ("case 1", "case 2")
    found = reliability_of(made_up(3), calibration)
    assert found.correlation > 0.999
    assert found.ratio == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(found.expected, found.real, rtol=0.01)
    assert (np.diff(found.expected) > 0).all()


def test_a_wrong_calibration_shows() -> None:
    doubled = Calibration((4.0, 0.0, 0.0, 0.04), ())
    assert reliability_of(made_up(3), doubled).ratio == pytest.approx(2, abs=1e-3)
    blind = Calibration((0.0, 1.0, 0.0, 0.0), ())
    assert abs(reliability_of(made_up(3), blind).correlation) < 0.1
    assert reliability_of(made_up(3, noise=0.1), doubled).correlation < 0.8


def test_cases_are_observed_where_the_truth_is_known(tmp_path: Path, untrained_x2: Path) -> None:
    write_subject(tmp_path, "a1", "val", "anna")
    settings, choice = Settings(scale=2, weights=untrained_x2), PairChoice(tmp_path, limit_slices=2)
    events: list[Event] = []
    (case,) = measure_pairs(observe_pair, choice, settings, progress=events.append)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    with pytest.raises(Cancelled):
        list(measure_pairs(observe_pair, choice, settings, cancelled=lambda: True))
    assert case.key == "a1 T2<-T1"
    assert case.features.shape == (3, len(case.errors))
    assert 500 < len(case.errors) < 2 * 50 * 58
    assert 0.001 < case.errors.mean() < 0.3, "fractions of bright tissue"
    with pytest.raises(InputError, match="no session b1 in"):
        PairChoice(tmp_path, sessions=["a1", "b1"]).find()


def test_the_figure_is_written(tmp_path: Path) -> None:
    found = [reliability_of(made_up(n, 0.02), Calibration((2.0, 0.0, 0.0, 0.02), ())) for n in (1, 2)]
    write_reliability(tmp_path / "curve.png", {"dcamsr-s-x4": found, "cd-dpe-s-x4": found})
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    for arguments, sentence in (
        (["--models", "nothing"], "No weights are installed for nothing"),
        (["-o", str(tmp_path / "nodir" / "curve.png")], "there is no folder"),
    ):
        result = CliRunner().invoke(app, ["reliability", str(tmp_path), *arguments])
        assert result.exit_code in (2, 4), result.output
        assert sentence in " ".join(result.output.split())
