"""What a job is made of: the user's settings, what its steps share, and its result."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from . import __version__
from .degradation import FactorsKJI, upsample
from .encoded_references import EncodedReferences
from .geometry import AxisOrder, Grid, display_order, refine_grid
from .inference import Plan
from .intensity import is_magnitude
from .maps import MapView
from .memory import blocks
from .metrics import Scores
from .networks import Network
from .registration import Registration
from .trust_fit import ReferenceFit
from .volume import Volume
from .weights import Weights

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Settings:
    """What the user chose; the names are those of the command line's options.

    Args:
        trust: also draw the trust maps, see `trust.SPECS`.
        fallback: where the reference does not fit the target, the target helps itself.
        memory: bytes of main memory that the process may hold; None: what it holds and most of what is free.
    """

    model: str = "dcamsr-s"
    scale: int = 4
    weights: Path | None = None
    plane: str = "auto"
    registration: str = "rigid"
    device: str = "auto"
    precision: str = "auto"
    consistency: bool = True
    maps: str = "none"
    trust: bool = False
    fallback: bool = True
    seed: int = 0
    force: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class Result:
    """What a job gives; all volumes but the target lie on the result's grid, in the target's storage order.

    Args:
        sr: the enhanced target.
        target: as it was given.
        reference: the reference, registered and resampled; the interpolated target where there was none.
        truth: the ground truth cropped to the grid, where one was given.
        slice_axis: storage axis along which the slices were stacked (0 = i, 1 = j, 2 = k).
        scores: of "result" and "interpolated" against the truth, where one was given.
        provenance: everything needed to repeat the job, json-serialisable; "maps" says what each map means.
        warnings: sentences for the user.
        maps: of the network, by name.
        tables: of the network, by name; (slices, ...) in display order, NaN for slices without signal.
    """

    sr: Volume
    target: Volume
    reference: Volume
    truth: Volume | None
    slice_axis: int
    scores: Mapping[str, Scores]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...]
    maps: Mapping[str, Volume] = field(default_factory=dict)
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def interpolated(self) -> Volume:
        """The target by sinc interpolation, the baseline; made anew each time, since it is as large as the result."""
        finer = max(np.divide(self.sr.array_kji.shape, self.target.array_kji.shape))
        volume = self.sr.with_array(self._interpolated(), name=f"{self.target.name} sinc x{finer:.0f}")
        return replace(volume, source_dtype=self.target.source_dtype)

    @property
    def residual(self) -> Volume:
        """sr - interpolated, in the target's units; made anew each time."""
        return self.residual_to(self.interpolated)

    def residual_to(self, interpolated: Volume) -> Volume:
        """The residual, where the interpolated target is there already."""
        volume = self.sr.with_array(self.sr.array_kji - interpolated.array_kji, name=f"{self.target.name} residual")
        return replace(volume, source_dtype="float32")

    def _interpolated(self) -> np.ndarray:
        order = display_order(self.target.grid, self.slice_axis)
        coarse = order.apply(self.target.array_kji)
        array = np.empty(self.sr.array_kji.shape, dtype=np.float32)
        fine = order.apply(array)
        factors = tuple(n // m for n, m in zip(fine.shape, coarse.shape, strict=True))
        lowest = 0 if is_magnitude(coarse) else -np.inf
        for block in blocks(fine.shape):
            np.maximum(upsample(coarse[block], factors), lowest, out=fine[block])
        return array


@dataclass(frozen=True)
class DrawnMaps:
    """Maps without the result that they are of; see `Result`."""

    maps: Mapping[str, Volume]
    tables: Mapping[str, np.ndarray]
    slice_axis: int
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...]


