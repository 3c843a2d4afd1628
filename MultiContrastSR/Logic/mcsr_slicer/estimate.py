"""How long an enhancement will take: the network's work, over the speed that this computer had the last time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from slicer.i18n import tr as _

# Until a first run has measured: what a laptop does, GMAC a second, and seconds for starting and registering.
GUESSED_SPEED = 25.0
GUESSED_OVERHEAD = 25.0
_KEY = "MultiContrastSR/Speed/{device}/{model}/{what}"


class Settings(Protocol):
    """As much of QSettings as is needed."""

    def value(self, key: str) -> Any:
        """None where there is none."""

    def setValue(self, key: str, value: Any) -> None:
        """Keep it."""


@dataclass(frozen=True)
class Estimate:
    """Seconds, and whether this computer's speed was measured before."""

    seconds: float
    isMeasured: bool

    def sentence(self) -> str:
        """For the panel."""
        if self.isMeasured:
            return _("Expected time: about {time}.").format(time=duration(self.seconds))
        return _("Expected time: about {time}. This is a guess until the first run has measured this computer.").format(
            time=duration(self.seconds)
        )


def work(gmac: Mapping[int, float], pixelsPerSlice: float, slices: int) -> float:
    """Multiply-accumulates (1e9) of a volume, from the known work of two slice sizes.

    The work grows as a power of the pixel count: 1 for convolutions, more where a network matches patches.
    """
    (small, first), (large, last) = (min(gmac.items()), max(gmac.items()))
    power = math.log(last / first) / math.log(large / small) if large > small and last > first else 1.0
    return slices * first * (pixelsPerSlice / small) ** power


def estimate(settings: Settings, model: str, device: str, gmac: float) -> Estimate:
    """Time for some work (1e9 multiply-accumulates) of a model on a device."""
    speed = _number(settings.value(_KEY.format(device=device, model=model, what="gmacPerSecond")))
    overhead = _number(settings.value(_KEY.format(device=device, model=model, what="otherSeconds")))
    if speed is None or overhead is None:
        return Estimate(gmac / GUESSED_SPEED + GUESSED_OVERHEAD, False)
    return Estimate(gmac / speed + overhead, True)


def remember(settings: Settings, model: str, device: str, gmac: float, stages: Mapping[str, float]) -> None:
    """Keep the speed of a run, from the seconds that its report gives for each stage."""
    seconds = stages.get("Enhancing", 0.0)
    if seconds <= 0 or gmac <= 0:
        return
    settings.setValue(_KEY.format(device=device, model=model, what="gmacPerSecond"), gmac / seconds)
    # Maps are asked for now and then, and are no part of what is foretold.
    asked = ("Drawing maps", "Drawing trust maps")
    other = sum(value for stage, value in stages.items() if stage != "Enhancing" and stage not in asked)
    settings.setValue(_KEY.format(device=device, model=model, what="otherSeconds"), other)


def duration(seconds: float) -> str:
    """In words, as exact as an estimate is."""
    if seconds < 10:
        return _("{n} s").format(n=max(1, round(seconds)))
    if seconds < 90:
        return _("{n} s").format(n=5 * round(seconds / 5))
    if seconds < 5400:
        return _("{n} min").format(n=round(seconds / 60))
    return _("{n} h").format(n=f"{seconds / 3600:.1f}")


def _number(value: Any) -> float | None:
    """Settings give numbers back as texts."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
