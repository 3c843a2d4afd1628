"""Maps of a job: in space where the result is, whatever the storage order; and jobs without a reference."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from grids import SOME_ORDERS, order_id
from mcsr import pipeline_inputs
from mcsr.container import read_container
from mcsr.degradation import upsample
from mcsr.errors import DeviceError, InputError
from mcsr.geometry import AxisOrder, same_space
from mcsr.imageio import read_volume
from mcsr.inference import make_plan
from mcsr.job import Settings
from mcsr.outputs import write_result
from mcsr.pipeline import enhance, simulate
from mcsr.volume import Volume
from scenes import pair

MAPS = "features_reference_lv1,texture_lv2,dominant_token_lv3,channel_attention_lv1"


@pytest.fixture(scope="module")
def settings(untrained_x2: Path) -> Settings:
    return Settings(scale=2, weights=untrained_x2, registration="none", maps=MAPS)


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, Volume]:
    truth, reference = pair()
    return simulate(truth, 2)[0], reference


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
def test_maps_lie_where_the_result_lies_in_any_storage_order(
    order: AxisOrder, settings: Settings, volumes: tuple[Volume, Volume]
) -> None:
    target, reference = volumes
    expected = enhance(target, reference, settings)
    result = enhance(target.reordered(order), reference, settings)
    assert set(result.maps) == set(MAPS.split(",")) - {"channel_attention_lv1"}
    for name, volume in result.maps.items():
        assert same_space(volume.grid, result.sr.grid, 1e-9), name
        wanted = order.apply(expected.maps[name].array_kji)
        if name.startswith("dominant"):
            assert (volume.array_kji == wanted).mean() > 0.999
        else:
            np.testing.assert_allclose(volume.array_kji, wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=name)
    np.testing.assert_allclose(
        result.tables["channel_attention_lv1"], expected.tables["channel_attention_lv1"], atol=1e-4
    )


def test_structure_of_the_reference_shows_in_its_features_at_its_own_place(
    settings: Settings, volumes: tuple[Volume, Volume]
) -> None:
    """The gradient of the reference and the energy of its features peak in the same places, not a pixel aside."""
    result = enhance(*volumes, dataclasses.replace(settings, maps="features_reference_lv1"))
    edges = np.hypot(*np.gradient(result.reference.array_kji, axis=(1, 2)))
    energy = np.hypot(*np.gradient(result.maps["features_reference_lv1"].array_kji, axis=(1, 2)))

    def agreement(shift: int) -> float:
        moved = np.roll(energy, shift, axis=2)[:, 4:-4, 4:-4]
        return float(np.corrcoef(moved.ravel(), edges[:, 4:-4, 4:-4].ravel())[0, 1])

    assert max(range(-3, 4), key=agreement) == 0


def test_asking_for_maps_changes_no_voxel_of_the_result(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    with_maps = enhance(*volumes, settings)
    without = enhance(*volumes, dataclasses.replace(settings, maps="none"))
    assert np.array_equal(with_maps.sr.array_kji, without.sr.array_kji)
    assert dict(without.maps) == dict(without.tables) == without.provenance["maps"] == {}


def test_maps_are_written_with_what_they_mean_and_old_ones_go(
    settings: Settings, volumes: tuple[Volume, Volume], tmp_path: Path
) -> None:
    write_result(enhance(*volumes, settings), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["maps"]) == set(MAPS.split(","))
    container = read_container(tmp_path / "result.h5")
    assert container.attributes["texture_lv2"]["unit"] == "root mean square over channels"
    assert container.attributes["texture_lv2"]["description"].startswith("Transferred texture, half resolution: ")
    assert container.tables["channel_attention_lv1"].shape[1:] == (2, 14, 14)
    stored = read_volume(tmp_path / "maps" / "texture_lv2.nii.gz")
    np.testing.assert_allclose(stored.array_kji, container.volumes["texture_lv2"].array_kji, rtol=1e-6)

    own = tmp_path / "maps" / "notes.txt"
    own.write_text("mine")
    write_result(enhance(*volumes, dataclasses.replace(settings, maps="texture_lv2")), tmp_path)
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == ["notes.txt", "texture_lv2.nii.gz"]
    own.unlink()
    write_result(enhance(*volumes, dataclasses.replace(settings, maps="none")), tmp_path)
    assert not (tmp_path / "maps").exists()
    assert not (tmp_path / "maps.png").exists()


def test_tables_that_are_too_large_are_left_out_and_said(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    result = enhance(*volumes, dataclasses.replace(settings, maps="spatial_attention_lv1,texture_lv1"))
    assert any("Left out" in warning and "spatial_attention_lv1" in warning for warning in result.warnings)
    assert set(result.provenance["maps"]) == {"texture_lv1"}


def test_more_maps_than_memory_holds_are_refused_before_the_work(
    settings: Settings, volumes: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_of_map = 4 * volumes[0].array_kji.nbytes
    bound = pipeline_inputs.WORKING_BYTES + 5 * bytes_of_map  # less than result, reference, three maps and a copy
    monkeypatch.setattr(pipeline_inputs, "resident_bytes", lambda: 0)
    monkeypatch.setattr(pipeline_inputs, "memory_bound", lambda chosen: bound)
    with pytest.raises(DeviceError, match=r"This job takes 0.5G of memory, more than the .* ask for fewer maps"):
        enhance(*volumes, settings)
    enhance(*volumes, dataclasses.replace(settings, maps="channel_attention_lv1"))


def test_unknown_maps_are_named_before_the_work(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    with pytest.raises(InputError, match=r"no map 'texture_lv9'; did you mean texture_lv"):
        enhance(*volumes, dataclasses.replace(settings, maps="texture_lv9"))
    with pytest.raises(InputError, match=r"no map 'texture_lv1'; it offers none"):
        enhance(*volumes, Settings(model="sinc", scale=2, maps="texture_lv1"))


def test_without_a_reference_the_interpolated_target_is_one(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    target, _ = volumes
    plain = dataclasses.replace(settings, maps="none", force=True)
    alone = enhance(target, None, plain)
    grid = alone.sr.grid
    own = target.on_grid(upsample(target.array_kji, (1, 2, 2)), grid)
    given = enhance(target, own, plain)
    scale = float(np.abs(given.sr.array_kji).max())
    np.testing.assert_allclose(alone.sr.array_kji, given.sr.array_kji, atol=0.02 * scale)
    reason = "none was given, so that the target, interpolated, was its own"
    assert alone.provenance["summary"][2] == f"Reference not used: {reason}."
    assert not any("reference" in warning for warning in alone.warnings), "said once"
    assert alone.provenance["inputs"]["reference"] is None
    np.testing.assert_allclose(alone.reference.array_kji, own.array_kji, atol=1e-4 * scale)


def test_half_precision_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr.inference.choose_device", lambda device: "mps")
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: False, raising=False)
    with pytest.raises(DeviceError, match="no half precision on mps; use --precision fp32"):
        make_plan(None, None, "mps", "bf16")  # type: ignore[arg-type]
