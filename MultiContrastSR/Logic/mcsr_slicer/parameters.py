"""What the user has chosen: kept in the scene, so that it is there again when the scene is loaded."""

from __future__ import annotations

import enum
from typing import Annotated

from slicer import vtkMRMLLinearTransformNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

# The scene keeps the names of the members: rename none.


class Plane(enum.Enum):
    """Plane of the slices that are enhanced; values as for the engine."""

    AUTO = "auto"
    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"

    def label(self) -> str:
        return {
            Plane.AUTO: _("Automatic (from the voxel size)"),
            Plane.AXIAL: _("Axial"),
            Plane.CORONAL: _("Coronal"),
            Plane.SAGITTAL: _("Sagittal"),
        }[self]


class Registration(enum.Enum):
    """How the reference is brought onto the target."""

    RIGID = "rigid"
    NONE = "none"
    TRANSFORM = "transform"

    def label(self) -> str:
        return {
            Registration.RIGID: _("Automatic (rigid)"),
            Registration.NONE: _("None: the positions in the scene are right"),
            Registration.TRANSFORM: _("By a transform of the scene"),
        }[self]


class Device(enum.Enum):
    """What computes; values as for the engine."""

    AUTO = "auto"
    GPU = "cuda"
    APPLE = "mps"
    CPU = "cpu"

    def label(self) -> str:
        return {
            Device.AUTO: _("Automatic"),
            Device.GPU: _("NVIDIA GPU (CUDA)"),
            Device.APPLE: _("Apple GPU (MPS)"),
            Device.CPU: _("CPU"),
        }[self]


class Precision(enum.Enum):
    """Of the network's arithmetic; values as for the engine."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    def label(self) -> str:
        return {
            Precision.AUTO: _("Automatic"),
            Precision.FP32: _("32 bit (exact, slowest)"),
            Precision.BF16: _("16 bit, bfloat16"),
            Precision.FP16: _("16 bit, half"),
        }[self]


@parameterNodeWrapper
class MultiContrastSRParameterNode:
    """Node references, then the engine's settings under the names of the panel; `model`, `weights` and `maps` are texts
    since what there is to choose is only known at run time.

    `result` is what was made last and the views show. `weights` is the id of a file, empty for the first that fits;
    `maps` is "none", "all" or names with commas between.
    """

    target: vtkMRMLScalarVolumeNode
    reference: vtkMRMLScalarVolumeNode
    groundTruth: vtkMRMLScalarVolumeNode
    output: vtkMRMLScalarVolumeNode
    result: vtkMRMLScalarVolumeNode
    transform: vtkMRMLLinearTransformNode
    simulate: bool = False
    model: str = "dcamsr-s"
    scale: Annotated[int, Choice([2, 3, 4])] = 4
    weights: str = ""
    maps: str = "none"
    outputFolder: str = ""
    plane: Plane = Plane.AUTO
    registration: Registration = Registration.RIGID
    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    consistency: bool = True
    fallback: bool = True
    trust: bool = False
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    mapOpacity: Annotated[float, WithinRange(0, 100)] = 60.0
