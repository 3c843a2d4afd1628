"""The result of a job in one HDF5 file.

/volumes/NAME    float32 [k, j, i], gzip + shuffle, one chunk per slice; attributes ijk_to_ras (float64 (4, 4), index
                 to RAS mm), name, description, unit
/tables/NAME     float32 [slice, ...]: numbers of each slice that have no place in the image; attribute description
root attributes  format = "mcsr-result", format_version = 2, provenance (json)
user block       "mcsr-result sha256 " and the SHA-256, hex, of all that follows these 512 bytes; HDF5 skips it

The SHA-256 is what `read_container` goes by. HDF5's own checksums would not do: texts and the index of the chunks have
none, and a damaged file has to be opened to find out, which can take HDF5 down. With the sum before the file, nothing
damaged reaches HDF5. Other programs get an error from HDF5 in place of wrong voxels: each chunk carries zlib's own sum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .compression import LEVEL, compressed, strategy_for
from .errors import InputError, OutputError
from .imageio import complete_file
from .volume import Volume

FORMAT = "mcsr-result"
FORMAT_VERSION = 2
_BLOCK_BYTES = 512
_BEFORE_SUM = b"mcsr-result sha256 "
_MOST_VALUES = 2**31
_TEXTS = ("description", "unit")


@dataclass(frozen=True)
class Container:
    """What a result file holds.

    Args:
        volumes: by name in the file, in the order of writing.
        provenance: how they were made.
        attributes: "description" and "unit" of each volume, empty where not given.
        tables: by name.
    """

    volumes: Mapping[str, Volume]
    provenance: Mapping[str, Any]
    attributes: Mapping[str, Mapping[str, str]]
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_container(
    path: str | Path,
    volumes: Mapping[str, Volume],
    provenance: Mapping[str, Any],
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    tables: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write volumes and their provenance; the file appears only when it is complete.

    Args:
        path: of the file, in an existing folder.
        volumes: by name; a name holds no "/" and is not ".".
        provenance: json-serialisable.
        attributes: per volume or table, "description" and "unit".
        tables: more arrays by name, likewise.

    Raises:
        OutputError: a name that HDF5 takes for a path, an unwritable folder or a full disk.
    """
    tables = tables or {}
    wrong = next((name for name in (*volumes, *tables) if not name or "/" in name or name == "."), None)
    if wrong is not None:
        raise OutputError(f"'{wrong}' cannot name a volume in {Path(path).name}; use a name without '/'.")
    story = json.dumps(provenance)
    with complete_file(Path(path)) as temporary:
        image = _file_image(volumes, tables, story, attributes or {})
        with temporary.open("wb") as file:
            file.write(_user_block(hashlib.sha256(image).hexdigest()))
            file.write(image)


def read_container(path: str | Path) -> Container:
    """Read what `write_container` wrote, after a check that not a byte of it has changed.

    Raises:
        InputError: a missing or damaged file, one that is no result, or one of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    try:
        _check_sum(path)
        with h5py.File(path, "r") as file:
            _check_format(file, path)
            volumes = _datasets(file, "volumes")
            return Container(
                {name: _read_volume(dataset) for name, dataset in volumes.items()},
                json.loads(file.attrs["provenance"]),
                {name: {key: str(dataset.attrs[key]) for key in _TEXTS} for name, dataset in volumes.items()},
                {name: np.asarray(dataset[()]) for name, dataset in _datasets(file, "tables").items()},
            )
    except InputError:
        raise
    except Exception as error:  # what was written to mislead may make HDF5 and json raise anything
        raise InputError(f"{path.name} is damaged, truncated or not an HDF5 file; copy or create it again.") from error


def _file_image(
    volumes: Mapping[str, Volume],
    tables: Mapping[str, np.ndarray],
    story: str,
    attributes: Mapping[str, Mapping[str, str]],
) -> bytes:
    # Made in memory: HDF5 cannot close a file on a full disk, and takes the process down later. Its layout is that of
    # HDF5 1.8 and no older one, which limits attributes to 64 kB.
    with h5py.File(
        "result", "w", driver="core", backing_store=False, libver=("v108", "v108"), userblock_size=_BLOCK_BYTES
    ) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["provenance"] = story
        group = file.create_group("volumes", track_order=True)
        for name, volume in volumes.items():
            _write_volume(group, name, volume, attributes.get(name, {}))
        if tables:
            group = file.create_group("tables", track_order=True)
        for name, table in tables.items():
            dataset = group.create_dataset(name, data=table, fletcher32=True)
            dataset.attrs["description"] = attributes.get(name, {}).get("description", "")
        file.flush()
        return file.id.get_file_image()  # without the user block


def _user_block(sha256: str) -> bytes:
    return (_BEFORE_SUM + sha256.encode() + b"\n").ljust(_BLOCK_BYTES, b"\0")


def _check_sum(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        block = file.read(_BLOCK_BYTES)
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    if block == _user_block(digest.hexdigest()):
        return
    if block.startswith(_BEFORE_SUM):
        raise InputError(
            f"{path.name} is damaged, truncated or was changed after it was written (checksum differs); copy or create "
            "it again."
        )
    if block.startswith(b"\x89HDF"):
        raise InputError(
            f"{path.name} is an HDF5 file but no result of mcsr, or one of an older version; choose a result.h5, or "
            "create it again."
        )
    raise ValueError("no result, or a damaged one")


def _write_volume(group: h5py.Group, name: str, volume: Volume, texts: Mapping[str, str]) -> None:
    array = volume.array_kji
    dataset = group.create_dataset(
        name,
        array.shape,
        array.dtype,
        chunks=(1, *array.shape[1:]),
        compression="gzip",
        compression_opts=LEVEL,
        shuffle=True,
    )
    # HDF5's filters take one core. zlib lets go of the interpreter: the same chunks are made here on all cores.
    strategy = strategy_for(_shuffled(array[len(array) // 2]))
    with ThreadPoolExecutor() as pool:
        for k, chunk in enumerate(pool.map(lambda pixels: compressed(_shuffled(pixels), strategy), array)):
            dataset.id.write_direct_chunk((k, 0, 0), chunk)
    dataset.attrs["ijk_to_ras"] = volume.ijk_to_ras
    dataset.attrs["name"] = volume.name
    for key in _TEXTS:
        dataset.attrs[key] = texts.get(key, "")


def _shuffled(array: np.ndarray) -> bytes:
    """A chunk as HDF5's filter of that name leaves it: the first bytes of all values, then the second ones, ..."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()


def _check_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT:
        raise InputError(f"{path.name} is an HDF5 file but no result of mcsr; choose a result.h5.")
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path.name} has version {version} of the result format, this program reads version {FORMAT_VERSION}; "
            "update the program."
        )


def _datasets(file: h5py.File, name: str) -> dict[str, h5py.Dataset]:
    """The arrays of a group by name: in this very file, of numbers, and no larger than results are."""
    if name == "tables" and name not in file:
        return {}
    _check_here(file, name)
    for inner, dataset in file[name].items():
        _check_here(file[name], inner)
        if dataset.external or dataset.is_virtual or dataset.dtype.kind not in "iuf" or dataset.size > _MOST_VALUES:
            raise ValueError(f"{inner} is no plain array")
    return dict(file[name].items())


def _check_here(group: h5py.Group, name: str) -> None:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} lies elsewhere")


def _read_volume(dataset: h5py.Dataset) -> Volume:
    return Volume(np.asarray(dataset[()]), np.asarray(dataset.attrs["ijk_to_ras"]), name=str(dataset.attrs["name"]))
