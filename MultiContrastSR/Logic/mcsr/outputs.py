"""What a job leaves on disk: all files whole, or none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from .container import write_container
from .errors import Cancelled, OutputError
from .imageio import prepare_output_folder, write_volume
from .job import Result
from .progress import CancelQuery, never_cancelled
from .report import Panels, write_figure
from .report_maps import write_maps_figure
from .volume import Volume

CONTAINER_FILE = "result.h5"
REPORT_FILE = "report.json"
FIGURE_FILE = "report.png"
MAPS_FIGURE_FILE = "maps.png"
MAPS_FOLDER = "maps"
VOLUMES = ("sr", "residual")
OUTPUT_FILES = (*(f"{name}.nii.gz" for name in VOLUMES), CONTAINER_FILE, REPORT_FILE, FIGURE_FILE, MAPS_FIGURE_FILE)


@contextmanager
def output_folder(folder: Path, inputs: Iterable[Path], outputs: Iterable[str] = OUTPUT_FILES) -> Iterator[Path]:
    """A folder that is checked before the work; what was made for it is removed when the work fails.

    Raises:
        OutputError: see `imageio.prepare_output_folder`.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    prepare_output_folder(folder, inputs, outputs)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # not empty: something else was put there meanwhile
            for path in made:
                path.rmdir()
        raise


def write_result(
    result: Result,
    folder: Path,
    extra: Mapping[str, Volume] | None = None,
    cancelled: CancelQuery = never_cancelled,
) -> list[Path]:
    """Write sr, residual, maps/, container, report and figures into an existing folder.

    Everything is written beside it first and moved when complete; a failure leaves the folder as it was. Volumes are
    NIfTI, but for sheared grids, which NIfTI cannot hold: those are NRRD.

    Args:
        result: of a job.
        folder: to write to.
        extra: more volumes by file name without extension.
        cancelled: asked when all is written, before it appears in the folder.

    Returns:
        The files written; the figure is left out where matplotlib is not installed.

    Raises:
        OutputError: when the folder cannot be written or the disk is full.
        Cancelled: when asked for.
    """
    try:
        # Named after the process: who ends it can tell what it left.
        staging = Path(tempfile.mkdtemp(prefix=f".mcsr-{os.getpid()}-", dir=folder))
    except OSError as error:
        raise OutputError(f"Cannot write to {folder} ({error.strerror}); choose another folder with -o.") from error
    try:
        _write_all(result, {"sr": result.sr, "residual": result.residual, **(extra or {})}, staging)
        if cancelled():
            raise Cancelled("Cancelled; nothing was written.")
        earlier = _files_of_earlier_job(folder)
        written = []
        for file in sorted(path for path in staging.rglob("*") if path.is_file()):
            place = folder / file.relative_to(staging)
            place.parent.mkdir(exist_ok=True)
            os.replace(file, place)
            written.append(place)
        for file in earlier - set(written):
            file.unlink(missing_ok=True)  # it would belie these results
        with suppress(OSError):  # not empty
            (folder / MAPS_FOLDER).rmdir()
        return written
    except (OSError, OutputError) as error:
        # Not the message below it: that names a file that is gone by now.
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause or error
        raise OutputError(
            f"Cannot write the results to {folder} ({reason}); free some space or choose another."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_all(result: Result, volumes: Mapping[str, Volume], folder: Path) -> None:
    suffix = ".nii.gz" if result.sr.grid.is_orthogonal else ".nrrd"
    for name, volume in volumes.items():
        write_volume(volume, folder / f"{name}{suffix}")
    if result.maps:
        (folder / MAPS_FOLDER).mkdir()
    for name, volume in result.maps.items():
        write_volume(volume, folder / MAPS_FOLDER / f"{name}{suffix}")
    contents = {name: getattr(result, name) for name in ("sr", "interpolated", "residual", "reference")}
    texts = {
        name: {"description": f"{facts['title']}: {facts['meaning']}", "unit": facts["unit"]}
        for name, facts in result.provenance["maps"].items()
    }
    write_container(folder / CONTAINER_FILE, contents | dict(result.maps), result.provenance, texts, result.tables)
    text = json.dumps(result.provenance, indent=2, allow_nan=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    if find_spec("matplotlib"):  # an extra; the volumes do not depend on it
        write_figure(folder / FIGURE_FILE, Panels.of(result))
        if result.maps:
            write_maps_figure(folder / MAPS_FIGURE_FILE, result)


def _files_of_earlier_job(folder: Path) -> set[Path]:
    """Files that only some jobs write: figures, and the maps that the report in the folder names."""
    files = {folder / FIGURE_FILE, folder / MAPS_FIGURE_FILE}
    try:
        names = list(json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))["maps"])
    except (OSError, ValueError, KeyError, TypeError):
        return files  # no report of ours: whatever is in the folder stays
    for name in names:
        if isinstance(name, str) and Path(name).name == name:
            files |= {folder / MAPS_FOLDER / f"{name}{suffix}" for suffix in (".nii.gz", ".nrrd")}
    return files
