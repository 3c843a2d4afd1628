"""Slice views without a window: the layout manager that code for Slicer asks for its views, rendered offscreen.

Layout, slice logics, linking and whatever is drawn over the image are Slicer's own code. The image itself is drawn by a
Qt widget there; here by a plain VTK mapper.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import slicer
import vtk
from scene import SceneHost, scene_host
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

FOUR_UP, CONVENTIONAL = 3, 2
"""Layout numbers of vtkMRMLLayoutNode."""

DISPLAYABLE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
)


class SliceView:
    """One slice view; the methods are those of Slicer's qMRMLSliceWidget and qMRMLSliceView."""

    def __init__(self, host: SceneHost, sliceNode: slicer.vtkMRMLSliceNode, size: tuple[int, int]) -> None:
        self._addWindow(size)
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(host.applicationLogic)
        self._logic.SetMRMLScene(host.scene)
        self._logic.SetSliceNode(sliceNode)
        host.applicationLogic.GetSliceLogics().AddItem(self._logic)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._managers = factory.InstantiateDisplayableManagers(self._renderer)
        self._managers.SetMRMLDisplayableNode(sliceNode)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(self._logic)
        self._style.SetDisplayableManagers(self._managers)
        self._style.SetInteractor(self._interactor)
        self._logic.ResizeSliceNode(*size)

    def _addWindow(self, size: tuple[int, int]) -> None:
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.ShowWindowOff()
        self._window.SetMultiSamples(0)
        self._window.SetSize(*size)
        self._renderer = vtk.vtkRenderer()
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.EnableRenderOff()
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())  # the default one would turn the camera
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(self._image)

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode:
        return self._logic.GetSliceCompositeNode()

    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic:
        return self._logic

    def sliceView(self) -> SliceView:
        return self

    def interactorStyle(self) -> slicer.vtkMRMLSliceViewInteractorStyle:
        return self._style

    def interactor(self) -> vtk.vtkRenderWindowInteractor:
        return self._interactor

    def picture(self) -> np.ndarray:
        """What the view shows, uint8 (rows, columns, 3), first row at the top."""
        image = self._logic.GetImageDataConnection()
        self._image.SetVisibility(image is not None)
        if image is not None:
            self._mapper.SetInputConnection(image)
        self._window.Render()
        width, height = self._window.GetSize()
        pixels = vtk.vtkUnsignedCharArray()
        self._window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        return np.flipud(vtk_to_numpy(pixels).reshape(height, width, 3)).copy()


class LayoutManager:
    """Makes the slice views of a layout; the methods are those of Slicer's qSlicerLayoutManager."""

    def __init__(self, host: SceneHost, viewSize: tuple[int, int] = (320, 320)) -> None:
        self._host = host
        self._viewSize = viewSize
        self._views: dict[str, SliceView] = {}
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(host.applicationLogic)
        for name in DISPLAYABLE_MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(host.applicationLogic)
        self._logic.SetMRMLScene(host.scene)
        self.setLayout(FOUR_UP)

    def layoutLogic(self) -> slicer.vtkMRMLLayoutLogic:
        return self._logic

    @property
    def layout(self) -> int:
        return self._logic.GetLayoutNode().GetViewArrangement()

    def setLayout(self, layout: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(layout)
        for name in self.sliceViewNames():
            if name not in self._views:
                self._views[name] = SliceView(self._host, self._sliceNodes()[name], self._viewSize)

    def sliceViewNames(self) -> tuple[str, ...]:
        """Views of the current layout."""
        return tuple(self._sliceNodes())

    def sliceWidget(self, name: str) -> SliceView | None:
        """The view of that name, shown or not."""
        return self._views.get(name)

    def _sliceNodes(self) -> dict[str, slicer.vtkMRMLSliceNode]:
        nodes = self._logic.GetViewNodes()
        views = [nodes.GetItemAsObject(n) for n in range(nodes.GetNumberOfItems())]
        return {view.GetLayoutName(): view for view in views if view.IsA("vtkMRMLSliceNode")}


@functools.cache
def layout_manager() -> LayoutManager:
    """The layout manager of this process: all views look at one scene, so more of them only cost time."""
    return LayoutManager(scene_host())


def screenshot(layoutManager: LayoutManager, columns: int = 2, gap: int = 4) -> np.ndarray:
    """The slice views of the current layout side by side, uint8 (rows, columns, 3)."""
    pictures = [layoutManager.sliceWidget(name).picture() for name in layoutManager.sliceViewNames()]
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 80, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write uint8 (rows, columns, 3) as PNG."""
    flipped = np.ascontiguousarray(np.flipud(picture))
    image = vtk.vtkImageData()
    image.SetDimensions(picture.shape[1], picture.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(flipped.reshape(-1, 3), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    writer.Write()
