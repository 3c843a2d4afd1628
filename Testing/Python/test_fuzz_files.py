"""Files of every kind: a volume that is what the file says, or one sentence."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from fuzz_cases import (
    Image,
    arrays,
    as_read,
    folder,
    hands,
    is_true_of,
    matrices,
    misplacement,
    origins,
    outcome,
    quaternions,
    rotation,
    seeds,
    shapes,
    spacings,
)
from fuzz_files import LPS, META_TYPES, NIFTI_TYPES, NRRD_TYPES, metaimage_file, nifti_file, nrrd_file
from hypothesis import given
from hypothesis import strategies as st
from mcsr.imageio import read_volume, write_volume
from mcsr.volume import Volume

# float32, in which NIfTI keeps places of up to 500 mm, for voxels of 0.05 mm.
NIFTI_TOLERANCE, TOLERANCE = 5e-3, 1e-6
WRITTEN = (".nii", ".nii.gz", ".nrrd", ".mha")
orders = st.sampled_from("<>")


def check_read(path: Path, content: bytes, image: Image, tolerance: float, exact: bool = True) -> None:
    """The file gives the image; or a sentence that is true of it."""
    path.write_bytes(content)
    volume, sentence = outcome(lambda: read_volume(path))
    if volume is None:
        assert is_true_of(sentence, image.array), sentence
        return
    assert misplacement(volume.ijk_to_ras, image.matrix, image.shape_ijk) < tolerance
    expected = as_read(image.array)
    np.testing.assert_allclose(volume.array_kji, expected, rtol=0 if exact else 1e-5, atol=0)
    assert volume.replaced_voxels == int((~np.isfinite(image.array.astype(np.float32))).sum())


@given(st.data())
def test_nifti(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    array = data.draw(arrays(shape, list(NIFTI_TYPES)))
    form = data.draw(st.sampled_from(["sform", "qform", "both"]))
    q, spacing, origin, hand = (data.draw(part) for part in (quaternions(), spacings, origins, hands))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(q) * spacing * [1, 1, hand], origin
    units, unit_mm = data.draw(st.sampled_from([(0, 1.0), (2, 1.0), (1, 1000.0), (3, 0.001), (10, 1.0)]))
    slope = data.draw(st.sampled_from([1.0, 0.0, np.nan, 0.25, -3.0, 1e-6, 1e6]))
    scaled = slope not in (0.0, 1.0) and not np.isnan(slope)
    intercept = float(data.draw(st.integers(-100, 100))) if scaled else 0.0
    content = nifti_file(
        array,
        order=data.draw(orders),
        pixdim=(hand, *(spacing / unit_mm)),
        sform=None if form == "qform" else np.vstack([matrix[:3] / unit_mm, matrix[3]]),
        quaternion=None if form == "sform" else (*q[1:], *(origin / unit_mm)),
        scaling=(slope, intercept),
        units=units,
        extension=data.draw(st.sampled_from([0, 16, 160])),
    )
    zipped = data.draw(st.booleans())
    if scaled:
        array = array.astype(np.float64) * float(np.float32(slope)) + intercept
    with folder() as place:
        name = "a.nii.gz" if zipped else "a.nii"
        content = gzip.compress(content, 1) if zipped else content
        check_read(place / name, content, Image(array, matrix), NIFTI_TOLERANCE, exact=not scaled)


@given(st.data())
def test_nrrd(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    encoding = data.draw(st.sampled_from(["raw", "gzip", "gzip", "ascii"] if np.prod(shape) < 1e5 else ["raw"]))
    array = data.draw(arrays(shape, list(NRRD_TYPES), bad=encoding != "ascii"))
    image = Image(array, data.draw(matrices(sheared=True)))
    signs = data.draw(st.sampled_from([LPS, np.ones(3), np.array([-1.0, 1.0, 1.0])]))
    with folder() as place:
        content = nrrd_file(image, order=data.draw(orders), encoding=encoding, signs=signs)
        check_read(place / "a.nrrd", content, image, TOLERANCE, exact=encoding != "ascii")


@given(st.data())
def test_metaimage(data: st.DataObject) -> None:
    array = data.draw(arrays(data.draw(shapes()), list(META_TYPES)))
    image = Image(array, data.draw(matrices(sheared=True)))
    with folder() as place:
        content = metaimage_file(image, order=data.draw(orders), compressed=data.draw(st.booleans()))
        check_read(place / "a.mha", content, image, TOLERANCE)


@given(st.data())
def test_what_is_written_comes_back(data: st.DataObject) -> None:
    extension = data.draw(st.sampled_from(WRITTEN))
    dtypes = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64", "int64", "bool", "float16"]
    array, matrix = data.draw(arrays(data.draw(shapes()), list(NIFTI_TYPES))), data.draw(matrices(sheared=True))
    dtype = data.draw(st.sampled_from(dtypes))
    volume, sentence = outcome(lambda: Volume(array, matrix, source_dtype=dtype))
    if volume is None:
        assert is_true_of(sentence, array), sentence
        return
    with folder() as place:
        path = place / f"a{extension}"
        _, sentence = outcome(lambda: write_volume(volume, path))
        if sentence:
            assert "sheared" in sentence, sentence
            assert extension.startswith(".nii")
            assert not volume.grid.is_orthogonal
            assert os.listdir(place) == []
            return
        assert os.listdir(place) == [path.name]
        expected = volume.array_kji
        if dtype in dtypes[:6]:
            limits = np.iinfo(dtype)
            expected = np.clip(np.rint(expected.astype(np.float64)), limits.min, limits.max).astype(np.float32)
        back, sentence = outcome(lambda: read_volume(path))
        if back is None:
            assert is_true_of(sentence, expected), sentence
            return
        np.testing.assert_array_equal(back.array_kji, expected)
        tolerance = NIFTI_TOLERANCE if extension.startswith(".nii") else TOLERANCE
        assert misplacement(back.ijk_to_ras, matrix, volume.grid.shape_ijk) < tolerance


def whole_file(data: st.DataObject) -> tuple[str, Image, bytes, int]:
    """The extension, an image that is taken, its file, and where that file's voxels begin."""
    shape = data.draw(shapes(4, 9))
    array = np.random.default_rng(data.draw(seeds)).integers(0, 3000, shape[::-1]).astype(np.int16)
    image = Image(array, data.draw(matrices()))
    extension = data.draw(st.sampled_from(WRITTEN))
    if extension == ".nrrd":
        content = nrrd_file(image, encoding="gzip")
        return extension, image, content, content.index(b"\n\n") + 2
    if extension == ".mha":
        content = metaimage_file(image, compressed=True)
        return extension, image, content, content.index(b"LOCAL\n") + 6
    content = nifti_file(array, pixdim=(1, *image.spacing), sform=image.matrix)
    return (extension, image, content, 352) if extension == ".nii" else (extension, image, gzip.compress(content), 10)


