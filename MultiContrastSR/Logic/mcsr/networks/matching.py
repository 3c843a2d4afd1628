"""Hard matching of patches by cosine similarity: for every query the best key, without the full score matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import full_precision

CHUNK = 1024
"""Keys scored at a time: the full matrix of a 512x512 slice would take a gigabyte."""


def best_matches(queries: Tensor, keys: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
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
            index = _best_index(queries, keys, chunk)
        matched = keys.gather(1, index[..., None].expand(-1, -1, keys.shape[-1]))
        return index, (queries * matched).sum(-1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors along the last axis brought to length 1 in float32; those shorter than 1e-12 stay short."""
    return F.normalize(vectors.float(), dim=-1, eps=1e-12)


def _best_index(queries: Tensor, keys: Tensor, chunk: int) -> Tensor:
    best, index = (queries @ keys[:, :chunk].transpose(1, 2)).max(dim=-1)
    for start in range(chunk, keys.shape[1], chunk):
        score, position = (queries @ keys[:, start : start + chunk].transpose(1, 2)).max(dim=-1)
        better = score > best  # strict: on a tie the earlier key stays
        best = torch.where(better, score, best)
        index = torch.where(better, position + start, index)
    return index
