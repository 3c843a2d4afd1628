"""Pairs of a data folder whose target is made coarse, one after the other, for what is measured on a whole job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from .degradation import crop_to_multiple, degrade_volume
from .errors import InputError
from .job import Settings
from .pipeline_inputs import degradation_for
from .progress import CancelQuery, JobProgress, ProgressCallback, never_cancelled, no_progress
from .subjects import SubjectPair, find_subject_pairs
from .volume import Volume

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class PairChoice:
    """Which pairs of a data folder.

    Args:
        data: folder of subjects.
        split: "train", "val" or "test".
        sessions: only these, by name; all by default.
        limit_slices: at most so many of each pair, the middle ones; 0 for all.
    """

    data: Path
    split: str = "val"
    sessions: Sequence[str] = ()
    limit_slices: int = 0

    def find(self) -> list[SubjectPair]:
        """The pairs.

        Raises:
            InputError: when there are none, or none of a session that was named.
        """
        pairs = find_subject_pairs(self.data, self.split)
        unknown = set(self.sessions) - {pair.session.name for pair in pairs}
        if unknown:
            raise InputError(f"{self.data} has no session {', '.join(sorted(unknown))} in split '{self.split}'.")
        return [pair for pair in pairs if not self.sessions or pair.session.name in self.sessions]


@dataclass(frozen=True)
class DegradedPair:
    """A target whose truth is known, and its reference where it lies.

    Args:
        key: session, target and reference.
        truth: the target in high resolution, a multiple of the scale in size.
        target: the truth, degraded.
        reference: another contrast on the truth's grid before its crop.
        settings: for the job; its plane is that of the session, registration is off.
        degradation: name of what made the target: that of the settings' weights.
    """

    key: str
    truth: Volume
    target: Volume
    reference: Volume
    settings: Settings
    degradation: str

    @property
    def factors_kji(self) -> tuple[int, int, int]:
        """How much finer the truth is than the target."""
        return 1, self.settings.scale, self.settings.scale


def measure_pairs(
    measure: Callable[[DegradedPair, JobProgress], Measured],
    choice: PairChoice,
    settings: Settings,
    *,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> Iterator[Measured]:
    """Measure something on every chosen pair.

    Args:
        measure: gives what was measured on one pair; tells the progress of its stage, and asks it for cancellation.
        choice: of pairs.
        settings: model, scale, device.
        progress: receives events.
        cancelled: asked between steps.

    Raises:
        InputError: when there are no such pairs.
    """
    pairs = choice.find()
    report = JobProgress(progress, cancelled, {pair.key: 1.0 for pair in pairs})
    for pair in pairs:
        with report.stage(pair.key):
            measured = measure(_degraded(pair, settings, choice.limit_slices), report)
        yield measured


def _degraded(pair: SubjectPair, settings: Settings, limit_slices: int) -> DegradedPair:
    factors, degradation = (1, settings.scale, settings.scale), degradation_for(settings)
    truth, reference = (_middle(pair.read(contrast), limit_slices) for contrast in (pair.target, pair.reference))
    truth = crop_to_multiple(truth, factors)[0]
    target = degrade_volume(truth, factors, degradation)
    settings = replace(settings, plane=pair.plane, registration="none")
    return DegradedPair(pair.key, truth, target, reference, settings, degradation)


def _middle(volume: Volume, limit: int) -> Volume:
    """At most `limit` slices in the middle."""
    columns, rows, count = volume.grid.shape_ijk
    if not limit or count <= limit:
        return volume
    return volume.cropped((0, 0, (count - limit) // 2), (columns, rows, limit))