@given(st.data())
def test_cut_at_any_byte(data: st.DataObject) -> None:
    extension, _, content, _ = whole_file(data)
    length = data.draw(st.integers(0, len(content) - 1))
    with folder() as place:
        (place / f"a{extension}").write_bytes(content[:length])
        volume, sentence = outcome(lambda: read_volume(place / f"a{extension}"))
        assert volume is None
        assert f"a{extension}" in sentence


@given(st.data())
def test_damaged_at_any_byte(data: st.DataObject) -> None:
    extension, image, content, voxels = whole_file(data)
    damaged = bytearray(content)
    places = data.draw(st.lists(st.integers(0, len(content) - 1) | st.integers(0, voxels - 1), min_size=1, max_size=4))
    for place in places:
        kind, byte = data.draw(st.sampled_from(["change", "delete", "insert"])), data.draw(st.integers(0, 255))
        damaged[place : place + (kind != "insert")] = b"" if kind == "delete" else bytes([byte])
    with folder() as place:
        path = place / f"a{extension}"
        path.write_bytes(damaged)
        volume, _ = outcome(lambda: read_volume(path))
        if volume is None:
            return
        assert np.isfinite(volume.array_kji).all()
        if extension == ".nii.gz" or (extension != ".nii" and min(places) >= voxels):
            # A checksum stands for the voxels.
            np.testing.assert_array_equal(volume.array_kji, image.array)
        write_volume(volume, place / "b.nrrd")
        back = read_volume(place / "b.nrrd")
        assert misplacement(back.ijk_to_ras, volume.ijk_to_ras, volume.grid.shape_ijk) < TOLERANCE
