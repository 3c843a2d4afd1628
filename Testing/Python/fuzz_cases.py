"""What the fuzz tests draw: grids, images and outcomes; their arithmetic owes nothing to the engine's."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from hypothesis import event, settings
from hypothesis import strategies as st
from mcsr.errors import McsrError

T = TypeVar("T")
SUITE_CASES = 20
MOST_VOXELS_OF_A_CASE = 16 * 2**20
"""64 MB as float32; only outside the suite."""

# Any whole power of ten from 1e-6 to 1e9: smallest magnitudes to the largest that MRI is stored with.
magnitudes = st.integers(-6, 9).map(lambda exponent: 10.0**exponent)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Image:
    """Voxels (K, J, I) of any type and where they lie: index (i, j, k) to RAS mm, (4, 4)."""

    array: np.ndarray
    matrix: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        return np.sqrt((self.matrix[:3, :3] ** 2).sum(axis=0))

    @property
    def shape_ijk(self) -> tuple[int, int, int]:
        k, j, i = self.array.shape
        return i, j, k


@st.composite
def shapes(
    draw: st.DrawFn, smallest: int = 1, largest: int = 24, most_voxels: int = MOST_VOXELS_OF_A_CASE
) -> tuple[int, int, int]:
    """(i, j, k): mostly small ones; outside the suite now and then one of up to `most_voxels`."""
    shape = draw(st.tuples(*[st.integers(smallest, largest)] * 3))
    if settings().max_examples > SUITE_CASES and draw(st.integers(0, 99)) == 0:
        sides = draw(st.tuples(*[st.integers(64, 512)] * 2))
        return *sides, draw(st.integers(1, max(1, most_voxels // math.prod(sides))))
    return shape


@st.composite
def quaternions(draw: st.DrawFn) -> np.ndarray:
    """Unit quaternions (a, b, c, d) with a >= 0; turns about an axis by multiples of 90 degrees among them."""
    right = st.sampled_from([(1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 1), (1, 0, 0, -1)])
    turned = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
    q = np.array(draw(right | turned), dtype=float)
    return q / np.linalg.norm(q) * (-1 if q[0] < 0 else 1)


def rotation(q: np.ndarray) -> np.ndarray:
    """(3, 3): the unit vectors turned by a quaternion, q v q*."""
    a, u = q[0], q[1:]
    return np.stack([2 * (u @ e) * u + (a * a - u @ u) * e + 2 * a * np.cross(u, e) for e in np.eye(3)], axis=1)


spacings = st.tuples(*[st.floats(math.log(0.05), math.log(20)).map(math.exp)] * 3).map(np.array)
origins = st.tuples(*[st.floats(-500, 500)] * 3).map(np.array)
hands = st.sampled_from([1.0, -1.0])


@st.composite
def matrices(draw: st.DrawFn, sheared: bool = False) -> np.ndarray:
    """Index to RAS mm: any turn, size, place and hand; with `sheared` also axes that are not at right angles."""
    axes = rotation(draw(quaternions())) * [1, 1, draw(hands)]
    if sheared and draw(st.booleans()):
        axes = axes @ np.array([[1, draw(st.floats(-0.5, 0.5)), 0], [0, 1, draw(st.floats(-0.5, 0.5))], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes * draw(spacings), draw(origins)
    return matrix


@st.composite
def arrays(draw: st.DrawFn, shape_ijk: tuple[int, int, int], dtypes: list[str], bad: bool = True) -> np.ndarray:
    """(K, J, I): noise of any magnitude and sign, with NaN and infinite voxels; labels, masks and constants too."""
    dtype, rng = np.dtype(draw(st.sampled_from(dtypes))), np.random.default_rng(draw(seeds))
    shape, kind = shape_ijk[::-1], draw(st.sampled_from(["noise"] * 6 + ["constant", "labels"]))
    offset = draw(st.sampled_from([0.0, 0.0, 0.5, 1.0]))
    if kind != "noise":
        return rng.integers(0, 1 if kind == "constant" else 6, shape).astype(dtype)
    unit = rng.random(shape) - offset
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        size = min(max(100.0, draw(magnitudes)), 0.99 * limits.max)  # less would be constant
        return np.clip(unit * size, limits.min, limits.max).astype(dtype)
    array = (unit * draw(magnitudes)).astype(dtype)
    if bad and draw(st.booleans()):
        chosen = rng.random(shape) < draw(st.sampled_from([0.002, 0.008, 0.1]))
        array[chosen] = rng.choice(np.array([np.nan, np.inf, -np.inf], dtype=dtype), int(chosen.sum()))
    return array


def outcome(act: Callable[[], T]) -> tuple[T | None, str]:
    """What came out, or None and the sentence that an error of ours says; any other exception passes through."""
    try:
        result = act()
    except McsrError as error:
        sentence = str(error)
        assert re.fullmatch(r"[^\n]{20,400}[.?]", sentence), f"no sentence: {sentence!r}"
        assert "Traceback" not in sentence
        event("sentence: " + _of_any_case(sentence))
        return None, sentence
    event("a result")
    return result, ""


def _of_any_case(sentence: str) -> str:
    """Without what differs from case to case: folders, numbers, and what is quoted of a header."""
    for found, put in ((r"/\S+/", ""), (r"'[^']*'", "'...'"), (r"-?\b(\d[\d.e+-]*|nan|inf)\b", "N")):
        sentence = re.sub(found, put, sentence)
    return sentence


def is_true_of(sentence: str, array: np.ndarray) -> bool:
    """Whether what a sentence says against an image's values is so."""
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    finite = np.isfinite(values)
    replaced = np.where(finite, values, 0)
    if "NaN or infinite" in sentence:
        return bool((~finite).mean() > 0.01)
    if "is constant" in sentence:
        return bool(np.ptp(replaced) == 0)
    if "label map" in sentence:
        return bool((replaced == np.rint(replaced)).all()) and np.unique(replaced).size <= 256
    return False


def as_read(array: np.ndarray) -> np.ndarray:
    """What a reader must give: float32, 0 where a voxel is no number."""
    values = array.astype(np.float32)
    return np.where(np.isfinite(values), values, 0)


def misplacement(found: np.ndarray, expected: np.ndarray, shape_ijk: tuple[int, int, int]) -> float:
    """Largest distance between voxel centres by two matrices, in units of the smallest voxel side."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*np.array(shape_ijk), 1]
    apart = np.linalg.norm((corners @ (found - expected).T)[:, :3], axis=1)
    return float(apart.max() / np.sqrt((expected[:3, :3] ** 2).sum(axis=0)).min())


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for one case."""
    with tempfile.TemporaryDirectory() as path:
        case = Path(path) / "case"
        case.mkdir()
        yield case
