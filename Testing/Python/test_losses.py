"""The losses are those of the papers: reference values of the specs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from mcsr.errors import InputError
from mcsr.networks import SROutput
from mcsr.training.losses import (
    cd_dpe_loss,
    daasr_loss,
    data_consistency_loss,
    l1_loss,
    loss_weights,
    matching_loss,
    mutual_information,
)
from mcsr.training.recipe import Recipe


def _golden_images(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    r, c = (torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)[None])
    x = 0.5 + 0.5 * torch.sin(0.11 * r + 0.07 * c) * torch.cos(0.05 * r - 0.13 * c)
    y = 0.5 + 0.5 * torch.cos(0.09 * r - 0.04 * c)
    return x.float()[None, None], y.float()[None, None]


@pytest.mark.parametrize(("size", "different", "same"), [(64, 0.085234, 1.661971), (240, -0.000115, 1.661845)])
def test_mutual_information_has_the_specs_values(size: int, different: float, same: float) -> None:
    x, y = _golden_images(size)
    assert mutual_information(x, y).item() == pytest.approx(different, abs=2e-6)
    assert mutual_information(x, x).item() == pytest.approx(same, abs=2e-5)


def test_mutual_information_gives_clipped_values_no_gradient() -> None:
    x = torch.tensor([-0.5, 0.2, 0.7, 1.5]).reshape(1, 1, 2, 2).requires_grad_()
    mutual_information(x, torch.tensor([0.1, 0.9, 0.3, 0.6]).reshape(1, 1, 2, 2)).backward()
    assert x.grad is not None
    assert (x.grad.flatten() != 0).tolist() == [False, True, True, False]


def test_terms_measure_what_they_say() -> None:
    """Images that are off by a known constant give the constant back."""
    truth, reference = torch.full((1, 1, 8, 8), 0.5), torch.full((1, 1, 8, 8), 0.25)
    output = SROutput(truth + 0.1, aux={"structure": truth + 0.2, "texture": truth - 0.3})
    terms = daasr_loss(output, truth, reference)
    assert {k: round(v.item(), 6) for k, v in terms.items()} == {"l1": 0.1, "structure": 0.2, "texture": 0.3}
    assert {k: round(v.item(), 6) for k, v in l1_loss(output, truth, reference).items()} == {"l1": 0.1}
    names = ("x_common", "x_unique", "y_common", "y_unique")
    maps = {name: torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(n)) for n, name in enumerate(names)}
    output = SROutput(truth + 0.1, aux={"x_rec": truth - 0.2, "y_rec": reference + 0.3, **maps})
    terms = cd_dpe_loss(output, truth, reference)
    information = mutual_information(maps["x_common"], maps["x_unique"]) + mutual_information(
        maps["y_common"], maps["y_unique"]
    )
    assert terms["l1"].item() == pytest.approx(0.1)
    assert terms["target_consistency"].item() == pytest.approx(0.2)
    assert terms["reference_consistency"].item() == pytest.approx(0.3)
    assert terms["mutual_information"].item() == pytest.approx(information.item())


@pytest.mark.parametrize(
    ("network", "published"),
    [
        ("cd-dpe", {"l1": 1, "target_consistency": 1, "reference_consistency": 0.01, "mutual_information": 0.1}),
        ("daasr-s", {"l1": 1, "structure": 0.1, "texture": 0.01}),
        ("hftn-sr", {"l1": 1}),
        ("dcamsr-s", {"l1": 1}),
        ("diffmsr", {"l1": 1, "data_consistency": 0.001, "prior": 1}),
    ],
)
def test_weights_are_those_of_the_papers(network: str, published: dict[str, float]) -> None:
    assert loss_weights(_recipe(network)) == published


def test_recipes_weigh_terms_anew() -> None:
    recipe = dataclasses.replace(_recipe("daasr"), matching=0.2, loss={"perceptual": 1e-4, "texture": 0})
    assert loss_weights(recipe) == {"l1": 1, "structure": 0.1, "perceptual": 1e-4, "matching": 0.2}
    with pytest.raises(InputError, match="weighs matching; the terms of dcamsr are l1, adversarial"):
        loss_weights(dataclasses.replace(_recipe("dcamsr"), matching=0.1))
    with pytest.raises(InputError, match="weighs perceptual"):
        loss_weights(dataclasses.replace(_recipe("cd-dpe"), loss={"perceptual": 1}))


def _recipe(network: str) -> Recipe:
    return Recipe("made-up", network, scale=4, learning_rate=1e-3, phases=(), steps=1)


@pytest.mark.parametrize(("rows", "columns"), [(16, 24), (20, 12)])
def test_data_consistency_weighs_what_lies_outside_the_acquired_band(rows: int, columns: int) -> None:
    """By Parseval it is H W times the mean squared error of the image's part outside the band."""
    truth = torch.zeros(2, 2, rows, columns)
    r, c = torch.arange(rows)[:, None], torch.arange(columns)[None]
    outside = 0.3 * torch.cos(2 * torch.pi * 5 * r / rows) * torch.ones(columns)  # line 5 of rows: beyond rows / 8
    within = 0.2 * torch.cos(2 * torch.pi * c / columns) * torch.ones(rows, 1)
    image = truth.clone()
    image[0, 0] = outside + within
    expected = rows * columns * outside.square().sum() / truth.numel()
    assert data_consistency_loss(image, truth, 4).item() == pytest.approx(expected.item(), rel=1e-5)


def test_matching_loss_wants_each_token_at_its_own_place() -> None:
    keys = torch.eye(4)[None].repeat(2, 1, 1)
    right, wrong = keys[:, None], keys.roll(1, dims=1)[:, None]
    registered = torch.tensor([True, False])

    def loss(queries: torch.Tensor) -> float:
        return matching_loss(SROutput(torch.zeros(1), aux={"queries": queries, "keys": keys}), registered).item()

    assert loss(right) < 1e-3
    assert loss(wrong) == pytest.approx(10.0, abs=1e-2)
    mixed = torch.cat([right[:1], wrong[1:]])
    assert loss(mixed) == pytest.approx(loss(right)), "a foreign reference has no right match"
    own_keys = SROutput(torch.zeros(1), aux={"queries": right, "keys": keys[:, None]})
    assert matching_loss(own_keys, registered).item() == pytest.approx(loss(right)), "keys may differ by group"
    nowhere = SROutput(torch.zeros(1), aux={"queries": wrong, "keys": keys})
    assert matching_loss(nowhere, torch.tensor([False, False])).item() == 0
