"""DCAMSR is exact: golden values, fingerprints, counts of the published code; its slim form does what it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import counted_gmac, fill, fingerprint, five_numbers, key_family, shape_text
from mcsr.networks import Network, create_network
from torch import Tensor

# Of the published code: mean, unbiased std, first, third, last.
GOLDEN_64 = {
    "channel_attention_lv1": (0.125000, 0.126151, 0.178970, 0.033105, 0.022539),
    "spatial_attention_lv1": (0.015625, 0.001104, 0.015950, 0.015628, 0.015459),
    "texture_lv1": (0.266060, 0.871901, -0.622897, -0.245695, -1.205564),
    "channel_attention_lv2": (0.125000, 0.124932, 0.065054, 0.333551, 0.129652),
    "spatial_attention_lv2": (0.015625, 0.002214, 0.017201, 0.013057, 0.012336),
    "texture_lv2": (0.234002, 0.568332, -0.605486, -0.161030, 0.141896),
    "channel_attention_lv3": (0.125000, 0.148375, 0.266697, 0.110303, 0.013591),
    "spatial_attention_lv3": (0.015625, 0.008169, 0.009865, 0.010032, 0.010085),
    "texture_lv3": (0.142727, 0.704114, -0.085895, -0.448185, 0.470956),
    "modulated_lv3": (0.058991, 0.153994, 0.240695, -0.037749, -0.000812),
    "modulated_lv2": (0.077910, 0.166318, 0.129306, -0.132675, -0.009017),
    "modulated_lv1": (0.067481, 0.184081, 0.295667, 0.019954, 0.087964),
    "sr": (-0.056410, 0.728688, -0.029741, 0.802969, 0.919702),
}
GOLDEN_64_X2 = {"sr": (-0.002166, 0.723286, -0.028929, -0.998482, 0.865468)}
GOLDEN_256 = {
    "channel_attention_lv1": (0.125000, 0.118592, 0.080864, 0.023800, 0.020465),
    "spatial_attention_lv1": (0.015625, 0.000248, 0.015848, 0.015481, 0.015305),
    "texture_lv1": (0.238943, 0.784536, 0.104198, -0.363364, -0.182638),
    "spatial_attention_lv2": (0.015625, 0.000306, 0.016197, 0.015182, 0.015800),
    "texture_lv2": (0.239583, 0.565850, -0.681886, 0.897741, 0.098857),
    "spatial_attention_lv3": (0.015625, 0.000986, 0.014473, 0.015178, 0.014831),
    "texture_lv3": (0.150328, 0.644322, -0.118732, 0.399391, -1.009055),
    "modulated_lv3": (0.060801, 0.157238, 0.299113, 0.000980, 0.000408),
    "modulated_lv2": (0.083388, 0.175290, 0.108038, -0.082467, 0.023796),
    "modulated_lv1": (0.074096, 0.184535, 0.396842, -0.086595, 0.175889),
    "sr": (0.024889, 0.722055, -0.023429, -0.521064, -0.790941),
}

FINGERPRINTS = {
    64: (
        "a8b6248277df762db5c626ab33b59e081dd27ca40c3c833621977fd8a7d4c4ea",
        "35750c75281a66c084c6d587bcfaf5e4eeb9759a3010d1dd8ba739ae7fefbaa9",
        "0affa405947d6eabe5fabd3fa867b3a21b6d3ad70217d0cfd15174aa4178cb06",
    ),
    256: (
        "2136d61bdc6fbdbbecb32abe2da9f922ad025029058c4db5f590125826389ce1",
        "11c4d2d860b169f3f55ae2585457302bca6909e3002047e89ead25b0e4a48535",
        "1b1eaeaab7ba3d77a151230e30e5358bcc42b4250d8d9d58efdab0483029022b",
    ),
    320: (
        "c7bab308df123bfc876441327ac1822eb69987127a653e5262bbf3273218bdb4",
        "45e79d8acaf8ef387938d994417804a3e0a634a8450ff2b49d1e247226d6b5e5",
        "01a17d2cb66d5ab1b581757624c2280e56bd58f870002ebe488f8883331ff01b",
    ),
}


def _golden_value(key: str, v: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    fan = v.size / shape[0]
    if key.endswith("temperature"):
        return 4 * (1 + v)
    if key.endswith("temperature2"):
        return 40 * (1 + v)
    if key.endswith("norm.weight"):
        return 1 + v
    if "conv_gamma" in key or "conv_beta" in key:
        return 0.02 * v
    if key.endswith(".conv2.weight"):
        return 0.25 * v * np.sqrt(12 / fan)
    return v * np.sqrt(12 / fan) if len(shape) >= 2 else 0.1 * v


def _golden_network(size: int, scale: int) -> tuple[Network, Tensor, Tensor]:
    network = create_network("dcamsr", size=size, scale=scale).eval()
    fill(network, [key for key in network.state_dict() if ".epa_block.F." not in key], _golden_value)
    r, c = (torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)[None])
    reference = torch.cos(0.09 * r - 0.04 * c) + 0.3 * torch.sin(0.5 * c)
    low = size // scale
    target_lr = torch.sin(0.31 * r[:low] + 0.17 * c[:, :low])
    return network, target_lr.float()[None, None], reference.float()[None, None]


@pytest.mark.parametrize(
    ("size", "scale", "golden"),
    [
        (64, 4, GOLDEN_64),
        (64, 2, GOLDEN_64_X2),
        pytest.param(256, 4, GOLDEN_256, marks=pytest.mark.slow),
    ],
)
def test_golden_values(size: int, scale: int, golden: dict[str, tuple[float, ...]]) -> None:
    network, target_lr, reference = _golden_network(size, scale)
    with torch.no_grad():
        output = network(target_lr, reference, capture=True)
    tensors = {**output.maps, "sr": output.sr}
    for name, expected in golden.items():
        np.testing.assert_allclose(five_numbers(tensors[name]), expected, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("size", list(FINGERPRINTS))
def test_state_dict_is_the_published_one(size: int) -> None:
    network = create_network("dcamsr", size=size)
    state = network.state_dict()
    distinct, everything, keys = FINGERPRINTS[size]
    assert len(state) == 254
    assert fingerprint(shape_text(p) for p in network.parameters()) == distinct
    assert fingerprint(shape_text(t) for t in state.values()) == everything
    assert fingerprint(f"{key} {shape_text(t)}" for key, t in state.items()) == keys
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == 3_781_681 + 84 * size**2


def test_published_size_is_the_default() -> None:
    network = create_network("dcamsr")
    assert sum(p.numel() for p in network.parameters()) == 9_286_705
    assert network.native_size == 256


def test_gmac_of_the_published_network_at_256() -> None:
    assert counted_gmac(create_network("dcamsr"), 256, 256) == pytest.approx(109.24, rel=0.01)


def test_slim_network_keeps_to_its_limits() -> None:
    network = create_network("dcamsr-s")
    assert sum(p.numel() for p in network.parameters()) <= 1_500_000
    assert counted_gmac(network, 256, 256) <= 10.0
    published = {key_family(key) for key in create_network("dcamsr").state_dict()}
    assert {key_family(key) for key in network.state_dict()} == published, "a named module was left out"


@torch.no_grad()
def test_slim_attention_is_as_sharp_on_a_large_slice_as_on_a_small_one() -> None:
    """Every pixel repeated 2x2: four times the tokens, the same content, so the same attention in every pixel."""
    torch.manual_seed(0)
    block = create_network("dcamsr-s").eval().trans_lv1[0]
    block.epa_block.temperature2.fill_(3.0)
    target, reference = torch.randn(2, 1, 28, 32, 32).unbind(0)
    attention = {}
    for name, repeat in (("small", 1), ("large", 2)):
        x, r = (t.repeat_interleave(repeat, -1).repeat_interleave(repeat, -2) for t in (target, reference))
        maps: dict[str, Tensor] = {}
        block(x, block.attend_to(r), maps, "lv1")
        full = maps["spatial_attention_lv1"]
        attention[name] = full.reshape(1, 2, 32 * repeat, 32 * repeat, 32)[:, :, ::repeat, ::repeat]
    assert attention["small"].std() > 0.01, "attention is uniform: the test would see nothing"
    torch.testing.assert_close(attention["large"], attention["small"], atol=1e-5, rtol=1e-4)


def test_larger_slices_than_dense_weights_are_built_for_are_refused() -> None:
    network = create_network("dcamsr", size=32, scale=2)
    with pytest.raises(ValueError, match="40x32 exceed the 32x32"):
        network(torch.rand(1, 1, 20, 16), torch.rand(1, 1, 40, 32))
