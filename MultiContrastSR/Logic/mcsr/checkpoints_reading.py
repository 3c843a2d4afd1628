"""How a checkpoint of PyTorch is read: looked through before anything is unpacked, and without running any of it.

`torch.load(weights_only=True)` runs no foreign code, but makes objects as large as a few bytes ask for, and its
versions before 2.6 are less strict. So what a checkpoint is made of, and what it mentions, is read here first.
"""

from __future__ import annotations

import contextlib
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import WeightsError
from .weights import LARGEST_FILE

_LARGEST_PICKLE = 64 << 20
_PICKLES_OF_THE_OLD_FORMAT = 5
_LONGEST_NAME = 80
# What torch.save puts into an archive; one of TorchScript, which is code, holds more.
_RECORD = re.compile(r"[^/\\]+/(data\.pkl|data/\d+|version|byteorder|\.[\w.]+|\.data/[\w.]+)")
_HARMLESS = re.compile(
    r"collections\.(OrderedDict|Counter)|torch(\.cuda)?\.\w+Storage|torch\._utils\._rebuild_(tensor(_v2)?|parameter)"
    r"|torch\.(Size|device|b?float\d+|int\d+|uint8|bool|complex\d+)|_codecs\.encode|(builtins|__builtin__)\.set"
)
# Of Lightning's checkpoints, which name the classes of callbacks and settings beside the weights.
_STOOD_IN_FOR = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "argparse.")
_OTHER_WAYS_TO_NAME = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}


def read_checkpoint(path: Path) -> Any:
    """The contents of a checkpoint, nothing in which is run: tensors, numbers, texts, lists and mappings.

    Raises:
        WeightsError: when it is missing, too large, damaged, or holds anything else.
    """
    if not path.is_file():
        raise WeightsError(f"There is no checkpoint {path}; check the path.")
    try:
        _check_size(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        with _stand_ins(_mentioned(path)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # a damaged or hostile file may raise anything
        raise WeightsError(
            f"{path.name} is damaged, or holds more than tensors and settings, which is not read because it could run "
            "code; where it was trained, save its state dict alone with torch.save and import that."
        ) from error


def state_dict_of(content: Any, name: str) -> tuple[dict[str, Any], str]:
    """The state dict in a checkpoint, without the prefixes of wrappers; and what it was found under.

    Raises:
        WeightsError: when there is none.
    """
    container = "state dict"
    if isinstance(content, Mapping):
        for key in ("params_ema", "params", "state_dict"):
            if isinstance(content.get(key), Mapping):
                content, container = content[key], key
                break
    if (
        not isinstance(content, Mapping)
        or not all(isinstance(key, str) for key in content)
        or not any(isinstance(value, Tensor) for value in content.values())
    ):
        raise WeightsError(f"{name} holds no state dict; give the checkpoint file that the training wrote.")
    tensors = dict(content)
    for prefix in ("module.", "network.", "module."):
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        # Lightning keeps the sums of its metrics beside the network.
        if inside and (len(inside) == len(tensors) or prefix == "network."):
            tensors = inside
    return tensors, container


def shown(name: str) -> str:
    """A name out of a checkpoint, fit for a sentence: short, and nothing that a terminal would obey."""
    name = name if name.isprintable() else ascii(name)[1:-1]
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(entry.file_size for entry in archive.infolist()))
    if size > LARGEST_FILE:
        raise WeightsError(
            f"{path.name} holds {size / 2**30:.1f} GiB, far more than such a checkpoint; check the file."
        )


def _mentioned(path: Path) -> set[str]:
    """The classes and functions, "module.name", that the pickles of a checkpoint mention.

    Raises:
        ValueError: for an archive that torch.save does not make, or pickles that name things in another way.
        OSError: when it cannot be read.
    """
    if zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(4) != b"PK\3\4":  # PyTorch would take it for the older format
                raise ValueError("an archive behind something else")
        with zipfile.ZipFile(path) as archive, archive.open(_pickle_of(archive)) as pickle:
            return _named(pickle, 1)
    if tarfile.is_tarfile(path):
        # PyTorch's first format, which its versions before 2.6 read unsafely even so (CVE-2025-32434).
        raise ValueError("a tar archive")
    with path.open("rb") as file:
        return _named(file, _PICKLES_OF_THE_OLD_FORMAT)


def _pickle_of(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The pickle of an archive in which all else is what torch.save writes too: stored as it is, once, under plain
    names. What is neither compressed nor stored twice is no larger than the file."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("compressed")
    if sum(entry.file_size for entry in entries) > Path(archive.filename or "").stat().st_size:
        raise ValueError("overlapping records")
    if any(not _RECORD.fullmatch(name) or ".." in name for name in names):
        raise ValueError("a record that is none of a checkpoint")
    if len({name.partition("/")[0] for name in names}) != 1 or len({name.lower() for name in names}) != len(names):
        raise ValueError("more than one of a record")
    (found,) = (entry for entry in entries if entry.filename.endswith("/data.pkl"))
    if found.file_size > _LARGEST_PICKLE:
        raise ValueError("a pickle far larger than a list of tensors")
    return found


def _named(file: IO[bytes], count: int) -> set[str]:
    """What `count` pickles in a row mention, all of it harmless or of Lightning."""
    names = set()
    for _ in range(count):
        for operation, argument, _ in pickletools.genops(file):
            if operation.name in _OTHER_WAYS_TO_NAME:
                raise ValueError(f"{operation.name} in a pickle")
            if operation.name == "GLOBAL":
                names.add(str(argument).replace(" ", ".", 1))
    strange = [name for name in names if not _HARMLESS.fullmatch(name) and not name.startswith(_STOOD_IN_FOR)]
    if strange:
        raise ValueError(f"mentions {', '.join(map(shown, strange))}")
    return names


def _stand_ins(mentioned: set[str]) -> contextlib.AbstractContextManager[Any]:
    """Lets empty classes be read in place of those that a Lightning checkpoint mentions beside its weights."""

    def ignore(*_: Any, **__: Any) -> None:
        """Takes what the real class was given."""

    if not hasattr(torch.serialization, "safe_globals"):  # came with torch 2.5; before it such a checkpoint is refused
        return contextlib.nullcontext()
    wanted = [name.rpartition(".") for name in mentioned if name.startswith(_STOOD_IN_FOR)]
    classes: list[Any] = [
        type(n, (), {"__module__": m, "__init__": ignore, "__setstate__": ignore}) for m, _, n in wanted
    ]
    return torch.serialization.safe_globals(classes)
