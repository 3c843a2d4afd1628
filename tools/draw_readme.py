"""Draw the pictures of README.md from the phantom: a result beside its truth, the panel, and the linked views.

    .venv/bin/python tools/draw_readme.py                  # all of them; some minutes
    .venv/bin/python tools/draw_readme.py first            # only this one: first or module

Panel and views are drawn by the host of the tests (Testing/Host): real Qt, real MRML, the real worker; not by the
Slicer application. Run it when one of them is no longer true; it prints what it wrote.
"""

from __future__ import annotations

import functools
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from draw_docs import PICTURES, WIDTH, new_figure, plain_axes
from mcsr.imageio import complete_file
from mcsr.intensity import intensity_scale
from mcsr.job import Result, Settings
from mcsr.phantom import demo_case
from mcsr.pipeline import enhance, simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

SCALE, SLICE = 4, 7
HEAD, DETAIL = (slice(20, 368), slice(26, 308)), (slice(100, 184), slice(44, 156))
"""Rows and columns that are shown, and those that are shown again, larger."""

BRAIN = (slice(90, 290), slice(90, 240))

FIRST_WIDTH = 960
VIEW_PIXELS, BAR_PIXELS, GAP_PIXELS = 384, 24, 6
GREYS = 80
FLAT_AREA = 0.01
"""Share of a picture from which on a colour, a bar's for one, is kept as it is."""
WORDS, MARK = "#ececec", "#ffb000"
_SECONDS = 1800.0
"""The most that a job may take on a slow and busy computer."""


def main(names: list[str]) -> None:
    """Draw the named pictures, or all."""
    drawings: dict[str, Callable[[], Iterator[Path]]] = {"first": first, "module": module}
    unknown = sorted(set(names) - set(drawings))
    if unknown:
        sys.exit(f"There is no picture {', '.join(unknown)}; there are {', '.join(drawings)}.")
    for name in names or drawings:
        for path in drawings[name]():
            print(f"{path.relative_to(PICTURES.parents[1])}: {path.stat().st_size / 1000:.0f} kB", flush=True)


# --- The first picture


def first() -> Iterator[Path]:
    """Reference, input, result and truth of a slice, and a part of each again, larger."""
    case = demo_case()
    low, _ = simulate(case.target_hr, SCALE)
    result = enhance(low, case.reference, Settings(scale=SCALE), ground_truth=case.target_hr)
    yield _save(_beside_each_other(_shown(result)), PICTURES / "readme-first.png")


def _beside_each_other(shown: list[tuple[str, str, np.ndarray]]) -> Image:
    """White on black, which suits light and dark pages."""
    from PIL import Image

    inches, tile = 10.0, 1 / len(shown)
    head, detail = (
        inches * tile * (rows.stop - rows.start) / (columns.stop - columns.start) for rows, columns in (HEAD, DETAIL)
    )
    height = head + detail + 0.85
    figure = new_figure(inches, height, "black")
    for number, (title, subtitle, pixels) in enumerate(shown):
        above = plain_axes(figure, (number * tile, (detail + 0.34) / height, tile * 0.985, head / height))
        below = plain_axes(figure, (number * tile, 0.3 / height, tile * 0.985, detail / height))
        _show(above, pixels[HEAD])
        _show(below, pixels[DETAIL])
        _mark_detail(above)
        middle = (number + 0.4925) * tile
        how = {"color": WORDS, "ha": "center", "va": "top"}
        figure.text(middle, 1 - 0.06 / height, title, fontsize=12, weight="bold", **how)
        figure.text(middle, 1 - 0.28 / height, subtitle, fontsize=9.5, **how)
    words = f"Brain phantom, no patient; {Settings().model}, x{SCALE}. Below: the frame, larger. PSNR: whole volume."
    figure.text(0.5, 0.08 / height, words, color=WORDS, fontsize=9.5, ha="center", va="bottom")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=FIRST_WIDTH / inches, facecolor="black")
    return Image.open(drawn)


def _shown(result: Result) -> list[tuple[str, str, np.ndarray]]:
    """Title, subtitle and a slice of each image, 0 black and 1 white."""
    assert result.truth is not None
    coarse, fine = (f"{volume.grid.spacing_ijk_mm[0]:.1f} mm" for volume in (result.target, result.sr))
    scores = result.scores
    # Fat under the skin, the brightest of T1, would darken the brain.
    white_of_t1 = 1.25 * float(result.reference.array_kji[SLICE][BRAIN].max())
    return [
        ("Reference: T1", "0.8 mm, another grid, registered", _slice(result.reference.array_kji, white_of_t1)),
        (
            "Input: T2",
            f"{coarse}, interpolated: {scores['interpolated'].psnr:.1f} dB",
            _slice(result.interpolated.array_kji),
        ),
        ("Result: T2", f"{fine}: {scores['result'].psnr:.1f} dB", _slice(result.sr.array_kji)),
        ("Truth: T2", f"{fine}; the input was made of it", _slice(result.truth.array_kji)),
    ]


