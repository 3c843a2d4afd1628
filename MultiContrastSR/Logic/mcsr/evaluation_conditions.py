"""What a network is given for a reference: the right one, none, another patient's, or one that has moved."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from . import evaluation_artefacts as artefacts
from .errors import InputError
from .geometry import rigid_matrix
from .intensity import foreground
from .subjects import SubjectPair, find_subject_pairs
from .subjects_session import SPLITS
from .volume import Volume

MOTION_MM = 2.0
MOTION_DEGREES = 2.0

NO_REFERENCE = "none"
"""The condition of the baselines, which use no reference."""

CONDITIONS = {
    "true": "the other contrast of the same session",
    "self": "no reference: the interpolated target is its own",
    "foreign": "the same contrast of another subject, its centre of signal on that of the target",
    "misregistered": f"the true reference, displaced by {MOTION_MM:g} mm and turned by {MOTION_DEGREES:g} degrees in a "
    "direction drawn by the seed, header unchanged, registration off",
    "registered": "as misregistered, registration on",
    "anatomy": "the true reference turned by 90 degrees about the left-right axis: other anatomy",
    "motion": f"the true reference, jerked {artefacts.MOTION_POSES - 1} times by about {artefacts.MOTION_STEP_MM:g} mm "
    "while it was acquired",
    "void": f"the true reference with a hole of {2 * artefacts.VOID_MM:g} mm and a bright rim, as metal makes",
    "cropped": f"the first {100 * artefacts.KEPT_COLUMNS:.0f} % of the true reference's columns",
    "resampled": f"the true reference, resampled from pixels {artefacts.COARSER} times as large",
    "inverted": "the true reference with bright and dark exchanged",
}
GROUPS = {
    "all": ("true", "self", "foreign", "misregistered"),
    "wrong": ("self", "foreign", "anatomy", "misregistered", "motion", "void", "cropped", "resampled", "inverted"),
}
"""What one word stands for; registration costs more than the rest, so it is asked for by name."""

_SPOILT: Mapping[str, Callable[[Volume, int], Volume]] = {
    "motion": artefacts.with_motion,
    "void": artefacts.with_void,
    "cropped": lambda volume, _: artefacts.cropped(volume),
    "resampled": lambda volume, _: artefacts.resampled(volume),
    "inverted": lambda volume, _: artefacts.with_inversion(volume),
}


def find_candidates(data: Path, split: str) -> list[SubjectPair]:
    """Whom a foreign reference may come from: the pairs of a split, then those of the others."""
    pairs: list[SubjectPair] = []
    for name in (split, *(other for other in SPLITS if other != split)):
        with suppress(InputError):  # not every data set has every split
            pairs += find_subject_pairs(data, name)
    return pairs


def foreign_pair(pair: SubjectPair, candidates: Sequence[SubjectPair]) -> SubjectPair | None:
    """Who lends the foreign reference: the first candidate of another subject with that contrast.

    One from the same kind of data (as acquired, or resampled at its source) comes before all others; None when no other
    subject has the contrast.
    """
    others = [
        other
        for other in candidates
        if other.subject != pair.subject and pair.reference in (other.target, other.reference)
    ]
    return min(others, key=lambda other: other.auxiliary != pair.auxiliary, default=None)


class References:
    """What stands in for the reference of a pair, by condition.

    Args:
        pair: whose.
        target: the original, for where it lies.
        candidates: see `find_candidates`.
        seed: of the motion.
        fit: brings a reference to the slices that are scored.
    """

    def __init__(
        self,
        pair: SubjectPair,
        target: Volume,
        candidates: Sequence[SubjectPair],
        seed: int,
        fit: Callable[[Volume], Volume],
    ) -> None:
        self._pair, self._target, self._seed, self._fit = pair, target, seed, fit
        self.lender = foreign_pair(pair, candidates)

    def of(self, condition: str) -> Volume | None:
        """A reference; None for the conditions that have none, and for "foreign" where there is no `lender`."""
        if condition == "true":
            return self.true
        if condition == "foreign":
            return self._foreign
        if condition in ("misregistered", "registered"):
            return self._displaced
        if condition == "anatomy":
            return self._fit(turned(self._stored))
        return _SPOILT[condition](self.true, self._seed) if condition in _SPOILT else None

    @cached_property
    def true(self) -> Volume:
        """That of the session."""
        return self._fit(self._stored)

    @cached_property
    def _stored(self) -> Volume:
        return self._pair.read(self._pair.reference)

    @cached_property
    def _displaced(self) -> Volume:
        return self._fit(displaced(self._stored, self._seed))

    @cached_property
    def _foreign(self) -> Volume | None:
        if self.lender is None:
            return None
        return self._fit(centred_on(self.lender.read(self._pair.reference), self._target))


def centred_on(volume: Volume, target: Volume) -> Volume:
    """A volume shifted so that the centre of its signal lies on that of the target."""
    shift = _signal_centre(target) - _signal_centre(volume)
    return volume.moved(rigid_matrix((0, 0, 0), shift, volume.grid.centre_ras))


def displaced(volume: Volume, seed: int, *, mm: float = MOTION_MM, degrees: float = MOTION_DEGREES) -> Volume:
    """A volume as if the patient had moved before it was taken: a known rigid motion that its header does not tell.

    Args:
        volume: to move; its name and the seed choose the direction.
        seed: see above.
        mm: length of the shift.
        degrees: angle of the turn about the centre of the box.
    """
    rng = np.random.default_rng([seed, zlib.crc32(volume.name.encode())])
    shift, axis = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    # Turns this small about the three axes add up to one about their sum.
    angles = tuple(float(angle) for angle in degrees * axis)
    return volume.moved(rigid_matrix(angles, mm * shift, volume.grid.centre_ras))  # type: ignore[arg-type]


def turned(volume: Volume) -> Volume:
    """A volume turned by 90 degrees about the left-right axis through the centre of its signal."""
    return volume.moved(rigid_matrix((90, 0, 0), np.zeros(3), _signal_centre(volume)))


def _signal_centre(volume: Volume) -> np.ndarray:
    return volume.grid.to_ras(np.argwhere(foreground(volume.array_kji)).mean(axis=0)[::-1])
