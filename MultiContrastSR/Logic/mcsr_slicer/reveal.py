"""Input and result in one view, by turns: the eye finds what moved or came anew."""

from __future__ import annotations

import slicer

from .compare_layout import RESULT_VIEW, CompareLayout, inputOf


class Reveal:
    """Lays the input over the result in the result's view. Who calls `toggle` by a timer makes it blink.

    :param layout: without views nothing is done.
    """

    def __init__(self, layout: CompareLayout) -> None:
        self._layout = layout

    @property
    def showsInput(self) -> bool:
        """Whether more than half of what is seen is the input."""
        composite = self._composite()
        return bool(composite and composite.GetForegroundVolumeID() and composite.GetForegroundOpacity() > 0.5)

    def start(self, result: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Put the input over the result, unseen yet."""
        composite = self._composite()
        if composite is not None:
            composite.SetBackgroundVolumeID(result.GetID())
            composite.SetForegroundVolumeID(inputOf(result).GetID())
            composite.SetForegroundOpacity(0.0)

    def toggle(self) -> None:
        """Show the one that is not seen."""
        self.setShare(0.0 if self.showsInput else 1.0)

    def setShare(self, share: float) -> None:
        """How much of the input is seen, 0 to 1."""
        composite = self._composite()
        if composite is not None:
            composite.SetForegroundOpacity(min(max(share, 0.0), 1.0))

    def _composite(self) -> slicer.vtkMRMLSliceCompositeNode | None:
        view = self._layout.view(RESULT_VIEW)
        return view.mrmlSliceCompositeNode() if view is not None else None
