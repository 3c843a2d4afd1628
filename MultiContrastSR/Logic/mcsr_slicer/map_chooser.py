"""Which maps a result has, and which of them the map view shows. No widgets: the panel draws its lists from here."""

from __future__ import annotations

from dataclasses import dataclass

import slicer

from .colors import hideLegend, showLegend
from .compare_layout import MAP_VIEW, CompareLayout, withoutMap
from .node_tags import NodeHandle, nodesOf, tag

Volume = slicer.vtkMRMLScalarVolumeNode


@dataclass(frozen=True)
class MapChoice:
    """One tensor of the network, with all of it that is in the scene.

    :param key: name of the tensor, "texture_lv1".
    :param title: for a list.
    :param channels: its maps by part: "" is the natural one, then "pc1", "channel12", "columns", ...
    """

    key: str
    title: str
    channels: dict[str, Volume]


class MapChooser:
    """Steps through the maps of a result by family, tensor and channel.

    Everything is read from the nodes anew, so that maps may come, go and be loaded with a scene at any time.

    :param layout: whose map view shows the chosen map; without views only the choice is kept.
    """

    def __init__(self, layout: CompareLayout) -> None:
        self._layout = layout
        self._result, self._map = NodeHandle(None), NodeHandle(None)
        self._opacity = 1.0

    @property
    def current(self) -> Volume | None:
        """The chosen map while it is in the scene."""
        return self._map.node

    @property
    def opacity(self) -> float:
        """Of the map over the result, 0 to 1."""
        return self._opacity

    def setResult(self, result: Volume | None) -> None:
        """Offer the maps of this result; none is chosen yet."""
        self.choose(None)
        self._result = NodeHandle(result)

    def families(self) -> dict[str, list[MapChoice]]:
        """What there is to choose from, by family, in the order in which the engine names them."""
        found: dict[str, dict[str, MapChoice]] = {}
        for node in self._maps():
            key, _dot, part = tag(node, "Map").partition(".")
            choices = found.setdefault(tag(node, "Family"), {})
            title = tag(node, "Title")
            choice = choices.setdefault(key, MapChoice(key, title.rpartition(" (")[0] if part else title, {}))
            choice.channels[part] = node
        return {family: list(choices.values()) for family, choices in found.items()}

    def choose(self, node: Volume | None) -> None:
        """Show a map over the result, with its legend; None: the reference."""
        if self.current is not None:
            hideLegend(self.current)
        self._map = NodeHandle(node)
        view = self._layout.view(MAP_VIEW)
        if view is not None:
            composite, result = view.mrmlSliceCompositeNode(), self._result.node
            below = withoutMap(result) if result is not None and node is None else result
            composite.SetBackgroundVolumeID(below.GetID() if below else None)
            composite.SetForegroundVolumeID(node.GetID() if node else None)
            composite.SetForegroundOpacity(self._opacity)
        if node is not None and view is not None:
            showLegend(node, tag(node, "Title"), tag(node, "Unit"))

    def setOpacity(self, opacity: float) -> None:
        """Of the map over the result: 0 shows the result, 1 the map alone."""
        self._opacity = min(max(opacity, 0.0), 1.0)
        view = self._layout.view(MAP_VIEW)
        if view is not None:
            view.mrmlSliceCompositeNode().SetForegroundOpacity(self._opacity)

    def step(self, count: int = 1) -> Volume | None:
        """Choose the next map (or with -1 the one before), family by family, round and round; None without maps."""
        order = [
            node for choices in self.families().values() for choice in choices for node in choice.channels.values()
        ]
        if not order:
            self.choose(None)
            return None
        place = next((n for n, node in enumerate(order) if node is self.current), None)
        if place is None:
            place = -1 if count > 0 else 0
        self.choose(order[(place + count) % len(order)])
        return self.current

    def _maps(self) -> list[Volume]:
        result = self._result.node
        return nodesOf(result, "map") + nodesOf(result, "point_map") if result is not None else []
