"""What is done at random to a training sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges of what is done to a training sample.

    Args:
        flip: probability of a left-right mirror.
        self_reference: probability that the target, upsampled, stands in for the reference.
        foreign_reference: probability that a slice of another patient does.
        shift: probability of moving the reference by up to `shift_pixels` along rows and columns.
        shift_pixels: whole high-resolution pixels.
        remap: probability of a gamma between 0.6 and 1.6 on the reference's intensities.
    """

    flip: float = 0.5
    self_reference: float = 0.1
    foreign_reference: float = 0.05
    shift: float = 0.2
    shift_pixels: int = 2
    remap: float = 0.3
