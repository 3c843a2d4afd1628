"""The sample data: two scans of the brain phantom, made on the spot. No network is needed, and no patient shown."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

CATEGORY = "MultiContrastSR"
SAMPLE = "Brain phantom: T2 and T1"
SCALE = 4
TARGET, REFERENCE, TRUTH = "Phantom T2 low resolution", "Phantom T1", "Phantom T2 original"
_THUMBNAIL = Path(__file__).resolve().parents[2] / "Resources" / "Icons" / "MultiContrastSR_phantom.png"


def registerSampleData() -> None:
    """Show the phantom in Slicer's Sample Data module."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # Slicer 5.10 shows the category under its own name
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("Multi-Contrast Super-Resolution"))
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE,
        thumbnailFileName=str(_THUMBNAIL),
        # Slicer wants an address and a name of a file; with a downloader of its own it uses neither.
        uris="made-on-this-computer:",
        fileNames=SAMPLE,
        nodeNames=TARGET,
        customDownloader=_load,
    )


def _load(source: Any) -> list[Any]:
    return loadPhantom()


def loadPhantom(size: str = "full") -> list[Any]:
    """Add the phantom to the scene: a T2 in low resolution, a T1, and the T2 that the low resolution was made of.

    :param size: "full" (0.6 mm; about half a minute) or "small" (1.2 mm; a few seconds).
    :return: the three nodes, in that order.
    """
    volumes = _whileSlicerLives(lambda: phantomVolumes(size))
    nodes = []
    for name, volume in zip((TARGET, REFERENCE, TRUTH), volumes, strict=True):
        array = volume.array_kji.round().astype("int16")
        node = slicer.util.addVolumeFromArray(array, volume.ijk_to_ras, name=name)
        node.CreateDefaultDisplayNodes()
        nodes.append(node)
    _show(nodes[0])
    return nodes


@functools.lru_cache(maxsize=1)
def phantomVolumes(size: str) -> tuple[Any, Any, Any]:
    """Low-resolution target, reference and truth as the engine's volumes. Numpy alone: Slicer has no torch at first."""
    from mcsr.degradation import crop_to_multiple, degrade_volume
    from mcsr.phantom import demo_case

    case = demo_case(size=size)
    # The phantom's slices are stacked along its first array axis.
    truth, _lost = crop_to_multiple(case.target_hr, (1, SCALE, SCALE))
    low = degrade_volume(truth, (1, SCALE, SCALE), "kspace")
    return replace(low, name=TARGET), replace(case.reference, name=REFERENCE), replace(truth, name=TRUTH)


def _whileSlicerLives(make: Callable[[], Any]) -> Any:
    """Numpy in another thread; Qt and the scene stay in this one."""
    import qt

    slicer.util.showStatusMessage(_("Making the phantom; this takes about half a minute..."))
    with ThreadPoolExecutor(max_workers=1) as executor:
        future = executor.submit(make)
        while not future.done():
            # No clicks meanwhile: a second one would start a second phantom within this one.
            slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)
            time.sleep(0.02)
    slicer.util.showStatusMessage(_("The phantom was added."), 3000)
    return future.result()


def _show(node: Any) -> None:
    """In the slice views, where there are any."""
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(node.GetID())
    logic.PropagateVolumeSelection(1)
