"""Slices through a network: canvas, batches, tiles, devices, precision, memory, cancel.

All arrays are in display orientation: low resolution (K, h, w), high resolution (K, H, W), scaled to about 0..1.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .canvas import Canvas, rim_weight
from .conventions import OWN, Conventions, GivenSlices, corner_samples, given_slices
from .degradation import upsample
from .errors import DeviceError
from .fast import fast_path, has_fast_path
from .inference_cost import MOST_BYTES_PER_PIXEL, pixels_within, slice_bytes
from .memory import SliceSource, is_out_of_memory, size_text
from .networks import Network
from .networks.blocks import has_autocast

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
TILE_OVERLAP_LR = 16
SMALLEST_TILE_HR = 128
TILE_STEP_HR = 32
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

Compute = Callable[[Tensor, Tensor, Sequence[torch.Generator]], Tensor]
Encode = Callable[[Network, Tensor], Any]


@dataclass(frozen=True)
class Plan:
    """How slices are run; the same plan gives the same bits.

    Args:
        device: torch device.
        precision: fp32 (no TF32), bf16 or fp16.
        batch: slices at a time.
        tile: side of square tiles in high-resolution pixels; None runs the canvas as a whole.
        threads: CPU threads.
        canvas: what the network sees of each slice.
        conventions: how it wants to see it.
        fast: slices come from the network's fast path, which equals the network; maps never do.
    """

    device: str
    precision: str
    batch: int
    tile: int | None
    threads: int
    canvas: Canvas
    conventions: Conventions = OWN
    fast: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def choose_device(device: str = "auto") -> str:
    """A device that works: "auto" tries CUDA, then the CPU; a named one is tested with a small operation.

    Raises:
        DeviceError: when the named device is unknown or does not work.
    """
    if device not in DEVICES:
        raise DeviceError(f"Unknown device '{device}'; known are {', '.join(DEVICES)}.")
    if device == "cpu":
        return device
    if device == "auto":
        return "cuda" if torch.cuda.is_available() and _works("cuda") else "cpu"
    if not _works(device):
        raise DeviceError(
            f"The device '{device}' cannot be used by this PyTorch ({torch.__version__}); use --device cpu."
        )
    return device


def make_plan(
    network: Network,
    canvas: Canvas,
    device: str,
    precision: str,
    conventions: Conventions = OWN,
    *,
    budget: int | None = None,
    maps: bool = False,
) -> Plan:
    """The plan for a network on a device with its defaults; small batches, since slices are large already.

    Args:
        network: with weights.
        canvas: what it sees of each slice.
        device: of `DEVICES`.
        precision: of `PRECISIONS`.
        conventions: of the weights.
        budget: bytes of main memory for one batch; a canvas that needs more on the CPU is run in tiles.
        maps: will be wanted, too, so that there has to be room for the plain network.

    Raises:
        DeviceError: a device or precision that cannot be used, or a budget that not even small tiles keep.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"Unknown precision '{precision}'; known are {', '.join(PRECISIONS)}.")
    device = choose_device(device)
    if precision == "auto":
        precision = "fp32"
    if precision in _AUTOCAST and not has_autocast(device):
        raise DeviceError(f"This PyTorch has no half precision on {device}; use --precision fp32, or a newer PyTorch.")
    if precision == "fp16" and device == "cpu":
        raise DeviceError("fp16 is for GPUs; use --precision bf16 or fp32 on the CPU.")
    tile = network.native_size
    if tile is not None and max(canvas.rows, canvas.columns) * network.config.scale <= tile:
        tile = None
    if device == "cpu" and budget is not None:
        tile = _tile_within(network, canvas, tile, budget, maps)
    batch, threads = 1 if device == "cpu" else 8, torch.get_num_threads()
    return Plan(device, precision, batch, tile, threads, canvas, conventions, fast=has_fast_path(network))


