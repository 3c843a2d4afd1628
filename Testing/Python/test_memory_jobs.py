"""What jobs hold in memory, measured in processes of their own, and memory that really runs out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from mcsr.networks import create_network
from mcsr.weights import save_weights
from memory_jobs import MIB, measured

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")

GIB = 2**30
SLACK = 64 * MIB


def untrained(name: str, folder: Path) -> str:
    """Weights at x2 of random values."""
    torch.manual_seed(0)
    file = folder / f"{name}.safetensors"
    card = {"architecture": name, "scale": 2, "degradation": "kspace", "plane": "axial"}
    save_weights(file, create_network(name, scale=2), card)
    return str(file)


def test_the_peak_grows_with_the_slices_by_no_more_than_the_arrays_of_the_result() -> None:
    few, many = (measured(slices, 256, flipped=True) for slices in (16, 64))
    slice_hr = 4 * 512**2
    grown = (many["peak"] - many["before"]) - (few["peak"] - few["before"])
    assert grown <= 48 * 4 * slice_hr, "sr, interpolated, residual and reference"
    assert grown <= 48 * 2.75 * slice_hr + SLACK, "of them the job itself holds two, and the small input anew"


def test_memory_that_really_runs_out_leads_to_tiles_then_to_a_sentence() -> None:
    hungry = {"slices": 2, "size": 128, "bytes_per_pixel": 4096}
    free = measured(**hungry)
    assert free["plan"]["tile"] is None
    tight = measured(**hungry, allow_more=192 * MIB)
    assert tight["plan"]["tile"] == 128
    assert any("tiles of 128 pixels" in warning for warning in tight["warnings"])
    none = measured(**hungry, allow_more=64 * MIB)
    assert "emory" in none["error"]
    assert none["error"].endswith(".")
    assert "close other programs" in none["error"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cd-dpe-s", "dcamsr-s", "hftn-sr-s", "daasr-s"])
def test_what_a_network_takes_is_foretold(name: str, tmp_path: Path) -> None:
    from mcsr.inference_cost import slice_bytes

    found = measured(1, 192, model=name, weights=untrained(name, tmp_path))
    foretold = slice_bytes(create_network(name, scale=2).eval(), 384**2)
    assert 0.5 * foretold < found["peak"] - found["before"] < foretold + SLACK


@pytest.mark.slow
@pytest.mark.parametrize("flipped", [False, True])
def test_200_slices_of_512_pixels_at_x2_stay_under_4_gib(flipped: bool, tmp_path: Path) -> None:
    """The network sees whole slices of 1024 x 1024 as always, but in one slice only: others take no more memory."""
    found = measured(
        200, 512, model="cd-dpe-s", weights=untrained("cd-dpe-s", tmp_path), memory=4 * GIB, lit=1, flipped=flipped
    )
    assert found["inputs"] == 5 * 200 * 4 * 512**2
    assert found["peak"] < 4 * GIB
    assert found["plan"]["canvas"]["rows"] >= 508


@pytest.mark.slow
def test_published_cd_dpe_on_4_such_slices_stays_under_4_gib(tmp_path: Path) -> None:
    found = measured(4, 512, model="cd-dpe", weights=untrained("cd-dpe", tmp_path), memory=4 * GIB, lit=1)
    assert found["peak"] < 4 * GIB
    assert found["plan"]["canvas"]["rows"] >= 508
    assert found["plan"]["tile"] < 1024
