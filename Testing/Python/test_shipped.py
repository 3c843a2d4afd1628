"""The weights that ship: whole, small, complete in what they say, and as good as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcsr.evaluation import evaluate
from mcsr.evaluation_study import Study
from mcsr.model_folders import MODEL_FOLDERS
from mcsr.trust_calibration import find_calibration
from mcsr.weights import load_weights, shipped_models

SESSIONS = ("ms_p04_s1", "ms_p04_s1_flair")
CARD = {"architecture", "config", "scale", "degradation", "sampling", "intensity", "canvas", "contrasts", "plane"}
CARD |= {"spacing_mm", "data", "licence", "figures", "git_revision", "version"}
ENTRIES = {entry["id"]: entry for entry in shipped_models()}
PROMISED = {f"{name}-s-x{scale}" for name in ("cd-dpe", "daasr", "dcamsr", "diffmsr", "hftn-sr") for scale in (2, 4)}
PROMISED |= {"daasr-s-x3"}


def test_what_is_promised_ships_and_the_whole_stays_small() -> None:
    assert set(ENTRIES) == PROMISED
    assert sum(entry["path"].stat().st_size for entry in ENTRIES.values()) < 32e6
    assert any((folder / "LICENSE").is_file() for folder in MODEL_FOLDERS)


@pytest.mark.parametrize("name", ENTRIES)
def test_shipped_weights_are_whole_and_say_all(name: str) -> None:
    entry = ENTRIES[name]
    weights = load_weights(entry["path"], expected_sha256=entry["sha256"])
    assert set(weights.metadata) >= CARD
    assert weights.metadata["scale"] == entry["scale"]
    assert weights.metadata["figures"] == entry["figures"]
    assert "CC BY 4.0" in weights.metadata["licence"]
    assert any("Lesjak" in source for source in weights.metadata["data"])
    assert weights.build().config.scale == entry["scale"]


@pytest.mark.parametrize("name", ENTRIES)
def test_figures_of_shipped_weights_speak_for_them(name: str) -> None:
    """As measured at release: over sinc, and at x4 better with the reference than without; at x2 it matters little."""
    figures, least = ENTRIES[name]["figures"], 0.2 if ENTRIES[name]["scale"] == 4 else -0.02
    assert len(figures) == 4, "two targets with two references each"
    for found in figures.values():
        assert found["psnr_self"] > found["psnr_sinc"]
        assert found["psnr"] - found["psnr_self"] > least
        assert min(found["ssim"], found["ssim_self"]) > found["ssim_sinc"]


@pytest.mark.parametrize("name", ENTRIES)
def test_expected_error_of_shipped_weights_is_calibrated(name: str) -> None:
    calibration = find_calibration(ENTRIES[name]["sha256"])
    assert calibration is not None
    assert max(calibration.coefficients) > 0
    assert len(calibration.sessions) >= 4


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ENTRIES)
def test_shipped_weights_are_as_good_as_they_say(name: str, real_data: Path) -> None:
    """Through the whole pipeline: over sinc, over themselves without a reference, and as on the card."""
    model, scale = ENTRIES[name]["architecture"], ENTRIES[name]["scale"]
    cases = list(evaluate(Study(real_data, [model], [scale], sessions=SESSIONS)))
    figures = ENTRIES[name]["figures"]
    for session in SESSIONS:
        chosen = [case for case in cases if case.session == session]
        assert len(chosen) == 2, "two references each"
        psnr, ssim = (
            {
                c: sum(case.run(m, c).mean(metric) for case in chosen) / 2
                for m, c in ((model, "true"), (model, "self"), ("sinc", "none"))
            }
            for metric in ("psnr", "ssim")
        )
        assert psnr["self"] > psnr["none"]
        assert psnr["true"] - psnr["self"] > (0.2 if scale == 4 else -0.02)
        assert min(ssim["true"], ssim["self"]) > ssim["none"]
    # Cards tell of the day of release; data consistency has given up to 0.03 dB and 0.0025 since.
    for case in cases:
        claimed = figures[f"{case.session} {case.target}<-{case.reference}"]
        assert case.run(model, "true").mean("psnr") == pytest.approx(claimed["psnr"], abs=0.05)
        assert -0.002 <= case.run(model, "true").mean("ssim") - claimed["ssim"] <= 0.004
