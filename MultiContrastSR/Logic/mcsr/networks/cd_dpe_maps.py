"""What the maps of CD-DPE mean, in the order of display."""

from __future__ import annotations

from functools import partial

from ._map_spec import MapSpec

_PARTS, _ALIGNMENT, _EXPERTS, _FEATURES = "Common and unique parts", "Alignment", "Experts", "Features"
_SIGNED = partial(MapSpec, colours="diverging", unit="scaled intensity")
_GREY = partial(MapSpec, colours="grey", unit="scaled intensity")


def cd_dpe_map_specs(updates: int, experts: int, global_skip: bool) -> dict[str, MapSpec]:
    """Specs of all captured maps for a network with so many updates and experts, with or without the global skip."""
    return (
        _part_specs(updates, global_skip)
        | _alignment_specs(updates)
        | _expert_specs(experts, global_skip)
        | _feature_specs()
    )


def _part_specs(updates: int, global_skip: bool) -> dict[str, MapSpec]:
    subject = "The detail that the interpolated target lacks" if global_skip else "The target image"
    sum_of = "The interpolated target plus its two parts" if global_skip else "Sum of the target's two parts"
    x_unique = (
        f"{subject}, the share that the target has alone: positive adds signal, negative takes signal away; "
        "an offset here may be cancelled by the common part."
    )
    x_common = f"{subject}, the share explained by anatomy that both scans show: positive adds signal."
    specs = {
        "x_unique": _SIGNED("Unique part of the target", x_unique, _PARTS),
        "x_common": _SIGNED("Common part of the target", x_common, _PARTS),
        "y_unique": _SIGNED(
            "Unique part of the reference",
            "What only the reference shows and the target does not take over: positive adds signal to the reference.",
            _PARTS,
        ),
        "y_common": _SIGNED(
            "Common part of the reference",
            "Anatomy that both scans show, as the reference sees it and where the reference has it.",
            _PARTS,
        ),
        "x_rec": _GREY("Target from its parts", f"{sum_of}: it should look like the sharp target.", _PARTS),
        "y_rec": _GREY(
            "Reference from its parts", "Sum of the reference's two parts: it should look like the reference.", _PARTS
        ),
        "fusion_change": _SIGNED(
            "What the fusion changes",
            "Result minus the target from its parts: positive where the experts make the result brighter.",
            _PARTS,
        ),
    }
    for update in range(1, updates):
        for key, name, meaning in (("x_unique", "Unique", x_unique), ("x_common", "Common", x_common)):
            title = f"{name} part of the target after update {update}"
            specs[f"{key}_{update}"] = _SIGNED(title, f"An earlier state of the decoupling. {meaning}", _PARTS)
    return specs


def _alignment_specs(updates: int) -> dict[str, MapSpec]:
    displacement = partial(MapSpec, family=_ALIGNMENT, kind="displacement", unit="pixels", colours="wheel")
    mask = partial(MapSpec, family=_ALIGNMENT, unit="0 to 1", limits=(0.0, 1.0))
    specs = {
        "warped_reference": _GREY(
            "Reference moved onto the target",
            "The reference where the last displacement puts it: compare its edges with those of the target.",
            _ALIGNMENT,
        )
    }
    for n in range(1, updates + 1):
        specs[f"displacement_reference_{n}"] = displacement(
            f"Reference to target, update {n}",
            "From where in the reference each pixel of the target is fed: the colour is the direction, brightness the "
            "distance; learned without a known truth.",
        )
        specs[f"mask_reference_{n}"] = mask(
            f"Trust in the reference, update {n}",
            "How much of the moved reference is let through: bright where the network relies on it.",
        )
        specs[f"displacement_common_{n}"] = displacement(
            f"Common part to reference, update {n}",
            "From where in the common features each pixel of the reference is fed: the colour is the direction, "
            "brightness the distance.",
        )
        specs[f"mask_common_{n}"] = mask(
            f"Trust in the common part, update {n}",
            "How much of the moved common features helps to explain the reference: bright where they do.",
        )
    return specs


def _expert_specs(experts: int, global_skip: bool) -> dict[str, MapSpec]:
    whole = "they sum to what the fusion changes" if global_skip else "they sum to the result"
    specs = {
        f"expert_{k}": _SIGNED(
            f"Contribution of expert {k}",
            f"What expert {k} gives, times its weight ({whole}): positive adds signal; zero where it is not chosen.",
            _EXPERTS,
        )
        for k in range(1, experts + 1)
    }
    table = partial(MapSpec, family=_EXPERTS, kind="table")
    return specs | {
        "gates": table("Weights of the experts", "Share of each expert in this slice; 0: not used.", limits=(0.0, 1.0)),
        "logits": table("Scores of the experts", "The experts with the highest scores are used."),
        "prompt": table(
            "Frequency prompt",
            "Weight of the unique, the target's common and the reference's common map in the choice of the experts.",
            limits=(0.0, 1.0),
        ),
    }


def _feature_specs() -> dict[str, MapSpec]:
    features = partial(MapSpec, family=_FEATURES, kind="features")
    specs = {
        "features_x": features("Target features", "Strong where the target has structure of its own."),
        "features_y": features("Reference features", "Strong where the reference has structure of its own."),
        "features_common": features("Common features", "Strong where both scans share structure."),
        "residual_x": features(
            "Rest of the target", "The target's features without its unique ones: strong where something is shared."
        ),
        "residual_y": features(
            "Rest of the reference",
            "The reference's features without its unique ones: strong where something is shared.",
        ),
    }
    for stream, name in (("x", "target"), ("y", "reference"), ("z", "common")):
        for level, size in ((1, "full"), (2, "half"), (3, "quarter")):
            specs[f"codes_{stream}_lv{level}"] = features(
                f"Codes of the {name} stream, {size} size",
                "How strongly each dictionary atom is used there; values near zero mean that it is not needed.",
                cell=2 ** (level - 1),
            )
    return specs
