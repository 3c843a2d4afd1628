"""The module on a host of its own: real MRML from slicer-core, and Qt from PySide6 with the manners of PythonQt.

`module_host()` makes it once per process. The module is loaded as Slicer loads it, its panel lives in a real widget,
and `problems()` tells what a user of Slicer would only find in the error log. What runs here was not run in Slicer.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import qt_conventions
import slicer
import slicer.util
import stand_ins
from PySide6 import QtCore, QtGui, QtWidgets
from qt_ui import UiLoader
from scene import scene_host
from stand_ins_parameters import parameter_module
from stand_ins_slicer import Application, base_class_module, sample_data_module

MODULE_FILE = Path(__file__).resolve().parents[2] / "MultiContrastSR" / "MultiContrastSR.py"


class Panel:
    """The module's panel as Slicer holds it: in a parent with a layout that knows whether it is shown."""

    def __init__(self, module: ModuleType, make: Callable[[Any], Any]) -> None:
        self.parent = stand_ins.qMRMLWidget()
        QtWidgets.QVBoxLayout(self.parent)
        self.isEntered = False
        holder = SimpleNamespace(layout=lambda: QtWidgets.QWidget.layout(self.parent), isEntered=False)
        self.holder = holder
        self.widget = make(holder)
        self.widget.setup()

    def enter(self) -> None:
        self.holder.isEntered = True
        self.widget.enter()

    def exit(self) -> None:
        self.holder.isEntered = False
        self.widget.exit()

    def close(self) -> None:
        """As when the module is unloaded."""
        self.widget.cleanup()
        self.parent.deleteLater()
        # Outside an event loop nothing is deleted unless asked for by name.
        QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)

    def picture(self, path: Path, width: int = 480) -> None:
        """A picture of the whole panel, as PNG."""
        self.parent.resize(width, self.parent.sizeHint().height())
        self.parent.setAttribute(QtCore.Qt.WA_DontShowOnScreen)
        self.parent.show()
        QtWidgets.QApplication.processEvents()
        self.parent.resize(width, QtWidgets.QWidget.layout(self.parent).heightForWidth(width))
        QtWidgets.QApplication.processEvents()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.parent.grab().save(str(path)):
            raise OSError(f"{path} could not be written")


class ModuleHost:
    """What stands around the module."""

    def __init__(self) -> None:
        self._settings = tempfile.TemporaryDirectory(prefix="mcsr-settings-", ignore_cleanup_errors=True)
        self.application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
        self.application.setOrganizationName("MultiContrastSR tests")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, self._settings.name)
        QtGui.QGuiApplication.setFont(QtGui.QFont("DejaVu Sans", 9))
        qt_conventions.adopt_conventions()
        self.qt = qt_conventions.qt_module()
        UiLoader.stand_ins = stand_ins.WIDGETS
        self.qt.QUiLoader = UiLoader
        self.ctk = ModuleType("ctk")
        for cls in stand_ins.WIDGETS:
            setattr(self.ctk if cls.__name__.startswith("ctk") else slicer, cls.__name__, cls)
        self.scene = scene_host()
        self._install()
        sys.excepthook = qt_conventions.keep_exception
        # One for all tests: its views hold graphics contexts, of which there are not many.
        self.slicerApplication = slicer.app = Application(self.scene)
        slicer.modules.sampleDataSources = {}
        slicer.modules.multicontrastsr = SimpleNamespace(path=str(MODULE_FILE))

    def load(self) -> ModuleType:
        """Run the module file, as Slicer does at start-up; the helper packages stay loaded."""
        spec = importlib.util.spec_from_file_location(MODULE_FILE.stem, MODULE_FILE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[MODULE_FILE.stem] = module
        spec.loader.exec_module(module)
        return module

    def open(self, **arguments: Any) -> Panel:
        """A panel of the module, entered."""
        module = self.load()
        panel = Panel(module, lambda parent: module.MultiContrastSRWidget(parent, **arguments))
        slicer.modules.multicontrastsr.widgetRepresentation = lambda: SimpleNamespace(self=lambda: panel.widget)
        panel.enter()
        return panel

    def reset(self) -> None:
        """For the next test: an empty scene, no settings, no problems."""
        self.scene.clear()
        QtCore.QSettings().clear()
        slicer.app = self.slicerApplication
        slicer.app.reset()
        slicer.modules.sampleDataSources = {}
        qt_conventions.problems.clear()

    def withoutMainWindow(self) -> None:
        """As with `--no-main-window`, until the next reset."""
        slicer.app = Application(self.scene, withViews=False)

    def process(self, until: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Run the event loop until something holds; False where it never does."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                return False
            self.application.processEvents(QtCore.QEventLoop.AllEvents, 20)
            time.sleep(0.005)
        return True

    def forgetProblems(self) -> None:
        """A test has seen the problems that it provoked."""
        qt_conventions.problems.clear()

    def problems(self) -> list[str]:
        """Exceptions in slots and callbacks, and connections to unknown signals, since the last reset."""
        return list(qt_conventions.problems)

    def _install(self) -> None:
        modules = {
            "qt": self.qt,
            "ctk": self.ctk,
            "SampleData": sample_data_module(),
            "slicer.ScriptedLoadableModule": base_class_module(),
            "slicer.parameterNodeWrapper": parameter_module(),
        }
        sys.modules.update(modules)
        for name in ("ScriptedLoadableModule", "parameterNodeWrapper"):
            setattr(slicer, name, modules[f"slicer.{name}"])


@functools.cache
def module_host() -> ModuleHost:
    """The host of this process."""
    return ModuleHost()
