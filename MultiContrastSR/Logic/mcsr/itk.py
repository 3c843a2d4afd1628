"""`Volume` to SimpleITK image and back: the only place where RAS meets ITK's LPS."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .geometry import RAS_FROM_LPS
from .volume import Volume


def to_itk(volume: Volume, dtype: str = "float32") -> sitk.Image:
    """A SimpleITK image of the same voxels at the same place.

    Args:
        volume: any orientation; ITK keeps a sheared matrix only in formats that can hold one.
        dtype: see `Volume.stored`.
    """
    image = sitk.GetImageFromArray(volume.stored(dtype))
    grid = volume.grid
    lps = RAS_FROM_LPS @ grid.ijk_to_ras
    image.SetSpacing([float(s) for s in grid.spacing_ijk_mm])
    image.SetOrigin([float(o) for o in lps[:3, 3]])
    image.SetDirection([float(d) for d in (lps[:3, :3] / grid.spacing_ijk_mm).ravel()])
    return image


def from_itk(image: sitk.Image, name: str) -> Volume:
    """A `Volume` of a scalar 3-D SimpleITK image (shape, vector and NaN errors as `Volume` states them)."""
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{name} has {image.GetNumberOfComponentsPerPixel()} values per voxel (colour or vector image); "
            "a scalar MRI volume is needed."
        )
    if image.GetDimension() != 3:
        raise InputError(f"{name} has {image.GetDimension()} dimensions; a single 3-D volume is needed.")
    array = sitk.GetArrayFromImage(image)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return Volume(array, RAS_FROM_LPS @ matrix, name=name, source_dtype=array.dtype.name)
