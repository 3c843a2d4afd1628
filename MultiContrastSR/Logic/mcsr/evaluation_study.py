"""What to evaluate, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .evaluation_protocols import Protocol
from .job import Settings
from .metrics import SliceDistance

BASELINE = "sinc"
"""Scored in any case: the interpolation that all gains are measured from."""


@dataclass(frozen=True)
class Study:
    """What to evaluate.

    Args:
        data: a folder of subjects, see `subjects`.
        models: registered names; ("all",) is all networks with weights and all baselines.
        scales: in-plane factors.
        conditions: of `evaluation_conditions.CONDITIONS`.
        split: which subjects.
        sessions: only these, by name; all by default.
        protocol: degradation, size and metric of a paper beside our own metrics.
        limit_slices: at most so many slices of a pair, evenly spread; 0 for all. Registration then has little to go by.
        settings: everything but model, scale, plane and registration (the contrasts of a session are aligned already).
        lpips: a perceptual distance, see `metrics_lpips`.
    """

    data: Path
    models: Sequence[str]
    scales: Sequence[int]
    conditions: Sequence[str] = ("true", "self")
    split: str = "val"
    sessions: Sequence[str] = ()
    protocol: Protocol | None = None
    limit_slices: int = 0
    settings: Settings = field(default_factory=Settings)
    lpips: SliceDistance | None = None

    @property
    def degradation(self) -> str:
        """That of the protocol, else the one that our weights are trained for."""
        return self.protocol.degradation if self.protocol else "kspace"


@dataclass(frozen=True)
class Run:
    """One model on one pair at one scale under one condition.

    Args:
        model: name.
        condition: of `evaluation_conditions.CONDITIONS`, or `NO_REFERENCE`.
        scores: by metric (see `metrics.compare_slices`), one value for each slice of the case.
        protocol_scores: psnr, ssim and nmse of the study's protocol, by slice or one value; empty without.
        seconds: of the whole job.
        picture: the case's `shown` slice, on its canvas, divided by the truth's intensity scale.
    """

    model: str
    condition: str
    scores: Mapping[str, np.ndarray]
    protocol_scores: Mapping[str, np.ndarray]
    seconds: float
    picture: np.ndarray

    def mean(self, metric: str) -> float:
        """Over the slices."""
        return float(np.mean(self.scores[metric]))


@dataclass(frozen=True)
class Case:
    """One pair at one scale, and all that was run on it.

    Args:
        session: name.
        subject: who.
        target: contrast.
        reference: contrast.
        scale: in-plane factor.
        slices: numbers, in the stored volume, of those scored.
        ceiling: PSNR (dB) of a perfect result, slice by slice (see `evaluation_noise`); None for data that were
            resampled, at their source or for a protocol.
        shown: number of the slice of the pictures: the one whose PSNR of `BASELINE` is the median.
        truth_picture: that slice like `Run.picture`.
        reference_picture: the reference there, on the target's grid, as `picture` but divided by its own scale.
        spacing_mm: of its rows and columns.
        plane: anatomical.
        runs: `BASELINE` first.
        notes: sentences for the user.
    """

    session: str
    subject: str
    target: str
    reference: str
    scale: int
    slices: tuple[int, ...]
    ceiling: np.ndarray | None
    shown: int
    truth_picture: np.ndarray
    reference_picture: np.ndarray
    spacing_mm: tuple[float, float]
    plane: str
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    @property
    def pair(self) -> str:
        """Session, target and reference, as `SubjectPair.key` has it."""
        return f"{self.session} {self.target}<-{self.reference}"

    @property
    def name(self) -> str:
        """Pair and scale."""
        return f"{self.pair} x{self.scale}"

    def run(self, model: str, condition: str | None = None) -> Run:
        """That of a model, under a condition or the first one."""
        return next(run for run in self.runs if run.model == model and condition in (run.condition, None))

    def without_pictures(self) -> Case:
        """The scores alone, for keeping those of many cases."""
        none = np.empty((0, 0), dtype=np.float32)
        runs = tuple(replace(run, picture=none) for run in self.runs)
        return replace(self, truth_picture=none, reference_picture=none, runs=runs)
