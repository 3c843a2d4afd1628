"""Recipes: they read, mistakes in them are named, and the papers' are what the papers say and can be trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mcsr.errors import InputError
from mcsr.training.data import TrainingSamples, find_pairs
from mcsr.training.losses import loss_weights
from mcsr.training.objective import objective_for
from mcsr.training.optimizers import learning_rate, optimizer_for
from mcsr.training.recipe import RECIPE_FOLDER, Augmentation, Phase, Recipe, load_recipe
from mcsr.weights import build_network
from subject_files import write_subject
from vgg_files import write_vgg


class Published(NamedTuple):
    """What a paper trains with; rates are pairs of an epoch (of steps for DiffMSR) and the learning rate then."""

    length: int
    batch: int
    rates: dict[int, float]
    weights: dict[str, float]
    degradation: str
    betas: tuple[float, float] = (0.9, 0.999)
    crop: int = 0
    ema: float = 0.0
    slim: dict[str, Any] = {}  # noqa: RUF012


DIFFMSR = {0: 2e-4, 249_999: 2e-4, 250_000: 1e-4, 400_000: 5e-5, 450_000: 2.5e-5, 475_000: 1.25e-5}
SLIM_DIFFMSR = {"dim": 8, "blocks": 1, "encoder_blocks": 1, "window": 8}
PUBLISHED = {
    "cd-dpe-x4": Published(
        50,
        4,
        {0: 1e-4, 49: 1e-4},
        {"l1": 1, "target_consistency": 1, "reference_consistency": 0.01, "mutual_information": 0.1},
        "cddpe-official",
        slim={"channels": (16, 16, 16), "prox_blocks": (1, 1, 1), "size": 16},
    ),
    "daasr-x4": Published(
        200,
        9,
        {0: 2e-4, 19: 2e-4, 20: 1e-4, 199: 2e-4 / 512},
        {"l1": 1, "structure": 0.1, "texture": 0.01, "perceptual": 1e-4},
        "bicubic",
        crop=160,
        slim={"channels": 8, "groups": 1},
    ),
    "hftn-sr-x4": Published(
        50, 4, {0: 5e-5, 49: 5e-5}, {"l1": 1}, "kspace", slim={"channels": 8, "stages": 1, "embedding": 4}
    ),
    "dcamsr-x4": Published(
        50,
        32,
        {0: 2e-4, 39: 2e-4, 40: 2e-5, 49: 2e-5},
        {"l1": 1},
        "kspace-official",
        slim={"channels": 8, "encoder_blocks": (1, 1, 1), "fusion_blocks": (1, 1, 1), "pool": 4, "tokens": 4},
    ),
    "diffmsr-x4-stage1": Published(
        500_000,
        4,
        DIFFMSR,
        {"l1": 1, "data_consistency": 0.001},
        "diffmsr-official",
        (0.9, 0.99),
        ema=0.999,
        slim=SLIM_DIFFMSR,
    ),
    "diffmsr-x4-stage2": Published(
        500_000,
        4,
        DIFFMSR,
        {"l1": 1, "data_consistency": 0.001, "prior": 1},
        "diffmsr-official",
        (0.9, 0.99),
        ema=0.999,
        slim=SLIM_DIFFMSR,
    ),
}
SLICES = 288  # an epoch of the made-up data: 72 batches of 4, 32 of 9, 9 of 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects")
    write_subject(folder, "a", "train", "one")
    write_subject(folder, "b", "train", "two")
    return folder


@pytest.mark.parametrize("file", sorted(RECIPE_FOLDER.rglob("*.toml")), ids=lambda file: file.stem)
def test_every_recipe_reads(file: Path) -> None:
    recipe = load_recipe(file)
    assert load_recipe(f"{file.parent.name}/{file.stem}") == recipe
    assert sum(phase.share for phase in recipe.phases) == pytest.approx(1)
    assert all(phase.crop % recipe.scale == 0 for phase in recipe.phases), "a crop is whole coarse pixels"


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No recipe 'shipped/nothing'; known are .*dcamsr-s-x4"):
        load_recipe("shipped/nothing")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('name = "x"\nspeed = 3\n')
    with pytest.raises(InputError, match="unknown settings speed"):
        load_recipe(wrong)
    wrong.write_text('name = "x"\n')
    with pytest.raises(InputError, match="not a complete recipe"):
        load_recipe(wrong)
    complete = (
        'name = "x"\nnetwork = "dcamsr-s"\nscale = 2\nlearning_rate = 1e-3\nphases = [{share = 1.0, batch = 1}]\n'
    )
    for length in ("", "steps = 1\nepochs = 1\n"):
        wrong.write_text(complete + length)
        with pytest.raises(InputError, match="either steps or epochs"):
            load_recipe(wrong)
    wrong.write_text(complete + 'steps = 1\noptimizer = "sgd"\n')
    with pytest.raises(InputError, match="unknown optimizer 'sgd'; known are adam, adamw"):
        optimizer_for(load_recipe(wrong), [])
    wrong.write_text(complete + 'steps = 1\nschedule = "cyclic"\n')
    with pytest.raises(InputError, match="unknown schedule 'cyclic'"):
        optimizer_for(load_recipe(wrong), [])


def test_epochs_become_steps_of_the_data() -> None:
    phases = (Phase(share=0.5, batch=6), Phase(share=0.5, batch=2))
    recipe = Recipe("x", "dcamsr-s", 2, 1e-3, phases, epochs=10, milestones=(4, 8), schedule="multistep")
    resolved = recipe.in_steps(100)
    assert (resolved.steps, resolved.epochs, resolved.milestones) == (250, None, (100, 200))
    assert resolved.in_steps(7) == resolved
    assert [resolved.phase_at(progress).batch for progress in (0, 0.49, 0.5, 1)] == [6, 6, 2, 2]


def test_learning_rate_rises_and_falls() -> None:
    recipe = Recipe("x", "dcamsr-s", 2, 0.1, (), steps=100, warmup_steps=4)
    assert learning_rate(recipe, 0, 0) == pytest.approx(0.025)
    assert learning_rate(recipe, 50, 0.5) == pytest.approx(0.05)
    assert learning_rate(recipe, 100, 1) == pytest.approx(0)
    flat = dataclasses.replace(recipe, schedule="constant", warmup_steps=0)
    assert [learning_rate(flat, step, step / 100) for step in (0, 99)] == [0.1, 0.1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_papers_recipe_is_what_the_paper_says(name: str) -> None:
    recipe, published = load_recipe(f"paper/{name}"), PUBLISHED[name]
    (phase,) = recipe.phases
    assert (recipe.scale, phase.batch, phase.crop) == (4, published.batch, published.crop)
    assert (recipe.optimizer, recipe.betas, recipe.weight_decay) == ("adam", published.betas, 0)
    assert (recipe.clip_norm, recipe.ema_decay, recipe.precision) == (0, published.ema, "32-true")
    assert loss_weights(recipe) == published.weights
    assert recipe.degradation.replace("dcamsr", "kspace") == published.degradation
    resolved = recipe.in_steps(SLICES)
    a_unit = 1 if recipe.epochs is None else SLICES // phase.batch
    assert resolved.steps == published.length * a_unit
    for when, rate in published.rates.items():
        step = when * a_unit
        assert learning_rate(resolved, step, step / resolved.steps) == pytest.approx(rate), when
    turned = Augmentation(0.5, 0, 0.2, 0, 2, 0, flip_rows=0.5, quarter_turns=0.75)
    untouched = Augmentation(0, 0, 0, 0, 2, 0)
    assert recipe.augmentation == (turned if name == "daasr-x4" else untouched)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_papers_recipe_trains(name: str, data: Path, tmp_path: Path) -> None:
    """The published network can be built; a slim one takes a step that lowers the loss of its batch."""
    recipe = load_recipe(f"paper/{name}")
    published = build_network(recipe.network, {"scale": 4, **recipe.network_config}, recipe.stage)
    assert published.config.scale == 4
    config = {"scale": 4, **PUBLISHED[name].slim}
    torch.manual_seed(0)
    network = build_network(f"{recipe.network}-s", config, recipe.stage)
    teacher = build_network(f"{recipe.network}-s", config, stage=1) if recipe.stage == 2 else None
    backbone = write_vgg(tmp_path) if "perceptual" in recipe.loss else None
    objective = objective_for(recipe, network, teacher, backbone)
    optimizer = optimizer_for(recipe, objective.parameters())
    pairs = find_pairs(data, "train", 4, recipe.degradation, network.multiple)
    phase = Phase(share=1.0, batch=2, crop=32 if recipe.phases[0].crop else 0)
    batch = TrainingSamples(pairs, recipe, upsamples_first=network.upsamples_first).batch(0, phase)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        terms = objective(batch).terms
        assert set(terms) == set(PUBLISHED[name].weights)
        losses.append(sum(terms.values()))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[1] < losses[0]
