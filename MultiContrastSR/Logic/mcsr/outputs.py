"""What a job leaves on disk: all files whole, or none; and all of one job.

report.json goes first and comes last: a folder without it holds no whole result, whenever a process is killed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from .container import write_container
from .errors import Cancelled, OutputError
from .imageio import complete_file, prepare_output_folder, write_volume
from .job import Result
from .progress import CancelQuery, never_cancelled
from .report import Panels, write_figure
from .report_maps import write_maps_figure
from .temporary import make_temporary_folder
from .volume import Volume

CONTAINER_FILE = "result.h5"
REPORT_FILE = "report.json"
UNFINISHED_FILE = "unfinished.json"
"""In the place of the report while files are moved; stays where a process is killed just then."""
FIGURE_FILE = "report.png"
MAPS_FIGURE_FILE = "maps.png"
MAPS_FOLDER = "maps"
VOLUMES = ("sr", "residual")
VOLUME_SUFFIXES = (".nii.gz", ".nrrd")
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

    Everything is written beside it first and moved when complete; a failure before that leaves the folder as it was.
    Volumes are NIfTI, but for sheared grids, which NIfTI cannot hold: those are NRRD.

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
        staging = make_temporary_folder(folder)
    except OSError as error:
        raise OutputError(f"Cannot write to {folder} ({error.strerror}); choose another folder with -o.") from error
    try:
        _write_all(result, extra or {}, staging)
        if cancelled():
            raise Cancelled("Cancelled; nothing was written.")
        return _move(staging, folder, result.maps)
    except (OSError, OutputError) as error:
        # Not the message below it: that names a file that is gone by now.
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause or error
        raise OutputError(
            f"Cannot write the results to {folder} ({reason}); free some space or choose another."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, folder: Path, maps: Iterable[str]) -> list[Path]:
    """Put the files of a job with these maps in the place of those of an earlier one."""
    report, unfinished = folder / REPORT_FILE, folder / UNFINISHED_FILE
    places = {file: folder / file.relative_to(staging) for file in sorted(staging.rglob("*")) if file.is_file()}
    earlier_maps = _maps_of_earlier_job(folder)
    outdated = {folder / FIGURE_FILE, folder / MAPS_FIGURE_FILE}
    outdated |= {folder / MAPS_FOLDER / f"{name}{suffix}" for name in earlier_maps for suffix in VOLUME_SUFFIXES}
    message = "The job was ended while it moved its results here, so that they are incomplete; start it again."
    with complete_file(unfinished) as partial:
        partial.write_text(json.dumps({"message": message, "maps": sorted(earlier_maps | {*maps})}), encoding="utf-8")
    report.unlink(missing_ok=True)
    for file in outdated - {*places.values()}:
        file.unlink(missing_ok=True)  # it would belie these results
    for file, place in sorted(places.items(), key=lambda item: item[1] == report):
        place.parent.mkdir(exist_ok=True)
        os.replace(file, place)
    unfinished.unlink()
    with suppress(OSError):  # not empty
        (folder / MAPS_FOLDER).rmdir()
    return list(places.values())


def _write_all(result: Result, extra: Mapping[str, Volume], folder: Path) -> None:
    # Made here, once for all files that hold it.
    interpolated = result.interpolated
    residual = result.residual_to(interpolated)
    volumes = {"sr": result.sr, "residual": residual, **extra}
    if result.maps:
        (folder / MAPS_FOLDER).mkdir()
        volumes |= {f"{MAPS_FOLDER}/{name}": volume for name, volume in result.maps.items()}
    suffix = VOLUME_SUFFIXES[not result.sr.grid.is_orthogonal]
    text = json.dumps(result.provenance, indent=2, allow_nan=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    if not result.sr.grid.is_orthogonal:
        # ITK copies what it writes as .nrrd, and there may be no room for more beside that.
        for name in list(volumes):
            write_volume(volumes.pop(name), folder / f"{name}{suffix}")
    # Side by side: what compresses and draws lets go of the interpreter.
    pool = ThreadPoolExecutor(2)
    try:
        writers = [pool.submit(_write_figures, result, interpolated, folder)]
        writers += [pool.submit(write_volume, volume, folder / f"{name}{suffix}") for name, volume in volumes.items()]
        _write_container(result, interpolated, residual, folder)
        for writer in writers:
            writer.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_container(result: Result, interpolated: Volume, residual: Volume, folder: Path) -> None:
    volumes = {"sr": result.sr, "interpolated": interpolated, "residual": residual, "reference": result.reference}
    texts = {
        name: {"description": f"{facts['title']}: {facts['meaning']}", "unit": facts["unit"]}
        for name, facts in result.provenance["maps"].items()
    }
    write_container(folder / CONTAINER_FILE, volumes | dict(result.maps), result.provenance, texts, result.tables)


def _write_figures(result: Result, interpolated: Volume, folder: Path) -> None:
    if not find_spec("matplotlib"):  # an extra; the volumes do not depend on it
        return
    write_figure(folder / FIGURE_FILE, Panels.of(result, interpolated))
    if result.maps:
        write_maps_figure(folder / MAPS_FIGURE_FILE, result)


def _maps_of_earlier_job(folder: Path) -> set[str]:
    """Names of the maps that lie in the folder beside the report of a job, or in the place of one that was killed."""
    found: set[str] = set()
    for record in (folder / REPORT_FILE, folder / UNFINISHED_FILE):
        with suppress(OSError, ValueError, KeyError, TypeError):  # none of ours: whatever is in the folder stays
            names = list(json.loads(record.read_text(encoding="utf-8"))["maps"])
            found |= {name for name in names if isinstance(name, str) and Path(name).name == name}
    return found
