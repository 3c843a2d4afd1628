"""The training loop on small files: what it samples, that it learns, that it resumes."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mcsr.errors import InputError
from mcsr.training.data import Batch, TrainingSamples, find_pairs, read_sample
from mcsr.training.loop import CHECKPOINT, train
from mcsr.training.objective import Objective, Scored, objective_for
from mcsr.training.recipe import Augmentation, Phase, Recipe
from mcsr.training.weights import export_weights
from mcsr.weights import build_network, load_weights
from subject_files import write_subject

TINY = {"channels": 8, "encoder_blocks": (1, 1, 1), "fusion_blocks": (1, 1, 1), "pool": 4, "tokens": 4}
RECIPE = Recipe(
    name="tiny",
    network="dcamsr-s",
    scale=2,
    steps=6,
    learning_rate=2e-3,
    phases=(Phase(share=0.5, batch=2, crop=24), Phase(share=0.5, batch=1)),
    network_config=TINY,
    precision="32-true",
    warmup_steps=2,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects")
    write_subject(folder, "a", "train", "one")
    write_subject(folder, "b", "train", "two", all_native=True)
    write_subject(folder, "c", "val", "three")
    return folder


def test_samples_are_scaled_aligned_and_on_the_canvas(data: Path) -> None:
    pair = find_pairs(data, "val", 2, "kspace", 8)[0]
    sample = read_sample(pair, 2, 2, "kspace")
    assert sample.target_hr.shape == sample.reference.shape
    assert sample.target_hr.shape[1] == 2 * sample.target_lr.shape[1] == 2 * pair.canvas.rows
    assert 0.5 < sample.target_hr.max() < 1.6
    # A coarse pixel is about the mean of the fine ones it covers.
    means = sample.target_hr[0].reshape(pair.canvas.rows, 2, pair.canvas.columns, 2).mean(axis=(1, 3))
    assert np.corrcoef(means.ravel(), sample.target_lr[0].ravel())[0, 1] > 0.97


def test_a_batch_depends_on_seed_and_step_alone(data: Path) -> None:
    pairs = find_pairs(data, "train", 2, "kspace", 8)
    for phase in RECIPE.phases:
        first, again, other = (TrainingSamples(pairs, RECIPE).batch(step, phase) for step in (3, 3, 4))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert first[1].shape != other[1].shape or not torch.equal(first[1], other[1])
    crop = TrainingSamples(pairs, RECIPE).batch(0, RECIPE.phases[0])
    assert {tuple(t.shape) for t in crop[:3]} == {(2, 1, 24, 24)}, "crops come upsampled"


def test_a_network_on_the_coarse_grid_gets_coarse_crops_of_the_same_place(data: Path) -> None:
    quiet = Augmentation(flip=0, self_reference=0, foreign_reference=0, shift=0, remap=0)
    recipe = dataclasses.replace(RECIPE, augmentation=quiet)
    pairs = find_pairs(data, "train", 2, "kspace", 8)
    phase = RECIPE.phases[0]
    fine = TrainingSamples(pairs, recipe).batch(0, phase)
    coarse = TrainingSamples(pairs, recipe, upsamples_first=False).batch(0, phase)
    assert coarse.targets.shape == (2, 1, 12, 12)
    assert torch.equal(coarse.truths, fine.truths)
    means = torch.nn.functional.avg_pool2d(fine.truths, 2)
    for mean, target in zip(means, coarse.targets, strict=True):
        assert torch.corrcoef(torch.stack([mean.flatten(), target.flatten()]))[0, 1] > 0.95


def test_canvases_of_a_step_come_from_one_pair(data: Path) -> None:
    pairs = find_pairs(data, "train", 2, "kspace", 8)
    batch = TrainingSamples(pairs, RECIPE).batch(1, Phase(share=1.0, batch=3))
    assert batch.targets.shape[0] == 3
    assert batch.truths.shape[2:] == tuple(2 * n for n in batch.targets.shape[2:])
    assert not torch.equal(batch.truths[0], batch.truths[1])


@pytest.mark.parametrize(("share", "expected"), [(0.0, True), (1.0, False)])
def test_a_foreign_reference_is_marked(data: Path, share: float, expected: bool) -> None:
    recipe = dataclasses.replace(RECIPE, augmentation=Augmentation(self_reference=0, foreign_reference=share, shift=0))
    samples = TrainingSamples(find_pairs(data, "train", 2, "kspace", 8), recipe)
    assert samples.batch(0, RECIPE.phases[0]).registered.tolist() == [expected] * 2


def test_augmentation_gives_the_target_as_its_own_reference(data: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, augmentation=Augmentation(flip=1.0, self_reference=1.0, foreign_reference=0, shift=0, remap=0)
    )
    pairs = find_pairs(data, "train", 2, "kspace", 8)
    target, truth, reference, _ = TrainingSamples(pairs, recipe).batch(0, RECIPE.phases[0])
    assert torch.equal(target, reference)
    assert not torch.equal(truth, reference)


def test_training_learns_and_is_better_than_its_start(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, steps=120, learning_rate=5e-3, phases=(Phase(share=1.0, batch=1),), ema_decay=0.9
    )
    train(recipe, data, tmp_path)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    reference = [float(row["value"]) for row in rows if row["what"] == "c T2<-T1 reference"]
    sinc = [float(row["value"]) for row in rows if row["what"] == "c T2<-T1 sinc"]
    assert reference[-1] > reference[0] + 0.2
    assert reference[-1] > sinc[-1] + 0.2, "so few steps are enough to beat interpolation here"


def test_a_resumed_run_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    whole = train(RECIPE, data, tmp_path / "whole")
    asked = iter([False] * 3)
    train(RECIPE, data, tmp_path / "cut", cancelled=lambda: next(asked, True))
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    resumed = train(RECIPE, data, tmp_path / "cut", resume=True)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(InputError, match="holds the checkpoint of another run"):
        train(RECIPE, data, tmp_path / "cut")
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        train(RECIPE, data, tmp_path / "new", resume=True)


def test_weights_are_exported_with_their_card(data: Path, tmp_path: Path) -> None:
    network = train(dataclasses.replace(RECIPE, steps=2), data, tmp_path)
    file = export_weights(network, RECIPE, data, tmp_path / "weights.safetensors")
    card = load_weights(file).metadata
    assert (card["architecture"], card["scale"], card["degradation"]) == ("dcamsr-s", 2, "kspace")
    assert card["contrasts"] == ["T1<-T2", "T2<-T1"]
    assert card["spacing_mm"] == [0.8, 0.8]
    assert card["data"] == ["Nobody, Journal of Blobs 2026. (CC-BY)"]
    restored = load_weights(file).build().state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(restored[name].half(), tensor.half()), name


def test_worker_processes_change_nothing(data: Path, tmp_path: Path) -> None:
    alone = train(RECIPE, data, tmp_path / "alone")
    helped = train(RECIPE, data, tmp_path / "helped", workers=2)
    for (name, a), b in zip(alone.state_dict().items(), helped.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_half_precision_leaves_the_images_as_they_are(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    seen = []

    def watched(objective: Objective, batch: Batch) -> Scored:
        seen.append((batch.truths.dtype, torch.is_autocast_enabled("cpu")))
        return forward(objective, batch)

    forward = Objective.forward
    monkeypatch.setattr(Objective, "forward", watched)
    train(dataclasses.replace(RECIPE, steps=1, precision="bf16-mixed"), data, tmp_path)
    assert seen == [(torch.float32, True)]


def test_diffmsr_is_trained_in_two_stages(data: Path, tmp_path: Path) -> None:
    small = {"dim": 8, "blocks": 1, "encoder_blocks": 1, "window": 8}
    first = Recipe(
        name="stage-1",
        network="diffmsr-s",
        network_config=small,
        scale=2,
        steps=3,
        stage=1,
        learning_rate=1e-3,
        phases=(Phase(share=1.0, batch=1),),
        precision="32-true",
    )
    encoder = train(first, data, tmp_path / "first")
    file = export_weights(encoder, first, data, tmp_path / "first.safetensors")
    assert load_weights(file).metadata["stage"] == 1
    second = dataclasses.replace(first, name="stage-2", stage=2)
    with pytest.raises(InputError, match="give the weights of its first"):
        train(second, data, tmp_path / "without")
    network = train(dataclasses.replace(second, learning_rate=0.0), data, tmp_path / "second", initial=file)
    decoder = load_weights(file).build().G.state_dict()
    for name, tensor in network.G.state_dict().items():
        assert torch.equal(tensor, decoder[name]), f"{name} does not start as in stage 1"


def test_the_second_stage_pulls_the_estimated_prior_to_that_of_the_truth(data: Path) -> None:
    torch.manual_seed(0)
    network, teacher = (build_network("diffmsr-s", {"scale": 2, "dim": 8, "window": 8}, stage) for stage in (2, 1))
    recipe = dataclasses.replace(RECIPE, network="diffmsr-s", stage=2)
    objective = objective_for(recipe, network, teacher).train()
    assert not teacher.training
    batch = TrainingSamples(find_pairs(data, "train", 2, "kspace", 8), recipe).batch(0, Phase(share=1.0, batch=1))
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(12):
        prior = objective(batch).terms["prior"]
        losses.append(prior.item())
        optimizer.zero_grad()
        prior.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is None for p in teacher.parameters())


def test_weights_of_which_nothing_fits_are_refused(data: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(RECIPE, network="hftn-sr-s")
    file = export_weights(build_network("hftn-sr-s", {"scale": 2}), other, data, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="Nothing of the weights given with --initial fits dcamsr-s"):
        train(RECIPE, data, tmp_path / "run", initial=file)


def test_a_recipe_may_name_its_contrasts(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with T2<-PD"):
        train(dataclasses.replace(RECIPE, contrasts=("T2<-PD",)), data, tmp_path / "run")


def test_slices_too_large_for_a_network_of_one_size_are_refused_at_once(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, network_config=TINY | {"projection": "dense", "size": 32})
    with pytest.raises(InputError, match=r"pixels, and tiny is for at most 32; set a larger `size`"):
        train(recipe, data, tmp_path / "run")
