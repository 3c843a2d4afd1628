"""Progress and cancellation, as arguments: what long work tells its caller, and how the caller stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .errors import Cancelled


@dataclass(frozen=True)
class Event:
    """A step of a job.

    Args:
        stage: what is being done, in words for the user.
        fraction: how far the whole job is, 0 to 1.
        remaining_s: estimate of the seconds left, None while it cannot be told.
    """

    stage: str
    fraction: float
    remaining_s: float | None


ProgressCallback = Callable[[Event], None]
CancelQuery = Callable[[], bool]


def no_progress(event: Event) -> None:
    """Ignore progress."""


def never_cancelled() -> bool:
    """No one can cancel."""
    return False


class JobProgress:
    """Turns the progress of stages into the progress of a job, and raises `Cancelled` where asked to.

    Args:
        report: receives the events.
        cancelled: asked at every step.
        weights: share of the whole time by stage, in order; they need not sum to 1.
    """

    def __init__(self, report: ProgressCallback, cancelled: CancelQuery, weights: dict[str, float]) -> None:
        total = sum(weights.values())
        self._report = report
        self._cancelled = cancelled
        self._weights = {stage: weight / total for stage, weight in weights.items()}
        self._stage = ""
        self._passed = 0.0
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a stage: its time is kept in `seconds`, its share is passed at the end."""
        self._stage = name
        started = time.monotonic()
        self.update(0.0)
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)
        self.update(1.0)
        self._passed += self._weights[name]

    def update(self, fraction: float) -> None:
        """Report how far the current stage is (0 to 1); raises `Cancelled` when the user wants to stop."""
        if self._cancelled():
            raise Cancelled("Cancelled; nothing was written.")
        done = min(1.0, self._passed + fraction * self._weights[self._stage])
        elapsed = time.monotonic() - self._started
        remaining = elapsed * (1 - done) / done if done > 0.05 and elapsed > 1 else None
        self._report(Event(self._stage, done, remaining))

    def cancelled(self) -> bool:
        """Whether the user wants to stop, for code that polls."""
        return self._cancelled()
