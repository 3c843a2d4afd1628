"""Stand-ins for what the module asks of the Slicer application: base classes, `slicer.app`, sample data."""

from __future__ import annotations

import os
import tempfile
import unittest
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
from PySide6 import QtWidgets
from scene import SceneHost
from slice_views import FOUR_UP, LayoutManager


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.parent.path), "Resources", name)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, name: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", name)

    def setup(self) -> None:
        pass

    def cleanup(self) -> None:
        pass

    def onReload(self) -> None:
        slicer.app.reloaded.append(self.moduleName)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node = scene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.messageDelay = 0

    def runTest(self) -> None:
        for name in (name for name in dir(self) if name.lower().startswith("test")):
            self.setUp()
            getattr(self, name)()

    def delayDisplay(self, message: str, msec: int | None = None) -> None:
        pass


class Application:
    """`slicer.app`: views where there is a main window, none where there is not.

    Args:
        host: the scene.
        withViews: False: as with `--no-main-window`.
    """

    applicationName = "Slicer"
    temporaryPath = tempfile.gettempdir()

    def __init__(self, host: SceneHost, *, withViews: bool = True) -> None:
        self._host = host
        self._layoutManager = LayoutManager(host) if withViews else None
        self._onStartup: list[Callable[[], None]] = []
        self.reloaded: list[str] = []

    def reset(self) -> None:
        """As after the start."""
        self._onStartup.clear()
        self.reloaded.clear()
        if self._layoutManager is not None:
            self._layoutManager.setLayout(FOUR_UP)

    def layoutManager(self) -> LayoutManager | None:
        return self._layoutManager

    def applicationLogic(self) -> Any:
        return self._host.applicationLogic

    def moduleLogic(self, name: str) -> Any:
        return self._host.logics[name]

    def mrmlScene(self) -> Any:
        return self._host.scene

    def connect(self, signature: str, slot: Callable[[], None]) -> bool:
        if signature != "startupCompleted()":
            raise ValueError(f"the application has no signal {signature}")
        self._onStartup.append(slot)
        return True

    def completeStartup(self) -> None:
        for slot in self._onStartup:
            slot()

    def processEvents(self, flags: Any = None) -> None:
        QtWidgets.QApplication.processEvents(*(() if flags is None else (flags,)))

    def testingEnabled(self) -> bool:
        return True

    def topLevelWidgets(self) -> list[Any]:
        return []

    def setOverrideCursor(self, cursor: Any) -> None:
        QtWidgets.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        QtWidgets.QApplication.restoreOverrideCursor()


class SampleDataLogic:
    """`SampleData.SampleDataLogic`: keeps what is registered."""

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str | None = None) -> None:
        slicer.modules.sampleDataSources.setdefault(category, [])

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Callable[[Any], Any] | None = None,
        thumbnailFileName: str | None = None,
        loadFileType: str | None = None,
        loadFiles: bool | None = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
    ) -> None:
        for given in (uris, fileNames, nodeNames):
            if given is None:
                raise TypeError("Slicer's sample data need uris, fileNames and nodeNames")
        source = SimpleNamespace(
            sampleName=sampleName, customDownloader=customDownloader, thumbnailFileName=thumbnailFileName
        )
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)


def base_class_module() -> ModuleType:
    """`slicer.ScriptedLoadableModule`."""
    module = ModuleType("slicer.ScriptedLoadableModule")
    for cls in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(module, cls.__name__, cls)
    return module


def sample_data_module() -> ModuleType:
    """`SampleData`."""
    module = ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    return module
