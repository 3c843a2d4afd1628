"""DiffMSR is exact: golden values, fingerprints, counts of the published code; stages, scales, both layouts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from golden import fill, fingerprint, five_numbers, pseudo_random
from mcsr.networks import create_network
from mcsr.networks.diffmsr import DiffMSR, DiffMSRConfig, DiffMSRStage1, official_key_table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Case(NamedTuple):
    """Which network on which low-resolution slice."""

    stage: int
    scale: int
    layout: str
    height: int
    width: int


# Of the published code: mean, unbiased std, first, third, last. Z_n: state of the diffusion with n steps to go.
GOLDEN = {
    Case(1, 4, "raw", 64, 64): {
        "prior": (0.593601, 1.008293, -0.041117, 0.015596, -0.031772),
        "F_lr": (0.000372, 0.370344, -0.303294, 0.389824, 0.094000),
        "F_ref": (-0.000277, 0.340862, -0.450579, 0.357265, 0.234455),
        "CA block 0": (0.031030, 0.651457, -0.520153, -0.028341, 0.029772),
        "CA": (0.008820, 0.578826, 0.132660, 0.706576, 0.225805),
        "level1 block 0": (0.051341, 0.860790, 0.234282, 1.430607, 0.238478),
        "level1": (0.081256, 1.206881, 0.077262, 1.317573, -0.865155),
        "level2": (0.077401, 1.738834, 1.594868, 1.107219, -0.013827),
        "level3": (0.088893, 2.123102, 1.755854, 1.940892, -0.010314),
        "level4": (0.098238, 2.458827, 1.390912, 1.055031, -0.199417),
        "refinement": (0.164185, 2.860858, 2.301666, 2.222258, 0.048952),
        "sr": (0.147931, 2.839479, -0.041331, 2.008272, -0.661398),
    },
    Case(2, 4, "raw", 64, 64): {
        "condition": (0.349737, 0.589626, -0.054006, 0.774745, 1.756099),
        "Z_4": (-0.046096, 0.978908, 0.484031, 1.677952, 0.514437),
        "Z_3": (0.229271, 0.392657, 0.116494, 0.677997, -0.050395),
        "Z_2": (0.266271, 0.439364, 0.023250, 0.175025, -0.072205),
        "Z_1": (0.306577, 0.543730, -0.009304, -0.039478, -0.081413),
        "Z_0": (0.347236, 0.639157, -0.001592, -0.140781, -0.089230),
        "F_lr": (-0.000157, 0.355372, 0.102173, 0.125043, -0.116136),
        "F_ref": (-0.000294, 0.418967, 0.023888, -0.272641, 0.428333),
        "CA block 0": (-0.012525, 0.713784, -0.010014, 0.154633, 0.717929),
        "CA": (-0.011080, 0.633837, -0.268558, 0.422706, 0.182393),
        "level1 block 0": (-0.021527, 0.703877, -0.323776, 0.053864, 0.464336),
        "level1": (-0.004090, 0.896491, -0.648753, 0.171169, 0.229311),
        "level2": (-0.013574, 1.091417, -0.409215, 0.891470, 0.210982),
        "level3": (0.005472, 1.308040, -0.314095, 1.371015, 0.109338),
        "level4": (-0.012361, 1.522753, -0.496502, 1.388198, 0.465219),
        "refinement": (-0.014267, 1.765629, -0.255016, 0.660094, 0.071043),
        "sr": (0.106328, 1.861227, 0.841613, 3.903673, 0.337366),
    },
    Case(2, 4, "spatial", 32, 48): {
        "condition": (0.335886, 0.564943, -0.048678, 0.718328, 1.678020),
        "Z_0": (0.334200, 0.615394, 0.005380, -0.134156, -0.085224),
        "CA": (-0.010647, 0.516423, -0.180216, 0.299654, -0.290535),
        "level1": (-0.063814, 0.731808, -0.729911, -0.412817, -0.062383),
        "refinement": (-0.135316, 1.694927, -1.536084, -1.657015, 0.397767),
        "sr": (0.200032, 1.726749, 0.620205, -0.045526, -0.364993),
    },
    Case(1, 4, "spatial", 32, 48): {
        "prior": (0.560907, 0.954023, -0.039860, 0.004305, -0.035628),
        "CA": (0.008176, 0.557474, 0.271517, 0.184811, 0.065403),
        "level1": (0.040033, 1.111653, 1.289105, -2.141697, -0.107444),
        "refinement": (0.057144, 2.659504, 2.411416, -6.508446, -1.591447),
        "sr": (0.148816, 2.613227, 1.775613, -4.988264, -0.147835),
    },
    Case(2, 4, "spatial", 24, 20): {
        "Z_0": (0.359180, 0.658399, 0.074710, -0.136107, -0.080228),
        "refinement": (-0.161958, 1.853726, -1.688061, -3.869616, -0.257912),
        "sr": (0.307647, 1.861649, 0.651091, -0.500397, 2.740970),
    },
    Case(2, 4, "spatial", 7, 20): {
        "Z_0": (0.371237, 0.681537, 0.282172, -0.114990, -0.096980),
        "sr": (0.167120, 1.834524, 0.665312, -3.875491, 2.720201),
    },
    Case(2, 2, "spatial", 32, 64): {
        "condition": (0.321874, 0.563474, -0.069462, 0.420721, 1.587359),
        "Z_0": (0.335302, 0.614694, 0.002802, -0.126753, -0.114911),
        "F_lr": (0.001603, 0.351324, 0.053305, 0.588971, -0.073710),
        "F_ref": (-0.000512, 0.413508, 0.023888, 0.593455, 0.587671),
        "CA": (-0.000289, 0.522112, 0.324293, 1.112164, -0.254969),
        "level1": (-0.048186, 0.725033, -0.273062, 0.628279, -0.238240),
        "refinement": (-0.099365, 1.569508, -1.406571, -3.299061, -0.011130),
        "sr": (0.143597, 1.407944, 0.753638, -2.213749, 0.293191),
    },
    Case(1, 2, "spatial", 32, 64): {
        "prior": (0.509497, 0.871671, -0.034725, 0.078160, -0.090491),
        "sr": (-0.011245, 2.169792, 1.760078, 0.438776, 1.301953),
    },
    Case(2, 2, "spatial", 30, 50): {
        "Z_0": (0.348791, 0.638023, 0.042406, -0.133340, -0.116257),
        "sr": (0.161397, 1.603917, 0.720922, 0.677599, -1.424677),
    },
    Case(2, 3, "spatial", 32, 48): {
        "condition": (0.406980, 0.666852, 1.255536, 1.857961, -0.087638),
        "Z_0": (0.474975, 0.805811, -0.100474, -0.159554, -0.294283),
        "F_lr": (-0.002351, 0.353149, 0.102173, 0.262203, -0.025044),
        "F_ref": (-0.000177, 0.413285, 0.025574, 0.371494, -0.404959),
        "CA": (-0.011544, 0.520462, -0.174829, 0.268139, -0.197367),
        "level1": (0.033724, 0.875888, -0.313854, -1.093266, 0.281434),
        "refinement": (-0.183847, 1.924899, -0.092445, -2.333302, -0.365591),
        "sr": (0.145473, 1.699458, -0.483282, 1.412244, -0.574429),
    },
    Case(1, 3, "spatial", 32, 48): {
        "prior": (0.502780, 0.861797, -0.054714, -0.001730, -0.077954),
        "sr": (0.112076, 2.285786, 0.186380, 0.670434, 0.088447),
    },
}

# Keys that the golden rule fills, by stage and scale.
FILLED = {
    (2, 4): "7bd0dd52c721c259f606d74731300f75f1d70bfa44a4ed358ea18169674ca132",
    (1, 4): "cbdbb4b24185071a3754c2696b2cd887c46f809103ac63b5e8e59f3aa52bc40d",
    (2, 2): "940a5c829791c1357d3e77eabaa1f4e94507d5bdf0f62d94806393857f1d4b37",
    (1, 2): "9f647db4a53b51d7b32e6028a7dde239641a158bd706a30a69dbb1a764b16e83",
    (2, 3): "14e4eb351847974e2961e72d67b4c84c87e8c4f35c6ea1808f67dd561de94eb9",
    (1, 3): "3320b3121993d6baf26f5a6804c0aa04c608fc9564756c624aaaa869eb55d0f4",
}
# The published state dicts at x4: entries, fingerprint.
EVERYTHING = {
    1: (547, "61fe77f7815f587582180ed98ec75dedf8402d0ea93373768c60edb70c6584cc"),
    2: (614, "ac0ad080e6edabb62049deec91e9ea0ab31aa022851e09a1184ec8d4cd17f209"),
}
WITHOUT_COPIES = (562, "a0c4286eb738fdcae9696eb3628e8d5982bca4a8593ea3f4104d4b3f220e0b4b")
TRAINABLE = {
    1: (515, "dbfe117c9ba27aa2a1e879fcf308965598265526ed0859c305ee4e1905de4478"),
    2: (518, "160baa4b0e93e6981756610ca69044af2e355846c01941d6a599a1cd82bc2218"),
}
COPIES = ("diffusion.model.", "diffusion.condition.")


def _network(stage: int, scale: int, layout: str = "spatial") -> DiffMSR | DiffMSRStage1:
    config = DiffMSRConfig(scale=scale, token_layout=layout)
    return (DiffMSRStage1(config) if stage == 1 else DiffMSR(config)).eval()


def _golden_value(key: str, v: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if "norm" in key:
        return 1 + v
    if len(shape) < 2:
        return 0.1 * v
    gains = (
        ("resmlp" in key, 1.4),
        (".mlp." in key, 2.0),
        (".kernel." in key, 0.7),
        (key.endswith((".conv.weight", ".attn.proj.weight", ".project_out.weight")), 0.5),
    )
    gain = next((gain for applies, gain in gains if applies), 1.0)
    return gain * v * np.sqrt(12 / (v.size / shape[0]))


def _filled_keys(network: nn.Module) -> list[str]:
    return [key for key in network.state_dict() if not key.startswith("diffusion.")]


def _complex(real: Tensor, imaginary: Tensor) -> Tensor:
    return torch.stack([real, imaginary]).float()[None]


def _golden_slices(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    s = case.scale
    r = torch.arange(s * case.height, dtype=torch.float64)[:, None]
    c = torch.arange(s * case.width, dtype=torch.float64)[None]
    y, x = r[: case.height], c[:, : case.width]
    target = _complex(0.6 * torch.cos(0.31 * y + 0.17 * x), 0.4 * torch.sin(0.13 * y - 0.23 * x))
    reference = _complex(
        0.7 * torch.cos(0.09 * r - 0.04 * c) + 0.2 * torch.sin(0.5 * c), 0.3 * torch.sin(0.05 * r + 0.11 * c)
    )
    truth = _complex(
        0.6 * torch.cos((0.31 * r + 0.17 * c) / s) + 0.1 * torch.sin(0.4 * r - 0.6 * c),
        0.4 * torch.sin((0.13 * r - 0.23 * c) / s),
    )
    return target, reference, truth


def _recorded(network: DiffMSR | DiffMSRStage1) -> dict[str, Tensor]:
    """Filled by hooks when the network runs."""
    tensors: dict[str, Tensor] = {}
    decoder = network.G
    modules = {
        "F_lr": decoder.patch_embed,
        "F_ref": decoder.ref_patch_embed,
        "CA block 0": decoder.CA.blocks[0],
        "CA": decoder.CA,
        "level1 block 0": decoder.level1.blocks[0],
        **{name: getattr(decoder, name) for name in ("level1", "level2", "level3", "level4", "refinement")},
    }
    if isinstance(network, DiffMSR):
        modules["condition"] = network.condition
        network.diffusion.register_forward_hook(
            lambda _module, _inputs, states: tensors.update({f"Z_{4 - n}": state for n, state in enumerate(states)})
        )
    for name, module in modules.items():
        module.register_forward_hook(lambda _module, _inputs, output, name=name: tensors.update({name: output}))
    return tensors


@pytest.mark.parametrize(
    "case", list(GOLDEN), ids=lambda c: f"stage{c.stage}-x{c.scale}-{c.layout}-{c.height}x{c.width}"
)
@torch.no_grad()
def test_golden_values(case: Case) -> None:
    network = _network(case.stage, case.scale, case.layout)
    fill(network, _filled_keys(network), _golden_value)
    target, reference, truth = _golden_slices(case)
    tensors = _recorded(network)
    if isinstance(network, DiffMSR):
        noise = torch.from_numpy(math.sqrt(12) * pseudo_random(256, 1000)).float()[None]
        output = network.forward_complex(target, reference, noise=noise)
    else:
        output = network.forward_complex(target, reference, truth)
    tensors |= {"sr": output.aux["complex"], "prior": output.aux["prior"]}
    assert tensors["sr"].shape == (1, 2, case.scale * case.height, case.scale * case.width)
    for name, expected in GOLDEN[case].items():
        np.testing.assert_allclose(five_numbers(tensors[name]), expected, rtol=0, atol=2e-5, err_msg=name)
    torch.testing.assert_close(output.sr, output.aux["complex"].norm(dim=1, keepdim=True))


def test_the_golden_rule_reaches_the_tensors_it_names() -> None:
    """A probe for a rule or an order that went wrong."""
    stage_1, stage_2 = _network(1, 4), _network(2, 4)
    for network in (stage_1, stage_2):
        fill(network, _filled_keys(network), _golden_value)
    probes = (
        (stage_1, "E.E.0.weight", (-0.0843796, -0.0268860)),
        (stage_1, "G.CA.blocks.0.attn.proj.bias", (-0.0460235, 0.0413317)),
        (stage_1, "G.tail.1.bias", (-0.0267945, 0.0152957)),
        (stage_2, "G.CA.blocks.0.attn.proj.bias", (0.0240085, 0.0064395)),
        (stage_2, "G.tail.1.bias", (-0.0143080, 0.0411330)),
        (stage_2, "condition.E.0.weight", (-0.3386151, -0.0391668)),
    )
    for network, key, expected in probes:
        np.testing.assert_allclose(network.state_dict()[key].flatten()[:2], expected, rtol=0, atol=1e-7, err_msg=key)


def _text(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(str(n) for n in shape)


@pytest.mark.parametrize(("stage", "scale"), list(FILLED))
def test_state_dict_is_the_published_one(stage: int, scale: int) -> None:
    network = _network(stage, scale)
    state, table = network.state_dict(), official_key_table(network)
    keys = _filled_keys(network)
    assert len(keys) == {1: 510, 2: 514}[stage] - (2 if scale == 3 else 0)
    assert fingerprint(_text(state[key].shape) for key in keys) == FILLED[stage, scale]
    assert all(table[key] == tuple(tensor.shape) for key, tensor in state.items())


@pytest.mark.parametrize("stage", [1, 2])
def test_official_key_table_is_complete(stage: int) -> None:
    table = official_key_table(_network(stage, 4))
    assert (len(table), fingerprint(map(_text, table.values()))) == EVERYTHING[stage]
    own = {key: shape for key, shape in table.items() if not key.startswith(COPIES)}
    if stage == 2:
        assert (len(own), fingerprint(map(_text, own.values()))) == WITHOUT_COPIES
    trainable = [
        shape for key, shape in own.items() if not key.startswith("diffusion.") and "position_index" not in key
    ]
    assert (len(trainable), fingerprint(map(_text, trainable))) == TRAINABLE[stage]


@pytest.mark.parametrize(("stage", "scale", "published"), [(1, 4, 5_422_466), (2, 4, 5_527_682), (2, 2, 5_534_594)])
def test_parameters_with_the_never_used_ones_are_as_published(stage: int, scale: int, published: int) -> None:
    network = _network(stage, scale)
    unused = [
        math.prod(shape)
        for key, shape in official_key_table(network).items()
        if "conv_cat" in key or (".CA." in key and ".kernel." in key)
    ]
    assert sum(unused) == 131_072 + (73_728 if stage == 1 else 0)
    assert sum(p.numel() for p in network.parameters()) + sum(unused) == published


def test_published_size_is_the_default() -> None:
    network = create_network("diffmsr")
    assert sum(p.numel() for p in network.parameters()) == 5_396_610
    assert network.native_size is None
    assert create_network("diffmsr", token_layout="raw").native_size == 256


@pytest.mark.parametrize(("stage", "scale", "published"), [(2, 4, 16.30), (1, 4, 16.37), (2, 2, 16.33)])
def test_gmac_of_the_published_network_at_256(stage: int, scale: int, published: float) -> None:
    """With gradients: without them attention is one fused operation, which the counter does not know."""
    network, low = _network(stage, scale), torch.rand(1, 1, 256 // scale, 256 // scale)
    high = torch.rand(1, 1, 256, 256)
    with FlopCounterMode(display=False) as counter:
        network(low, high, high) if stage == 1 else network(low, high)
    assert counter.get_total_flops() / 2e9 == pytest.approx(published, rel=0.01)


def test_schedule_is_the_published_one() -> None:
    diffusion = _network(2, 4).diffusion
    expected = {
        "posterior_mean_coef1": (1, 0.7651869, 0.6362697, 0.5059268),
        "posterior_mean_coef2": (0, 0.2302458, 0.3152556, 0.0742124),
        "sqrt_alphas_cumprod": (0.9**0.5, 0.6351429**0.5, 0.2598038**0.5, 0.002598038**0.5),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(diffusion, name), values, rtol=0, atol=1e-6, err_msg=name)
    start = diffusion.diffuse(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    np.testing.assert_allclose(start, [[0.05097, 0.9987]], rtol=0, atol=5e-6)


def test_bias_tables_and_norms_start_as_published() -> None:
    parameters = {key: p.detach() for key, p in _network(2, 4).named_parameters()}
    tables = torch.cat([p.flatten() for key, p in parameters.items() if "bias_table" in key])
    assert tables.std().item() == pytest.approx(0.02, rel=0.03)
    assert all((p == 1).all() for key, p in parameters.items() if "norm" in key)
