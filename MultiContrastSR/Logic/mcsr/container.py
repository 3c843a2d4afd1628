"""The result of a job in one HDF5 file.

/volumes/NAME    float32 [k, j, i], gzip + shuffle, one chunk per slice; attributes ijk_to_ras (float64 (4, 4), index
                 to RAS mm), name, description, unit
/tables/NAME     float32 [slice, ...]: numbers of each slice that have no place in the image; attribute description
root attributes  format = "mcsr-result", format_version = 1, provenance (json)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import InputError, OutputError
from .imageio import complete_file
from .volume import Volume

FORMAT = "mcsr-result"
FORMAT_VERSION = 1
# The fastest level: images with noise shrink hardly more with the slower ones.
_GZIP_LEVEL = 1


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
        temporary.write_bytes(_file_image(volumes, tables, story, attributes or {}))


def read_container(path: str | Path) -> Container:
    """Read what `write_container` wrote.

    Raises:
        InputError: a missing or damaged file, one that is no result, or one of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    try:
        with h5py.File(path, "r") as file:
            _check_format(file, path)
            group = file["volumes"]
            volumes = {name: _read_volume(dataset) for name, dataset in group.items()}
            texts = {name: {key: str(d.attrs[key]) for key in ("description", "unit")} for name, d in group.items()}
            tables = {name: np.asarray(dataset[()]) for name, dataset in file.get("tables", {}).items()}
            return Container(volumes, json.loads(file.attrs["provenance"]), texts, tables)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path.name} is damaged, truncated or not an HDF5 file; copy or create it again.") from error


def _file_image(
    volumes: Mapping[str, Volume],
    tables: Mapping[str, np.ndarray],
    story: str,
    attributes: Mapping[str, Mapping[str, str]],
) -> bytes:
    # Made in memory: HDF5 cannot close a file on a full disk, and takes the process down later. Its layout is that of
    # HDF5 1.8 and no older one, which limits attributes to 64 kB.
    with h5py.File("result", "w", driver="core", backing_store=False, libver=("v108", "v108")) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["provenance"] = story
        group = file.create_group("volumes", track_order=True)
        for name, volume in volumes.items():
            _write_volume(group, name, volume, attributes.get(name, {}))
        if tables:
            group = file.create_group("tables", track_order=True)
        for name, table in tables.items():
            group.create_dataset(name, data=table).attrs["description"] = attributes.get(name, {}).get(
                "description", ""
            )
        file.flush()
        return file.id.get_file_image()


def _write_volume(group: h5py.Group, name: str, volume: Volume, texts: Mapping[str, str]) -> None:
    array = volume.array_kji
    dataset = group.create_dataset(
        name, data=array, chunks=(1, *array.shape[1:]), compression="gzip", compression_opts=_GZIP_LEVEL, shuffle=True
    )
    dataset.attrs["ijk_to_ras"] = volume.ijk_to_ras
    dataset.attrs["name"] = volume.name
    dataset.attrs["description"] = texts.get("description", "")
    dataset.attrs["unit"] = texts.get("unit", "")


def _check_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT:
        raise InputError(f"{path.name} is an HDF5 file but no result of mcsr; choose a result.h5.")
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path.name} has version {version} of the result format, this program reads version {FORMAT_VERSION}; "
            "update the program."
        )


def _read_volume(dataset: h5py.Dataset) -> Volume:
    return Volume(np.asarray(dataset[()]), np.asarray(dataset.attrs["ijk_to_ras"]), name=str(dataset.attrs["name"]))
