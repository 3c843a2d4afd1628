"""Checkpoints that are damaged or made to harm: nothing in them runs, nothing large is made, one sentence is said."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import memory_grows_by_less_than, one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from mcsr.checkpoints import import_checkpoint
from mcsr.checkpoints_reading import read_checkpoint, shown, state_dict_of
from mcsr.errors import WeightsError

PLAIN = {"state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}, "epoch": 3}
FEW = settings(max_examples=60, derandomize=True, database=None, deadline=None)
NOT_READ = "is damaged, or holds more than tensors and settings, which is not read because it could run code"


class Calls:
    """Unpickled as it asks to be, it calls something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "official.pth"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def refusal(path: Path, words: str = NOT_READ) -> None:
    with pytest.raises(WeightsError) as error:
        import_checkpoint(path, path.with_name("out.safetensors"), scale=2)
    assert one_sentence(error, path.name, words)
    assert not path.with_name("out.safetensors").exists()


def archive_of(content: Any) -> dict[str, bytes]:
    """The records that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def test_an_archive_that_is_rewritten_as_it_was_is_read(file: Path) -> None:
    """What the tests below change is what they are refused for."""
    found = state_dict_of(read_checkpoint(rewritten(file, archive_of(PLAIN))), file.name)[0]
    assert torch.equal(found["a.weight"], PLAIN["state_dict"]["a.weight"])


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "old format"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_no_call_is_made(zipped: bool, protocol: int, file: Path, canary: Path) -> None:
    for call in (
        Calls(os.system, f"touch {canary}"),
        Calls(os.mkdir, str(canary)),
        Calls(eval, f"open({str(canary)!r}, 'w')"),
        Calls(torch.load, str(canary)),
        Calls(torch.hub.load, "a/b", "c"),
    ):
        torch.save({**PLAIN, "x": call}, file, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        refusal(file)
        assert not canary.exists()
    pickle.loads(pickle.dumps(Calls(os.mkdir, str(canary))))
    assert canary.exists(), "the trap must work, or the test shows nothing"


@pytest.mark.parametrize(
    "text",
    [
        b"cos\nsystem\n(S'touch CANARY'\ntR.",
        b"(S'touch CANARY'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch CANARY\x85R.",
        b"\x80\x02c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x02ctorch.serialization os\nsystem\n.",
        b"\x80\x02\x82\x01.",
    ],
    ids=["global", "inst", "stack global", "builtin", "a name with a space", "extension"],
)
def test_pickles_written_by_hand_are_refused(text: bytes, file: Path, canary: Path) -> None:
    text = text.replace(b"CANARY", str(canary).encode()) if b"\x8c\x0c" not in text else text
    file.write_bytes(text)
    refusal(file)
    records = archive_of(PLAIN)
    refusal(rewritten(file, {name: text if name.endswith("data.pkl") else c for name, c in records.items()}))
    assert not canary.exists()


@pytest.mark.parametrize(
    "call",
    [Calls(bytearray, 3 << 30), Calls(torch.Tensor, 1 << 30), Calls(torch.UntypedStorage, 3 << 30)],
    ids=["bytearray", "tensor", "storage"],
)
def test_what_torch_would_make_as_large_as_it_is_told_is_refused(call: Calls, file: Path) -> None:
    """weights_only allows these: 60 bytes of pickle then fill the memory."""
    with memory_grows_by_less_than(300):
        for zipped in (True, False):
            torch.save({**PLAIN, "x": call}, file, _use_new_zipfile_serialization=zipped)
            refusal(file)


def test_a_zip_bomb_is_refused_by_what_it_declares(file: Path) -> None:
    records = archive_of(PLAIN)
    bomb = rewritten(file, {**records, "archive/data/7": bytes(20 << 20)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    refusal(bomb)
    # The same archive says of itself that it unpacks to 4 GB.
    content = bytearray(bomb.read_bytes())
    size = (20 << 20).to_bytes(4, "little")
    assert content.count(size) == 2
    bomb.write_bytes(content.replace(size, (0xFFFFFFF0).to_bytes(4, "little")))
    with memory_grows_by_less_than(50):
        refusal(bomb, "holds 4.0 GiB, far more than such a checkpoint; check the file")


@pytest.mark.parametrize(
    "change",
    [
        {"../../evil": b"x"},
        {"archive/../../evil": b"x"},
        {"/etc/evil": b"x"},
        {"archive\\..\\evil": b"x"},
        {"archive/inner.zip": b"PK\x03\x04"},
        {"archive/inner/data.pkl": b"x"},
        {"other/data.pkl": b"x"},
        {"archive/DATA.pkl": b"x"},
        {"archive/constants.pkl": b"x", "archive/code/a.py": b"x"},
    ],
    ids=str,
)
def test_records_that_no_checkpoint_has_are_refused(change: dict[str, bytes], file: Path) -> None:
    refusal(rewritten(file, {**archive_of(PLAIN), **change}))
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing is unpacked"


def test_an_archive_inside_or_behind_something_else_is_refused(file: Path, canary: Path) -> None:
    torch.save(PLAIN, file)
    inner = file.read_bytes()
    refusal(rewritten(file, {"archive/official.pth": inner}))
    file.write_bytes(pickle.dumps(Calls(os.mkdir, str(canary)), 2) + inner)
    refusal(file)
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_second_pickle_under_the_same_name_is_refused(file: Path) -> None:
    rewritten(file, archive_of(PLAIN))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
    refusal(file)


@FEW
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), zipped=st.booleans(), cut=st.booleans())
def test_whatever_is_damaged_is_refused_or_read(folder: Path, place: float, bit: int, zipped: bool, cut: bool) -> None:
    """A checkpoint has no checksum of its values; whether they fit is asked later, key by key."""
    path = folder / "damaged.pth"
    torch.save(PLAIN, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    position = int(place * len(content))
    content[position] ^= 1 << bit
    path.write_bytes(content[:position] if cut else content)
    sentence = ""
    try:
        read_checkpoint(path)
    except WeightsError as error:
        sentence = str(error)
    assert not sentence or (path.name in sentence and sentence.endswith("."))


def test_names_in_a_sentence_obey_nobody(file: Path) -> None:
    assert shown("enc.weight") == "enc.weight"
    assert shown("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert len(shown("x" * 10_000)) < 100
    torch.save({"evil\n\x1b[2J" + "x" * 10_000: torch.ones(1)}, file)
    with pytest.raises(WeightsError) as error:
        import_checkpoint(file, file.with_name("out.safetensors"), scale=2)
    assert one_sentence(error, "is a checkpoint of none of", "evil\\n\\x1b[2J")
    assert len(str(error.value)) < 400


def test_keys_that_are_no_names_are_no_state_dict(file: Path) -> None:
    """Written out, a tuple of tuples that are all the same one takes more memory than there is."""
    nest: tuple[Any, ...] = ()
    for _ in range(15):
        nest = (nest, nest)
    torch.save({"a": torch.ones(1), nest: torch.ones(1)}, file)
    refusal(file, "holds no state dict; give the checkpoint file that the training wrote")
