"""Small HDF5 subject files of the layout in `mcsr.subjects`, made of textured blobs."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from grids import oblique_grid
from scenes import scene


def write_subject(folder: Path, name: str, split: str, subject: str, *, all_native: bool = False) -> Path:
    """A T2 with native samples and a T1, resampled unless `all_native`, that covers slices 1 to 5."""
    grid = oblique_grid((50, 58, 6), (0.8, 0.8, 3.2), (0, 0, 0))
    # Fine texture that both contrasts share: what a reference can tell and interpolation cannot.
    texture = np.random.default_rng(len(subject)).uniform(0.6, 1.4, grid.shape_kji)
    path = folder / f"{name}.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(
            contrasts="T2,T1",
            split=split,
            subject=subject,
            affine=grid.ijk_to_ras,
            spacing=grid.spacing_ijk_mm,
            brain_slices=(0, 4),
            citation="Nobody, Journal of Blobs 2026.",
            licence="CC-BY",
        )
        for contrast in ("T2", "T1"):
            volume = np.rint(8 * texture * scene(contrast, grid).array_kji).astype(np.uint16)
            dataset = file.create_dataset(contrast, data=volume, chunks=(1, *volume.shape[1:]), compression="gzip")
            dataset.attrs["role"] = (
                "native samples" if contrast == "T2" or all_native else "resampled to the target grid"
            )
            if contrast != "T2":
                dataset.attrs["covered_slices"] = (1, 5)
    return path