class Memory:
    """What jobs leave for the next one in the same process: the last thing of each kind, and encoded references.

    A thing is known by all that it was made from, so a recalled one is the one that would be made.

    Args:
        keeps: False: that of a single job, which leaves nothing.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self.references = EncodedReferences() if keeps else None
        self._things: dict[str, tuple[str, Any]] = {}
        self.recalled: list[str] = []
        """Kinds that the job at hand did not have to make."""

    def known(self, kind: str, made_from: Sequence[Any]) -> Any:
        """The thing that was made from this, or None."""
        return self._known(kind, _digest(made_from)) if self.keeps else None

    def recall(self, kind: str, made_from: Sequence[Any], make: Callable[[], Thing]) -> Thing:
        """The thing that was made from this, now if it is not known."""
        if not self.keeps:
            return make()
        digest = _digest(made_from)
        thing = self._known(kind, digest)
        if thing is None:
            self._things.pop(kind, None)  # the computer's memory may not hold two
            thing = make()
            self._things[kind] = (digest, thing)
        return thing

    def _known(self, kind: str, digest: str) -> Any:
        known, thing = self._things.get(kind, ("", None))
        if known != digest:
            return None
        self.recalled.append(kind)
        return thing

    def rest(self) -> None:
        """Give back the memory of a GPU and encoded references while nothing is done; a job takes what it needs."""
        if self.references:
            self.references.clear()
        _, network = self._things.get("network", ("", None))
        if network is not None:
            network.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass
class Job:
    """What the steps of `enhance` share and find out.

    Args:
        settings: of the user.
        given: the target in its storage order.
        target: in display orientation.
        reference: in its storage order; None when the target is its own.
        order: from the target's storage order to display orientation.
        factors_kji: from the target's grid to the result's.
        network: with weights.
        card: what the weights say of themselves.
        weights: None for baselines.
        memory: what earlier jobs left.
        reference_to_target: of the user, see `enhance`.
        views: the maps of the network that were asked for.
        drawn: those maps, of the network and of trust, that are there.
        summary: what was checked, in three sentences.
    """

    settings: Settings
    given: Volume
    target: Volume
    reference: Volume | None
    order: AxisOrder
    factors_kji: FactorsKJI
    network: Network
    card: Mapping[str, Any]
    weights: Weights | None
    memory: Memory
    reference_to_target: np.ndarray | None = None
    views: Sequence[MapView] = ()
    drawn: Sequence[MapView] = ()
    registration: Registration | None = None
    plan: Plan | None = None
    fit: ReferenceFit | None = None
    reference_detail: str = ""
    consistency: dict[str, Any] = field(default_factory=lambda: {"applied": False})
    summary: Sequence[str] = ()
    scores: dict[str, Scores] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def hr_grid(self) -> Grid:
        """The result's grid, in display orientation."""
        return refine_grid(self.target.grid, self.factors_kji[::-1])

    @property
    def stored_grid(self) -> Grid:
        """The result's grid, in the target's storage order."""
        return self.order.inverse().apply_grid(self.hr_grid)

    def new_array(self) -> np.ndarray:
        """Room for a volume on the result's grid (K, H, W); it lies in memory in the target's storage order."""
        return self.order.apply(np.empty(self.stored_grid.shape_kji, dtype=np.float32))

    def provenance(self) -> dict[str, Any]:
        """Everything needed to repeat the job, json-serialisable; of the patient only the names the user gave."""
        settings = {**asdict(self.settings), "weights": self.settings.weights and self.settings.weights.name}
        return {
            "software": f"MultiContrastSR {__version__}",
            "notice": "Research use only.",
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "inputs": {"target": self.target.name, "reference": self.reference and self.reference.name},
            "settings": settings,
            "weights_sha256": self.weights.sha256 if self.weights else None,
            "plan": self.plan and asdict(self.plan),
            "registration": self.registration and _registration_record(self.registration),
            "reference_fit": self.fit and self.fit.as_dict(),
            "consistency": self.consistency,
            "summary": list(self.summary),
            "maps": {view.name: view.as_dict() for view in self.drawn},
            "point_maps": [key for key, spec in self.network.map_specs().items() if spec.of_point],
            "scores": {method: asdict(score) for method, score in self.scores.items()},
            "seconds": dict(self.seconds),
            "recalled": list(self.memory.recalled),
            "warnings": list(self.warnings),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }


def _registration_record(registration: Registration) -> dict[str, Any]:
    before, after, slack = registration.correlation_before, registration.correlation_after, registration.slack_mm
    return {
        "accepted": registration.accepted,
        "reference_to_target_ras": registration.reference_to_target.tolist(),
        # A skipped registration has none, and json has no NaN.
        "gradient_correlation_before": before if np.isfinite(before) else None,
        "gradient_correlation_after": after if np.isfinite(after) else None,
        "slack_mm": slack if np.isfinite(slack) else None,
        "message": registration.message,
    }


def _digest(made_from: Sequence[Any]) -> str:
    """Of volumes and arrays by their voxels, of all else by what it looks like."""
    digest = hashlib.blake2b(digest_size=16)
    for thing in made_from:
        if isinstance(thing, Volume):
            digest.update(thing.ijk_to_ras.tobytes())
            thing = thing.array_kji
        if isinstance(thing, np.ndarray):
            digest.update(f"{thing.shape} {thing.dtype}".encode())
            digest.update(np.ascontiguousarray(thing).data)
        else:
            digest.update(repr(thing).encode())
    return digest.hexdigest()
