"""What holds for every fast path, how they are chosen, and the convolution that several of them are made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mcsr import inference
from mcsr.canvas import Canvas
from mcsr.fast import FastPath, _convolution, fast_path, has_fast_path, working_dtype
from mcsr.fast._convolution import Convolution
from mcsr.fast._layers import channels_last
from mcsr.inference import enhance_slices, make_plan
from mcsr.networks import Network, create_network
from torch import Tensor, nn

SMALL = {"cd-dpe-s": {"size": 16}, "dcamsr-s": {}}
"""Networks by which the general rules are tried."""


def small(name: str, **changes: object) -> Network:
    torch.manual_seed(0)
    return create_network(name, scale=2, **SMALL[name], **changes).eval()


def slices(low: int = 12, batch: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 1, low, low - 4), torch.rand(batch, 1, 2 * low, 2 * low - 8)


@pytest.mark.parametrize("name", SMALL)
def test_a_fast_path_is_the_same_network_to_the_engine(name: str) -> None:
    plain = small(name)
    fast = fast_path(plain)
    assert isinstance(fast, FastPath)
    assert has_fast_path(plain)
    for asked in ("config", "multiple", "native_size", "uses_reference", "upsamples_first", "training"):
        assert getattr(fast, asked) == getattr(plain, asked), asked
    assert fast.map_specs() == plain.map_specs()
    target, reference = slices()
    with torch.no_grad():
        found, expected = (n(target, reference, capture=True) for n in (fast, plain))
        assert fast(target, reference).maps == {}
    assert found.maps.keys() == expected.maps.keys()
    for key, tensor in expected.maps.items():
        assert torch.equal(found.maps[key], tensor), key
    points = fast.point_maps(found.maps, 3, 4)
    assert points.keys() == plain.point_maps(expected.maps, 3, 4).keys()


def test_networks_without_a_fast_path_or_in_training_stay_what_they_are() -> None:
    baseline, training = create_network("sinc", scale=2).eval(), small("dcamsr-s").train()
    assert fast_path(baseline) is baseline
    assert fast_path(training) is training


@pytest.mark.parametrize("name", SMALL)
def test_the_engine_takes_the_fast_path_says_so_and_gets_the_same(name: str) -> None:
    network, rng = small(name), np.random.default_rng(0)
    target, reference = rng.random((2, 16, 12), dtype=np.float32), rng.random((2, 32, 24), dtype=np.float32)
    plan = make_plan(network, Canvas(0, 0, 16, 12), "cpu", "fp32")
    assert plan.as_dict()["fast"] is True
    fast, _ = enhance_slices(network, target, reference, plan)
    plain, _ = enhance_slices(network, target, reference, dataclasses.replace(plan, fast=False))
    assert 0 < np.abs(fast - plain).max() < 1e-5, "rounding alone tells the paths apart"


def test_a_network_without_one_is_not_called_fast() -> None:
    assert make_plan(create_network("sinc", scale=2).eval(), Canvas(0, 0, 16, 12), "cpu", "fp32").fast is False


def test_memory_is_counted_for_the_path_that_runs() -> None:
    network, budget = small("dcamsr-s"), 160 * 2**20
    plain, fast = (inference.slice_bytes(network, 512**2, plain=plain) for plain in (True, False))
    assert 0.5 * plain < fast < plain
    canvas = Canvas(0, 0, 256, 256)
    with_maps, without = (make_plan(network, canvas, "cpu", "fp32", budget=budget, maps=m).tile for m in (True, False))
    assert with_maps is not None
    assert without is not None
    assert with_maps < without


def test_the_working_type_is_that_of_autocast() -> None:
    x = torch.zeros(1)
    assert working_dtype(x) == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert working_dtype(x) == torch.bfloat16
        assert working_dtype(x.to("meta")) == torch.float32
        with torch.autocast("cpu", enabled=False):
            assert working_dtype(x) == torch.float32


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize("kind", ["3x3", "1x1", "4x4 down", "4x4 up"])
def test_convolution(fused: bool, rectify: bool, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused:
        monkeypatch.setattr(_convolution, "has_fused", lambda dtype: False)
    torch.manual_seed(0)
    side, up, stride = int(kind[0]), kind.endswith("up"), 2 if kind.startswith("4") else 1
    weight, bias = torch.randn((5, 3, side, side) if up else (3, 5, side, side)), torch.randn(3)
    convolution = Convolution(weight, bias, stride=stride, transposed=up)
    convolve = F.conv_transpose2d if up else F.conv2d
    for shape in ((1, 5, 8, 12), (2, 5, 12, 4)):  # one after the other: the weights in their order serve all sizes
        x = channels_last(torch.randn(shape))
        expected = convolve(x, weight, bias, stride=stride, padding=(side - 1) // 2)
        given = channels_last(torch.randn(expected.shape))
        for onto in (None, given.clone(memory_format=torch.preserve_format)):
            found = convolution(x, onto=onto, rectify=rectify)
            wanted = expected if onto is None else expected + given
            torch.testing.assert_close(found, wanted.relu() if rectify else wanted, rtol=0, atol=1e-5)
            assert found.is_contiguous(memory_format=torch.channels_last)
            assert onto is None or found.data_ptr() == onto.data_ptr(), "the sum lies where the summand lay"


def test_convolutions_of_layers() -> None:
    torch.manual_seed(0)
    one, two = (nn.Conv2d(6, n, 3, padding=1) for n in (3, 2))
    x = channels_last(torch.randn(1, 6, 8, 8))
    with torch.no_grad():
        torch.testing.assert_close(Convolution.of(one, two)(x), torch.cat([one(x), two(x)], dim=1))
        first, second = Convolution.halves(one, factor=-1.0)
        a, b = (channels_last(half) for half in x.chunk(2, dim=1))
        torch.testing.assert_close(second(b, onto=first(a)), -one(x))


def test_fused_operators_that_fail_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> Tensor:
        raise AttributeError("no such operator")

    def wrong(*_: object, **__: object) -> Tensor:
        return torch.zeros(1, 2, 4, 4)

    for fault in (missing, wrong):
        monkeypatch.setattr(Convolution, "_fused", fault)
        assert not _convolution.has_fused.__wrapped__(torch.float32)
