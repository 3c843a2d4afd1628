"""What a network says of a tensor it lets out: enough to caption, colour and place it without knowing the network."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("image", "labels", "features", "displacement", "table")
COLOURS = ("grey", "sequential", "diverging", "wheel", "labels")


@dataclass(frozen=True)
class MapSpec:
    """One captured tensor.

    Args:
        title: a few words for a list, "Score map, group 6".
        meaning: one sentence for a caption: what a bright (or a positive) pixel says.
        family: heading under which a list shows it, "Matching", "Features", ...
        kind: "image" (B, 1, a, b); "labels" (B, 1, a, b) of whole numbers; "features" (B, C, a, b); "displacement"
            (B, 2, a, b) in high-resolution pixels along columns, then rows; "table" of any shape, not spatial.
        unit: of the values, empty where they have none.
        colours: "grey", "sequential", "diverging" (about 0), "wheel" (direction and length) or "labels".
        limits: natural range of the values; None at a side where the data decide.
        cell: high-resolution pixels along a row (and a column) that one map pixel covers; the map begins at the same
            corner as the image and may reach beyond it at the far ends, where the network pads.
        smooth: brought onto the high-resolution grid by linear interpolation; otherwise by repetition.
        by_components: features whose strength says nothing, since it is the same everywhere: shown by their principal
            components.
        of_point: asked for one pixel with `Network.point_maps`, not captured.
    """

    title: str
    meaning: str
    family: str
    kind: str = "image"
    unit: str = ""
    colours: str = "sequential"
    limits: tuple[float | None, float | None] = (None, None)
    cell: int = 1
    smooth: bool = True
    by_components: bool = False
    of_point: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.colours not in COLOURS:
            raise ValueError(f"{self.title}: kind '{self.kind}' or colours '{self.colours}' is unknown")
