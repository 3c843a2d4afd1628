"""Hard matching of patches by cosine similarity: for every query the best key, without the full score matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import full_precision

QUERIES = 512
KEYS = 4096
"""Scored at a time: 8 MiB a slice whatever its size. All of a 512x512 slice at once would take a gigabyte."""
_BLOCK = 64


def best_matches(queries: Tensor, keys: Tensor, chunk: int = KEYS) -> tuple[Tensor, Tensor]:
    """argmax and max over j of <q_i, k_j>; the lowest index where several are best.

    Scores are taken in float32: half precision flips close matches. The gradient reaches queries and keys through the
    score alone, the index is constant.

    Args:
        queries: (B, n, d), unit length along d (see `unit`).
        keys: (B, m, d), likewise.
        chunk: keys scored at a time; any number gives the same matches.

    Returns:
        For every query its best key (B, n), int64, and the cosine similarity with it (B, n), in -1..1.
    """
    with full_precision(queries):
        queries, keys = queries.float(), keys.float()
        with torch.no_grad():
            index = torch.cat([_best_index(part, keys, chunk) for part in queries.split(QUERIES, dim=1)], dim=1)
        matched = keys.gather(1, index[..., None].expand(-1, -1, keys.shape[-1]))
        return index, (queries * matched).sum(-1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors along the last axis brought to length 1 in float32; those shorter than 1e-12 stay short."""
    return F.normalize(vectors.float(), dim=-1, eps=1e-12)


def _best_index(queries: Tensor, keys: Tensor, chunk: int) -> Tensor:
    best, index = _first_largest(queries @ keys[:, :chunk].transpose(1, 2))
    for start in range(chunk, keys.shape[1], chunk):
        score, position = _first_largest(queries @ keys[:, start : start + chunk].transpose(1, 2))
        better = score > best  # strict: on a tie the earlier key stays
        best = torch.where(better, score, best)
        index = torch.where(better, position + start, index)
    return index


def _first_largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """What `scores.max(dim=-1)` gives, four times as fast on the CPU: a maximum without its place is cheap.

    The places are looked for among the maxima of blocks, then in one block.
    """
    count = scores.shape[-1]
    if count <= _BLOCK:
        return scores.max(dim=-1)
    whole = count - count % _BLOCK
    maxima = scores[..., :whole].unflatten(-1, (-1, _BLOCK)).amax(dim=-1)
    if whole < count:
        maxima = torch.cat([maxima, scores[..., whole:].amax(dim=-1, keepdim=True)], dim=-1)
    best, block = maxima.max(dim=-1)
    # The last block is filled up with keys before it: none of them is as good, or their own block would be the first.
    start = (block * _BLOCK).clamp(max=count - _BLOCK)[..., None]
    places = start + torch.arange(_BLOCK, device=scores.device)
    return best, (start + scores.gather(-1, places).max(dim=-1, keepdim=True).indices)[..., 0]
