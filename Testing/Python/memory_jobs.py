"""A job in a process of its own, for tests of what it holds in memory: `measured(...)` starts it and gives its figures.

Run as a script it does one job and prints one line of json. Linux alone tells the peak of a process (VmHWM).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mcsr import pipeline_inputs
from mcsr.errors import McsrError
from mcsr.job import Settings
from mcsr.networks import Network, SROutput
from mcsr.networks.baselines import BaselineConfig
from mcsr.pipeline import enhance
from mcsr.volume import Volume

MIB = 2**20


def measured(slices: int, size: int, **options: Any) -> dict[str, Any]:
    """The figures of a job on a target of `slices` times `size` x `size` pixels at x2; for options see `_run`.

    Returns:
        Of the process in bytes: "inputs", the volumes given; "before", what it held with them; "peak", the most it
        held; "plan" and "warnings" of the job, or "error", its sentence.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, __file__, json.dumps({"slices": slices, "size": size, **options})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class Hungry(Network):
    """sr = reference, for which it takes some memory for every pixel; local, so that tiles do not show."""

    def __init__(self, bytes_per_pixel: int) -> None:
        super().__init__(BaselineConfig(scale=2))
        self.uses_reference = True  # type: ignore[misc]
        self._bytes_per_pixel = bytes_per_pixel

    def encode_reference(self, reference: torch.Tensor) -> torch.Tensor:
        return reference

    def forward(self, target_lr: torch.Tensor, reference: torch.Tensor, **_: Any) -> SROutput:
        torch.zeros((reference.numel(), self._bytes_per_pixel), dtype=torch.uint8, device=reference.device)
        return SROutput(reference.clone())


def _run(
    slices: int,
    size: int,
    model: str = "stub",
    weights: str | None = None,
    memory: int | None = None,
    lit: int | None = None,
    registration: str = "none",
    flipped: bool = False,
    trust: bool = False,
    bytes_per_pixel: int = 256,
    allow_more: int | None = None,
) -> dict[str, Any]:
    """Do the job.

    Args:
        slices: of the target.
        size: rows and columns of it; the reference has twice as many.
        model: "stub" for `Hungry`.
        weights: of another model.
        memory: bound of the job.
        lit: how many of the slices hold signal; all when left out.
        registration: see `Settings`.
        flipped: both volumes are stored as NIfTI files mostly are, from right to left and back to front.
        trust: see `Settings`.
        bytes_per_pixel: of the stub.
        allow_more: bytes of address space that the process may still take: beyond them allocations fail.
    """
    torch.set_num_threads(1)
    if model == "stub":
        card = {"degradation": "kspace", "plane": "axial"}
        pipeline_inputs._load = lambda settings, memory: (Hungry(bytes_per_pixel).eval(), card, None)
    target, reference = (_volume(slices, n, lit, flipped) for n in (size, 2 * size))
    settings = Settings(
        "cd-dpe-s" if model == "stub" else model,
        2,
        weights and Path(weights),
        registration=registration,
        memory=memory,
        trust=trust,
    )
    figures = {"inputs": target.array_kji.nbytes + reference.array_kji.nbytes, "before": _status("VmRSS")}
    if allow_more is not None:
        import resource  # which Windows has not, where this module is only imported

        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + allow_more,) * 2)
    try:
        result = enhance(target, reference, settings)
    except McsrError as error:
        return figures | {"error": str(error), "peak": _status("VmHWM")}
    largest = float(np.abs(result.sr.array_kji[:: max(1, slices // 4)]).max())
    assert np.isfinite(largest)
    assert largest > 0
    record = result.provenance
    return figures | {"peak": _status("VmHWM"), "plan": record["plan"], "warnings": list(result.warnings)}


def _volume(slices: int, size: int, lit: int | None, flipped: bool) -> Volume:
    """A square of noise that fills all but the rim of the slices that hold signal, and dimly the middle of others."""
    rng = np.random.default_rng(size)
    array = np.empty((slices, size, size), dtype=np.float32)
    from_rim = np.minimum(np.arange(size), np.arange(size)[::-1])
    for number in range(slices):
        bright, rim = (100, size // 64) if lit is None or number < lit else (0.1, size // 4)
        inside = from_rim > rim
        array[number] = bright * (inside[:, None] & inside) * (1 + rng.random((size, size), dtype=np.float32))
    matrix = np.diag([256 / size * (1 if flipped else -1)] * 2 + [2.0, 1.0])
    matrix[:2, 3] = (matrix[0, 0] - np.sign(matrix[0, 0]) * 256) / 2
    return Volume(array, matrix, name=f"noise {size}")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(json.dumps(_run(**json.loads(sys.argv[1]))))
