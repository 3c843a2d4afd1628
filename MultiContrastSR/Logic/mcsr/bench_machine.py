"""The machine that is measured: what it is, without any name of host or user, and how fast it can compute at all."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch
from torch.nn.functional import conv2d

from . import __version__
from .bench_timing import Timed, in_turn
from .memory import free_bytes

MATMUL, CONV = "matrix product", "convolution"
LAST = "channels last"

_MATMUL_SIDE = 1024
_CHANNELS, _CONV_SIDE = 64, 256
_PROBE_SECONDS = 0.2
_ROUNDS = 5
_BUSY = 0.5
"""Load per core that others may make before the user is told."""


@dataclass(frozen=True)
class Peaks:
    """How fast the machine multiplies: operations (1e9 a second) by name and precision, the best of all rounds.

    Args:
        gflops: by name such as "convolution fp32, channels last".
    """

    gflops: Mapping[str, float]

    def best(self, kind: str, precision: str) -> tuple[str, float]:
        """Name and rate of the fastest layout of a kind in a precision."""
        found = {name: rate for name, rate in self.gflops.items() if name.startswith(f"{kind} {precision}")}
        name = max(found, key=found.__getitem__)
        return name, found[name]


@dataclass(frozen=True)
class Probe:
    """An operation that any program could do as fast: `count` of them take about `_PROBE_SECONDS`."""

    run: Callable[[], object]
    flop: float
    count: int = 1

    def __call__(self) -> None:
        for _ in range(self.count):
            self.run()

    def gflops(self, seconds: float) -> float:
        """Operations (1e9 a second), multiplications and additions counted apart."""
        return self.flop * self.count / seconds / 1e9


def machine_facts(device: str) -> dict[str, Any]:
    """What a reader needs to know of the machine and the software; nothing tells whose it is."""
    facts = {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mcsr": __version__,
        "free memory (GB)": round(free_bytes() / 1e9, 1),
    }
    if device == "cuda":
        facts["graphics processor"] = torch.cuda.get_device_name()
    return facts


def cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """As its maker calls it; what the system says of it where that cannot be found out."""
    with suppress(OSError, StopIteration, subprocess.SubprocessError):
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def others_load() -> float:
    """How much of a core others use per core, over the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] / cores() if hasattr(os, "getloadavg") else 0.0


def is_busy() -> bool:
    """Whether other programs use so much of the machine that times are not its own."""
    return others_load() > _BUSY


def use_threads(count: int | None) -> None:
    """CPU threads of this process, for torch and for image processing; None leaves them as they are."""
    if count is not None:
        torch.set_num_threads(count)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


def probes_for(device: str, precisions: list[str]) -> dict[str, Probe]:
    """Matrix products of 1024 x 1024 and 3x3 convolutions of 64 channels of 256 x 256, in fp32 and these precisions."""
    found = {}
    for precision in dict.fromkeys(["fp32", *precisions]):
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        matrix = torch.rand(_MATMUL_SIDE, _MATMUL_SIDE, dtype=dtype, device=device)
        product = _synchronised(partial(torch.matmul, matrix, matrix), device)
        found[f"{MATMUL} {precision}"] = Probe(product, 2.0 * _MATMUL_SIDE**3)
        image = torch.rand(1, _CHANNELS, _CONV_SIDE, _CONV_SIDE, dtype=dtype, device=device)
        kernel = torch.rand(_CHANNELS, _CHANNELS, 3, 3, dtype=dtype, device=device)
        flop = 2.0 * 9 * _CHANNELS**2 * _CONV_SIDE**2
        for layout, suffix in ((torch.contiguous_format, ""), (torch.channels_last, f", {LAST}")):
            i, k = (tensor.to(memory_format=layout) for tensor in (image, kernel))
            run = _synchronised(partial(conv2d, i, k, padding=1), device)
            found[f"{CONV} {precision}{suffix}"] = Probe(run, flop)
    return found


def measure_peaks(probes: Mapping[str, Probe]) -> tuple[Peaks, dict[str, Probe]]:
    """The best rate of each probe, and probes that take long enough to be timed beside a network."""
    with torch.inference_mode():
        first = in_turn(probes, 1)
        lasting = {name: Probe(p.run, p.flop, _count(first, name)) for name, p in probes.items()}
        timed = in_turn(lasting, _ROUNDS)
    rates = {name: probe.gflops(timed.of(name).lowest) for name, probe in lasting.items()}
    return Peaks(rates), lasting


def _count(timed: Timed, name: str) -> int:
    return max(1, round(_PROBE_SECONDS / timed.of(name).lowest))


def _synchronised(run: Callable[[], object], device: str) -> Callable[[], object]:
    """A GPU answers before it has done the work."""
    if device != "cuda":
        return run

    def waited() -> None:
        run()
        torch.cuda.synchronize()

    return waited
