"""Whether a reference fits: by its edges, whatever its contrast."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.degradation import degrade
from mcsr.trust_fit import FIT, UNFIT, ReferenceFit, reference_fit

SLICES, SIZE = 6, 128


def anatomy(seed: int) -> np.ndarray:
    """Blobs of three tissues (K, H, W), that change from slice to slice as anatomy does."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE))), 0)
    keep = np.exp(-((frequency / 0.06) ** 2))
    field = np.stack([np.real(np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIZE, SIZE))) * keep)) for _ in range(SLICES)])
    return np.digitize(field, np.quantile(field, [0.3, 0.7]))


def contrast(tissue: np.ndarray, *values: float) -> np.ndarray:
    return np.choose(tissue, values).astype(np.float32)


TISSUE = anatomy(1)
REFERENCE = contrast(TISSUE, 0.3, 1.0, 0.7)


@pytest.fixture(params=[2, 4], ids="x{}".format)
def scale(request: pytest.FixtureRequest) -> int:
    return request.param


def fit(reference: np.ndarray, scale: int) -> ReferenceFit:
    target = degrade(contrast(TISSUE, 0.9, 0.3, 0.6), (1, scale, scale), "kspace")
    return reference_fit(target, reference, (1, scale, scale))


def is_used_fully(found: ReferenceFit) -> bool:
    return bool((found.weights == 1).all())


def test_another_contrast_of_the_same_anatomy_fits(scale: int) -> None:
    assert is_used_fully(fit(REFERENCE, scale))
    assert is_used_fully(fit(1.2 - REFERENCE, scale)), "inverted"
    assert is_used_fully(fit(1000 * REFERENCE, scale)), "in other units"


def test_the_target_itself_fits(scale: int) -> None:
    assert is_used_fully(fit(contrast(TISSUE, 0.9, 0.3, 0.6), scale))


@pytest.mark.parametrize("wrong", ["other", "mirrored", "moved", "noise"])
def test_what_is_not_the_same_anatomy_does_not_fit(scale: int, wrong: str) -> None:
    reference = {
        "other": contrast(anatomy(2), 0.3, 1.0, 0.7),
        "mirrored": REFERENCE[:, :, ::-1],
        "moved": np.roll(REFERENCE, 3 * scale, axis=1),
        "noise": np.abs(np.random.default_rng(0).normal(size=REFERENCE.shape)).astype(np.float32),
    }[wrong]
    found = fit(reference, scale)
    assert found.mean_agreement < UNFIT
    assert found.weights.mean() < 0.2


def test_slices_are_judged_one_by_one(scale: int) -> None:
    half = REFERENCE.copy()
    half[3:] = contrast(anatomy(2), 0.3, 1.0, 0.7)[3:]
    found = fit(half, scale)
    assert found.agreement[1] > 3 * FIT
    assert found.agreement[5] < UNFIT
    assert not is_used_fully(found)


def test_nothing_to_see_speaks_against_no_reference() -> None:
    nothing = np.zeros((3, 32, 32), dtype=np.float32)
    assert is_used_fully(reference_fit(nothing, np.zeros((3, 64, 64), dtype=np.float32), (1, 2, 2)))
    assert is_used_fully(reference_fit(nothing[:0], np.zeros((0, 64, 64), dtype=np.float32), (1, 2, 2)))
    one = reference_fit(nothing[:1] + 1, np.ones((1, 64, 64), dtype=np.float32), (1, 2, 2))
    assert np.isfinite(one.agreement).all()
