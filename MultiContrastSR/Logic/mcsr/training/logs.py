"""What a run writes down: log.csv, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from lightning.fabric.loggers import TensorBoardLogger

from ..errors import OutputError
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
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                for what, value in values.items():
                    rows.writerow([step, round(seconds, 1), round(progress, 4), what, round(value, 5)])
                    logger.info("step %d (%.0f %%) %s %.4f", step, 100 * progress, what, value)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{self.path} cannot be written ({reason}); free some space, then --resume.") from error
        named = {_tag(group, what): value for what, value in values.items()}
        self._show(lambda board: board.log_metrics(named, step))

    def images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Show images (1, H, W) in 0..1; log.csv has no place for them."""
        named = {_tag("examples", what): image for what, image in images.items()}
        self._show(lambda board: [board.experiment.add_image(tag, image, step) for tag, image in named.items()])

    def flush(self) -> None:
        """Put everything onto the disk: what a checkpoint has passed does not come again."""
        self._show(lambda board: board.experiment.flush())

    def close(self) -> None:
        """No more comes."""
        self._show(lambda board: board.experiment.close())

    def _show(self, tell: Callable[[TensorBoardLogger], object]) -> None:
        """Tell TensorBoard, where there is one; without it a run goes on."""
        if self.board is None:
            return
        try:
            tell(self.board)
        except OSError as error:
            self.board = None
            logger.warning("TensorBoard's log ends here (%s); log.csv goes on.", error.strerror or error)


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
