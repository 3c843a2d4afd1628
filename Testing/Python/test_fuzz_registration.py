"""Registration of pairs of every kind: a rigid motion that helps, or none and one sentence on why."""

from __future__ import annotations

import re

import numpy as np
from fuzz_cases import Image, arrays, hands, magnitudes, outcome, quaternions, rotation, seeds
from hypothesis import given
from hypothesis import strategies as st
from mcsr.registration import ACCEPTANCE_MARGIN, MIN_SLICES, Registration, register_rigid
from mcsr.volume import Volume


@st.composite
def grids(draw: st.DrawFn, unit_mm: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (i, j, k) and index to RAS mm of a grid about the origin: voxels of half to twice a unit, shear too."""
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    axes = rotation(draw(quaternions())) * [1, 1, draw(hands)]
    if draw(st.booleans()):
        axes = axes @ np.array([[1, draw(st.floats(-0.5, 0.5)), 0], [0, 1, draw(st.floats(-0.5, 0.5))], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = axes * unit_mm * np.array(draw(st.tuples(*[st.floats(0.5, 2)] * 3)))
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(shape) - 1) / 2
    return shape, matrix


def blobs(shape_ijk: tuple[int, int, int], seed: int) -> np.ndarray:
    """Six soft blobs amid an image (K, J, I)."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(0, 1, n) for n in shape_ijk[::-1]]
    array = np.zeros(shape_ijk[::-1])
    for centre, width in zip(rng.uniform(0.2, 0.8, (6, 3)), rng.uniform(0.05, 0.2, 6), strict=True):
        k, j, i = (np.exp(-0.5 * ((axis - c) / width) ** 2) for axis, c in zip(axes, centre, strict=True))
        array += k[:, None, None] * j[:, None] * i
    return array


@st.composite
def images(draw: st.DrawFn, unit_mm: float) -> Image:
    """Blobs of any brightness; or noise, labels, a constant, negative values and voxels that are no numbers."""
    shape, matrix = draw(grids(unit_mm))
    if draw(st.booleans()):
        return Image(draw(magnitudes) * blobs(shape, draw(seeds)), matrix)
    return Image(draw(arrays(shape, ["float32", "float64", "int16", "uint8"])), matrix)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Image, Image]:
    """A target and a reference, about one place, beside each other, or far apart; sometimes the same image."""
    unit_mm = draw(st.sampled_from([0.1, 1.0, 8.0]))
    target = draw(images(unit_mm))
    reference = draw(st.just(target) | images(unit_mm))
    apart, place = draw(st.sampled_from([0.0, 0.0, 3.0, 100.0])), draw(st.sampled_from([0.0, 500.0]))
    centres = place + np.zeros((2, 3))
    centres[1] += unit_mm * apart * rotation(draw(quaternions()))[0]
    for image, centre in zip((target, reference), centres, strict=True):
        image.matrix[:3, 3] += centre
    return target, reference


def check_registration(found: Registration, pair: tuple[Image, Image]) -> None:
    """The motion is rigid, and the identity unless the images gain by it; the figures and the sentence say so."""
    motion, turn = found.reference_to_target, found.reference_to_target[:3, :3]
    assert np.isfinite(motion).all()
    np.testing.assert_array_equal(motion[3], [0, 0, 0, 1])
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) > 0
    assert re.fullmatch(r"[A-Z][^\n]{20,200}\.", found.message)
    assert "nan" not in found.message
    assert -1 <= found.correlation_before <= 1
    assert -1 <= found.correlation_after <= 1
    assert found.accepted == found.message.startswith("The reference was moved by ")
    if found.accepted:
        assert found.correlation_after >= max(found.correlation_before, 0) + ACCEPTANCE_MARGIN
        assert min(min(image.array.shape) for image in pair) >= MIN_SLICES
    else:
        np.testing.assert_array_equal(motion, np.eye(4))


@given(st.data())
def test_a_rigid_motion_that_helps_or_none(data: st.DataObject) -> None:
    pair = data.draw(pairs())
    volumes, sentence = outcome(lambda: [Volume(image.array, image.matrix) for image in pair])
    if volumes is None:
        assert "NaN or infinite" in sentence
        return
    found, sentence = outcome(lambda: register_rigid(*volumes))
    assert found is not None, sentence
    check_registration(found, pair)
