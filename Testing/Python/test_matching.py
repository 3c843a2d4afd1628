"""Matching in blocks: the matches of the full score matrix, ties included, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from mcsr.networks.matching import KEYS, QUERIES, best_matches, unit


@pytest.mark.parametrize(("queries", "keys", "length"), [(70, 64, 16), (1, 65, 8), (QUERIES + 9, 1000, 64), (3, 1, 4)])
@pytest.mark.parametrize("chunk", [100, 256, KEYS])
def test_matches_are_those_of_the_full_matrix(queries: int, keys: int, length: int, chunk: int) -> None:
    torch.manual_seed(0)
    q, k = unit(torch.randn(2, queries, length)), unit(torch.randn(2, keys, length))
    best, index = (q @ k.transpose(1, 2)).max(dim=-1)
    found, score = best_matches(q, k, chunk)
    assert torch.equal(found, index)
    torch.testing.assert_close(score, best, rtol=0, atol=1e-6)


@pytest.mark.parametrize("first", [0, 63, 64, 127, 200, 255, 256, 640])
def test_of_equal_keys_the_first_is_found_wherever_the_blocks_begin(first: int) -> None:
    torch.manual_seed(0)
    keys = unit(torch.randn(1, 700, 32))
    keys[:, first:] = torch.where(torch.rand(1, 700 - first, 1) < 0.5, keys[:, first : first + 1], keys[:, first:])
    for chunk in (128, 256, KEYS):
        index, _ = best_matches(keys[:, first : first + 1].expand(1, 5, 32), keys, chunk)
        assert index.tolist() == [[first] * 5]


def test_a_reference_of_one_constant_matches_its_first_patch() -> None:
    """Air: all keys are the same."""
    keys = unit(torch.ones(1, 300, 16))
    index, _ = best_matches(unit(torch.rand(1, 40, 16)), keys)
    assert not index.any()


PEAK_OF_A_SLICE_OF_512 = """
import re, torch
from mcsr.networks.matching import best_matches, unit

def held(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

torch.set_num_threads(1)
queries, keys = (unit(torch.randn(1, 128 * 128, 16)) for _ in range(2))
best_matches(queries[:, :1], keys[:, :1])
open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
before = held("VmRSS")
best_matches(queries, keys)
print(held("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
def test_a_slice_of_512_is_matched_in_bounded_memory__only_linux_tells_the_peak() -> None:
    """16384 patches, as many as DAASR and HFTN-SR have there: the full matrix alone would take 1024 MiB."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PEAK_OF_A_SLICE_OF_512]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 64, "MiB"
