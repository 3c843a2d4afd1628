"""The perceptual and the adversarial term of DAASR: what they measure, how they train, what is said when parts lack."""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from mcsr.errors import InputError, McsrError
from mcsr.networks import create_network
from mcsr.training.adversarial import Adversary
from mcsr.training.data import Batch
from mcsr.training.devices import open_fabric
from mcsr.training.loop import CHECKPOINT, train
from mcsr.training.objective import objective_for
from mcsr.training.perceptual import VGGFeatures
from mcsr.training.recipe import Phase, Recipe
from subject_files import write_subject
from vgg_files import write_vgg

RECIPE = Recipe(
    name="tiny-gan",
    network="daasr-s",
    scale=2,
    steps=4,
    learning_rate=1e-3,
    phases=(Phase(share=1.0, batch=2, crop=32),),
    network_config={"channels": 8, "groups": 1},
    loss={"perceptual": 1e-4, "adversarial": 1e-3},
    precision="32-true",
)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vgg(tmp_path_factory.mktemp("vgg"))


def test_features_are_those_of_the_published_layers(vgg: Path) -> None:
    """relu3_3 by hand, from the state dict: three blocks of 2, 2 and 3 convolutions, normalised colours."""
    images = torch.linspace(-0.2, 1.2, 16 * 16).reshape(1, 1, 16, 16)
    state = torch.load(vgg, weights_only=True)
    x = images.clamp(0, 1).repeat(1, 3, 1, 1)
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    for block in ((0, 2), (5, 7), (10, 12, 14)):
        for layer in block:
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            x = torch.nn.functional.conv2d(x, weight, bias, padding=1).relu()
        if block[-1] < 14:
            x = torch.nn.functional.max_pool2d(x, 2)
    features = VGGFeatures(vgg)(images)
    assert features.shape == (1, 256, 4, 4)
    assert torch.allclose(features, x, atol=1e-5)


def test_perceptual_term_reaches_the_texture_and_not_the_backbone(vgg: Path) -> None:
    torch.manual_seed(0)
    network = create_network("daasr-s", scale=2, **RECIPE.network_config)
    objective = objective_for(dataclasses.replace(RECIPE, loss={"perceptual": 1e-4}), network, backbone=vgg)
    generator = torch.Generator().manual_seed(1)
    targets, truths, references = (torch.rand(2, 1, n, n, generator=generator) for n in (8, 16, 16))
    terms = objective(Batch(targets, truths, references, torch.tensor([True, True]))).terms
    assert set(terms) == {"l1", "structure", "texture", "perceptual"}
    terms["perceptual"].backward()
    assert network.aux_sat.weight.grad.abs().sum() > 0
    assert network.out.weight.grad is None, "it is a term on the texture image alone"
    assert all(p.grad is None for p in objective.perceptual.parameters())
    assert objective.perceptual.distance(truths, truths) == 0


def test_a_missing_backbone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"there is no vgg19-\*\.pth in .*checkpoints: put torchvision's file there"):
        VGGFeatures()
    (tmp_path / "checkpoints").mkdir()
    write_vgg(tmp_path / "checkpoints")
    assert VGGFeatures()(torch.zeros(1, 1, 8, 8)).shape == (1, 256, 2, 2), "found in torchvision's cache"
    for name, content in (("text.pth", b"no weights"), ("missing.pth", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} is not the VGG-19 that the perceptual term needs"):
            VGGFeatures(tmp_path / name)
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="is not the VGG-19"):
        VGGFeatures(tmp_path / "other.pth")


def test_discriminator_is_the_published_one_and_learns_to_tell_apart() -> None:
    torch.manual_seed(0)
    adversary = Adversary(open_fabric("32-true"), RECIPE)
    assert sum(p.numel() for p in adversary.discriminator.parameters()) == 2_763_585  # the usual 70x70 PatchGAN
    assert adversary.discriminator(torch.zeros(2, 1, 160, 160))[-1].shape == (2, 1, 18, 18)
    truths = torch.rand(4, 1, 32, 32)
    images = torch.nn.functional.avg_pool2d(truths, 3, 1, 1).requires_grad_()
    before = adversary.deception_loss(images)
    losses = [adversary.learn([(truths, images.detach())], 1e-3).item() for _ in range(6)]
    assert losses[-1] < 0.7 * losses[0]
    after = adversary.deception_loss(images)
    assert after > before + 0.3, "blurred images are found out"
    after.backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in adversary.discriminator.parameters()), "deceiving does not teach it"


def test_without_monai_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(McsrError, match=r"needs monai: pip install it, or leave `adversarial` out"):
        Adversary(open_fabric("32-true"), RECIPE)


def test_a_run_with_all_terms_resumes_to_the_same_weights(vgg: Path, tmp_path: Path) -> None:
    """Discriminator, its optimiser and its norms included: the network's gradient depends on them."""
    write_subject(tmp_path, "a", "train", "one")
    write_subject(tmp_path, "c", "val", "three")
    whole = train(RECIPE, tmp_path, tmp_path / "whole", backbone=vgg, accumulate=2)
    asked = iter([False] * 2)
    train(RECIPE, tmp_path, tmp_path / "cut", backbone=vgg, accumulate=2, cancelled=lambda: next(asked, True))
    resumed = train(RECIPE, tmp_path, tmp_path / "cut", backbone=vgg, accumulate=2, resume=True)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    ends = [torch.load(tmp_path / run / CHECKPOINT, weights_only=True)["adversary"] for run in ("whole", "cut")]
    for name, tensor in ends[0]["module"].items():
        assert torch.equal(tensor, ends[1]["module"][name]), name
    with (tmp_path / "whole" / "log.csv").open() as file:
        logged = {row["what"] for row in csv.DictReader(file)}
    assert {"l1", "structure", "texture", "perceptual", "adversarial", "discriminator"} <= logged
