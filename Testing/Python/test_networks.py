"""What every registered network does."""

from __future__ import annotations

import contextlib
import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mcsr
import pytest
import torch
from mcsr.errors import InputError
from mcsr.networks import MapSpec, Network, create_network, network_class, network_names
from mcsr.networks.blocks import UPSAMPLINGS, full_precision, upsample_slices
from mcsr.networks.matching import best_matches, unit
from mcsr.weights import load_weights, save_weights

LEARNED = [name for name in network_names() if network_class(name).uses_reference]
# Dense projections are built for one size; a small one keeps the tests quick.
SMALL = {
    "cd-dpe": {"size": 32, "channels": (32, 32, 32), "prox_blocks": (1, 1, 1)},
    "dcamsr": {"size": 48, "encoder_blocks": (1, 1, 1), "fusion_blocks": (1, 1, 1), "channels": 16},
}


@torch.no_grad()
def _network(name: str, scale: int = 2, seed: int = 0) -> Network:
    """Stirred, as if trained a little: fresh convolutions of zeros would let nothing through and hide everything."""
    torch.manual_seed(seed)
    network = create_network(name, scale=scale, **SMALL.get(name, {})).eval()
    for parameter in network.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    return network


def _slices(height: int, width: int, scale: int = 2, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 1, height, width), torch.rand(batch, 1, scale * height, scale * width)


