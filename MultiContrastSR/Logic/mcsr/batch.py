"""The story of a batch: which subjects are done; the others run; one table and one overview of all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from .batch_cluster import run_subjects
from .batch_manifest import Subject
from .batch_overview import OVERVIEW_FILE, write_overview
from .batch_sheet import SHEET_FILE, write_sheets
from .batch_subject import WORKING_FOLDER, standing
from .batch_table import FAILED, TABLE_FILE, WAITING, Row, row_of, write_table
from .errors import Cancelled, InputError
from .progress import CancelQuery, Event, ProgressCallback

if TYPE_CHECKING:
    from distributed import Client

BATCH_FILES = (TABLE_FILE, OVERVIEW_FILE, SHEET_FILE)
_IN_THE_WAY = {
    "foreign": "{} in {} cannot be replaced; move what is there away, or name another folder with -o.",
    "other settings": "{} in {} were made with other settings; name another folder with -o, or add --redo.",
}


@dataclass(frozen=True)
class Batch:
    """What is to be done.

    Args:
        subjects: all of the manifest.
        folder: of the batch.
        waiting: those of them that are to be run.
        changed: names of those of the waiting whose inputs changed since they were done.
    """

    subjects: Sequence[Subject]
    folder: Path
    waiting: Sequence[Subject]
    changed: Sequence[str]


def plan_batch(subjects: Sequence[Subject], folder: Path, *, redo: bool = False) -> Batch:
    """Find out which subjects are done, from the same inputs with the same settings.

    Args:
        subjects: of the manifest.
        folder: of the batch.
        redo: run those again that were made with other settings.

    Raises:
        InputError: for folders that hold something else than a batch would, and for results of other settings.
    """
    folder = folder.absolute()
    found = {subject.name: standing(subject, folder) for subject in subjects}
    for state, sentence in _IN_THE_WAY.items():
        there = {name: stands.why for name, stands in found.items() if stands.state == state}
        if there and not (redo and state == "other settings"):
            raise InputError(sentence.format(_examples(there), folder))
    waiting = [subject for subject in subjects if found[subject.name].state != "done"]
    changed = [subject.name for subject in waiting if found[subject.name].state == "other inputs"]
    return Batch(subjects, folder, waiting, changed)


def run_batch(
    batch: Batch,
    workers: AbstractContextManager[Client],
    threads: int,
    *,
    progress: ProgressCallback,
    cancelled: CancelQuery,
) -> list[Row]:
    """Run the subjects that wait; the table is written anew whenever one ends.

    Args:
        batch: of `plan_batch`; no other program may write to its folder.
        workers: see `batch_cluster`; not entered where nothing waits.
        threads: CPU threads for each subject.
        progress: receives events.
        cancelled: asked a few times a second.

    Returns:
        A row for each subject, in the order of the manifest.

    Raises:
        Cancelled: when asked for; subjects that are done stay so.
        DeviceError: the scheduler is gone.
        OutputError: the table cannot be written.
    """
    folder = batch.folder
    waiting = {subject.name for subject in batch.waiting}
    rows = {s.name: row_of(s, folder, None if s.name in waiting else "") for s in batch.subjects}
    write_table(folder, rows.values())
    if not batch.waiting:
        return list(rows.values())
    started = time.monotonic()

    def ended(subject: Subject, error: str) -> None:
        if error and standing(subject, folder).state == "done":  # its worker died thereafter
            error = ""
        rows[subject.name] = row_of(subject, folder, error)
        write_table(folder, rows.values())

    def looked(workers: int) -> None:
        progress(_event(rows, len(batch.waiting), time.monotonic() - started, workers))

    try:
        with workers as client, _working_folder(folder):
            run_subjects(client, batch.waiting, folder, threads, ended=ended, looked=looked, cancelled=cancelled)
    except Cancelled:
        left = sum(row.status == WAITING for row in rows.values())
        raise Cancelled(
            f"Stopped; {left} of {len(rows)} subjects are left. Give the same command again to go on with them."
        ) from None
    return list(rows.values())


def write_overviews(folder: Path, rows: Sequence[Row], title: str) -> list[Path]:
    """The overview as a page and, where matplotlib is installed, as pictures; see `batch_overview`, `batch_sheet`.

    Returns:
        The files of the batch, its table included.

    Raises:
        OutputError: a file cannot be written.
    """
    files = [folder / TABLE_FILE, write_overview(folder, rows, title)]
    return files + (write_sheets(folder, rows, title) if find_spec("matplotlib") else [])


@contextmanager
def _working_folder(folder: Path) -> Iterator[None]:
    """The folder without which no worker works; what killed ones left in it is removed with it."""
    _remove_working_folders(folder)
    (folder / WORKING_FOLDER).mkdir()
    try:
        yield
    finally:
        _remove_working_folders(folder)


def _remove_working_folders(folder: Path) -> None:
    with suppress(OSError):  # at once, for whoever still writes there
        os.replace(folder / WORKING_FOLDER, folder / f"{WORKING_FOLDER}-{token_hex(4)}")
    for left in folder.glob(f"{WORKING_FOLDER}*"):
        shutil.rmtree(left, ignore_errors=True)


def _event(rows: Mapping[str, Row], asked_for: int, seconds: float, workers: int) -> Event:
    left = sum(row.status == WAITING for row in rows.values())
    failed = sum(row.status == FAILED for row in rows.values())
    ended = asked_for - left
    stage = f"{len(rows) - left} of {len(rows)} subjects" + (f", {failed} failed" if failed else "")
    stage += "" if workers else ", no worker"
    return Event(stage, 1 - left / len(rows), seconds / ended * left if ended else None)


def _examples(reasons: Mapping[str, str]) -> str:
    """The first of some subjects, and how many more there are."""
    (name, why), *more = reasons.items()
    return f"{name} ({why})" + (f" and {len(more)} more" if more else "")
