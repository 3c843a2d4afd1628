"""Where a training runs: devices, processes and precision, through lightning.fabric."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision.amp import MixedPrecision
from lightning.fabric.strategies import DDPStrategy
from torch import nn

from ..errors import DeviceError, InputError

FULL, MIXED = "32-true", ("bf16-mixed", "16-mixed")


def open_fabric(precision: str, devices: int | str = 1) -> Fabric:
    """Start the processes of a training, one a device, or join those that torchrun has started.

    On GPUs torch is asked for its deterministic algorithms, so that a resumed run repeats an uninterrupted one bit for
    bit; of what the networks use, only the warp of CD-DPE (`grid_sample`) has none there.

    Args:
        precision: "32-true", or "bf16-mixed" or "16-mixed" inside the networks.
        devices: GPUs, or processes where there is none; "auto" for all GPUs. Under torchrun, torchrun decides.

    Raises:
        InputError: for an unknown precision.
        DeviceError: for more GPUs than there are.
    """
    if precision not in (FULL, *MIXED):
        raise InputError(f"Unknown precision '{precision}'; known are {', '.join((FULL, *MIXED))}.")
    gpus, nodes = torch.cuda.device_count(), 1
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    count = max(1, gpus) if devices == "auto" else int(devices)
    if gpus and count > gpus:
        raise DeviceError(f"{count} GPUs are asked for and {gpus} are there; ask for at most {gpus}.")
    several = count * nodes > 1
    # Only the mixed precisions and several processes need a choice; else fabric takes what there is, Apple's GPU too.
    accelerator = "cuda" if gpus else "cpu" if several or precision in MIXED else "auto"
    if gpus:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    fabric = Fabric(
        accelerator=accelerator,
        devices=count,
        num_nodes=nodes,
        # What a step leaves out, an auxiliary head for one, has no gradient to wait for.
        strategy=DDPStrategy(find_unused_parameters=True) if several else "auto",
        plugins=_Autocast(precision, accelerator) if precision in MIXED else None,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def share_batch_statistics(module: nn.Module, fabric: Fabric) -> nn.Module:
    """Let batch norm see the slices of all devices, as one device alone would; torch has this for GPUs only."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return module


class _Autocast(MixedPrecision):
    """Mixed precision inside the networks alone: fabric's own would round the truths too."""

    def convert_input(self, data: Any) -> Any:
        """As it is."""
        return data