@pytest.mark.parametrize("name", network_names())
@pytest.mark.parametrize(("height", "width"), [(8, 8), (11, 8), (13, 21)])
@pytest.mark.parametrize("scale", [2, 3])
def test_any_size_from_eight_up(name: str, height: int, width: int, scale: int) -> None:
    network = _network(name, scale)
    if network.native_size is not None:
        width = min(width, network.native_size // scale)
    target, reference = _slices(height, width, scale)
    with torch.no_grad():
        sr = network(target, reference).sr
    assert sr.shape == (1, 1, scale * height, scale * width)
    assert torch.isfinite(sr).all()


@pytest.mark.parametrize("name", network_names())
def test_a_batch_equals_one_by_one(name: str) -> None:
    network = _network(name)
    targets, references = _slices(16, 12, batch=3)
    with torch.no_grad():
        together = network(targets, references).sr
        alone = torch.cat([network(t[None], r[None]).sr for t, r in zip(targets, references, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", network_names())
def test_an_encoded_reference_gives_the_same_bits(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    with torch.no_grad():
        encoded = network.encode_reference(reference)
        plain, captured = network(target, encoded), network(target, encoded, capture=True)
        expected = network(target, reference, capture=True)
    assert torch.equal(plain.sr, expected.sr)
    assert captured.maps.keys() == expected.maps.keys()
    for key, tensor in expected.maps.items():
        assert torch.equal(captured.maps[key], tensor), key


@pytest.mark.parametrize("name", LEARNED)
@torch.no_grad()
def test_weights_written_and_read_again_give_the_same_bits(name: str, tmp_path: Path) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    card = {"architecture": name, "scale": 2}
    for half, expected in ((False, network), (True, copy.deepcopy(network).half().float())):
        save_weights(tmp_path / "some.safetensors", network, card, half=half)
        read = load_weights(tmp_path / "some.safetensors").build()
        assert torch.equal(read(target, reference).sr, expected(target, reference).sr), f"{half=}"


@pytest.mark.parametrize("name", LEARNED)
@torch.no_grad()
def test_a_fixed_seed_gives_identical_output(name: str) -> None:
    network = _network(name)
    targets, references = _slices(12, 8, batch=2)

    def source() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    for sources in (lambda: None, source, lambda: [source(), source()]):
        first, again = (network(targets, references, generator=sources()).sr for _ in range(2))
        assert torch.equal(first, again)
    # Each slice with its own source: what it becomes does not depend on its neighbours in the batch.
    alone = network(targets[1:], references[1:], generator=[source()]).sr
    torch.testing.assert_close(again[1:], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_reach_every_parameter(name: str) -> None:
    """A narrow rectifier may be shut, or an expert not chosen, by chance for one draw, but not for all."""
    silent = _silent_parameters(name, 0)
    for seed in range(1, 6):
        silent = silent and silent & _silent_parameters(name, seed)
    assert silent == set()


def _silent_parameters(name: str, seed: int) -> set[str]:
    target, reference = _slices(16, 12)
    network = _network(name, seed=seed).train()  # after the slices: noise in the network follows this seed
    output = network(target, reference)
    sum(tensor.square().mean() for tensor in (output.sr, *output.aux.values())).backward()
    return {key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}


@pytest.mark.parametrize("name", LEARNED)
def test_the_reference_matters(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    with torch.no_grad():
        assert not torch.equal(network(target, reference).sr, network(target, reference.flip(-1)).sr)


@pytest.mark.parametrize("name", [name for name in LEARNED if network_class(name).upsamples_first])
def test_a_target_already_on_the_fine_grid_is_not_upsampled_again(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    upsampled = upsample_slices(target, 2, network.config.upsampling)
    with torch.no_grad():
        torch.testing.assert_close(network(upsampled, reference).sr, network(target, reference).sr)


@pytest.mark.parametrize("name", LEARNED)
def test_bf16_stays_finite_and_close(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    with torch.no_grad():
        exact = network(target, reference).sr
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(target, reference).sr
    assert (half.float() - exact).abs().max() < 0.05


def test_devices_without_autocast_need_none_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before version 2.5 PyTorch refuses to speak of autocast on "mps"; before 2.3 it cannot be asked."""
    metal = SimpleNamespace(device=torch.device("mps"))
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: device != "mps", raising=False)
    assert isinstance(full_precision(metal), contextlib.nullcontext)
    monkeypatch.delattr(torch.amp, "is_autocast_available")
    assert isinstance(full_precision(metal), contextlib.nullcontext)
    assert isinstance(full_precision(torch.zeros(1)), torch.autocast)


@pytest.mark.parametrize("mode", UPSAMPLINGS)
def test_interpolation_stays_in_full_precision(mode: str) -> None:
    """Networks add to the interpolated target: in half precision it alone would lose a 256th of the intensity."""
    target, _ = _slices(16, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = upsample_slices(target, 2, mode)
    assert torch.equal(half, upsample_slices(target, 2, mode))


@pytest.mark.parametrize("name", network_names())
@torch.no_grad()
def test_without_a_reference_the_target_is_its_own(name: str) -> None:
    network = _network(name)
    target, _ = _slices(16, 12)
    own = upsample_slices(target, 2, getattr(network.config, "upsampling", "sinc"))
    assert torch.equal(network(target, None).sr, network(target, own).sr)


@pytest.mark.parametrize("name", network_names())
@torch.no_grad()
def test_a_capture_changes_no_bit_and_every_map_is_explained(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    captured, plain = network(target, reference, capture=True), network(target, reference)
    assert torch.equal(captured.sr, plain.sr)
    assert plain.maps == {}
    specs = network.map_specs()
    assert set(captured.maps) == {key for key, spec in specs.items() if not spec.of_point}
    points = network.point_maps(captured.maps, 3, 5)
    assert set(points) == {key for key, spec in specs.items() if spec.of_point}
    for key, tensor in {**captured.maps, **points}.items():
        _assert_fits(tensor, specs[key], (32, 24), key)


def _assert_fits(tensor: torch.Tensor, spec: MapSpec, size: tuple[int, int], key: str) -> None:
    assert torch.isfinite(tensor.float()).all(), key
    low, high = spec.limits
    assert low is None or tensor.min() >= low - 1e-5, key
    assert high is None or tensor.max() <= high + 1e-5, key
    if spec.kind == "table":
        return
    channels = {"image": 1, "labels": 1, "displacement": 2}.get(spec.kind, tensor.shape[1])
    assert tensor.ndim == 4, key
    assert tensor.shape[:2] == (1, channels), key
    for cells, pixels in zip(tensor.shape[-2:], size, strict=True):
        assert cells * spec.cell >= pixels, f"{key} does not cover the image"


def test_best_matches_are_those_of_the_full_matrix_ties_included() -> None:
    torch.manual_seed(0)
    keys = unit(torch.randn(2, 50, 8))
    keys[:, 40] = keys[:, 7]  # a tie: the earlier one counts
    queries = unit(torch.cat([torch.randn(2, 30, 8), keys[:, 40:41]], dim=1))
    full = queries @ keys.transpose(1, 2)
    for chunk in (7, 50, 1000):
        index, score = best_matches(queries, keys, chunk)
        assert torch.equal(index, full.argmax(-1))
        torch.testing.assert_close(score, full.amax(-1))
    assert index[0, -1] == 7


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match=r"Unknown model 'dcamr-s'; did you mean dcamsr-s"):
        create_network("dcamr-s")
    with pytest.raises(InputError, match="has no setting widht"):
        create_network("sinc", widht=3)


def test_baselines_interpolate_about_the_pixel_centres() -> None:
    """A ramp keeps its place: no half-pixel shift in any of them."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    for name in ("linear", "cubic"):
        sr = create_network(name, scale=4)(ramp, ramp).sr[0, 0, 32]
        expected = (torch.arange(64) - 1.5) / 4
        torch.testing.assert_close(sr[16:48], expected[16:48], atol=2e-3, rtol=0)
    wave = torch.sin(2 * torch.pi * 3 * (torch.arange(16) + 0.5) / 16).expand(1, 1, 16, 16)
    sr = create_network("sinc", scale=4)(wave, wave).sr[0, 0, 10]
    torch.testing.assert_close(sr, torch.sin(2 * torch.pi * 3 * (torch.arange(64) + 0.5) / 64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LEARNED)
def test_every_network_names_its_paper_as_it_is_cited(name: str) -> None:
    cited = " ".join((Path(__file__).resolve().parents[2] / "CITATION.cff").read_text(encoding="utf-8").split())
    about = " ".join((network_class(name).__doc__ or "").split())
    titles = re.findall(r'"([^"]{30,})"', about)
    assert titles, "the class says what `mcsr models show` prints of it"
    assert titles[0].rstrip(".") in cited


def test_another_network_is_another_file(tmp_path: Path) -> None:
    """A copy of the package with one file more knows one network more."""
    package = Path(mcsr.__file__).parent
    shutil.copytree(package, tmp_path / "mcsr", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mcsr" / "networks" / "sixth.py").write_text(
        "from ._registry import register\n"
        "from .baselines import BaselineConfig, Interpolation\n"
        "register('sixth', BaselineConfig, 'A sixth.')(Interpolation)\n"
    )
    asked = (
        "from mcsr.networks import network_names, network_summary; print(*network_names()); network_summary('sixth')"
    )
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted([*network_names(), "sixth"])