def _slice(array_kji: np.ndarray, white: float | None = None) -> np.ndarray:
    return np.clip(array_kji[SLICE] / (white or intensity_scale(array_kji)), 0, 1)


def _show(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="lanczos", aspect="auto")


def _mark_detail(axes: Axes) -> None:
    from matplotlib.patches import Rectangle

    (top, left), (height, width) = (
        [inner.start - outer.start for inner, outer in zip(DETAIL, HEAD, strict=True)],
        [inner.stop - inner.start for inner in DETAIL],
    )
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=MARK, linewidth=1.0))


# --- The module


def module() -> Iterator[Path]:
    """The panel before and after a job with trust maps on the sample data, and the four linked views after it."""
    root = PICTURES.parents[1]
    sys.path += [str(root / name) for name in ("MultiContrastSR/Logic", "Testing/Host", "Testing/Python")]
    import slice_views
    import stand_ins_slicer

    # Views as large as those of a usual window, instead of those of the tests.
    size = (VIEW_PIXELS, VIEW_PIXELS)
    stand_ins_slicer.LayoutManager = functools.partial(slice_views.LayoutManager, viewSize=size)
    from mcsr_slicer.sample_data import phantomVolumes
    from module_host import module_host
    from panel_fixtures import Dialogs, Installer, add_volume, choose

    host = module_host()
    host.reset()
    panel = host.open(dialogs=Dialogs(), installer=Installer())
    ui, widget = panel.widget.ui, panel.widget
    for selector, volume in zip(("target", "reference", "groundTruth"), phantomVolumes("full"), strict=True):
        getattr(ui, f"{selector}Selector").setCurrentNode(add_volume(volume))
    ui.trustBox.checked = True
    yield _panel_picture(panel, "readme-panel-before.png")
    ui.applyButton.click()
    try:
        if not host.process(lambda: not widget.panel.isBusy, _SECONDS) or widget._parameterNode.result is None:
            sys.exit(f"There is no result: {ui.statusLabel.text}")
        choose(ui.mapSelector, "Expected error")
        yield _panel_picture(panel, "readme-panel-after.png")
        yield _views_picture(PICTURES / "readme-views.png")
    finally:
        widget.logic.shutdown()
        panel.close()
    if problems := host.problems():
        sys.exit("\n".join(problems))


def _panel_picture(panel: Any, name: str) -> Path:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        panel.picture(Path(folder) / name)
        with Image.open(Path(folder) / name) as image:
            return _save(image, PICTURES / name)


def _views_picture(path: Path) -> Path:
    """The four views as they are laid out, each under a bar with its name, which in Slicer is its controller."""
    import slicer
    from matplotlib.font_manager import findfont
    from mcsr_slicer.compare_layout import VIEWS
    from PIL import Image, ImageDraw, ImageFont

    layout = slicer.app.layoutManager()
    across, down = VIEW_PIXELS + GAP_PIXELS, VIEW_PIXELS + BAR_PIXELS + GAP_PIXELS
    sheet = Image.new("RGB", (2 * across - GAP_PIXELS, 2 * down - GAP_PIXELS), "#505050")
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(findfont("DejaVu Sans"), 14)
    for number, (name, (label, colour)) in enumerate(VIEWS.items()):
        left, top = number % 2 * across, number // 2 * down
        draw.rectangle((left, top, left + VIEW_PIXELS - 1, top + BAR_PIXELS - 1), fill=colour)
        draw.text((left + 8, top + BAR_PIXELS / 2), label, font=font, fill="white", anchor="lm")
        sheet.paste(Image.fromarray(layout.sliceWidget(name).picture()), (left, top + BAR_PIXELS))
    return _save(sheet, path)


def _save(image: Image, path: Path) -> Path:
    """As PNG with a palette: even steps of grey, which stay grey, and the colours that the picture has beside them."""
    from PIL import Image as Images

    assert image.width <= WIDTH
    pixels = np.asarray(image.convert("RGB"))
    palette = np.repeat(np.linspace(0, 255, GREYS).round().astype(np.uint8), 3)
    coloured, counts = np.unique(pixels[np.ptp(pixels, axis=2) > 0], axis=0, return_counts=True)
    if len(coloured):
        plain = coloured[counts > FLAT_AREA * image.width * image.height]
        # Each other colour once, however rare: of all pixels most are of the darkest.
        others = Images.fromarray(np.unique(coloured & 0xF8, axis=0)[None])
        few = others.quantize(256 - GREYS - len(plain), method=Images.Quantize.MEDIANCUT)
        palette = np.concatenate([palette, plain.ravel(), np.asarray(few.getpalette(), np.uint8)])[: 3 * 256]
    holder = Images.new("P", (1, 1))
    holder.putpalette(palette.tobytes())
    with complete_file(path) as temporary:
        image.convert("RGB").quantize(palette=holder, dither=Images.Dither.NONE).save(temporary, "png", optimize=True)
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
