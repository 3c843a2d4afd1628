"""Whole jobs on grids and intensities of every kind: anatomy stays where it is, values stay what they are."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fuzz_cases import MOST_VOXELS_OF_A_CASE, Image, folder, magnitudes, matrices, misplacement, outcome, shapes
from hypothesis import given
from hypothesis import strategies as st
from mcsr.degradation import degrade
from mcsr.imageio import read_volume, write_volume
from mcsr.job import Result, Settings
from mcsr.networks import Network, SROutput
from mcsr.networks._registry import _ENTRIES, register
from mcsr.networks.baselines import BaselineConfig
from mcsr.networks.blocks import upsample_slices
from mcsr.pipeline import enhance
from mcsr.volume import Volume
from mcsr.weights import save_weights

SMALLEST_SLICE = 8


@pytest.fixture(scope="module")
def stub_x2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights of a network that adds a tenth of the reference to the interpolated target, and belongs to no one."""

    class Stub(Network):
        uses_reference: ClassVar[bool] = True

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.share = torch.nn.Parameter(torch.tensor(0.125))

        def encode_reference(self, reference: torch.Tensor) -> torch.Tensor:
            return reference

        def forward(self, target_lr: torch.Tensor, reference: torch.Tensor, **_: Any) -> SROutput:
            return SROutput(upsample_slices(target_lr, self.config.scale, "sinc") + self.share * reference)

    register("stub", lambda: BaselineConfig(scale=2), "For tests.")(Stub)
    path = tmp_path_factory.mktemp("weights") / "stub.safetensors"
    card = {"architecture": "stub", "scale": 2, "degradation": "kspace", "plane": "axial", "spacing_mm": [0.01, 100.0]}
    save_weights(path, Stub(BaselineConfig(scale=2)), card)
    yield path
    del _ENTRIES["stub"]


@dataclass(frozen=True)
class Scene:
    """A blob amid a grid: a Gaussian of index space, constant along the axis `through` the slices."""

    image: Image
    through: int
    size: float
    offset: float

    @property
    def in_plane(self) -> list[int]:
        return [axis for axis in range(3) if axis != self.through]

    @property
    def centre_ras(self) -> np.ndarray:
        return (self.image.matrix @ [*(np.array(self.image.shape_ijk) - 1) / 2, 1])[:3]

    @property
    def is_well_sampled(self) -> bool:
        """Whether next to nothing of the blob lies at or beyond the finest frequency of the grid."""
        return min(np.array(self.image.shape_ijk)[self.in_plane]) >= 12

    def volume(self, name: str, factor: float = 1.0) -> Volume:
        return Volume(factor * self.image.array, self.image.matrix, name=name)


def blob(shape_ijk: tuple[int, int, int], through: int, sharpness: float) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) / (n / sharpness) for n in shape_ijk]
    axes[through] = np.zeros(shape_ijk[through])
    i, j, k = (np.exp(-0.5 * axis**2) for axis in axes)
    return k[:, None, None] * j[:, None] * i


