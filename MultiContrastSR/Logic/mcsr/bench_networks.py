"""What a network costs on this machine: time of a slice, plain and fast, in each precision, and peak memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .bench_machine import CONV, Peaks, Probe, use_threads
from .bench_memory import peak_resident_bytes
from .bench_timing import Check, Spread, Timed, in_own_process, in_turn, spread
from .canvas import Canvas
from .degradation import degrade
from .fast import fast_path
from .geometry import Grid
from .inference import Plan, make_plan, run_batches
from .intensity import intensity_scale
from .networks import Network, create_network
from .networks.cost import gmac, parameter_count
from .phantom import make_phantom
from .weights import added_models, find_weights, shipped_models

SCALE = 4
PLAIN = "plain fp32"
"""The networks as their papers have them; what is faster is compared with this."""

FIELD_MM = 240.0
"""Side of the phantom's slices."""

_PROBE = "peak"
_SHARE_OF_PEAK = 0.3
"""Of the machine's rate that a plain network reaches, roughly: only to foretell how long the measurement takes."""


class Scene(NamedTuple):
    """Slices for a network, scaled: target (K, h, w), reference (K, H, W), float32."""

    target: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True)
class NetworkCost:
    """What was measured of a network.

    Args:
        name: of the model.
        has_weights: whether its weights are installed; without, they are random, which takes as long.
        parameters: count.
        gmac: multiply-accumulates (1e9) of a slice; None where the weights fit no such slice and it runs in tiles.
        slices: that were run at a time.
        timed: seconds of so many slices by variant: `PLAIN`, "fast fp32", "fast bf16"; and of a probe, the machine's
            fastest convolution in fp32.
        probe_gflops: rates of that probe, by round.
        memory: largest memory (bytes) of a process that runs a slice, by variant.
    """

    name: str
    has_weights: bool
    parameters: int
    gmac: float | None
    slices: int
    timed: Timed
    probe_gflops: tuple[float, ...]
    memory: Mapping[str, int]

    @property
    def variants(self) -> list[str]:
        """In the order in which they were run."""
        return [name for name in self.timed.seconds if name != _PROBE]

    def seconds(self, variant: str) -> Spread:
        """Of a slice."""
        return spread([s / self.slices for s in self.timed.seconds[variant]])

    def speedup(self, variant: str) -> Spread:
        """How many times as fast as the plain network in fp32."""
        return self.timed.ratio(PLAIN, variant)

    def gflops(self, variant: str) -> Spread | None:
        """Operations (1e9 a second) of the published network, two for each multiply-accumulate, however it is run."""
        if self.gmac is None:
            return None
        return spread([2 * self.gmac * self.slices / s for s in self.timed.seconds[variant]])

    def share_of_peak(self, variant: str) -> Spread | None:
        """Of the rate of the probe that ran in the same round."""
        if self.gmac is None:
            return None
        rounds = zip(self.timed.seconds[variant], self.probe_gflops, strict=True)
        return spread([2 * self.gmac * self.slices / s / peak for s, peak in rounds])


def has_weights(name: str) -> bool:
    """Whether weights of a model are installed for `SCALE`."""
    return any((e["architecture"], e["scale"]) == (name, SCALE) for e in [*shipped_models(), *added_models()])


def build(name: str) -> Network:
    """A model with its weights, with random ones where none are installed."""
    if has_weights(name):
        return find_weights(name, SCALE).build()
    torch.manual_seed(0)
    return create_network(name, scale=SCALE).eval()


def phantom_slices(contrast: str, size: int, count: int = 1) -> np.ndarray:
    """Axial slices (count, size, size) through the brain phantom, 20 mm apart, a field of `FIELD_MM` each."""
    step = FIELD_MM / size
    matrix = np.diag([-step, -step, 20.0, 1.0])
    matrix[:3, 3] = FIELD_MM / 2, FIELD_MM / 2 - 16, 18
    return make_phantom(Grid((size, size, count), matrix), contrast).array_kji


