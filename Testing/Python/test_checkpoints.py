"""Checkpoints as the official repositories write them become weights of ours; hostile and wrong ones one sentence.

No trained checkpoint is public, so they are made here: the specs' golden filling under the published keys, in the
published containers. What comes out after an import must be the golden output.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_cd_dpe as cd_dpe_golden
import test_dcamsr as dcamsr_golden
import test_diffmsr as diffmsr_golden
import torch
from golden import fill, five_numbers, pseudo_random
from mcsr import checkpoints, checkpoints_reading
from mcsr.checkpoints import import_checkpoint
from mcsr.checkpoints_reading import read_checkpoint
from mcsr.errors import InputError, WeightsError
from mcsr.networks import Network, cd_dpe, create_network, diffmsr
from mcsr.networks.diffmsr_config import DiffMSRConfig
from mcsr.weights import load_weights
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Any]


def _dcamsr(size: int = 64) -> State:
    network = create_network("dcamsr", size=size)
    fill(network, [k for k in network.state_dict() if ".epa_block.F." not in k], dcamsr_golden._golden_value)
    return dict(network.state_dict())


def _cd_dpe(size: int = 64) -> State:
    network = create_network("cd-dpe", size=size)
    table, aliases = cd_dpe.official_key_table(network), cd_dpe.official_aliases()
    keys = [key for key in table if key not in (*aliases, "fusion.mean", "fusion.std")]
    fill(network, keys, cd_dpe_golden._golden_value)
    state = {key: tensor for key, tensor in network.state_dict().items() if key in table}
    return state | {alias: state[key] for alias, key in aliases.items()}


def _diffmsr(stage: int = 2, scale: int = 4) -> State:
    config = DiffMSRConfig(scale=scale, token_layout="raw")
    network = diffmsr.DiffMSRStage1(config) if stage == 1 else diffmsr.DiffMSR(config)
    fill(network, diffmsr_golden._filled_keys(network), diffmsr_golden._golden_value)
    state: State = dict(network.state_dict())
    for key, shape in diffmsr.official_key_table(network).items():
        original = key.replace("diffusion.model.", "denoise.").replace("diffusion.condition.", "condition.")
        dtype = torch.int64 if key.endswith("relative_position_index") else torch.float32
        state.setdefault(key, state[original].clone() if original in state else torch.zeros(shape, dtype=dtype))
    return state


def _lightning(state: State) -> State:
    inner = OrderedDict((f"network.{key}", tensor) for key, tensor in state.items())
    inner["NMSE.quantity"] = torch.tensor(0.0)  # Lightning keeps the sums of metrics there too
    return {"epoch": 49, "global_step": 9, "state_dict": inner, "optimizer_states": [{"state": {}}], "lr": [2e-4]}


def _basicsr(state: State) -> State:
    return {"params": {key: tensor * 0 for key, tensor in state.items()}, "params_ema": state}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "official.pth"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "ours.safetensors"


def _imported(content: Any, file: Path, out: Path, **options: Any) -> tuple[Network, checkpoints.ImportReport]:
    torch.save(content, file)
    report = import_checkpoint(file, out, **options)
    return load_weights(out).build(), report


@pytest.mark.parametrize(
    ("size", "scale", "golden"),
    [
        (64, 4, dcamsr_golden.GOLDEN_64),
        (64, 2, dcamsr_golden.GOLDEN_64_X2),
        pytest.param(256, 4, dcamsr_golden.GOLDEN_256, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_dcamsr_from_lightning_gives_the_golden_output(
    size: int, scale: int, golden: dict[str, Any], file: Path, out: Path
) -> None:
    network, report = _imported(_lightning(_dcamsr(size)), file, out, scale=scale)
    _, target, reference = dcamsr_golden._golden_network(size, scale)
    np.testing.assert_allclose(five_numbers(network(target, reference).sr), golden["sr"], rtol=0, atol=2e-6)
    assert report.architecture == "dcamsr"
    assert report.notes == ()
    card = load_weights(out).metadata
    assert card["config"] == {**card["config"], "size": size, "scale": scale, "upsampling": "bilinear"}
    assert card["config"]["legacy_sa_layout"] is True
    assert (card["degradation"], card["sampling"]) == ("kspace-official", "corner")
    assert card["intensity_convention"] == "zscore-lr"
    assert card["canvas"] == {"kind": "native", "size": size, "multiple": 8}
    assert card["imported_from"]["container"] == "state_dict"
    assert "not ours" in card["licence"]


@pytest.mark.parametrize(
    ("size", "golden"),
    [(64, cd_dpe_golden.GOLDEN_64), pytest.param(240, cd_dpe_golden.GOLDEN_240, marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_cd_dpe_gives_the_golden_output(size: int, golden: dict[str, Any], file: Path, out: Path) -> None:
    network, report = _imported(_cd_dpe(size), file, out, scale=4)
    eta = network.encoder["predict_ista"].eta
    np.testing.assert_allclose(eta, cd_dpe.SEED_3407_ETA, rtol=1e-6)
    np.testing.assert_array_equal(network.encoder["predict_ista"].threshold, np.float32(0.01))
    assert any("published training's seed" in note for note in report.notes)
    eta.fill_(0.24)  # what the golden values are for
    r, c = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)[None]
    target = 0.5 + 0.5 * torch.sin(0.11 * r + 0.07 * c) * torch.cos(0.05 * r - 0.13 * c)
    reference = 0.5 + 0.5 * torch.cos(0.09 * r - 0.04 * c)
    sr = network(target.float()[None, None], reference.float()[None, None]).sr
    np.testing.assert_allclose(cd_dpe_golden._five(sr), golden["sr"], rtol=0, atol=2e-6)
    card = load_weights(out).metadata
    assert (card["degradation"], card["sampling"]) == ("cddpe-official", "centred")
    assert card["intensity_convention"] == "minmax-slice"
    assert card["canvas"]["size"] == size


@pytest.mark.parametrize("stage", [1, 2])
@torch.no_grad()
def test_diffmsr_gives_the_golden_output(stage: int, file: Path, out: Path) -> None:
    network, report = _imported(_basicsr(_diffmsr(stage)), file, out)
    case, golden = next((c, g) for c, g in diffmsr_golden.GOLDEN.items() if (c.stage, c.layout) == (stage, "raw"))
    target, reference, truth = diffmsr_golden._golden_slices(case)
    if stage == 2:
        noise = torch.from_numpy(math.sqrt(12) * pseudo_random(256, 1000)).float()[None]
        output = network.forward_complex(target, reference, noise=noise)
    else:
        output = network.forward_complex(target, reference, truth)
    np.testing.assert_allclose(five_numbers(output.aux["complex"]), golden["sr"], rtol=0, atol=2e-5)
    card = load_weights(out).metadata
    assert card["stage"] == stage
    assert (card["config"]["token_layout"], card["config"]["input_convention"]) == ("raw", "official")
    assert card["config"]["steps"] == 4
    assert (card["degradation"], card["canvas"]["size"]) == ("diffmsr-official", 256)
    assert card["imported_from"]["container"] == "params_ema"
    assert report.card["scale"] == 4


def test_scale_steps_and_layers_of_diffmsr_are_read_off_its_tensors(file: Path, out: Path) -> None:
    config = DiffMSRConfig(scale=2, token_layout="raw", n_res=3, steps=8)
    network = diffmsr.DiffMSR(config)
    state = {f"module.{key}": tensor for key, tensor in network.state_dict().items()}
    for key, shape in diffmsr.official_key_table(network).items():
        if "relative_position_index" in key:
            state[f"module.{key}"] = torch.zeros(shape, dtype=torch.int64)
    built, _ = _imported({"params": state}, file, out)
    assert (built.config.scale, built.config.n_res, built.config.steps) == (2, 3, 8)
    with pytest.raises(WeightsError, match=r"is of DiffMSR x2, not x4; leave --scale out"):
        import_checkpoint(file, out, scale=4)


def test_values_stay_in_float32(file: Path, out: Path) -> None:
    state = _dcamsr()
    network, _ = _imported(_lightning(state), file, out, scale=2)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def test_safetensors_and_bare_state_dicts_are_read_too(tmp_path: Path, out: Path) -> None:
    state = _dcamsr()
    plain = tmp_path / "plain.safetensors"
    save_file({key: tensor.clone() for key, tensor in state.items()}, plain)
    assert import_checkpoint(plain, out, scale=3).card["scale"] == 3
    legacy = tmp_path / "old.ckpt"
    torch.save(
        {f"network.{key}": tensor for key, tensor in state.items()}, legacy, _use_new_zipfile_serialization=False
    )
    assert import_checkpoint(legacy, out, scale=2, architecture="dcamsr").architecture == "dcamsr"


def test_projections_that_differ_take_the_second_name(file: Path, out: Path) -> None:
    state = _dcamsr()
    state["trans_lv2.0.epa_block.F.weight"] = state["trans_lv2.0.epa_block.F.weight"] + 1
    network, report = _imported(_lightning(state), file, out, scale=2)
    taken = network.state_dict()["trans_lv2.0.epa_block.E.weight"]
    assert torch.equal(taken, state["trans_lv2.0.epa_block.F.weight"])
    assert "trans_lv2.0.epa_block.E.weight stored under two names" in report.notes[0]
    for absent in ("E", "F"):
        state = {key: tensor for key, tensor in _dcamsr().items() if f".epa_block.{absent}." not in key}
        assert _imported(_lightning(state), file, out, scale=2)[1].notes == ()


def test_adjoints_that_differ_take_the_alias_and_may_be_absent(file: Path, out: Path) -> None:
    state = _cd_dpe()
    alias, key = next(iter(cd_dpe.official_aliases().items()))
    state[alias] = state[alias] + 1
    network, report = _imported(state, file, out, scale=2)
    assert torch.equal(network.state_dict()[key], state[alias])
    assert key in report.notes[0]
    without = {key: tensor for key, tensor in _cd_dpe().items() if key not in cd_dpe.official_aliases()}
    assert len(_imported(without, file, out, scale=2)[1].notes) == 1


def test_copies_of_the_diffusion_must_agree_and_one_is_enough(file: Path, out: Path) -> None:
    state = _diffmsr()
    one = {key: tensor for key, tensor in state.items() if not key.startswith(("denoise.", "condition."))}
    network, _ = _imported({"params": one}, file, out)
    assert torch.equal(network.state_dict()["denoise.resmlp.0.weight"], state["denoise.resmlp.0.weight"])
    state["diffusion.model.resmlp.0.bias"] = state["diffusion.model.resmlp.0.bias"] + 1
    torch.save({"params": state}, file)
    with pytest.raises(WeightsError, match=r"stores denoise\.resmlp\.0\.bias twice with different values"):
        import_checkpoint(file, out)


def _without(state: State, *keys: str) -> State:
    return {key: tensor for key, tensor in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: _without(s, "enc.conv_L1.bias"), r"table of 254 tensors: it lacks enc\.conv_L1\.bias\.$"),
        (lambda s: _without(s, *[k for k in s if k.startswith("decoder.")]), r"it lacks decoder\..* and \d+ more\.$"),
        (lambda s: s | {"enc.extra": torch.ones(2)}, r"it has beyond it enc\.extra\.$"),
        (
            lambda s: s | {"enc.conv_L1.bias": torch.ones(3)},
            r"of another shape are enc\.conv_L1\.bias \(3, not 64\)\.$",
        ),
        (lambda s: s | {"enc.conv_L1.bias": "text"}, r"enc\.conv_L1\.bias \(str, not 64\)"),
        (
            lambda s: s | {"enc.conv_L1.bias": torch.full((64,), math.nan)},
            r"NaN or infinite values in enc\.conv_L1\.bias",
        ),
        (lambda s: s | {"enc.conv_L1.bias": torch.ones(64, dtype=torch.int32)}, r"as torch\.int32 and not as plain"),
        (lambda s: s | {"trans_lv1.0.epa_block.E.weight": torch.ones(64, 4097)}, r"not made for square slices"),
        (lambda s: {"conv.weight": torch.ones(3)}, r"checkpoint of none of cd-dpe, dcamsr, diffmsr .*'conv\.weight'"),
        (lambda s: {"epoch": 3}, r"holds no state dict"),
        (lambda s: [1, 2], r"holds no state dict"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, sentence: str, file: Path, out: Path) -> None:
    torch.save(change(_dcamsr()), file)
    with pytest.raises(WeightsError, match=sentence):
        import_checkpoint(file, out, scale=2)
    assert not out.exists()


def test_options_that_cannot_be(file: Path, out: Path, tmp_path: Path) -> None:
    torch.save(_lightning(_dcamsr()), file)
    for options, error, sentence in (
        ({}, InputError, r"DCAMSR has the same tensors for all; give --scale"),
        ({"scale": 5}, InputError, r"Scale 5 is not offered"),
        ({"scale": 2, "architecture": "edsr"}, InputError, r"Unknown architecture 'edsr'"),
        ({"scale": 2, "architecture": "cd-dpe"}, WeightsError, r"is a checkpoint of dcamsr, not of cd-dpe"),
    ):
        with pytest.raises(error, match=sentence):
            import_checkpoint(file, out, **options)
    with pytest.raises(InputError, match=r"no \.safetensors file in a folder that exists"):
        import_checkpoint(file, tmp_path / "nowhere" / "x.safetensors", scale=2)
    with pytest.raises(WeightsError, match=r"There is no checkpoint"):
        import_checkpoint(tmp_path / "absent.pth", out)
    torch.save(_cd_dpe(), file)
    with pytest.raises(InputError, match=r"CD-DPE has the same tensors for all; give --scale"):
        import_checkpoint(file, out)


class Hostile:
    """Unpickled as it asks to be, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_hostile_checkpoint_runs(zipped: bool, file: Path, out: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({**_dcamsr(), "x": Hostile(trap)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"holds more than tensors and settings, which is not read"):
        import_checkpoint(file, out, scale=2)
    assert not trap.exists()
    assert not out.exists()
    file.write_bytes(pickle.dumps(Hostile(trap)))
    with pytest.raises(WeightsError, match=r"not read because it could run code"):
        import_checkpoint(file, out, scale=2)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Hostile(trap)))
    assert trap.exists(), "the trap must work, or the test shows nothing"