# At x4 the result has 16 times as many voxels as the target.
@st.composite
def scenes(draw: st.DrawFn, signed: bool = True) -> Scene:
    shape, matrix = list(draw(shapes(1, 28, MOST_VOXELS_OF_A_CASE // 16))), draw(matrices())
    single = [axis for axis, n in enumerate(shape) if n == 1]
    through = single[0] if len(single) == 1 else draw(st.integers(0, 2))
    spacing = np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    # Slices are told by the largest spacing, a single slice by being the only one.
    matrix[:3, through] *= 2 * spacing.max() / spacing[through]
    size, offset = draw(magnitudes), draw(st.sampled_from([0.0, -0.5] if signed else [0.0]))
    image = Image(size * (blob(tuple(shape), through, 7.0) + offset), matrix)
    return Scene(image, through, size, size * offset)


def expected_matrix(image: Image, factors: np.ndarray) -> np.ndarray:
    """Of the same box in finer voxels: its first outer corner stays."""
    corner = image.matrix @ [-0.5, -0.5, -0.5, 1]
    matrix = image.matrix.copy()
    matrix[:3, :3] /= factors
    matrix[:, 3] = corner + np.append(matrix[:3, :3] @ [0.5, 0.5, 0.5], 0)
    return matrix


def blob_centre(volume: Volume, background: float) -> np.ndarray:
    """Where the weight of a volume lies above its background, RAS mm."""
    weights = volume.array_kji.astype(np.float64) - background
    k, j, i = np.indices(weights.shape).reshape(3, -1) @ weights.ravel() / weights.sum()
    return (volume.ijk_to_ras @ [i, j, k, 1])[:3]


OVERSHOOT = (4 / np.pi) ** 2 - 1
"""Of the spread: between two equal samples beside zeros sinc interpolation reaches 4/pi of them, along each axis."""


def check_result(result: Result, scene: Scene, scale: int) -> None:
    """The same box, the blob where it was, values that the input's explain."""
    factors = np.array([1 if axis == scene.through else scale for axis in range(3)])
    sr, image = result.sr, scene.image
    assert sr.grid.shape_ijk == tuple(np.array(image.shape_ijk) * factors)
    assert misplacement(sr.ijk_to_ras, expected_matrix(image, factors), sr.grid.shape_ijk) < 1e-6
    assert np.isfinite(sr.array_kji).all()
    spread = np.ptp(image.array)
    assert sr.array_kji.min() >= image.array.min() - OVERSHOOT * spread
    assert sr.array_kji.max() <= image.array.max() + OVERSHOOT * spread
    if scene.is_well_sampled:
        gap = np.linalg.inv(sr.ijk_to_ras[:3, :3]) @ (blob_centre(sr, scene.offset) - scene.centre_ras)
        assert np.abs(gap).max() < 0.05, gap


def said_of(scene: Scene, sentence: str) -> bool:
    """Whether a sentence against a scene is so."""
    sides = np.array(scene.image.shape_ijk)[scene.in_plane]
    if "at least 8" in sentence:
        return bool(min(sides) < SMALLEST_SLICE)
    if "no positive voxel" in sentence:
        return bool(scene.image.array.max() <= 0)
    return "is constant" in sentence and np.ptp(scene.image.array.astype(np.float32)) == 0


@given(st.data())
def test_baselines(data: st.DataObject) -> None:
    scene, scale = data.draw(scenes()), data.draw(st.sampled_from([2, 3, 4]))
    settings = Settings(model=data.draw(st.sampled_from(["sinc", "linear", "cubic"])), scale=scale, device="cpu")
    with folder() as place:
        # From file to file, as a user's job: the target in float32, the result in NRRD, which holds every geometry.
        write_volume(scene.volume("target"), place / "target.nrrd")
        result, sentence = outcome(lambda: enhance(read_volume(place / "target.nrrd"), None, settings))
        if result is None:
            assert said_of(scene, sentence), sentence
            return
        check_result(result, scene, scale)
        write_volume(result.sr, place / "sr.nrrd")
        np.testing.assert_array_equal(read_volume(place / "sr.nrrd").array_kji, result.sr.array_kji)
    louder = enhance(scene.volume("target", 1e6), None, settings)
    np.testing.assert_allclose(louder.sr.array_kji, 1e6 * result.sr.array_kji, rtol=0, atol=1e6 * scene.size * 1e-5)
    if settings.model == "sinc" and scene.is_well_sampled:
        k, j, i = (1 if axis == scene.through else scale for axis in (2, 1, 0))
        back = degrade(result.sr.array_kji, (k, j, i), signed=True)
        assert np.abs(back - scene.image.array).max() < 0.03 * np.ptp(scene.image.array)


@given(st.data())
def test_a_network_with_a_reference(stub_x2: Path, data: st.DataObject) -> None:
    scene = data.draw(scenes(signed=False))
    grid = scene.image
    # The reference: the same blob on a finer grid over the same box, with its own storage order and intensity.
    finer = np.array([1 if axis == scene.through else data.draw(st.sampled_from([2, 3])) for axis in range(3)])
    shape = tuple(int(n) for n in np.array(grid.shape_ijk) * finer)
    array = data.draw(magnitudes) * blob(shape, scene.through, 7.0)  # type: ignore[arg-type]
    reference = Volume(array, expected_matrix(grid, finer), name="reference")
    settings = Settings(model="stub", scale=2, weights=stub_x2, registration="none", device="cpu", fallback=False)
    run = functools.partial(enhance, scene.volume("target"), reference, settings)
    result, sentence = outcome(run)
    if result is None:
        assert said_of(scene, sentence), sentence
        return
    check_result(result, scene, 2)
    assert misplacement(result.reference.ijk_to_ras, result.sr.ijk_to_ras, result.sr.grid.shape_ijk) < 1e-6
    consistency = result.provenance["consistency"]
    assert consistency["error_after_percent_max"] < 0.1
    assert consistency["error_after_clip_percent_rms"] < 0.5
    louder = enhance(scene.volume("target", 1e6), reference, settings)
    np.testing.assert_allclose(louder.sr.array_kji, 1e6 * result.sr.array_kji, rtol=0, atol=1e6 * scene.size * 1e-4)
