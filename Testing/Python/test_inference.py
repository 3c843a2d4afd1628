"""Canvas, batches, tiles and memory: how slices pass through a network must not show in the result."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from mcsr import inference
from mcsr.canvas import Canvas
from mcsr.degradation import upsample
from mcsr.errors import Cancelled, DeviceError
from mcsr.inference import choose_device, enhance_slices, make_plan, tile_starts
from mcsr.networks import Network, SROutput, create_network
from mcsr.networks.baselines import BaselineConfig


class EchoReference(Network):
    """sr = reference: local, so that tiles and canvas must give the same as the whole."""

    def __init__(self) -> None:
        super().__init__(BaselineConfig(scale=2))

    def encode_reference(self, reference: torch.Tensor) -> torch.Tensor:
        return reference

    def forward(self, target_lr: torch.Tensor, reference: torch.Tensor, **_: Any) -> SROutput:
        return SROutput(reference)


def _slices(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((count, 80, 64), dtype=np.float32), rng.random((count, 160, 128), dtype=np.float32)


def test_on_the_canvas_the_network_speaks_outside_the_interpolation() -> None:
    target, reference = _slices()
    canvas = Canvas(20, 16, 40, 32)
    result, _ = enhance_slices(EchoReference(), target, reference, make_plan(EchoReference(), canvas, "cpu", "fp32"))
    interpolated = upsample(target, (1, 2, 2))
    inside = np.zeros((160, 128), dtype=bool)
    inside[48:112, 40:88] = True
    outside = np.ones((160, 128), dtype=bool)
    outside[40:120, 32:96] = False
    np.testing.assert_allclose(result[:, inside], reference[:, inside], atol=1e-6)
    np.testing.assert_array_equal(result[:, outside], interpolated[:, outside])
    rim = result[0, 44, 60], interpolated[0, 44, 60], reference[0, 44, 60]
    assert min(rim[1:]) < rim[0] < max(rim[1:])


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("tile", [None, 96, 70])
def test_batches_and_tiles_do_not_show(batch: int, tile: int | None) -> None:
    target, reference = _slices(5)
    canvas = Canvas(0, 0, 80, 64)
    plan = dataclasses.replace(make_plan(EchoReference(), canvas, "cpu", "fp32"), batch=batch, tile=tile)
    result, used = enhance_slices(EchoReference(), target, reference, plan)
    np.testing.assert_allclose(result, reference, atol=1e-6)
    assert used == plan


def test_a_network_sees_every_slice_with_its_own_reference() -> None:
    torch.manual_seed(0)
    network = create_network("dcamsr-s", scale=2).eval()
    target, reference = _slices(3)
    canvas = Canvas(0, 0, 80, 64)
    plan = make_plan(network, canvas, "cpu", "fp32")
    whole, _ = enhance_slices(network, target, reference, dataclasses.replace(plan, batch=3))
    single, _ = enhance_slices(network, target[1:2], reference[1:2], plan)
    np.testing.assert_allclose(whole[1:2], single, atol=1e-5)


@pytest.mark.parametrize(("size", "tile", "overlap"), [(100, 40, 8), (64, 64, 8), (65, 64, 8), (300, 96, 32)])
def test_tiles_cover_everything_and_overlap(size: int, tile: int, overlap: int) -> None:
    starts = tile_starts(size, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + tile >= size
    assert starts[-1] + min(tile, size) == size
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))


def test_memory_running_out_leads_to_smaller_batches_then_tiles_then_a_sentence() -> None:
    target, reference = _slices(4)
    canvas = Canvas(0, 0, 80, 64)

    class Hungry(EchoReference):
        limit = 96 * 96

        def forward(self, target_lr: torch.Tensor, reference: torch.Tensor, **_: Any) -> SROutput:
            if reference.numel() > self.limit:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory")
            return super().forward(target_lr, reference)

    plan = dataclasses.replace(make_plan(Hungry(), canvas, "cpu", "fp32"), batch=4)
    network = Hungry()
    network.limit = 160 * 128
    result, used = enhance_slices(network, target, reference, plan)
    assert (used.batch, used.tile) == (1, None)
    np.testing.assert_allclose(result, reference, atol=1e-6)
    network.limit = 128 * 128
    result, used = enhance_slices(network, target, reference, plan)
    assert (used.batch, used.tile) == (1, 128)
    np.testing.assert_allclose(result, reference, atol=1e-6)
    network.limit = 64
    with pytest.raises(DeviceError, match="Not enough memory on cpu"):
        enhance_slices(network, target, reference, plan)


def test_when_tiles_become_needed_half_way_all_slices_are_run_in_tiles() -> None:
    target, reference = _slices(4)

    class Marks(EchoReference):
        """Writes the height of what it saw; runs out of memory on whole slices from the third on."""

        whole = 0

        def forward(self, target_lr: torch.Tensor, reference: torch.Tensor, **_: Any) -> SROutput:
            if reference.shape[-2] == 160:
                self.whole += 1
                if self.whole > 2:
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
            return SROutput(torch.full_like(reference, reference.shape[-2]))

    result, used = enhance_slices(Marks(), target, reference, make_plan(Marks(), Canvas(0, 0, 80, 64), "cpu", "fp32"))
    assert used.tile == 128
    np.testing.assert_allclose(result, 128)


def test_other_errors_and_wrong_numbers_are_not_hidden() -> None:
    target, reference = _slices(1)
    plan = make_plan(EchoReference(), Canvas(0, 0, 80, 64), "cpu", "fp32")

    class Broken(EchoReference):
        def forward(self, target_lr: torch.Tensor, reference: torch.Tensor, **_: Any) -> SROutput:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        enhance_slices(Broken(), target, reference, plan)
    with pytest.raises(DeviceError, match=r"no numbers \(fp32 on cpu\); use --precision fp32"):
        enhance_slices(EchoReference(), target, reference * np.nan, plan)


def test_cancel_stops_between_batches() -> None:
    target, reference = _slices(4)
    seen: list[float] = []

    def update(fraction: float) -> None:
        seen.append(fraction)
        if fraction >= 0.5:
            raise Cancelled("stop")

    plan = make_plan(EchoReference(), Canvas(0, 0, 80, 64), "cpu", "fp32")
    with pytest.raises(Cancelled):
        enhance_slices(EchoReference(), target, reference, plan, update=update)
    assert seen == [0, 0.25, 0.5]


def test_dense_weights_run_in_tiles_of_their_native_size() -> None:
    config = {"size": 64, "channels": 8, "heads": 2, "encoder_blocks": (1, 1, 1), "fusion_blocks": (1, 1, 1)}
    network = create_network("dcamsr", scale=2, **config).eval()
    assert make_plan(network, Canvas(0, 0, 80, 64), "cpu", "fp32").tile == 64
    assert make_plan(network, Canvas(0, 0, 32, 30), "cpu", "fp32").tile is None
    target, reference = _slices(1)
    result, _ = enhance_slices(network, target, reference, make_plan(network, Canvas(0, 0, 80, 64), "cpu", "fp32"))
    assert np.isfinite(result).all()


def test_devices_and_precisions_that_cannot_be_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    network, canvas = EchoReference(), Canvas(0, 0, 8, 8)
    with pytest.raises(DeviceError, match="Unknown device 'gpu'"):
        choose_device("gpu")
    monkeypatch.setattr(inference, "_works", lambda device: False)
    with pytest.raises(DeviceError, match="use --device cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cpu", "a GPU that fails the small operation is not taken"
    with pytest.raises(DeviceError, match="fp16 is for GPUs"):
        make_plan(network, canvas, "cpu", "fp16")
    with pytest.raises(DeviceError, match="Unknown precision 'int8'"):
        make_plan(network, canvas, "cpu", "int8")


def test_bf16_runs_and_stays_close() -> None:
    torch.manual_seed(0)
    network = create_network("dcamsr-s", scale=2).eval()
    target, reference = _slices(1)
    canvas = Canvas(0, 0, 80, 64)
    exact, _ = enhance_slices(network, target, reference, make_plan(network, canvas, "cpu", "fp32"))
    half, _ = enhance_slices(network, target, reference, make_plan(network, canvas, "cpu", "bf16"))
    assert 0 < np.abs(half - exact).max() < 0.05