def make_scene(size: int) -> Scene:
    """A slice of the phantom of `size` x `size` pixels, T1, and its T2 in low resolution."""
    t2, t1 = (phantom_slices(contrast, size) for contrast in ("T2", "T1"))
    low = degrade(t2, (1, SCALE, SCALE), "kspace")
    return Scene(low / np.float32(intensity_scale(low)), t1 / np.float32(intensity_scale(t1)))


def plan_for(network: Network, scene: Scene, device: str, precision: str) -> Plan:
    """As the engine would run whole slices of the scene."""
    return make_plan(network, Canvas(0, 0, *scene.target.shape[1:]), device, precision)


def pass_over(network: Network, target_lr: np.ndarray, reference: np.ndarray, plan: Plan) -> Callable[[], object]:
    """One pass over slices (K, h, w) and (K, H, W) as the engine does it, to be timed."""

    def super_resolved(target: torch.Tensor, ref: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        return network(target, ref, generator=generators).sr

    def run() -> None:
        for _ in run_batches(super_resolved, network, target_lr, reference, plan):
            pass

    return run


def work_of(name: str, size: int) -> float | None:
    """Multiply-accumulates (1e9) of a slice; None where the weights fit no such slice."""
    native_size = _native_size(name)
    return None if native_size is not None and size > native_size else gmac(name, size, size, scale=SCALE)


def foretold_seconds(name: str, size: int, peaks: Peaks) -> float:
    """About how long one plain pass over a slice will take."""
    side = _native_size(name) or 256
    work = gmac(name, side, side, scale=SCALE) * max(1.0, (size / side) ** 2)
    return 2 * work / (_SHARE_OF_PEAK * peaks.best(CONV, "fp32")[1])


def variants_of(precisions: Sequence[str]) -> list[str]:
    """What of a network is measured: as published, and its fast path in each precision."""
    return [PLAIN, *(f"fast {precision}" for precision in precisions)]


def measure_network(
    name: str,
    scene: Scene,
    device: str,
    precisions: Sequence[str],
    rounds: int,
    probe: Probe,
    passed: Callable[[float], None],
) -> NetworkCost:
    """Time a network on the scene, plain and fast in turn, with the machine's own rate beside each round.

    Args:
        name: of the model.
        scene: as many slices as are run at a time.
        device: of `inference.choose_device`.
        precisions: of the fast path.
        rounds: to be measured.
        probe: the machine's fastest convolution in fp32.
        passed: see `bench_timing.in_turn`.
    """
    plain = build(name)
    fast = fast_path(plain)
    runs: dict[str, Callable[[], object]] = {}
    for variant in variants_of(precisions):
        runs[variant] = _runner(plain if variant == PLAIN else fast, scene, device, variant.split()[1])
    timed = in_turn({**runs, _PROBE: probe}, rounds, passed)
    return NetworkCost(
        name,
        has_weights(name),
        parameter_count(plain),
        work_of(name, scene.reference.shape[-1]),
        len(scene.target),
        timed,
        tuple(probe.gflops(seconds) for seconds in timed.seconds[_PROBE]),
        {},
    )


def measure_memory(
    cost: NetworkCost,
    variants: Sequence[str],
    scene: Scene,
    device: str,
    threads: int,
    check: Check,
    passed: Callable[[float], None],
) -> NetworkCost:
    """The same with the peak memory of some variants, each in a process of its own."""
    memory = {}
    for number, variant in enumerate(variants):
        memory[variant] = in_own_process(peak_bytes, cost.name, variant, scene, device, threads, check=check)
        passed((number + 1) / len(variants))
    return dataclasses.replace(cost, memory=memory)


def peak_bytes(name: str, variant: str, scene: Scene, device: str, threads: int) -> int:
    """Largest memory of this process, or of the GPU, after one pass of a model over a scene."""
    use_threads(threads)
    network = build(name)
    if variant != PLAIN:
        network = fast_path(network)
    _runner(network, scene, device, variant.split()[1])()
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes()


def _runner(network: Network, scene: Scene, device: str, precision: str) -> Callable[[], object]:
    """One pass over the scene."""
    return pass_over(network, *scene, plan_for(network, scene, device, precision))


def _native_size(name: str) -> int | None:
    with torch.device("meta"):  # nothing is computed
        return create_network(name, scale=SCALE).native_size