def enhance_slices(
    network: Network,
    target_lr: np.ndarray,
    reference: SliceSource,
    plan: Plan,
    *,
    seeds: Sequence[int] | None = None,
    into: tuple[np.ndarray, np.ndarray] | None = None,
    encode: Encode | None = None,
    update: Callable[[float], None] = lambda fraction: None,
) -> tuple[np.ndarray, Plan]:
    """Super-resolve all slices on the plan's canvas; outside it the result is the sinc interpolation.

    Args:
        network: with weights, in eval mode.
        target_lr: (K, h, w), reference (K, H, W), both float32, about 0..1.
        reference: see above; asked for a batch at a time.
        plan: where memory runs out, smaller batches, then tiles are tried.
        seeds: one for each slice, for networks that sample; 0, 1, ... when left out.
        into: array to write to, and which slice of it each of these is (K,); a new array of these when left out.
        encode: in place of the network's `encode_reference`, where encodings are kept.
        update: receives the fraction done between batches; may raise `Cancelled`.

    Returns:
        The result (K, H, W) float32, or the array of `into`; and the plan that worked.
    """
    scale = network.config.scale
    result, rows = into or (np.empty(reference.shape, dtype=np.float32), np.arange(len(target_lr)))
    running = fast_path(network) if plan.fast else network

    def super_resolved(target: Tensor, ref: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return running(target, encode(running, ref) if encode else ref, generator=generators).sr

    for batch in run_batches(super_resolved, running, target_lr, reference, plan, seeds=seeds, update=update):
        plan = batch.plan
        sr = batch.values[:, 0] * batch.given.gain + batch.given.offset
        whole = upsample(target_lr[batch.chosen], (1, scale, scale))
        box = plan.canvas.crop(whole, scale)  # a view: writing to it writes the whole
        box += rim_weight(plan.canvas, scale, whole.shape[1:]) * (sr - box)
        result[rows[batch.chosen]] = whole
    return result, plan


class Batch(NamedTuple):
    """What a network gave for some slices.

    Args:
        chosen: which of the slices.
        given: what the network was given of them.
        values: (B, V, rows, columns) float32 where the canvas lies on the image, as the network gives them.
        plan: that worked.
    """

    chosen: slice
    given: GivenSlices
    values: np.ndarray
    plan: Plan


def run_batches(
    compute: Compute,
    network: Network,
    target_lr: np.ndarray,
    reference: SliceSource,
    plan: Plan,
    *,
    seeds: Sequence[int] | None = None,
    unmixed: Sequence[int] = (),
    update: Callable[[float], None] = lambda fraction: None,
) -> Iterator[Batch]:
    """Anything a network gives for slices, computed on the canvas; when tiles become needed, the slices begin anew.

    Args:
        compute: from targets (B, 1, h, w), references (B, 1, H, W) and one generator for each slice to (B, V, H, W).
        network: moved to the plan's device.
        target_lr: see `enhance_slices`, as all below.
        reference: see there.
        plan: see there.
        seeds: see there.
        unmixed: those of the V values of which no mean can be taken where tiles overlap.
        update: see there.
    """
    scale, conventions = network.config.scale, plan.conventions
    seeds = range(len(target_lr)) if seeds is None else seeds
    if conventions.sampling == "corner":
        # Of all slices at once: whether they are of a magnitude image is no question of a batch.
        target_lr, conventions = corner_samples(target_lr, scale), replace(conventions, sampling="centred")
    network.to(plan.device)
    start = 0
    while start < len(target_lr):
        update(start / len(target_lr))
        chosen = slice(start, min(start + plan.batch, len(target_lr)))
        try:
            given = given_slices(target_lr[chosen], reference[chosen], scale, plan.canvas, conventions)
            with _numerics(plan), torch.inference_mode():
                values = _run_batch(compute, *given[:2], seeds[chosen], plan, scale, unmixed)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = _smaller(plan, scale)
            if smaller.tile != plan.tile:
                start = 0  # tiles are another way to the result: all slices take the same one
            plan = smaller
            continue
        if not np.isfinite(values).all():
            raise DeviceError(
                f"The network gave values that are no numbers ({plan.precision} on {plan.device}); "
                "use --precision fp32, or --device cpu."
            )
        yield Batch(chosen, given, plan.canvas.unpadded(values, reference.shape, scale), plan)
        start = chosen.stop


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles that cover 0..size with at least `overlap` between neighbours, evenly spread."""
    if size <= tile:
        return [0]
    count = -(-(size - overlap) // (tile - overlap))
    return [round(n * (size - tile) / (count - 1)) for n in range(count)]


def _run_batch(
    compute: Callable[[Tensor, Tensor, Sequence[torch.Generator]], Tensor],
    lr: np.ndarray,
    reference: np.ndarray,
    seeds: Sequence[int],
    plan: Plan,
    scale: int,
    unmixed: Sequence[int],
) -> np.ndarray:
    """One batch (B, h, w), (B, H, W) -> (B, V, H, W), whole or in blended tiles."""

    def values_of(lr: np.ndarray, reference: np.ndarray) -> np.ndarray:
        target, ref = (
            torch.from_numpy(np.array(array, dtype=np.float32))[:, None].to(plan.device) for array in (lr, reference)
        )
        # On the CPU whatever the device: the same seed gives the same noise everywhere.
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        return compute(target, ref, generators).float().cpu().numpy()

    if plan.tile is None:
        return values_of(lr, reference)
    tile_lr, overlap_lr = max(1, plan.tile // scale), TILE_OVERLAP_LR
    shape = reference.shape[1:]
    total: np.ndarray | None = None
    weights, largest = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    picked = np.zeros((len(lr), len(unmixed), *shape), dtype=np.float32)
    for row in tile_starts(lr.shape[1], tile_lr, overlap_lr):
        for column in tile_starts(lr.shape[2], tile_lr, overlap_lr):
            tile = Canvas(row, column, min(tile_lr, lr.shape[1]), min(tile_lr, lr.shape[2]))
            values = values_of(tile.crop(lr), tile.crop(reference, scale))
            if total is None:
                total = np.zeros((*values.shape[:2], *shape), dtype=np.float32)
            # Never 0: at the image's own corner a tile is alone.
            importance = rim_weight(tile, scale, shape) + 1e-3
            tile.crop(total, scale)[...] += importance * values
            tile.crop(weights, scale)[...] += importance
            nearer = importance > tile.crop(largest, scale)
            np.copyto(tile.crop(picked, scale), values[:, list(unmixed)], where=nearer)
            np.copyto(tile.crop(largest, scale), importance, where=nearer)
    assert total is not None  # there is at least one tile
    total /= weights
    total[:, list(unmixed)] = picked
    return total


@contextlib.contextmanager
def _numerics(plan: Plan) -> Iterator[None]:
    """fp32 means fp32: no TF32; half precisions run under autocast."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        dtype = _AUTOCAST.get(plan.precision)
        with torch.autocast(plan.device, dtype=dtype) if dtype else contextlib.nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _works(device: str) -> bool:
    # is_available() is not enough: a wheel that does not fit the driver fails at the first kernel.
    try:
        return bool(torch.ones(2, device=device).sum().item() == 2)
    except (RuntimeError, AssertionError) as error:
        logger.info("device %s does not work: %s", device, error)
        return False


def _tile_within(network: Network, canvas: Canvas, tile: int | None, budget: int, plain: bool) -> int | None:
    """The tile (None: no tiles) itself where one slice keeps the budget, else the largest that does."""
    scale = network.config.scale
    pixels = canvas.rows * canvas.columns * scale**2 if tile is None else tile**2
    if budget >= pixels * MOST_BYTES_PER_PIXEL:
        return tile
    possible = pixels_within(network, budget, plain=plain)
    if pixels <= possible:
        return tile
    side = math.isqrt(possible) // TILE_STEP_HR * TILE_STEP_HR
    if side >= SMALLEST_TILE_HR:
        return side
    needed = slice_bytes(network, SMALLEST_TILE_HR**2, plain=plain)
    raise DeviceError(
        f"{size_text(max(0, budget))} of memory are left for the network, which takes {size_text(needed)} even in "
        "small tiles; close other programs, allow more memory, or choose a smaller model."
    )


def _smaller(plan: Plan, scale: int) -> Plan:
    """The next plan to try after memory ran out."""
    if plan.device == "cuda":
        torch.cuda.empty_cache()
    if plan.batch > 1:
        return replace(plan, batch=plan.batch // 2)
    side = plan.tile or max(plan.canvas.rows, plan.canvas.columns) * scale
    if side <= SMALLEST_TILE_HR:
        raise DeviceError(
            f"Not enough memory on {plan.device} for tiles of {side} pixels; close other programs or use --device cpu."
        )
    logger.warning("memory ran out; tiles of about %d pixels are used", side // 2)
    return replace(plan, tile=max(SMALLEST_TILE_HR, side // 2))
