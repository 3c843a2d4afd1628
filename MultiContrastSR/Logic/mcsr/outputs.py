"""What a job leaves on disk: all files whole, or none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from .container import write_container
from .errors import OutputError
from .imageio import prepare_output_folder, write_volume
from .job import Result
from .report import Panels, write_figure

SR_FILE = "sr.nii.gz"
RESIDUAL_FILE = "residual.nii.gz"
CONTAINER_FILE = "result.h5"
REPORT_FILE = "report.json"
FIGURE_FILE = "report.png"
OUTPUT_FILES = (SR_FILE, RESIDUAL_FILE, CONTAINER_FILE, REPORT_FILE, FIGURE_FILE)


@contextmanager
def output_folder(folder: Path, inputs: Iterable[Path], outputs: Iterable[str] = OUTPUT_FILES) -> Iterator[Path]:
    """A folder that is checked before the work and, if it was made for it, removed when the work fails.

    Raises:
        OutputError: see `imageio.prepare_output_folder`.
    """
    existed = folder.exists()
    prepare_output_folder(folder, inputs, outputs)
    try:
        yield folder
    except BaseException:
        if not existed:
            with suppress(OSError):  # not empty: something else was put there meanwhile
                folder.rmdir()
        raise


def write_result(result: Result, folder: Path) -> list[Path]:
    """Write sr, residual, container, report and figure into an existing folder.

    Everything is written beside it first and moved when complete; a failure leaves the folder as it was.

    Returns:
        The files written; the figure is left out where matplotlib is not installed.

    Raises:
        OutputError: when the folder cannot be written or the disk is full.
    """
    try:
        staging = Path(tempfile.mkdtemp(prefix=".mcsr-", dir=folder))
    except OSError as error:
        raise OutputError(f"Cannot write to {folder} ({error.strerror}); choose another folder with -o.") from error
    try:
        _write_all(result, staging)
        written = []
        for file in sorted(staging.iterdir()):
            os.replace(file, folder / file.name)
            written.append(folder / file.name)
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


def _write_all(result: Result, folder: Path) -> None:
    write_volume(result.sr, folder / SR_FILE)
    write_volume(result.residual, folder / RESIDUAL_FILE)
    write_container(
        folder / CONTAINER_FILE,
        {
            "sr": result.sr,
            "interpolated": result.interpolated,
            "residual": result.residual,
            "reference": result.reference,
        },
        result.provenance,
    )
    (folder / REPORT_FILE).write_text(json.dumps(result.provenance, indent=2) + "\n", encoding="utf-8")
    if find_spec("matplotlib"):  # an extra; the volumes do not depend on it
        write_figure(folder / FIGURE_FILE, Panels.of(result))
