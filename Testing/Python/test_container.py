"""The HDF5 result: comes back exactly, appears whole or not at all, and says what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from grids import SOME_ORDERS, oblique_grid, order_id
from helpers import POSIX_ONLY
from mcsr import container
from mcsr.container import read_container, write_container
from mcsr.errors import InputError, OutputError
from mcsr.geometry import AxisOrder
from mcsr.volume import Volume

PROVENANCE = {"software": "mcsr", "settings": {"scale": 4, "seed": 0}, "warnings": ["Schärfe μm"], "nothing": None}


def noise(order: AxisOrder = SOME_ORDERS[0], name: str = "sub 01", seed: int = 0) -> Volume:
    grid = oblique_grid()
    array = np.random.default_rng(seed).normal(0, 300, grid.shape_kji).astype(np.float32)
    return Volume(array, grid.ijk_to_ras, name=name).reordered(order)


def sum_anew(path: Path) -> None:
    """Give a file that was changed the sum of what it is now."""
    content = path.read_bytes()
    path.write_bytes(container._user_block(hashlib.sha256(content[512:]).hexdigest()) + content[512:])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.h5"


class TestRoundTrip:
    @pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
    def test_exact(self, path: Path, order: AxisOrder) -> None:
        volumes = {"sr": noise(order), "residual": noise(order, "another", seed=1), "a map": noise(seed=2)}
        write_container(path, volumes, PROVENANCE, {"sr": {"description": "Enhanced", "unit": "a.u."}})
        back = read_container(path)
        assert list(back.volumes) == list(volumes)
        for name, volume in volumes.items():
            assert np.array_equal(back.volumes[name].array_kji, volume.array_kji)
            assert np.array_equal(back.volumes[name].ijk_to_ras, volume.ijk_to_ras)
            assert back.volumes[name].name == volume.name
        assert back.provenance == PROVENANCE
        assert back.attributes["sr"] == {"description": "Enhanced", "unit": "a.u."}
        assert back.attributes["residual"] == {"description": "", "unit": ""}

    def test_layout(self, path: Path) -> None:
        """What other programs rely on, read with h5py alone."""
        volume = noise()
        write_container(path, {"sr": volume}, PROVENANCE)
        with h5py.File(path, "r") as file:
            assert file.attrs["format"] == "mcsr-result"
            assert file.attrs["format_version"] == 2
            assert json.loads(file.attrs["provenance"]) == PROVENANCE
            dataset = file["volumes/sr"]
            assert dataset.dtype == np.float32
            assert dataset.shape == volume.grid.shape_kji
            assert dataset.chunks == (1, *dataset.shape[1:])
            assert (dataset.compression, dataset.shuffle) == ("gzip", True)
            assert np.array_equal(dataset[()], volume.array_kji)
            assert dataset.attrs["ijk_to_ras"].dtype == np.float64
            assert dataset.attrs["ijk_to_ras"].shape == (4, 4)

    def test_other_programs_notice_damage(self, path: Path) -> None:
        write_container(path, {"sr": noise()}, PROVENANCE)
        with h5py.File(path, "r") as file:
            chunk = file["volumes/sr"].id.get_chunk_info(0)
        content = bytearray(path.read_bytes())
        content[512 + chunk.byte_offset + chunk.size // 2] ^= 1
        path.write_bytes(content)
        with h5py.File(path, "r") as file, pytest.raises(OSError, match="filter returned failure"):
            file["volumes/sr"][0]

    def test_long_texts(self, path: Path) -> None:
        """HDF5's oldest layout ends at 64 kB per attribute."""
        long = {"text": "x" * 200_000}
        write_container(path, {"n" * 300: noise()}, long, {"n" * 300: {"description": "d" * 100_000}})
        back = read_container(path)
        assert back.provenance == long
        assert len(back.attributes["n" * 300]["description"]) == 100_000

    def test_same_input_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.h5", "b.h5"):
            write_container(tmp_path / name, {"sr": noise()}, PROVENANCE)
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


class TestWriting:
    @pytest.mark.parametrize("name", ["maps/attention", "/sr", "", "."])
    def test_names_that_are_paths(self, path: Path, name: str) -> None:
        with pytest.raises(OutputError, match="cannot name a volume"):
            write_container(path, {"sr": noise(), name: noise()}, {})
        assert not path.exists()

    @POSIX_ONLY
    def test_full_disk(self, path: Path) -> None:
        """In a process of its own: HDF5 that fails to close a file would take it down at the end."""
        path.write_text("older result")
        code = """
import resource, sys
import numpy as np
from mcsr.container import write_container
from mcsr.errors import OutputError
from mcsr.volume import Volume
volume = Volume(np.random.default_rng(0).random((20, 100, 100)), np.eye(4))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    write_container(sys.argv[1], {"sr": volume}, {})
except OutputError as error:
    print(error)
"""
        engine = os.fspath(Path(sys.modules[write_container.__module__].__file__ or "").parents[1])
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": engine},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "result.h5 cannot be written" in done.stdout
        assert os.listdir(path.parent) == ["result.h5"]
        assert path.read_text() == "older result"

    def test_unserialisable_provenance_leaves_nothing(self, path: Path) -> None:
        with pytest.raises(TypeError):
            write_container(path, {"sr": noise()}, {"array": np.zeros(3)})
        assert os.listdir(path.parent) == []

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="no folder"):
            write_container(tmp_path / "no" / "result.h5", {"sr": noise()}, {})


class TestBadInput:
    def test_missing(self, path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            read_container(path)

    @pytest.mark.parametrize("content", [b"", b"hello", np.random.default_rng(0).bytes(5000)])
    def test_no_hdf5(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"result\.h5 is damaged, truncated or not an HDF5 file"):
            read_container(path)

    @pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
    def test_truncated(self, path: Path, fraction: float) -> None:
        write_container(path, {"sr": noise()}, PROVENANCE)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * fraction)])
        with pytest.raises(InputError, match="truncated"):
            read_container(path)

    def test_another_hdf5_file(self, path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["T1"] = np.zeros((2, 3, 4))
        with pytest.raises(InputError, match="no result of mcsr"):
            read_container(path)

    def test_a_newer_version(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as later:
            later.setattr(container, "FORMAT_VERSION", 3)
            write_container(path, {"sr": noise()}, PROVENANCE)
        with pytest.raises(InputError, match="version 3 of the result format, this program reads version 2; update"):
            read_container(path)

    @pytest.mark.parametrize("missing", ["volumes", "provenance", "ijk_to_ras"])
    def test_incomplete(self, path: Path, missing: str) -> None:
        write_container(path, {"sr": noise()}, PROVENANCE)
        with h5py.File(path, "r+") as file:
            if missing == "volumes":
                del file["volumes"]
            else:
                del (file if missing == "provenance" else file["volumes/sr"]).attrs[missing]
        with pytest.raises(InputError, match="was changed after it was written"):
            read_container(path)
        sum_anew(path)
        with pytest.raises(InputError, match="damaged"):
            read_container(path)
