"""Small things that several parts of the panel do with widgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _


class ChoiceBox:
    """A combo box of things that are only known at run time; it shows labels and gives values.

    :param box: the widget.
    :param onChosen: receives the value that the user chose.
    """

    def __init__(self, box: Any, onChosen: Callable[[Any], None]) -> None:
        self._box, self._onChosen = box, onChosen
        self._entries: list[tuple[str, Any]] = []
        box.connect("currentIndexChanged(int)", self._onIndex)

    def fill(self, entries: Iterable[tuple[str, Any]], chosen: Any) -> None:
        """Offer labels and values; nothing is told of the choice that this makes."""
        entries = list(entries)
        self._box.blockSignals(True)
        if entries != self._entries:
            self._entries = entries
            self._box.clear()
            for label, _value in entries:
                self._box.addItem(label)
        self._box.currentIndex = next((n for n, (_l, value) in enumerate(entries) if value == chosen), -1)
        self._box.blockSignals(False)
        self._box.enabled = bool(entries)

    def _onIndex(self, index: int) -> None:
        if 0 <= index < len(self._entries):
            self._onChosen(self._entries[index][1])


class CheckList:
    """A list of things to tick.

    :param widget: the QListWidget.
    :param onChanged: receives the values that are ticked, in the order of the list.
    """

    def __init__(self, widget: Any, onChanged: Callable[[list[Any]], None]) -> None:
        self._widget, self._onChanged = widget, onChanged
        self._entries: list[tuple[str, str, Any]] = []
        widget.connect("itemChanged(QListWidgetItem*)", lambda item: self._tell())

    def fill(self, entries: Sequence[tuple[str, str, Any]], ticked: Iterable[Any]) -> None:
        """Offer labels, tool tips and values."""
        ticked = set(ticked)
        self._widget.blockSignals(True)
        if list(entries) != self._entries:
            self._entries = list(entries)
            self._widget.clear()
            for row, (label, tip, _value) in enumerate(self._entries):
                self._widget.addItem(label)
                self._widget.item(row).setToolTip(tip)
        for row, (_label, _tip, value) in enumerate(self._entries):
            self._widget.item(row).setCheckState(qt.Qt.Checked if value in ticked else qt.Qt.Unchecked)
        self._widget.blockSignals(False)

    def _tell(self) -> None:
        rows = range(len(self._entries))
        self._onChanged([self._entries[n][2] for n in rows if self._widget.item(n).checkState() == qt.Qt.Checked])


class Dialogs:
    """What the panel asks the user in windows of their own: few things."""

    def confirm(self, question: str) -> bool:
        """Whether the user agrees; in Slicer's testing mode nobody does."""
        if slicer.app.testingEnabled():
            return False
        return bool(slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Multi-Contrast Super-Resolution")))

    def chooseFile(self, title: str, pattern: str) -> str:
        """A file to read; empty where the user chose none."""
        return str(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", pattern) or "")

    def chooseFolder(self, title: str) -> str:
        """A folder to write to; empty where the user chose none."""
        return str(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title) or "")

    def openFolder(self, folder: str) -> None:
        """Show a folder in the system's file browser."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(folder))
