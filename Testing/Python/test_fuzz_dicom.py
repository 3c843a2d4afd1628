"""DICOM of every kind: a volume that is what the series says, or one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fuzz_cases import Image, folder, is_true_of, matrices, misplacement, outcome, seeds
from fuzz_dicom import SYNTAXES, changed, multi_frame_dataset, right_handed, save, slice_datasets
from hypothesis import given
from hypothesis import strategies as st
from mcsr.imageio import read_volume
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

TOLERANCE = 1e-4


@st.composite
def images(draw: st.DrawFn, fewest_slices: int = 1, smallest: int = 1) -> Image:
    """Voxels of 16 bit on a grid whose slices run along the normal of columns and rows."""
    i, j, k = draw(st.tuples(st.integers(smallest, 20), st.integers(smallest, 20), st.integers(fewest_slices, 7)))
    dtype = draw(st.sampled_from([np.int16, np.uint16]))
    limits, most = np.iinfo(dtype), draw(st.sampled_from([1, 300, 4000, 60000]))
    rng = np.random.default_rng(draw(seeds))
    array = np.clip(rng.integers(-most if limits.min else 0, most + 1, (k, j, i)), limits.min, limits.max)
    matrix = draw(matrices())
    image = Image(array.astype(dtype), matrix)
    if not right_handed(image):
        matrix[:3, 2] *= -1
    return image


def shuffled(data: st.DataObject, count: int) -> list[int]:
    return list(np.random.default_rng(data.draw(seeds)).permutation(count))


@given(st.data())
def test_series(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    # Encoders are made for images: those of ITK do not survive a few pixels, and GDCM reads no single one from RLE.
    image = data.draw(images(smallest=16 if syntax in ("rle", "JPEG", "JPEG2000") else 1))
    order = shuffled(data, len(image.array))
    slopes = np.ones(len(order))
    with folder() as place:
        if syntax in ("explicit", "implicit", "rle") and data.draw(st.booleans()):
            save(multi_frame_dataset(image, order), place / "all", syntax)
        else:
            datasets = slice_datasets(image)
            # Scanners scale each slice to use its 16 bits.
            if data.draw(st.booleans()) and syntax not in ("JPEG", "JPEG2000"):
                slopes = np.random.default_rng(data.draw(seeds)).choice([1, 0.5, 1.37], len(order))
                for dataset, slope in zip(datasets, slopes, strict=True):
                    dataset.RescaleSlope, dataset.RescaleIntercept = str(slope), "0"
            for number, k in enumerate(order):
                save(datasets[k], place / f"IM{number}", syntax)
        if data.draw(st.booleans()):
            (place / "notes.txt").write_text("not DICOM")
        expected = image.array * slopes[:, None, None]
        volume, sentence = outcome(lambda: read_volume(place))
        if volume is None:
            assert is_true_of(sentence, expected), sentence
            return
        np.testing.assert_allclose(volume.array_kji, expected, rtol=1e-6, atol=0)
        assert misplacement(volume.ijk_to_ras, image.matrix, image.shape_ijk) < TOLERANCE


def _remove_slices(image: Image, place: Path, which: int) -> None:
    for k, dataset in enumerate(slice_datasets(image)):
        if k != which:
            save(dataset, place / str(k))


def _shift_a_slice(image: Image, place: Path, which: int, along: int, by: float) -> None:
    datasets = slice_datasets(image)
    step = image.matrix[:3, along] * [-1, -1, 1] * by

    def move(dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [
            f"{float(p) + s:.8f}" for p, s in zip(dataset.ImagePositionPatient, step, strict=True)
        ]

    changed(datasets, which, move)
    for k, dataset in enumerate(datasets):
        save(dataset, place / str(k))


def _second_series(image: Image, place: Path, which: int, same_uid: bool) -> None:
    first, second = slice_datasets(image), slice_datasets(image)
    for k, dataset in enumerate(first):
        save(dataset, place / f"a{k}")
    if same_uid:
        changed(second, -1, lambda dataset: setattr(dataset, "SeriesInstanceUID", first[0].SeriesInstanceUID))
    save(second[which], place / "b")


def _cut(image: Image, place: Path, which: int, fraction: float) -> None:
    for k, dataset in enumerate(slice_datasets(image)):
        save(dataset, place / str(k))
    content = (place / str(which)).read_bytes()
    # Not before the end of its file meta information: what is left would not be known for DICOM.
    (place / str(which)).write_bytes(content[: 400 + int(fraction * (len(content) - 400))])


def _lie(image: Image, place: Path, which: int, field: str, value: object) -> None:
    datasets = slice_datasets(image)
    if value is None:
        changed(datasets, which, lambda dataset: delattr(dataset, field))
    else:
        changed(datasets, which, lambda dataset: setattr(dataset, field, value))
    for k, dataset in enumerate(datasets):
        save(dataset, place / str(k))


def _frames_without(image: Image, place: Path, which: int) -> None:
    save(multi_frame_dataset(image, [k for k in range(len(image.array)) if k != which]), place / "all")


LIES = [
    ("PixelSpacing", None),
    ("PixelSpacing", ["0", "1"]),
    ("PixelSpacing", ["77", "77"]),
    ("ImageOrientationPatient", None),
    ("ImageOrientationPatient", ["1", "0", "0", "0.6", "0.8", "0"]),
    ("ImageOrientationPatient", ["0"] * 6),
    ("ImagePositionPatient", None),
    ("ImagePositionPatient", ["0", "0"]),
    ("Rows", 21),
    ("Columns", 3),
    ("BitsAllocated", 8),
    ("SamplesPerPixel", 3),
    ("PixelData", b"\0\0"),
    ("PhotometricInterpretation", "PALETTE COLOR"),
    ("SeriesInstanceUID", generate_uid()),
]


@given(st.data())
def test_series_that_cannot_be_right(data: st.DataObject) -> None:
    image = data.draw(images(fewest_slices=4, smallest=4))
    which = data.draw(st.integers(1, len(image.array) - 2))
    kind = data.draw(st.sampled_from(["gap", "frames", "shift", "series", "echo", "cut", "lie", "lie", "lie"]))
    with folder() as place:
        if kind == "gap":
            _remove_slices(image, place, which)
        elif kind == "frames":
            _frames_without(image, place, which)
        elif kind == "shift":
            by = data.draw(st.sampled_from([-1.0, -0.3, 0.1, 0.5]))
            # Sideways the rows count in units of the slice distance.
            along = data.draw(st.sampled_from([0, 2])) if image.spacing[0] > image.spacing[2] else 2
            _shift_a_slice(image, place, which, along, by)
        elif kind in ("series", "echo"):
            _second_series(image, place, which, kind == "echo")
        elif kind == "cut":
            _cut(image, place, which, data.draw(st.floats(0, 0.999)))
        else:
            field, value = data.draw(st.sampled_from(LIES))
            _lie(image, place, which, field, value)
        volume, sentence = outcome(lambda: read_volume(place))
        assert volume is None, kind
        assert place.name in sentence
