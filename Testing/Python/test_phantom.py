"""The phantom: contrasts as in patients, one anatomy whatever the grid, motion and noise as asked for."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.errors import InputError
from mcsr.geometry import AxisOrder, Grid, moved_grid, rigid_matrix
from mcsr.phantom import SIGNAL_UNIT, DemoCase, demo_case, make_phantom, tissue_fractions
from mcsr.phantom_tissue import CONTRASTS, TISSUE_INDEX, TISSUES
from mcsr.volume import Volume

# A slab through the ventricles and the deep nuclei, and a block of right parietal white matter with a bright lesion.
SLAB = Grid((76, 92, 4), [[-2, 0, 0, 76], [0, -2, 0, 76], [0, 0, 4, 4], [0, 0, 0, 1]])
LESION_BLOCK = Grid((24, 24, 24), [[1, 0, 0, 21], [0, 1, 0, -54], [0, 0, 1, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def case() -> DemoCase:
    return demo_case(seed=0, size="small")


@pytest.fixture(scope="module")
def scans() -> dict[str, np.ndarray]:
    return {contrast: make_phantom(SLAB, contrast, noise=0).array_kji for contrast in CONTRASTS}


def points_of(grid: Grid) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape_kji), indexing="ij")
    return grid.to_ras(np.stack([i, j, k], axis=-1))


@pytest.fixture(scope="module")
def fractions() -> np.ndarray:
    """Of the slab, averaged over nine points of each voxel."""
    points = points_of(SLAB)
    steps = [np.zeros(3), *(np.array(step) for step in np.ndindex(2, 2, 2))]
    offsets = [(step - 0.5) * (1.6, 1.6, 3.2) if step.any() else step for step in steps]
    return np.mean([tissue_fractions(points + offset) for offset in offsets], axis=0)


def lesion_image(grid: Grid, contrast: str = "FLAIR", **options: object) -> np.ndarray:
    """What lesions add to a noise-free scan."""
    with_and_without = [make_phantom(grid, contrast, noise=0, lesions=on, **options) for on in (True, False)]  # type: ignore[arg-type]
    return with_and_without[0].array_kji - with_and_without[1].array_kji


def centroid_ras(image: np.ndarray, grid: Grid) -> np.ndarray:
    return np.average(points_of(grid).reshape(-1, 3), axis=0, weights=image.ravel())


def test_fractions_sum_to_one_everywhere(fractions: np.ndarray) -> None:
    assert fractions.min() >= 0
    np.testing.assert_allclose(fractions.sum(axis=-1), 1, atol=1e-5)


def test_fractions_do_not_depend_on_how_points_are_grouped() -> None:
    points = points_of(SLAB)[1, ::5, ::5]
    one_by_one = np.stack([[tissue_fractions(point) for point in row] for row in points[:6, :6]])
    np.testing.assert_allclose(tissue_fractions(points)[:6, :6], one_by_one, atol=1e-4)


def test_head_is_built_from_outside_in() -> None:
    """Along the right of the head: air, skin and fat, bone, fluid, and the ventricle near the midline."""
    line = np.stack([np.arange(95, 0, -0.5), np.full(190, -25.0), np.full(190, 20.0)], axis=-1)
    tissue = [TISSUES[n].name for n in tissue_fractions(line).argmax(axis=-1)]
    first = {name: tissue.index(name) for name in ("air", "fat", "cortical bone", "csf", "grey matter", "white matter")}
    assert list(first) == sorted(first, key=first.__getitem__)
    assert tissue_fractions(np.array([12.0, -12.0, 24.0]))[TISSUE_INDEX["csf"]] > 0.9
    assert tissue_fractions(np.array([-12.0, -12.0, 24.0]))[TISSUE_INDEX["csf"]] > 0.9


def test_volumes_are_those_of_a_human_brain() -> None:
    axes = [np.arange(-80, 81, 4.0), np.arange(-120, 84, 4.0), np.arange(-20, 84, 4.0)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    ml = tissue_fractions(points).reshape(-1, len(TISSUES)).sum(axis=0) * 4**3 / 1000
    volume = dict(zip((tissue.name for tissue in TISSUES), ml, strict=True))
    assert 450 < volume["white matter"] < 650
    assert 450 < volume["grey matter"] < 700
    assert 120 < volume["csf"] < 300
    assert 5 < volume["caudate"] < 10
    assert 6 < volume["putamen"] < 13
    assert 6 < volume["thalamus"] < 14


@pytest.mark.parametrize(
    ("contrast", "order"),
    [
        ("T2", ["white matter", "grey matter", "csf"]),
        ("T1", ["csf", "grey matter", "white matter"]),
        ("FLAIR", ["csf", "white matter", "grey matter"]),
        ("T2", ["cortical bone", "pallidum", "putamen", "csf"]),
        ("T1", ["cortical bone", "putamen", "white matter", "fat"]),
    ],
)
def test_tissues_rank_as_in_patients(
    scans: dict[str, np.ndarray], fractions: np.ndarray, contrast: str, order: list[str]
) -> None:
    signal = [np.median(scans[contrast][fractions[..., TISSUE_INDEX[name]] > 0.8]) for name in order]
    assert np.all(np.diff(signal) > 0.08 * max(signal)), dict(zip(order, signal, strict=True))


def test_fluid_is_nulled_on_flair(scans: dict[str, np.ndarray], fractions: np.ndarray) -> None:
    fluid = fractions[..., TISSUE_INDEX["csf"]] > 0.98
    assert fluid.sum() > 20
    assert np.median(scans["FLAIR"][fluid]) < 0.02 * SIGNAL_UNIT


@pytest.mark.parametrize(
    ("lesion", "contrast", "seen"),
    [
        ("bright lesion", "T2", 0.8),
        ("bright lesion", "FLAIR", 0.8),
        ("bright lesion", "T1", 0.0),
        ("dark lesion", "T1", -0.3),
        ("dark lesion", "FLAIR", -0.3),
        ("dark lesion", "T2", 0.0),
    ],
)
def test_lesions_show_only_where_claimed(lesion: str, contrast: str, seen: float) -> None:
    """Change of the signal in the middle of a lesion, relative to the white matter it lies in."""
    centre = {"bright lesion": (33.0, -42.0, 17.0), "dark lesion": (-27.0, -36.0, 22.0)}[lesion]
    grid = Grid((3, 3, 3), [[1, 0, 0, centre[0] - 1], [0, 1, 0, centre[1] - 1], [0, 0, 1, centre[2] - 1], [0, 0, 0, 1]])
    added = lesion_image(grid, contrast)[1, 1, 1]
    change = added / make_phantom(grid, contrast, noise=0, lesions=False).array_kji[1, 1, 1]
    if seen == 0:
        assert abs(change) < 0.06
    else:
        assert change / seen > 1


def test_lesion_lies_on_the_patients_right() -> None:
    index = TISSUE_INDEX["bright lesion"]
    assert tissue_fractions(np.array([33.0, -42.0, 17.0]))[index] == pytest.approx(1, abs=1e-5)
    assert tissue_fractions(np.array([-33.0, -42.0, 17.0]))[index] == 0


def test_anatomy_stays_in_place_on_another_grid() -> None:
    """The centre of a lesion, and its total signal, on an oblique grid of other spacing and storage order."""
    start = LESION_BLOCK.centre_ras
    turned = rigid_matrix((20.0, -15.0, 30.0), np.zeros(3), start) @ np.array(
        [[0, 0, 0.9, start[0] - 13], [-0.8, 0, 0, start[1] + 13], [0, 1.1, 0, start[2] - 13], [0, 0, 0, 1]]
    )
    other = Grid((34, 25, 30), turned)
    images = [(lesion_image(grid), grid) for grid in (LESION_BLOCK, other)]
    centres = [centroid_ras(image, grid) for image, grid in images]
    np.testing.assert_allclose(centres[0], centres[1], atol=0.05)
    totals = [image.sum() * abs(np.linalg.det(grid.ijk_to_ras)) for image, grid in images]
    assert totals[0] == pytest.approx(totals[1], rel=0.02)


def test_scan_depends_on_place_not_on_storage_order() -> None:
    small = Grid((20, 16, 6), SLAB.ijk_to_ras)
    order = AxisOrder((2, 0, 1), (True, False, True))
    scan = make_phantom(small, "T2", noise=0)
    again = make_phantom(order.apply_grid(small), "T2", noise=0)
    # The sample points of a voxel are laid out along its axes, so that edges differ in the last few per cent.
    assert np.abs(scan.reordered(order).array_kji - again.array_kji).mean() < 0.02 * SIGNAL_UNIT
    np.testing.assert_allclose(again.ijk_to_ras, scan.reordered(order).ijk_to_ras)


def test_motion_moves_anatomy_by_the_given_transform() -> None:
    motion = rigid_matrix((4.0, -3.0, 6.0), np.array([2.0, -3.0, 1.5]), np.array([0.0, -20.0, 10.0]))
    still = centroid_ras(lesion_image(LESION_BLOCK), LESION_BLOCK)
    moved = centroid_ras(lesion_image(LESION_BLOCK, motion=motion), LESION_BLOCK)
    expected = motion[:3, :3] @ still + motion[:3, 3]
    assert np.linalg.norm(expected - still) > 3
    np.testing.assert_allclose(moved, expected, atol=0.05)
    carried = make_phantom(moved_grid(LESION_BLOCK, motion), "T1", noise=0, motion=motion)
    at_rest = make_phantom(LESION_BLOCK, "T1", noise=0)
    np.testing.assert_allclose(carried.array_kji, at_rest.array_kji, atol=0.02 * SIGNAL_UNIT)


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_noise_has_the_requested_level(noise: float) -> None:
    white_matter = Grid((14, 14, 14), [[0.5, 0, 0, 22], [0, 0.5, 0, -34], [0, 0, 0.5, 28], [0, 0, 0, 1]])
    clean = make_phantom(white_matter, "T1", noise=0, lesions=False).array_kji
    noisy = make_phantom(white_matter, "T1", noise=noise, lesions=False).array_kji
    assert clean.min() > 0.5 * SIGNAL_UNIT
    assert (noisy - clean).std() == pytest.approx(noise * SIGNAL_UNIT, rel=0.06)
    air = Grid((20, 20, 20), [[1, 0, 0, 150], [0, 1, 0, 150], [0, 0, 1, 0], [0, 0, 0, 1]])
    background = make_phantom(air, "T1", noise=noise).array_kji
    # Rician noise without signal is Rayleigh distributed.
    assert background.mean() == pytest.approx(noise * SIGNAL_UNIT * np.sqrt(np.pi / 2), rel=0.03)


def test_seed_decides_everything() -> None:
    grid = Grid((40, 48, 2), SLAB.ijk_to_ras)
    once, again, other = (make_phantom(grid, "T2", seed=seed).array_kji for seed in (3, 3, 4))
    np.testing.assert_array_equal(once, again)
    head = once > 0.2 * SIGNAL_UNIT
    assert np.corrcoef(once[head], other[head])[0, 1] < 0.8


def test_contrasts_have_their_own_noise() -> None:
    air = Grid((12, 12, 12), [[1, 0, 0, 150], [0, 1, 0, 150], [0, 0, 1, 0], [0, 0, 0, 1]])
    t1, t2 = (make_phantom(air, contrast).array_kji.ravel() for contrast in ("T1", "T2"))
    assert abs(np.corrcoef(t1, t2)[0, 1]) < 0.1


def test_unknown_contrast_and_size_are_refused() -> None:
    with pytest.raises(InputError, match="T1, T2, FLAIR"):
        make_phantom(SLAB, "PD")
    with pytest.raises(InputError, match="full, small"):
        demo_case(size="huge")


def test_demo_exercises_what_patients_bring(case: DemoCase) -> None:
    assert case.target_hr.grid.axis_codes == "LPS"
    assert case.reference.grid.axis_codes == "PIL"
    cosines = np.abs(case.target_hr.grid.directions).max(axis=0)
    assert np.all((cosines < 0.9999) & (cosines > 0.99))
    angle = np.rad2deg(np.arccos((np.trace(case.true_motion[:3, :3]) - 1) / 2))
    assert angle == pytest.approx(3, abs=0.1)
    centre = case.target_hr.grid.centre_ras
    assert np.linalg.norm(case.true_motion[:3, :3] @ centre + case.true_motion[:3, 3] - centre) == pytest.approx(
        4, 0.05
    )


def test_demo_scans_are_the_same_head_moved(case: DemoCase) -> None:
    """The reference, moved back, shows bone where the target shows bone; where it lies it does not."""
    dark = [agreement_of_bone(case.target_hr, case.reference, motion) for motion in (case.true_motion, np.eye(4))]
    assert dark[0] > 0.8
    assert dark[1] < dark[0] - 0.15


def agreement_of_bone(target: Volume, reference: Volume, motion: np.ndarray) -> float:
    """Share of the target's bone voxels that are dark in the reference at motion @ p."""
    points = points_of(target.grid)
    bone = tissue_fractions(points)[..., TISSUE_INDEX["cortical bone"]] > 0.95
    assert target.array_kji[bone].mean() < 0.2 * SIGNAL_UNIT
    there = points[bone] @ motion[:3, :3].T + motion[:3, 3]
    i, j, k = np.rint(reference.grid.to_ijk(there)).astype(int).T
    inside = np.all(
        [(n >= 0) & (n < size) for n, size in zip((i, j, k), reference.grid.shape_ijk, strict=True)], axis=0
    )
    return float((reference.array_kji[k[inside], j[inside], i[inside]] < 0.35 * SIGNAL_UNIT).mean())
