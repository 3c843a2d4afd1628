"""A MRML scene with the logics around it, as the Slicer application has them: real code from slicer-core, no Qt.

slicer-core brings the nodes, the logics and `slicer.util`, but nobody who makes a scene. `scene_host()` does, once per
process, and puts it where code for Slicer looks for it: `slicer.mrmlScene`, `slicer.modules`. What else code for Slicer
imports from it stands in the folder slicer/ beside this file, which slicer-core finds through sys.path.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from types import ModuleType

# Rendering without a screen; has to be said before VTK makes its first window.
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import slicer
import vtk

# One logic per loadable module that MultiContrastSR or its tests need, by the name under which Slicer knows it.
MODULE_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}


class SceneHost:
    """The scene, its application logic and the module logics."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.logics: dict[str, vtk.vtkObject] = {}
        self._addFileManagers()
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.applicationLogic.SetMRMLScene(self.scene)
        self.applicationLogic.SetTemporaryPath(self._temporary.name)
        # Where Slicer's own colour files would lie: there are none.
        self.applicationLogic.SetHomeDirectory(self._temporary.name)
        self.applicationLogic.SetShareDirectory("colors")
        (Path(self._temporary.name) / "colors" / "ColorFiles").mkdir(parents=True)
        self._addColors()
        for name, className in MODULE_LOGICS.items():
            self._addLogic(name, getattr(slicer, className)())
        self.applicationLogic.SetSliceLogics(vtk.vtkCollection())
        self.applicationLogic.SetViewLogics(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)

    def clear(self) -> None:
        """Close the scene, as File > Close does."""
        self.scene.Clear(0)

    def _addFileManagers(self) -> None:
        """Without them no scene can be saved or loaded."""
        self._temporary = tempfile.TemporaryDirectory(prefix="mcsr-scene-", ignore_cleanup_errors=True)
        self._cache = slicer.vtkCacheManager()
        self._cache.SetRemoteCacheDirectory(self._temporary.name)
        self._cache.SetMRMLScene(self.scene)
        self._files = slicer.vtkDataIOManager()
        self._files.SetCacheManager(self._cache)
        self.scene.SetCacheManager(self._cache)
        self.scene.SetDataIOManager(self._files)

    def _addColors(self) -> None:
        """Volumes look for their default colour node through the application logic."""
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        colors = slicer.vtkSlicerColorLogic()
        self._addLogic("Colors", colors)
        colors.AddDefaultColorNodes()

    def _addLogic(self, name: str, logic: vtk.vtkObject) -> None:
        logic.SetMRMLApplicationLogic(self.applicationLogic)
        logic.SetMRMLScene(self.scene)
        self.applicationLogic.SetModuleLogic(name, logic)
        self.logics[name] = logic


@functools.cache
def scene_host() -> SceneHost:
    """The host of this process."""
    host = SceneHost()
    slicer.mrmlScene = host.scene
    slicer.modules = ModuleType("slicer.modules")
    return host
