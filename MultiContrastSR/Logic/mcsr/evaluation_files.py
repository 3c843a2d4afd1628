"""What a study leaves on disk: a folder that appears when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from .errors import OutputError
from .evaluation_plots import write_box_plot, write_error_maps
from .evaluation_statistics import Difference
from .evaluation_study import Case
from .evaluation_tables import difference_rows, slice_rows, summary_rows, write_csv
from .imageio import complete_file, prepare_output_folder
from .temporary import temporary_beside

TABLES_FILE = "tables.md"
SLICES_FILE, SUMMARY_FILE, TESTS_FILE = "slices.csv", "summary.csv", "tests.csv"
ERRORS_FOLDER = "errors"


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it if all goes well and removed if not.

    Raises:
        OutputError: when `folder` holds something already, or cannot be made.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists already and is not empty; name another folder.")
    if not folder.parent.is_dir():
        raise OutputError(f"{folder} cannot be made: there is no folder {folder.parent}; create it first.")
    staging = temporary_beside(folder)
    try:
        yield prepare_output_folder(staging, ())
        try:
            if folder.is_dir():
                folder.rmdir()  # empty; not every system renames onto it
            os.replace(staging, folder)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror or error}); name another folder.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_case(folder: Path, case: Case) -> None:
    """The error maps of a case, where matplotlib is installed."""
    if find_spec("matplotlib"):
        errors = prepare_output_folder(folder / ERRORS_FOLDER, ())
        write_error_maps(errors / f"{case.session}_{case.target}_{case.reference}_x{case.scale}.png", case)


def write_study(folder: Path, cases: Sequence[Case], differences: Sequence[Difference], tables: str) -> None:
    """The tables as markdown and csv, and the box plots where matplotlib is installed."""
    write_csv(folder / SLICES_FILE, slice_rows(cases))
    write_csv(folder / SUMMARY_FILE, summary_rows(cases))
    if differences:
        write_csv(folder / TESTS_FILE, difference_rows(differences))
    with complete_file(folder / TABLES_FILE) as partial:
        partial.write_text(tables + "\n", encoding="utf-8")
    if find_spec("matplotlib"):
        for scale in dict.fromkeys(case.scale for case in cases):
            for metric in ("psnr", "ssim"):
                chosen = [case for case in cases if case.scale == scale]
                write_box_plot(folder / f"{metric}_x{scale}.png", chosen, metric)
