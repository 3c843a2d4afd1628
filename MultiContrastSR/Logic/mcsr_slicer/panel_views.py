"""The panel's section on the views: comparison, maps, reveal and blink, and where detail came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from mcsr.errors import InputError
from slicer.i18n import tr as _

from .compare_layout import RESULT_VIEW, CompareLayout
from .map_chooser import MapChooser
from .node_tags import nodesOf, tag
from .panel_widgets import ChoiceBox
from .parameters import MultiContrastSRParameterNode
from .point_probe import ClickListener, PointRequest, PointSource, answerOfPoint, markSource, probePoint, probes
from .provenance import offersPointMaps
from .reveal import Reveal

BLINK_MS = 600


class ViewsSection:
    """Shows the result that the parameter node names.

    :param ui: the panel's widgets.
    :param parameters: gives the parameter node in use, or None.
    :param onPoint: receives a point (RAS mm) of the result that was clicked, where its maps have to be computed.
    """

    def __init__(
        self,
        ui: Any,
        parameters: Callable[[], MultiContrastSRParameterNode | None],
        onPoint: Callable[[tuple[float, float, float]], None],
    ) -> None:
        self._ui, self._parameters, self._onPoint = ui, parameters, onPoint
        self.layout = CompareLayout(slicer.app.layoutManager())
        self.chooser = MapChooser(self.layout)
        self.reveal = Reveal(self.layout)
        self._family = ""
        self._families = ChoiceBox(ui.familySelector, self._onFamily)
        self._maps = ChoiceBox(ui.mapSelector, self._onMap)
        self._clicks: ClickListener | None = None
        self._blink = qt.QTimer()
        self._blink.interval = BLINK_MS
        self._blink.connect("timeout()", self._onBlink)
        ui.compareButton.connect("clicked()", self.show)
        ui.restoreButton.connect("clicked()", self.restore)
        ui.previousMapButton.connect("clicked()", lambda: self.step(-1))
        ui.nextMapButton.connect("clicked()", lambda: self.step(1))
        ui.revealSlider.connect("valueChanged(int)", lambda value: self.reveal.setShare(value / 100))
        ui.blinkBox.connect("toggled(bool)", self._onBlinkBox)
        ui.probeBox.connect("toggled(bool)", self._onProbeBox)
        ui.opacitySlider.connect("valueChanged(double)", lambda value: self.chooser.setOpacity(value / 100))

    @property
    def result(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """What is shown: the chosen output where it is a result, else the last result."""
        parameters = self._parameters()
        if parameters is None:
            return None
        isResult = parameters.output is not None and tag(parameters.output, "Role") == "sr"
        return parameters.output if isResult else parameters.result

    def show(self) -> None:
        """Switch to the four views."""
        result = self.result
        if result is None:
            return
        self.layout.show(result)
        # The views are new and get their sizes only now.
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)
        self.layout.fit()
        self.reveal.start(result)
        self._ui.revealSlider.value = 0
        self.chooser.setResult(result)
        self.chooser.setOpacity(self._ui.opacitySlider.value / 100)
        self.chooser.step(1)
        self.update()

    def showMaps(self, nodes: list[Any]) -> None:
        """Show the first of new maps; what is being looked at stays where it is."""
        if not self.layout.isShown:
            self.show()
            return
        self.chooser.setResult(self.result)
        self.chooser.choose(next((node for node in nodes if tag(node, "Role") == "map"), None))
        self.update()

    def pause(self) -> None:
        """The user looks at something else: nothing blinks or listens meanwhile."""
        self._ui.blinkBox.checked = self._ui.probeBox.checked = False

    def showPoint(self, ras: tuple[float, float, float]) -> None:
        """Show what one pixel of the result drew on, from its maps in the scene."""
        result = self.result
        found = answerOfPoint(result, ras) if result is not None else None
        if found is None:
            self.stopAsking()
            return
        self.chooser.choose(next(node for node in nodesOf(result, "point_map") if tag(node, "Map") == found.name))
        self._mark(found, result)
        self.update()

    def stopAsking(self) -> None:
        """There is no answer to the last click."""
        result = self.result
        self.sayOrigin(_howToAsk(result) if self._clicks is not None and result is not None else "")

    def sayOrigin(self, sentence: str) -> None:
        """Under the box that switches clicks on."""
        self._ui.probeHint.text = sentence
        self._ui.probeHint.visible = bool(sentence)

    def restore(self) -> None:
        """Give the user's views back."""
        self._ui.blinkBox.checked = self._ui.probeBox.checked = False
        self.layout.restore()
        self.update()

    def step(self, count: int) -> None:
        """The next map, or the one before."""
        self.chooser.step(count)
        self.update()

    def update(self) -> None:
        """Show what there is to see."""
        result = self.result
        hasViews = slicer.app.layoutManager() is not None
        isShown = self.layout.isShown and result is not None
        current = self.chooser.current
        families = self.chooser.families() if result is not None else {}
        self._family = tag(current, "Family") if current is not None else self._family
        if self._family not in families:
            self._family = next(iter(families), "")
        self._families.fill([(family, family) for family in families], self._family)
        self._maps.fill(self._entries(families), current.GetID() if current is not None else "")
        self._ui.mapHint.text = self._mapSentence(result, current, bool(families))
        self._ui.mapHint.visible = bool(self._ui.mapHint.text)
        self._ui.compareButton.enabled = hasViews and result is not None
        self._ui.restoreButton.enabled = isShown
        self._ui.blinkBox.enabled = self._ui.probeBox.enabled = isShown
        self._ui.revealSlider.enabled = isShown and not self._ui.blinkBox.checked
        self._ui.probeHint.visible = bool(self._ui.probeHint.text)
        for widget in (self._ui.opacitySlider, self._ui.previousMapButton, self._ui.nextMapButton):
            widget.enabled = isShown and bool(families)

    def forget(self) -> None:
        """The scene is closed: nothing of it is shown any more."""
        self._ui.blinkBox.checked = self._ui.probeBox.checked = False
        self.chooser.setResult(None)
        self._ui.revealSlider.value = 0
        self.layout.restore()

    def _entries(self, families: dict[str, Any]) -> list[tuple[str, str]]:
        choices = families.get(self._family, [])
        return [(tag(node, "Title"), node.GetID()) for choice in choices for node in choice.channels.values()]

    def _mapSentence(self, result: Any, current: Any, hasMaps: bool) -> str:
        if result is None:
            return _("There is no result yet.")
        if not hasMaps:
            return _("This result has no maps. Choose some under Advanced; they can be computed afterwards, too.")
        return tag(current, "Meaning") if current is not None else ""

    def _onFamily(self, family: str) -> None:
        choices = self.chooser.families().get(family, [])
        first = next((node for choice in choices for node in choice.channels.values()), None)
        self._family = family
        self.chooser.choose(first)
        self.update()

    def _onMap(self, identifier: str) -> None:
        self.chooser.choose(slicer.mrmlScene.GetNodeByID(identifier))
        self.update()

    def _onBlinkBox(self, isOn: bool) -> None:
        if isOn:
            self._blink.start()
        else:
            self._blink.stop()
            self.reveal.setShare(self._ui.revealSlider.value / 100)
        self._ui.revealSlider.enabled = not isOn and self.layout.isShown

    def _onBlink(self) -> None:
        self.reveal.toggle()

    def _onProbeBox(self, isOn: bool) -> None:
        if self._clicks is not None:
            self._clicks.removeObservers()
            self._clicks = None
        view, result = self.layout.view(RESULT_VIEW), self.result
        if isOn and view is not None and result is not None:
            self._clicks = ClickListener(view, self._onClick)
            self.sayOrigin(_howToAsk(result))
        else:
            self.sayOrigin("")

    def _onClick(self, ras: tuple[float, float, float]) -> None:
        result = self.result
        if result is None:
            return
        try:
            answer = probePoint(result, ras)
        except InputError as error:
            self.sayOrigin(str(error))
            return
        if isinstance(answer, PointRequest):
            self.sayOrigin(answer.sentence)
            self._onPoint(answer.ras)
        else:
            self._mark(answer, result)

    def _mark(self, found: PointSource, result: slicer.vtkMRMLScalarVolumeNode) -> None:
        markSource(found, result)
        self.sayOrigin(found.sentence)


def _howToAsk(result: slicer.vtkMRMLScalarVolumeNode) -> str:
    if probes(result) or offersPointMaps(result):
        return _("Click in the view of the result.")
    return _("Compute the displacement maps of this result first; choose them under Advanced.")
