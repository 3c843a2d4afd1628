"""The adversarial term of DAASR: a patch discriminator that learns beside the network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import McsrError
from .devices import share_batch_statistics
from .optimizers import optimizer_for, set_learning_rate
from .recipe import Recipe


class Adversary:
    """The 70x70 patch discriminator with its own optimiser, of the kind and with the learning rate of the network's.

    Args:
        fabric: where it trains.
        recipe: chooses the optimiser.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe) -> None:
        self.fabric = fabric
        module = _Discrimination()
        self.discriminator = module.discriminator
        shared = share_batch_statistics(module, fabric)
        self.module, self.optimizer = fabric.setup(shared, optimizer_for(recipe, shared.parameters()))

    def deception_loss(self, images: Tensor) -> Tensor:
        """What the network minimises: cross-entropy of its images (B, 1, H, W) being taken for true ones."""
        # Constants here, so that the network's gradient does not reach the discriminator.
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        with self.fabric.autocast():
            verdict = functional_call(self.discriminator, frozen, (images,))[-1]
        return _cross_entropy(verdict, true=True)

    def learn(self, pairs: list[tuple[Tensor, Tensor]], rate: float) -> Tensor:
        """One step of the discriminator on truths and the network's images (B, 1, H, W) of each part; its loss."""
        losses = []
        for number, (truths, images) in enumerate(pairs, start=1):
            with self.fabric.no_backward_sync(self.module, enabled=number < len(pairs)):
                loss = self.module(truths, images) / len(pairs)
                self.fabric.backward(loss)
            losses.append(loss.detach())
        set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


class _Discrimination(nn.Module):
    """The discriminator with its loss, as one module, so that processes see one forward."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from monai.networks.nets import PatchDiscriminator
        except ModuleNotFoundError as error:
            raise McsrError(
                "The adversarial term needs monai: pip install it, or leave `adversarial` out of the recipe's [loss]."
            ) from error
        self.discriminator = PatchDiscriminator(spatial_dims=2, channels=64, in_channels=1)

    def forward(self, truths: Tensor, images: Tensor) -> Tensor:
        """Mean cross-entropy of telling the two apart."""
        true, made = self.discriminator(truths)[-1], self.discriminator(images)[-1]
        return 0.5 * (_cross_entropy(true, true=True) + _cross_entropy(made, true=False))


def _cross_entropy(verdict: Tensor, *, true: bool) -> Tensor:
    logits = verdict.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(true)))
