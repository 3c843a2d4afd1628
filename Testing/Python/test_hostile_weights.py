"""Weights files that are damaged or made to harm: each is refused with one sentence, and costs little memory."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import memory_grows_by_less_than, one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from mcsr import weights as weights_module
from mcsr.errors import WeightsError
from mcsr.model_folders import MANIFEST, METADATA_KEY
from mcsr.networks import create_network
from mcsr.weights import add_model, added_models, find_weights, load_weights, save_weights, shipped_models
from mcsr.weights_card import read_card
from safetensors.torch import load_file, save_file

CARD = {"architecture": "daasr-s", "scale": 2, "degradation": "kspace", "plane": "axial"}
ENTRY = {"id": "a", "architecture": "daasr-s", "scale": 2, "file": "a.safetensors", "sha256": "0" * 64}
FEW = settings(max_examples=60, derandomize=True, database=None, deadline=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small weights: 18 kB, of which 4 kB header."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, create_network("daasr-s", scale=2, channels=8, groups=1, extractor_blocks=1), CARD)
    return path


@pytest.fixture(scope="module")
def spoilt(whole: Path) -> Path:
    return whole.with_name("spoilt.safetensors")


@pytest.fixture
def tensors(whole: Path) -> dict[str, torch.Tensor]:
    return load_file(whole)


@pytest.fixture
def card(whole: Path) -> dict[str, Any]:
    with whole.open("rb") as file:
        return read_card(file)


def write(path: Path, tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> Path:
    """A file whose checksum is right: only what it says can be wrong."""
    card = {key: value for key, value in card.items() if key != "checksum"}
    card["checksum"] = weights_module._checksum(card, tensors)
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(card)})
    return path


def refusal(path: Path, *, build: bool = False) -> str:
    """The sentence with which a file is refused."""
    use = load_weights(path).build if build else lambda: load_weights(path)
    with pytest.raises(WeightsError) as error:
        use()
    assert one_sentence(error, path.name)
    return str(error.value)


@FEW
@given(place=st.floats(0, 1, exclude_max=True), in_header=st.booleans(), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(whole: Path, spoilt: Path, place: float, in_header: bool, bit: int) -> None:
    content = bytearray(whole.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    position = int(place * end) if in_header else end + int(place * (len(content) - end))
    content[position] ^= 1 << bit
    spoilt.write_bytes(content)
    refusal(spoilt)
    with pytest.raises(WeightsError, match=r"not the file that was released \(wrong SHA-256\); reinstall"):
        load_weights(spoilt, expected_sha256=load_weights(whole).sha256)


@FEW
@given(place=st.floats(0, 1, exclude_max=True))
def test_no_truncated_file_passes(whole: Path, spoilt: Path, place: float) -> None:
    content = whole.read_bytes()
    spoilt.write_bytes(content[: int(place * len(content))])
    assert "not a whole MultiContrastSR weights file" in refusal(spoilt)


@FEW
@given(content=st.binary(max_size=200), length=st.integers(0, 2**64 - 1))
def test_noise_is_refused(spoilt: Path, content: bytes, length: int) -> None:
    for noise in (content, struct.pack("<Q", length) + content, struct.pack("<Q", len(content)) + content):
        spoilt.write_bytes(noise)
        assert "not a whole" in refusal(spoilt)


def _container(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _one(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return {"__metadata__": {METADATA_KEY: json.dumps({"format_version": 1, **CARD})}, "a": tensor, **more}


SECOND = {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}
CONTAINERS = {
    "a header of 2^63 bytes": _container(_one(), bytes(8), 2**63),
    "a header of 2^64 - 1 bytes": _container(_one(), bytes(8), 2**64 - 1),
    "a header of 20 MB": _container(b" " * (20 << 20)),
    "no header": _container(b""),
    "deep json": _container(b"[" * 100_000),
    "deep metadata": _container({"__metadata__": {METADATA_KEY: "[" * 100_000}}),
    "deep card": _container({"__metadata__": {METADATA_KEY: '{"a":' * 900 + "1" + "}" * 900}}),
    "a card that is a list": _container({"__metadata__": {METADATA_KEY: "[1]"}}),
    "a card that is a text": _container({"__metadata__": {METADATA_KEY: '"a"'}}),
    "metadata that is a text": _container({"__metadata__": "mcsr"}),
    "metadata of numbers": _container({"__metadata__": {METADATA_KEY: 3}}),
    "offsets beyond the end": _container(_one(offsets=(0, 2**40)), bytes(8)),
    "offsets that go back": _container(_one(offsets=(8, 0)), bytes(8)),
    "negative offsets": _container(_one(offsets=(-8, 0)), bytes(8)),
    "tensors that overlap": _container(_one(b=SECOND), bytes(12)),
    "bytes that belong to nothing": _container(_one(), bytes(80)),
    "a shape that overflows": _container(_one(shape=(2**62, 2**62)), bytes(8)),
    "a negative shape": _container(_one(shape=(-2,)), bytes(8)),
    "a shape that does not fit": _container(_one(shape=(3,)), bytes(8)),
    "an unknown type": _container(_one("F99"), bytes(8)),
    "a type that is never stored": _container(_one("BF16", (4,)), bytes(8)),
    "a type of half a byte": _container(_one("F4", (16,)), bytes(8)),
    "the same name twice": _container(b'{"a":1,"a":2}'),
}


@pytest.mark.parametrize("content", CONTAINERS.values(), ids=CONTAINERS)
def test_containers_that_lie_are_refused(content: bytes, spoilt: Path, models_folder: Path) -> None:
    spoilt.write_bytes(content)
    models_folder.mkdir()
    (models_folder / "junk.safetensors").write_bytes(content)
    with memory_grows_by_less_than(300):
        refusal(spoilt)
        assert added_models() == [], "junk is not offered, and does not hinder the rest"


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": ["daasr-s"]},
        {"architecture": "a\nb"},
        {"architecture": "x" * 1000},
        {"scale": "2"},
        {"scale": 2.0},
        {"scale": True},
        {"scale": math.inf},
        {"scale": 5},
        {"config": None},
        {"config": ["scale"]},
        {"format_version": "1"},
        {"format_version": 10**9},
        {"degradation": ["kspace"]},
        {"plane": 3},
        {"plane": ["axial"]},
        {"intensity_convention": {}},
        {"canvas": 3},
        {"canvas": {"kind": "native"}},
        {"canvas": {"kind": "native", "size": 10**9}},
        {"spacing_mm": 1},
        {"spacing_mm": [1, "2"]},
        {"spacing_mm": [math.nan, 1]},
        {"spacing_mm": [0, 1]},
        {"contrasts": "T1<-T2"},
        {"contrasts": [1]},
        {"figures": [1]},
        {"figures": {"T2<-T1": {"psnr": 30}}},
        {"stage": "2"},
        {"stage": True},
    ],
    ids=str,
)
def test_odd_entries_of_the_card_are_named(
    change: dict[str, Any], spoilt: Path, tensors: dict[str, Any], card: dict[str, Any]
) -> None:
    sentence = refusal(write(spoilt, tensors, {**card, **change}))
    assert f"its card has no usable '{next(iter(change))}'" in sentence


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 1024},
        {"channels": 10**12},
        {"channels": -8},
        {"channels": "8"},
        {"channels": 8.0},
        {"groups": 1024},
        {"extractor_blocks": 10**9},
        {"extractor_blocks": 1024},
        {"groups": 0},
        {"cwt_dwconv": 1},
        {"upsampling": "magic"},
        {"scale": 4},
        {"__class__": "os.system"},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_tensors_are_refused_before_they_cost_memory(
    change: dict[str, Any], spoilt: Path, tensors: dict[str, Any], card: dict[str, Any]
) -> None:
    write(spoilt, tensors, {**card, "config": {**card["config"], **change}})
    with memory_grows_by_less_than(300):
        assert "does not fit the architecture 'daasr-s'" in refusal(spoilt, build=True)


def test_a_wrong_architecture_shape_type_or_surplus_tensor_is_refused(
    spoilt: Path, tensors: dict[str, Any], card: dict[str, Any]
) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    counter = next(name for name, tensor in tensors.items() if tensor.dtype == torch.int64)
    for wrong in (
        {**tensors, name: tensors[name][:1].clone()},
        {**tensors, name: tensors[name].flatten()},
        {**tensors, name: tensors[name].long()},
        {**tensors, counter: tensors[counter].float()},
        {**tensors, "surplus": torch.ones(2)},
        {key: tensor for key, tensor in tensors.items() if key != name},
        {},
    ):
        assert "does not fit" in refusal(write(spoilt, wrong, card), build=True)
    for other in ("dcamsr-s", "sinc"):
        assert f"does not fit the architecture '{other}'" in refusal(
            write(spoilt, tensors, {**card, "architecture": other}), build=True
        )
    assert load_weights(write(spoilt, tensors, card)).build().config.channels == 8, "all else is as it should be"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_refused(
    value: float, spoilt: Path, tensors: dict[str, Any], card: dict[str, Any]
) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name].view(-1)[-1] = value
    assert f"has NaN or infinite values in '{name}'; its training failed" in refusal(write(spoilt, tensors, card))


def test_a_file_that_changes_between_check_and_use_is_not_used(whole: Path, spoilt: Path) -> None:
    spoilt.write_bytes(whole.read_bytes())
    weights = load_weights(spoilt)
    content = bytearray(whole.read_bytes())
    content[-1] ^= 1
    spoilt.write_bytes(content)
    with pytest.raises(WeightsError, match=r"was changed while it was in use; start again"):
        weights.build()


def test_a_file_far_too_large_is_not_read(spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with spoilt.open("wb") as file:
        file.truncate(3 << 30)  # a hole: it takes no room on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    assert "has 3.0 GiB, far more than weights have; check the file" in refusal(spoilt)
    spoilt.unlink()


def test_a_file_that_cannot_be_read_is_one_sentence(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "cannot be read (Permission denied); check its permissions" in refusal(whole)


def test_a_card_without_what_inference_needs_is_refused_when_used(
    spoilt: Path, tensors: dict[str, Any], card: dict[str, Any], models_folder: Path
) -> None:
    for entry in ("degradation", "plane"):
        write(spoilt, tensors, {key: value for key, value in card.items() if key != entry})
        with pytest.raises(WeightsError, match=f"does not say its {entry}, so it cannot be used"):
            find_weights("daasr-s", 2, spoilt)
        with pytest.raises(WeightsError, match=f"does not say its {entry}"):
            add_model(spoilt)
    assert not models_folder.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../a.safetensors"},
        {"file": "/etc/a.safetensors"},
        {"file": "C:\\a.safetensors"},
        {"file": ["a.safetensors"]},
        {"id": "../../a"},
        {"id": "a/b"},
        {"id": None},
        {"sha256": "0" * 63},
        {"sha256": None},
        {"scale": "2"},
        {"architecture": 3},
        {"figures": {"a": 1}},
        {"spacing_mm": "wide"},
        {"contrasts": [None]},
    ],
    ids=str,
)
def test_odd_entries_of_the_manifest_are_refused(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "MODEL_FOLDERS", (tmp_path,))
    (tmp_path / MANIFEST).write_text(json.dumps({"models": [{**ENTRY, **change}]}))
    with pytest.raises(WeightsError) as error:
        shipped_models()
    assert one_sentence(error, "reinstall MultiContrastSR", f"'{next(iter(change))}'")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"models": 3}', '{"models": [3]}', '{"models": [{}]}', "[" * 100_000, '{"models": ["ab"]}'],
    ids=lambda text: text[:20],
)
def test_what_is_no_manifest_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "MODEL_FOLDERS", (tmp_path,))
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(WeightsError) as error:
        shipped_models()
    assert one_sentence(error, MANIFEST, "reinstall MultiContrastSR")
