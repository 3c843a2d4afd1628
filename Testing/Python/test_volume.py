"""What a volume accepts."""

from __future__ import annotations

import numpy as np
import pytest
from grids import oblique_grid
from mcsr.errors import InputError
from mcsr.volume import Volume

MATRIX = oblique_grid().ijk_to_ras


def test_few_nan_are_replaced_and_counted_more_are_refused() -> None:
    array = np.ones((10, 10, 10))
    array[0, 0, :10] = np.nan
    volume = Volume(array, MATRIX)
    assert volume.replaced_voxels == 10
    np.testing.assert_array_equal(volume.array_kji[0, 0], 0)
    assert np.isnan(array[0, 0]).all(), "the caller's array was changed"
    array[0, 1, 0] = np.inf
    with pytest.raises(InputError, match=r"1\.1 % of the voxels are NaN or infinite"):
        Volume(array, MATRIX)


def test_values_beyond_float32_count_as_infinite() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        Volume(np.full((3, 3, 3), 1e300), MATRIX)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 4, 5)])
def test_other_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"{len(shape)} dimensions"):
        Volume(np.ones(shape), MATRIX)


def test_the_array_is_read_only_and_the_callers_stays_writable() -> None:
    array = np.ones((3, 3, 3), dtype=np.float32)
    volume = Volume(array, MATRIX)
    with pytest.raises(ValueError, match="read-only"):
        volume.array_kji[0, 0, 0] = 2
    array[0, 0, 0] = 2


def test_voxels_are_stored_rounded_and_clipped_or_as_they_are() -> None:
    volume = Volume(np.array([[[-1.2, 0.4, 254.6, 300.0]]]), MATRIX, source_dtype="uint8")
    assert volume.stored().dtype == np.uint8
    np.testing.assert_array_equal(volume.stored(), [[[0, 0, 255, 255]]])
    np.testing.assert_array_equal(volume.stored("int16"), [[[-1, 0, 255, 300]]])
    for name in ("float32", "float64", "bool", "int64"):
        assert volume.stored(name).dtype == np.float32
        np.testing.assert_array_equal(volume.stored(name), volume.array_kji)
