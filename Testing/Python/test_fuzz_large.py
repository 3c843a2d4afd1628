"""Three inputs far beyond what a slice or two can show: the same rules hold, and memory does."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from fuzz_cases import Image, misplacement
from fuzz_dicom import save, slice_datasets
from fuzz_files import nifti_file
from helpers import one_sentence
from mcsr.errors import InputError
from mcsr.imageio import read_volume
from mcsr.job import Settings
from mcsr.pipeline import enhance
from mcsr.volume import Volume

pytestmark = pytest.mark.slow
MATRIX = np.array([[0, 0, 1.2, -90], [-0.45, 0, 0, 110], [0, -0.45, 0, 120], [0, 0, 0, 1.0]])


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2000, shape, dtype=np.int16)


def test_a_nifti_file_of_150_mb_whole_and_cut(tmp_path: Path) -> None:
    array = noise((300, 512, 512))
    spacing = np.linalg.norm(MATRIX[:3, :3], axis=0)
    content = gzip.compress(nifti_file(array, pixdim=(1, *spacing), sform=MATRIX), 1)
    (tmp_path / "a.nii.gz").write_bytes(content)
    volume = read_volume(tmp_path / "a.nii.gz")
    assert misplacement(volume.ijk_to_ras, MATRIX, (512, 512, 300)) < 1e-3
    np.testing.assert_array_equal(volume.array_kji, array)
    (tmp_path / "a.nii.gz").write_bytes(content[:-9])
    with pytest.raises(InputError) as error:
        read_volume(tmp_path / "a.nii.gz")
    assert one_sentence(error, "a.nii.gz", "truncated")


def test_a_dicom_series_of_400_slices(tmp_path: Path) -> None:
    matrix = MATRIX.copy()
    matrix[:, 2] *= np.sign(np.linalg.det(MATRIX))
    image = Image(noise((400, 320, 320)), matrix)
    for k, dataset in enumerate(slice_datasets(image)):
        save(dataset, tmp_path / f"{(k * 171) % 400:03d}")
    volume = read_volume(tmp_path)
    assert misplacement(volume.ijk_to_ras, matrix, image.shape_ijk) < 1e-3
    np.testing.assert_array_equal(volume.array_kji, image.array)
    (tmp_path / "200").unlink()
    with pytest.raises(InputError) as error:
        read_volume(tmp_path)
    assert one_sentence(error, "missing slices")


def test_a_job_on_64_mb_to_256_mb() -> None:
    array = noise((256, 256, 256)).astype(np.float32)
    target = Volume(array, MATRIX, name="large")
    result = enhance(target, None, Settings(model="linear", scale=2, device="cpu"))
    assert result.sr.grid.shape_ijk == (512, 512, 256)
    assert np.isfinite(result.sr.array_kji).all()
    np.testing.assert_allclose(result.sr.grid.ras_bounds(), target.grid.ras_bounds(), atol=1e-6)
    means = result.sr.array_kji.mean(axis=(1, 2)), array.mean(axis=(1, 2))
    np.testing.assert_allclose(*means, rtol=1e-2)
