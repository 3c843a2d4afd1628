"""Several processes train like one: on the same batches, to the same weights, with one log."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mcsr.errors import InputError
from mcsr.training.devices import open_fabric
from mcsr.training.loop import CHECKPOINT, train
from mcsr.training.recipe import load_recipe
from mcsr.weights import load_weights
from subject_files import write_subject

# Dropout too: random numbers belong to a part of the batch, whichever process computes it.
RECIPE = """
name = "tiny"
network = "dcamsr-s"
scale = 2
steps = 3
learning_rate = 2e-3
precision = "32-true"
phases = [{ share = 0.6, batch = 4, crop = 24 }, { share = 0.4, batch = 2 }]

[network_config]
channels = 8
encoder_blocks = [1, 1, 1]
fusion_blocks = [1, 1, 1]
pool = 4
tokens = 4
dropout = 0.3
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects")
    write_subject(folder, "a", "train", "one")
    write_subject(folder, "c", "val", "three")
    write_subject(folder, "d", "val", "four")
    return folder


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _rows(folder: Path) -> set[tuple[str, ...]]:
    with (folder / "log.csv").open(newline="") as file:
        return {(row["step"], row["what"], row["value"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("launcher", ["--devices", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_processes_train_like_one(launcher: str, data: Path, tmp_path: Path) -> None:
    """Bit for bit like one process that takes each batch in the same two parts: halves of gradients are exact, and a
    sum of two has one order. That a batch in parts is like the whole, to rounding, `test_training_resume` tests."""
    file = tmp_path / "tiny.toml"
    file.write_text(RECIPE)
    one = train(load_recipe(file), data, tmp_path / "one", accumulate=2)
    torchrun = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={_free_port()}", "-m"]
    command = [sys.executable, "-m", *(torchrun if launcher == "torchrun" else [])]
    command += ["mcsr.cli", "train", str(file), "--data", str(data), "-o", str(tmp_path / "two")]
    command += ["--devices=2"] if launcher == "--devices" else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Wrote ") == 1, "one process speaks"
    two = torch.load(tmp_path / "two" / CHECKPOINT, weights_only=True)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two["averaged"][name]), name
    assert _rows(tmp_path / "two") == _rows(tmp_path / "one")
    assert load_weights(tmp_path / "two" / "weights.safetensors").metadata["recipe"] == "tiny"


def test_a_precision_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match=r"Unknown precision 'half'; known are 32-true, bf16-mixed, 16-mixed"):
        open_fabric("half")
