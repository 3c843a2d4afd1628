"""PySide6 with the manners of PythonQt, under which Slicer's modules run.

Properties are attributes (`button.enabled = x`; `label.text()` fails), signals are connected by their signature
(`button.connect("clicked(bool)", f)`), a new attribute on a Qt object is refused, and an exception in a slot is printed
and forgotten: here it is kept in `problems`, so that a test can fail.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# Before the first import of PySide6: enums are ints, as PythonQt has them.
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x02")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

problems: list[str] = []
"""Exceptions of slots and names of signals that do not exist, since `problems` was cleared."""

# PySide's wheels count on the immortal constants of Python 3.12: in an older one they give away references to them that
# they never took, until there is no None left and Python aborts.
if sys.version_info < (3, 12):
    for constant in (None, True, False):
        ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40

_is_loading = False
_LEFT_ALONE = {"sizeHint", "minimumSizeHint"}  # virtual functions, which widgets override
_NOT_IN_PYTHONQT = {"Signal", "Slot", "Property"}


class QtProperty:
    """A Q_PROPERTY as an attribute; on the class it is what PySide has under that name."""

    def __init__(self, name: str, kind: str, original: Any) -> None:
        self.name, self.kind, self.original = name, kind, original

    def __get__(self, instance: QtCore.QObject | None, owner: type) -> Any:
        if instance is None:
            return self.original
        return QtCore.QObject.property(instance, self.name)

    def __set__(self, instance: QtCore.QObject, value: Any) -> None:
        if self.kind == "bool":
            value = bool(value)
        elif self.kind == "QString" and not isinstance(value, str):
            raise TypeError(f"{type(instance).__name__}.{self.name} is a text, not {value!r}")
        if not QtCore.QObject.setProperty(instance, self.name, value):
            raise AttributeError(f"{type(instance).__name__}.{self.name} cannot be set to {value!r}")


class ObjectName(QtProperty):
    """`widget.name`, which PythonQt has beside `objectName`."""

    def __init__(self) -> None:
        super().__init__("objectName", "QString", None)


def connect(sender: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    """Connect by signature, as PythonQt does: an unknown signal is a problem, not an exception."""
    found = _signal(sender, signature)
    if found is None:
        problems.append(f"{type(sender).__name__} has no signal {signature}")
        return False
    signal, count = found
    _connections(sender).setdefault((signature, slot), _guarded(slot, count))
    signal.connect(_connections(sender)[signature, slot])
    return True


def disconnect(sender: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    """Undo `connect`."""
    found, connection = _signal(sender, signature), _connections(sender).pop((signature, slot), None)
    if found is None or connection is None:
        return False
    return bool(found[0].disconnect(connection))


def keep_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """For `sys.excepthook`: Qt and VTK report there what their callbacks raised."""
    problems.append("".join(traceback.format_exception(kind, error, trace)))
    sys.__excepthook__(kind, error, trace)


def qt_module() -> ModuleType:
    """All of QtCore, QtGui and QtWidgets in one module, as Slicer's `qt` is."""
    module = ModuleType("qt")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):  # dir, since the modules are filled lazily
            if not name.startswith("_") and name not in _NOT_IN_PYTHONQT:
                setattr(module, name, getattr(source, name))
    return module


@functools.cache
def adopt_conventions() -> None:
    """Change the classes of PySide6 in place, so that objects that Qt itself hands out follow too; once a process."""
    classes = _object_classes()
    # All collected before the first is replaced: a class inherits what its base has by then.
    lookups = {cls: cls.__getattribute__ for cls in classes}
    for cls in classes:
        _add_properties(cls)
    QtCore.QObject.name = ObjectName()
    QtCore.QObject.className = lambda self: self.metaObject().className()
    for cls, look_up in lookups.items():
        cls.__getattribute__ = _lookup_with_connect(look_up)
        cls.__setattr__ = _set_attribute


@contextmanager
def loading() -> Iterator[None]:
    """While PySide loads a .ui file it makes every child an attribute of the whole; PythonQt does not."""
    global _is_loading
    _is_loading = True
    try:
        yield
    finally:
        _is_loading = False


def _object_classes() -> list[type]:
    found = [getattr(module, name) for module in (QtCore, QtGui, QtWidgets) for name in dir(module)]
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, QtCore.QObject)]


def _add_properties(cls: type) -> None:
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        found = meta.property(index)
        name = found.name()
        if name not in _LEFT_ALONE:
            setattr(cls, name, QtProperty(name, found.typeName(), getattr(cls, name, None)))


def _lookup_with_connect(look_up: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """PySide finds `connect` before it looks into the class, so the look-up itself is replaced."""

    def find(self: QtCore.QObject, name: str) -> Any:
        if name == "connect":
            return functools.partial(connect, self)
        if name == "disconnect":
            return functools.partial(disconnect, self)
        return look_up(self, name)

    return find


def _set_attribute(self: QtCore.QObject, name: str, value: Any) -> None:
    kind = type(self)
    if not hasattr(kind, name):
        if _is_loading:
            return
        raise AttributeError(f"{kind.__name__} has no attribute '{name}', and takes no new ones")
    known = inspect.getattr_static(kind, name)
    if isinstance(known, QtCore.Property):
        known.fset(self, value)
    elif hasattr(type(known), "__set__"):
        known.__set__(self, value)
    else:
        self.__dict__[name] = value


def _signal(sender: QtCore.QObject, signature: str) -> tuple[Any, int] | None:
    """The signal and how many arguments its signature names."""
    if signature in getattr(sender, "signatures", {}):  # of a stand-in, whose classes Qt does not know
        return getattr(sender, sender.signatures[signature]), 1
    normal = QtCore.QMetaObject.normalizedSignature(signature)
    text = bytes(normal.data()).decode() if hasattr(normal, "data") else str(normal)
    if sender.metaObject().indexOfSignal(text) < 0:
        return None
    name, _, arguments = text.removesuffix(")").partition("(")
    count = len(arguments.split(",")) if arguments else 0
    return getattr(sender, name), count


def _guarded(slot: Callable[..., Any], count: int) -> Callable[..., None]:
    """The slot with as many arguments as the signature names and it takes; what it raises is kept."""
    most = _most_arguments(slot)

    def call(*arguments: Any) -> None:
        try:
            slot(*arguments[: min(count, most)])
        except Exception:
            problems.append(traceback.format_exc())

    return call


def _most_arguments(slot: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(slot).parameters.values()
    except ValueError:  # a function of Qt's own
        return 10
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 10
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


_by_sender: dict[int, dict[tuple[str, Any], Callable[..., None]]] = {}


def _connections(sender: QtCore.QObject) -> dict[tuple[str, Any], Callable[..., None]]:
    key = shiboken6.getCppPointer(sender)[0]
    if key not in _by_sender:
        _by_sender[key] = {}
        QtCore.QObject.destroyed.__get__(sender).connect(lambda *_: _by_sender.pop(key, None))
    return _by_sender[key]
