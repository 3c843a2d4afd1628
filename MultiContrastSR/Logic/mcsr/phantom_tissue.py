"""What the phantom is made of, and how bright each tissue is in each contrast.

Relaxation times are for 3 T, rounded, from within the ranges reported by Wansapura et al. 1999 (J Magn Reson Imaging
9:531), Gelman et al. 2001 (Magn Reson Med 45:71; deep grey nuclei), de Bazelaire et al. 2004 (Radiology 230:652; fat,
muscle, marrow), Stanisz et al. 2005 (Magn Reson Med 54:507) and the review of Bojorquez et al. 2017 (Magn Reson
Imaging 35:69). The T2 of fat is the longer, effective one that a train of refocusing pulses shows (Henkelman et al.
1994, J Magn Reson Imaging 4:533). The two lesions are made up so that each is seen in some contrasts only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .errors import InputError


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms and the density of visible protons relative to water."""

    name: str
    t1_ms: float
    t2_ms: float
    proton_density: float


TISSUES = (
    Tissue("air", 1.0, 1.0, 0.0),
    Tissue("white matter", 860, 72, 0.70),
    Tissue("grey matter", 1550, 95, 0.82),
    Tissue("csf", 4200, 1800, 1.00),
    Tissue("caudate", 1450, 84, 0.81),
    Tissue("putamen", 1330, 76, 0.80),
    Tissue("pallidum", 1040, 60, 0.75),
    Tissue("thalamus", 1220, 82, 0.78),
    # Dura and falx are as dark as bone at these echo times.
    Tissue("cortical bone", 250, 1.0, 0.15),
    Tissue("marrow", 580, 50, 0.50),
    Tissue("fat", 380, 130, 0.85),
    Tissue("muscle", 1300, 38, 0.78),
    # Bright on T2 and FLAIR; within 5 % of white matter on T1.
    Tissue("bright lesion", 950, 140, 0.75),
    # Dark on T1 (and, less, on FLAIR); within 5 % of white matter on T2.
    Tissue("dark lesion", 1700, 69.5, 0.78),
)
"""All tissues; the last axis of tissue fractions follows this order."""

TISSUE_INDEX = MappingProxyType({tissue.name: n for n, tissue in enumerate(TISSUES)})

_SIGNAL_OF_BRIGHTEST = 1000.0


def spin_echo(tissue: Tissue, *, tr_ms: float, te_ms: float) -> float:
    """S = PD (1 - exp(-TR/T1)) exp(-TE/T2)."""
    return tissue.proton_density * (1 - np.exp(-tr_ms / tissue.t1_ms)) * np.exp(-te_ms / tissue.t2_ms)


def spoiled_gradient_echo(tissue: Tissue, *, tr_ms: float, te_ms: float, flip_deg: float) -> float:
    """S = PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE/T2), E1 = exp(-TR/T1); T2 stands in for T2* at a short TE."""
    e1, flip = np.exp(-tr_ms / tissue.t1_ms), np.deg2rad(flip_deg)
    ernst = np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1)
    return tissue.proton_density * ernst * np.exp(-te_ms / tissue.t2_ms)


def inversion_recovery(tissue: Tissue, *, tr_ms: float, te_ms: float, ti_ms: float) -> float:
    """S = PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2), signed: negative before the null."""
    recovered = 1 - 2 * np.exp(-ti_ms / tissue.t1_ms) + np.exp(-tr_ms / tissue.t1_ms)
    return tissue.proton_density * recovered * np.exp(-te_ms / tissue.t2_ms)


_SEQUENCES: dict[str, Callable[[Tissue], float]] = {
    "T1": lambda tissue: spoiled_gradient_echo(tissue, tr_ms=20, te_ms=4, flip_deg=25),
    "T2": lambda tissue: spin_echo(tissue, tr_ms=4500, te_ms=95),
    "FLAIR": lambda tissue: inversion_recovery(tissue, tr_ms=9000, te_ms=120, ti_ms=2450),
}
CONTRASTS = tuple(_SEQUENCES)


def tissue_signals(contrast: str) -> np.ndarray:
    """Signed signal of every tissue, float32 (len(TISSUES),); the brightest of WM, GM and CSF is 1000.

    Raises:
        InputError: when the contrast is not one of `CONTRASTS`.
    """
    if contrast not in _SEQUENCES:
        raise InputError(f"The phantom has no contrast '{contrast}'; known are {', '.join(CONTRASTS)}.")
    signals = np.array([_SEQUENCES[contrast](tissue) for tissue in TISSUES])
    brightest = max(signals[TISSUE_INDEX[name]] for name in ("white matter", "grey matter", "csf"))
    return (signals * (_SIGNAL_OF_BRIGHTEST / brightest)).astype(np.float32)
