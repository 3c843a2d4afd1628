"""Weights files: whole, ours, and for what was asked; or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mcsr import model_folders
from mcsr import weights as weights_module
from mcsr.errors import OutputError, WeightsError
from mcsr.model_folders import MANIFEST, METADATA_KEY, drop_in_folder
from mcsr.networks import Network, create_network
from mcsr.weights import (
    add_model,
    added_models,
    find_weights,
    load_weights,
    save_weights,
    shipped_models,
    verify_models,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

CARD = {"architecture": "dcamsr-s", "scale": 2, "degradation": "kspace", "plane": "axial"}


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return create_network("dcamsr-s", scale=2).eval()


@pytest.fixture
def file(tmp_path: Path, network: Network) -> Path:
    path = tmp_path / "some.safetensors"
    save_weights(path, network, CARD)
    return path


def test_round_trip_in_half_precision(file: Path, network: Network) -> None:
    weights = load_weights(file)
    assert weights.metadata["architecture"] == "dcamsr-s"
    built = weights.build()
    assert built.config == network.config
    assert not built.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(built.state_dict()[name], tensor.half().float(), atol=0, rtol=0)
    assert built.trans_lv1[0].epa_block.F is built.trans_lv1[0].epa_block.E
    assert file.stat().st_size < 2.2 * sum(p.numel() for p in network.parameters()) + 40_000
    assert [p.name for p in file.parent.iterdir()] == [file.name], "a temporary file was left"


def test_every_flipped_byte_of_the_tensors_and_the_card_is_noticed(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    header = int.from_bytes(content[:8], "little") + 8
    scale_at = content.index(b'\\"scale\\": 2') + len(b'\\"scale\\": ')
    for position in (4, 20, scale_at, header + 10, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 0x04
        path = tmp_path / "damaged.safetensors"
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            load_weights(path)


@pytest.mark.parametrize("length", [0, 7, 200, -100])
def test_a_truncated_file_is_refused(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(WeightsError, match="not a whole MultiContrastSR weights file"):
        load_weights(file)


def test_foreign_files_are_refused_and_nothing_in_them_runs(tmp_path: Path) -> None:
    pickle = tmp_path / "model.pth"
    torch.save({"a": torch.ones(2)}, pickle)
    plain = tmp_path / "plain.safetensors"
    save_file({"a": torch.ones(2)}, plain)
    for path in (pickle, plain):
        with pytest.raises(WeightsError, match="not a whole MultiContrastSR weights file"):
            load_weights(path)
    with pytest.raises(WeightsError, match="There is no weights file"):
        load_weights(tmp_path / "absent.safetensors")


def test_a_swapped_tensor_is_noticed(file: Path) -> None:
    tensors = load_file(file)
    tensors["enc.conv_L1.weight"] = tensors["enc.conv_L1.weight"] + 1
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(WeightsError, match="changed after it was written"):
        load_weights(file)


def test_weights_for_another_model_or_scale_say_what_to_do(file: Path) -> None:
    assert find_weights("dcamsr-s", 2, file).path == file
    with pytest.raises(WeightsError, match="is for dcamsr-s x2, not dcamsr-s x4; use --model dcamsr-s --scale 2"):
        find_weights("dcamsr-s", 4, file)
    with pytest.raises(WeightsError, match="not dcamsr x2"):
        find_weights("dcamsr", 2, file)


def test_an_unknown_architecture_or_format_asks_for_an_update(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "new.safetensors"
    save_weights(path, network, {**CARD, "architecture": "dcamsr-xxl"})
    with pytest.raises(WeightsError, match="'dcamsr-xxl', which this version does not know; update"):
        load_weights(path)
    save_weights(path, network, {**CARD, "format_version": 99})
    with pytest.raises(WeightsError, match="has format 99"):
        load_weights(path)


def test_tensors_that_do_not_fit_their_architecture(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "odd.safetensors"
    save_weights(path, network, {**CARD, "architecture": "dcamsr"})
    tensors = load_file(path)
    tensors.pop("decoder.conv_out.weight")
    _rewrite(path, tensors)
    with pytest.raises(WeightsError, match="does not fit the architecture 'dcamsr'"):
        load_weights(path).build()


def test_the_manifest_is_obeyed(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "MODEL_FOLDERS", (tmp_path,))
    with pytest.raises(WeightsError, match=r"No weights for dcamsr-s x2 are installed; give a file with --weights"):
        find_weights("dcamsr-s", 2)
    entry = {"id": "a", "architecture": "dcamsr-s", "scale": 2, "file": file.name, "sha256": load_weights(file).sha256}
    (tmp_path / MANIFEST).write_text(json.dumps({"models": [entry]}))
    assert find_weights("dcamsr-s", 2).path == file
    with pytest.raises(WeightsError, match=r"No weights for dcamsr-s x3 are installed; there are for x2"):
        find_weights("dcamsr-s", 3)
    (tmp_path / MANIFEST).write_text(json.dumps({"models": [{**entry, "sha256": "0" * 64}]}))
    with pytest.raises(WeightsError, match="not the file that was released"):
        find_weights("dcamsr-s", 2)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(WeightsError, match="damaged; reinstall"):
        shipped_models()


@pytest.mark.parametrize(
    "name", ["../w.safetensors", "/etc/w.safetensors", "a\\b.safetensors", ".safetensors", "w.pth"]
)
def test_a_manifest_that_leads_out_of_its_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "MODEL_FOLDERS", (tmp_path,))
    entry = {"id": "a", "architecture": "dcamsr-s", "scale": 2, "file": name, "sha256": "0" * 64}
    (tmp_path / MANIFEST).write_text(json.dumps({"models": [entry]}))
    with pytest.raises(WeightsError, match="damaged; reinstall"):
        shipped_models()


def test_imported_weights_may_keep_float32(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "full.safetensors"
    save_weights(path, network, CARD, half=False)
    for name, tensor in load_weights(path).build().state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


@pytest.fixture
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "MODEL_FOLDERS", (tmp_path / "none",))


@pytest.mark.usefixtures("nothing_shipped")
def test_a_file_for_a_network_of_a_later_version_is_left_out_and_told_of(network: Network, models_folder: Path) -> None:
    models_folder.mkdir(exist_ok=True)
    save_weights(models_folder / "future.safetensors", network, {**CARD, "architecture": "newer-net"})
    assert added_models() == []
    (told,) = verify_models()
    assert "'newer-net', which this version does not know" in told.problem


@pytest.mark.usefixtures("nothing_shipped")
def test_added_files_are_found_after_the_shipped_ones(
    file: Path, network: Network, models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert added_models() == []
    assert add_model(file) == models_folder / "some.safetensors"
    assert [p.name for p in models_folder.iterdir()] == ["some.safetensors"], "a temporary file was left"
    assert add_model(file) == models_folder / "some.safetensors", "the same file again is no mistake"
    assert [(e["id"], e["architecture"], e["scale"]) for e in added_models()] == [("some", "dcamsr-s", 2)]
    assert find_weights("dcamsr-s", 2).path == models_folder / "some.safetensors"
    with pytest.raises(WeightsError, match="there are for x2"):
        find_weights("dcamsr-s", 4)

    second = tmp_path / "second.safetensors"
    save_weights(second, network, {**CARD, "note": "another"})
    add_model(second)
    with pytest.raises(WeightsError, match=r"2 files in .* choose one with --weights: second\.safetensors, some\.saf"):
        find_weights("dcamsr-s", 2)

    shipped = tmp_path / "shipped"
    shipped.mkdir()
    save_weights(shipped / "s.safetensors", network, CARD)
    entry = {"id": "s", "architecture": "dcamsr-s", "scale": 2, "file": "s.safetensors"}
    entry["sha256"] = load_weights(shipped / "s.safetensors").sha256
    (shipped / MANIFEST).write_text(json.dumps({"models": [entry]}))
    monkeypatch.setattr(weights_module, "MODEL_FOLDERS", (shipped,))
    assert find_weights("dcamsr-s", 2).path == shipped / "s.safetensors"


def test_nothing_is_added_that_is_damaged_linked_oddly_named_or_in_the_way(
    file: Path, network: Network, models_folder: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    odd = tmp_path / "my weights;.safetensors"
    odd.write_bytes(file.read_bytes())
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:-3])
    misfit = tmp_path / "misfit.safetensors"
    save_weights(misfit, network, {**CARD, "architecture": "dcamsr"})
    tensors = load_file(misfit)
    tensors.pop("decoder.conv_out.weight")
    _rewrite(misfit, tensors)
    for path, sentence in (
        (link, "is a link; give the file that it points to"),
        (odd, "The name .* cannot be taken over"),
        (damaged, "not a whole MultiContrastSR weights file"),
        (misfit, "does not fit the architecture"),
        (tmp_path / "absent.safetensors", "There is no weights file"),
    ):
        with pytest.raises(WeightsError, match=sentence):
            add_model(path)
    assert not models_folder.exists(), "the folder is made for a good file only"

    add_model(file)
    before = (models_folder / file.name).read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    save_weights(other / file.name, network, {**CARD, "note": "another"})
    with pytest.raises(WeightsError, match=r"There is another some\.safetensors in"):
        add_model(other / file.name)
    assert (models_folder / file.name).read_bytes() == before
    (models_folder / file.name).unlink()
    (models_folder / file.name).symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(WeightsError, match="There is another"):
        add_model(file)
    assert not (tmp_path / "elsewhere.safetensors").exists(), "written through a link"


def test_a_full_disk_leaves_no_half_copy(file: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_module.shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left on device"):
        add_model(file)
    assert list(models_folder.iterdir()) == []


def test_verify_hashes_everything_again(file: Path, models_folder: Path) -> None:
    shipped = [(entry["id"], "shipped", "") for entry in shipped_models()]
    assert len(shipped) >= 2
    assert verify_models() == shipped
    added = add_model(file)
    assert verify_models() == [*shipped, ("some", "added", "")]
    content = bytearray(added.read_bytes())
    content[-1] ^= 1
    added.write_bytes(content)
    (models_folder / "link.safetensors").symlink_to(file)
    (models_folder / "junk.safetensors").write_bytes(b"no")
    problems = {found.name: found.problem for found in verify_models() if found.origin == "added"}
    assert "was changed after it was written" in problems["some"]
    assert "is a link" in problems["link"]
    assert "not a whole" in problems["junk"]
    assert [entry["id"] for entry in added_models()] == ["some"], "links and junk are not offered"


def test_the_second_stage_is_preferred(models_folder: Path, tmp_path: Path) -> None:
    for stage in (1, 2):
        path = tmp_path / f"stage{stage}.safetensors"
        save_weights(path, create_network("dcamsr-s", scale=3), {**CARD, "scale": 3, "stage": stage})
        add_model(path)
    assert find_weights("dcamsr-s", 3).metadata["stage"] == 2


def test_the_drop_in_folder_is_the_users_own_or_the_one_that_is_named(
    tmp_path: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drop_in_folder() == models_folder
    monkeypatch.delenv("MCSR_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    expected = {"linux": tmp_path / "data", "win32": tmp_path / "local"}
    for platform, data in expected.items():
        monkeypatch.setattr(model_folders.sys, "platform", platform)
        assert drop_in_folder() == data / "MultiContrastSR" / "models"


def _rewrite(path: Path, tensors: dict[str, Any]) -> None:
    """Write other tensors with a card whose checksum is right: only `build` can notice."""
    with safe_open(path, framework="pt") as opened:
        card = json.loads(opened.metadata()[METADATA_KEY])
    card.pop("checksum")
    card["checksum"] = weights_module._checksum(card, tensors)
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(card)})