def test_a_class_of_lightning_that_is_no_data_does_not_run_either(file: Path, out: Path, tmp_path: Path) -> None:
    """Stand-ins take Lightning's names only, and only as empty classes: what hides behind the name is not found."""
    trap = tmp_path / "trap"
    module = types.ModuleType("pytorch_lightning.evil")
    module.make = lambda folder: os.mkdir(folder)  # type: ignore[attr-defined]
    module.make.__module__, module.make.__qualname__ = "pytorch_lightning.evil", "make"

    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return module.make, (str(trap),)

    sys.modules["pytorch_lightning"], sys.modules["pytorch_lightning.evil"] = types.ModuleType("p"), module
    try:
        torch.save({**_lightning(_dcamsr()), "callbacks": Calls()}, file)
        import_checkpoint(file, out, scale=2)
    finally:
        del sys.modules["pytorch_lightning"], sys.modules["pytorch_lightning.evil"]
    assert not trap.exists()


def test_lightnings_own_classes_beside_the_weights_do_not_hinder(file: Path, out: Path) -> None:
    """Lightning 0.9, which the authors used, keys callbacks by class and keeps the settings as they came."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})  # type: ignore[attr-defined]
    parents = ["pytorch_lightning", "pytorch_lightning.callbacks"]
    sys.modules.update({parent: types.ModuleType(parent) for parent in parents} | {name: module})
    try:
        content = _lightning(_dcamsr()) | {"hyper_parameters": argparse.Namespace(lr=2e-4)}
        torch.save(content | {"callbacks": {module.ModelCheckpoint: {"best_model_score": torch.tensor(1.0)}}}, file)
    finally:
        for parent in [*parents, name]:
            del sys.modules[parent]
    assert import_checkpoint(file, out, scale=2).architecture == "dcamsr"


def test_the_first_format_of_pytorch_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader runs code in versions before 2.6, weights_only or not."""
    with tarfile.open(file, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("PyTorch was asked to read it"))
    with pytest.raises(WeightsError, match=r"not read because it could run code"):
        read_checkpoint(file)


@pytest.mark.parametrize("length", [0, 10, 1000, -100])
def test_damaged_files_are_one_sentence(length: int, file: Path, out: Path) -> None:
    torch.save(_lightning(_dcamsr()), file)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(WeightsError, match=r"is damaged, or holds more than"):
        import_checkpoint(file, out, scale=2)


def test_a_file_that_unpacks_to_more_than_any_checkpoint_is_not_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2_000_000))
    assert file.stat().st_size < 100_000
    monkeypatch.setattr(checkpoints_reading, "LARGEST_FILE", 1_000_000)
    with pytest.raises(WeightsError, match=r"far more than such a checkpoint"):
        read_checkpoint(file)


def test_a_tensor_that_claims_a_huge_size_costs_nothing(file: Path, out: Path) -> None:
    state: dict[str, Tensor] = _cd_dpe()
    state["fusion.fre_prompt"] = torch.zeros(1).expand(6, 200_000, 100_001)
    torch.save(state, file)
    with pytest.raises(WeightsError, match=r"not made for square slices of a usual size \(found 200000\)"):
        import_checkpoint(file, out, scale=2)
