"""Make the start of diffmsr-s x2 out of both stages of x4: a file of the first stage, for `mcsr train --initial`.

At x2 the network sees four pixels of both inputs where it sees one at x4. The convolutions that see them start with a
quarter of the weight for each; all else is taken over, so that the network begins with what it can.

.venv/bin/python tools/spread_diffmsr.py stage1.safetensors x4.safetensors -o start.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mcsr.networks import create_network
from mcsr.networks.diffmsr import DiffMSRStage1
from mcsr.weights import load_weights, save_weights
from torch import Tensor

INPUTS = 2
"""Target and reference: the first channels that those convolutions see."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="weights of the first stage at x4: the encoder of the truth")
    parser.add_argument("second", type=Path, help="weights of the second stage at x4: all else")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    first, second = load_weights(arguments.first), load_weights(arguments.second)
    known = first.build().state_dict() | second.build().state_dict()
    network = DiffMSRStage1(create_network("diffmsr-s", scale=2).config)
    network.load_state_dict({name: spread(known[name], tensor) for name, tensor in network.state_dict().items()})
    card = {key: value for key, value in first.metadata.items() if key not in ("config", "figures")}
    save_weights(arguments.output, network, {**card, "scale": 2})


def spread(known: Tensor, wanted: Tensor) -> Tensor:
    """Weights as they are, or with those of the inputs spread over as many more pixels as are wanted."""
    if known.shape == wanted.shape:
        return known
    pixels = (wanted.shape[1] - known.shape[1]) // INPUTS + 1
    inputs = known[:, :INPUTS].repeat_interleave(pixels, dim=1) / pixels
    return torch.cat([inputs, known[:, INPUTS:]], dim=1)


if __name__ == "__main__":
    main()
