"""What is done at random to a sample: displacements, contrasts and noise are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.errors import InputError
from mcsr.geometry import Grid
from mcsr.intensity import inverted
from mcsr.training.augmentation import (
    CURVE_KNOTS,
    LESION_CONTRASTS,
    Augmentation,
    curved,
    displaced,
    ellipse,
    misaligned,
    noisy,
    remapped,
    rotation,
    shifted,
    smooth_field,
    turned,
    with_lesions,
)
from scenes import scene

NOTHING = Augmentation(flip=0, self_reference=0, foreign_reference=0, shift=0, remap=0)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return scene("T2", Grid((72, 64, 1), np.diag([0.6, 0.6, 1, 1]))).array_kji / 200


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_nothing_is_drawn_for_what_never_happens(image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert noisy(image, NOTHING, rng) is image
    assert misaligned(image, NOTHING, rng)[0] is image
    assert rng.bit_generator.state == before


def test_a_displacement_moves_what_lies_there_to_here(image: np.ndarray) -> None:
    offset = np.array([2.0, -3.0]).reshape(2, 1, 1)
    moved = displaced(image, offset + np.zeros((2, *image.shape[1:])))
    assert np.allclose(moved[:, :-2, 3:], image[:, 2:, :-3], atol=1e-4)
    half = displaced(displaced(image, offset / 4 + np.zeros((2, 64, 72))), -offset / 4 + np.zeros((2, 64, 72)))
    assert correlation(half, image) > 0.999


def test_a_turn_is_about_the_middle_and_by_its_angle(image: np.ndarray) -> None:
    square = image[:, :, 4:68]
    quarter = displaced(square, rotation(square.shape[1:], np.pi / 2))
    assert np.allclose(quarter, np.rot90(square, -1, axes=(1, 2)), atol=1e-3)
    field = rotation((41, 31), np.deg2rad(3))
    assert np.allclose(field[:, 20, 15], 0)
    assert np.hypot(*field[:, 20, 25]) == pytest.approx(2 * 10 * np.sin(np.deg2rad(1.5)))


def test_a_warp_is_smooth_and_as_large_as_said() -> None:
    field = smooth_field((130, 170), np.random.default_rng(3))
    assert np.hypot(*field).max() == pytest.approx(1)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (1, 2)) < 0.1
    assert field.std() > 0.2


def test_misalignment_stays_within_its_ranges_and_tells_its_displacement(image: np.ndarray) -> None:
    augmentation = Augmentation(misalign=1.0, rotation_degrees=2.0, offset_pixels=1.5, elastic_pixels=1.0)
    largest = np.deg2rad(2.0) * np.hypot(32, 36) + 1.5 * np.sqrt(2) + 1.0
    sizes = []
    for seed in range(20):
        moved, field = misaligned(image, augmentation, np.random.default_rng(seed))
        sizes.append(np.hypot(*field).max())
        assert moved.min() >= 0
        back = displaced(moved, -field)  # to first order
        assert correlation(back[:, 8:-8, 8:-8], image[:, 8:-8, 8:-8]) > 0.995
    assert max(sizes) < largest
    assert np.ptp(sizes) > 1


def test_whole_pixels_are_told_too(image: np.ndarray) -> None:
    moved, offset = shifted(image, Augmentation(shift=1.0, shift_pixels=3), np.random.default_rng(1))
    assert np.array_equal(np.roll(image, offset.ravel(), axis=(1, 2)), moved)
    assert 0 < np.abs(offset).max() <= 3


def test_inversion_turns_bright_into_dark_but_for_air() -> None:
    ramp = np.array([0, 0.002, 0.2, 0.5, 0.9, 1.2])
    assert np.allclose(inverted(ramp), [0, 0.001, 0.8, 0.5, 0.1, 0], atol=2e-3)


def test_a_curve_is_smooth_keeps_air_and_its_order_where_its_heights_do() -> None:
    ramp = np.linspace(0, 1, 201, dtype=np.float32)
    assert np.abs(curved(ramp, np.array(CURVE_KNOTS)) - ramp).max() < 0.03, "heights on the diagonal change little"
    monotone = curved(ramp, np.array([0, 0.1, 0.1, 0.8, 0.8, 0.9]))
    assert np.all(np.diff(monotone) >= 0)
    bent = curved(ramp, np.array([0, 0.9, 0.1, 0.2, 0.9, 0.1]))
    assert np.any(np.diff(bent) < 0)
    for curve in (monotone, bent):
        assert curve[0] == 0
        assert curve.max() == pytest.approx(1, abs=1e-3)
        assert np.abs(np.diff(curve)).max() < 0.07
        assert curve.dtype == np.float32


def test_remapping_changes_contrast_and_not_place(image: np.ndarray) -> None:
    orders = []
    for seed in range(12):
        changed = remapped(image, Augmentation(remap=0, curve=1.0), np.random.default_rng(seed))
        assert np.abs(changed[image < 1e-3]).max() < 0.02, "air stays dark"
        tissue = image > 0.3
        orders.append(np.corrcoef(changed[tissue], image[tissue])[0, 1])
    assert min(orders) < 0.2 < 0.9 < max(orders), "some curves turn tissues round, some do not"
    inside = image[image > 0.2]
    swapped = remapped(image, Augmentation(remap=0, invert=1.0), np.random.default_rng(0))[image > 0.2]
    assert correlation(inside, swapped) < -0.95


def test_noise_has_the_level_asked_for() -> None:
    flat = np.full((1, 200, 200), 0.8, dtype=np.float32)
    augmentation = Augmentation(noise=1.0, noise_level=(0.02, 0.06), noise_kind="gaussian")
    levels = [float(noisy(flat, augmentation, np.random.default_rng(seed)).std()) for seed in range(20)]
    assert 0.019 < min(levels) < 0.035
    assert 0.045 < max(levels) < 0.061
    dark = noisy(0 * flat, Augmentation(noise=1.0, noise_level=(0.05, 0.05)), np.random.default_rng(0))
    assert dark.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02), "Rician: air is not zero on average"
    assert dark.dtype == np.float32


@pytest.mark.parametrize("level", [0.05, (0.05,), (0.05, 0.01), (-0.1, 0.1)])
def test_a_range_must_be_a_range(level: object) -> None:
    with pytest.raises(InputError, match="give the smallest and the largest"):
        Augmentation(noise_level=level)  # type: ignore[arg-type]


def test_all_images_of_a_sample_are_turned_alike(image: np.ndarray) -> None:
    double = image[:, ::2, ::2]
    for changes in ({"flip": 1.0}, {"flip_rows": 1.0}, {"quarter_turns": 1.0}):
        augmentation = Augmentation(**({"flip": 0.0} | changes))
        for square in (False, True):
            low, high = (double[..., :32], image[..., :64]) if square else (double, image)
            low, high = turned((low, high), augmentation, np.random.default_rng(2))
            assert correlation(high[:, ::2, ::2], low) > 0.97
            assert not np.array_equal(high, image[..., : high.shape[2]])
    assert turned((image,), Augmentation(flip=0, quarter_turns=1.0), np.random.default_rng(0))[0].shape == image.shape


def test_lesions_are_in_the_tissue_and_change_it_by_their_contrast(image: np.ndarray) -> None:
    changes = []
    for seed in range(30):
        changed = with_lesions(image, Augmentation(lesions=1.0), np.random.default_rng(seed))
        assert changed.dtype == image.dtype
        assert changed.min() >= 0
        assert np.abs(changed - image).max() <= 8 * LESION_CONTRASTS[1] * image.max(), "some overlap"
        changes.append(float(np.mean(np.abs(changed - image) > 0.02)))
    assert 0.005 < np.mean(changes) < 0.2
    assert np.array_equal(with_lesions(0 * image, Augmentation(lesions=1.0), np.random.default_rng(0)), 0 * image)


def test_an_ellipse_has_its_axes_its_direction_and_an_edge() -> None:
    upright = ellipse((81, 81), np.array([40, 40]), np.array([20.0, 5.0]), 0.0, 2.0)
    assert (upright[:, 40] >= 0.5).sum() == 41, "its first axis is along the rows"
    assert (upright[40] >= 0.5).sum() == 11
    assert np.allclose(upright[40, 44:48], [0.5 + 0.5, 0.5, 0, 0])
    turned_by_a_quarter = ellipse((81, 81), np.array([40, 40]), np.array([20.0, 5.0]), np.pi / 2, 2.0)
    assert np.allclose(turned_by_a_quarter, upright.T)
