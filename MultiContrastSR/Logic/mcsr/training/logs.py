"""What a run writes down: log.csv, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from lightning.fabric.loggers import TensorBoardLogger

from ..imageio import complete_file

logger = logging.getLogger(__name__)

COLUMNS = ("step", "seconds", "progress", "what", "value")


class RunLog:
    """The log of a run, written by its first process.

    Args:
        folder: receives `log.csv` and `tensorboard/`.
        first_step: what a killed run wrote after this step is dropped, as it comes again.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.path = folder / "log.csv"
        _keep_up_to(self.path, first_step)
        self.board: TensorBoardLogger | None = None
        try:
            self.board = TensorBoardLogger(folder, name="", version="tensorboard", purge_step=first_step + 1)
        except ModuleNotFoundError:
            logger.info("TensorBoard is not installed (pip install tensorboard), so log.csv is the only log.")

    def values(self, group: str, values: Mapping[str, float], step: int, seconds: float, progress: float) -> None:
        """Write figures down, in TensorBoard under `group`."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            for what, value in values.items():
                rows.writerow([step, round(seconds, 1), round(progress, 4), what, round(value, 5)])
                logger.info("step %d (%.0f %%) %s %.4f", step, 100 * progress, what, value)
        if self.board is not None:
            self.board.log_metrics({_tag(group, what): value for what, value in values.items()}, step)

    def images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Show images (1, H, W) in 0..1; log.csv has no place for them."""
        if self.board is not None:
            for what, image in images.items():
                self.board.experiment.add_image(_tag("examples", what), image, step)

    def flush(self) -> None:
        """Put everything onto the disk: what a checkpoint has passed does not come again."""
        if self.board is not None:
            self.board.experiment.flush()

    def close(self) -> None:
        """No more comes."""
        if self.board is not None:
            self.board.experiment.close()


def _keep_up_to(path: Path, step: int) -> None:
    """Drop later rows, and the last one if it is incomplete; start the file where there is none."""
    rows: list[list[str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS) and row[0].isdigit()]
    with complete_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *(row for row in rows if int(row[0]) <= step)])


def _tag(group: str, what: str) -> str:
    # TensorBoard knows no arrows and no spaces.
    return f"{group}/" + re.sub(r"[^\w.]+", "_", what.replace("<-", "_from_"))
