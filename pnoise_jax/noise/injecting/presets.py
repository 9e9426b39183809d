"""Presets: the settings of the paper's text and of its published code, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pnoise_jax.noise import checks

_CYCLIC = {"name": "linear_transform", "quality": "cyclic_shift"}
_ALWAYS = {"train": True, "inference": True}

# The text gives alpha = 0.3 only in its appendix D; the published ResNet code has 0.4.
PRESETS: dict[str, dict[str, Any]] = {
    # The paper's text: eq. 17 at the last layer, at training and at inference.
    "paper_vit": _CYCLIC | {"strength": 0.3} | _ALWAYS,
    "paper_resnet": _CYCLIC | {"strength": 0.3} | _ALWAYS,
    # The published ResNet program with the three noises of its script, for ResNet-34. Each changes
    # the input of the last residual block, hence its shortcut too, in both modes. Their strengths
    # differ (0.4, 1 and 1), so a table of these runs does not compare noises of equal strength.
    #
    # x + 0.4 stop_gradient(x[i + 1] - x[i]).
    "published_resnet": _CYCLIC | {"strength": 0.4, "shift": -1, "stop_gradient": True} | _ALWAYS,
    # x + e, e ~ N(0, 1): the program uses its "variance" as the standard deviation; both are 1.
    "published_resnet_gaussian": {"name": "gaussian", "mean": 0.0, "std": 1.0, "strength": 1.0}
    | _ALWAYS,
    # Its strength 1 is the probability: every element becomes the batch's maximum or minimum, with
    # equal probability. Nothing else of x is left, and no gradient passes.
    "published_resnet_impulse": {
        "name": "salt_and_pepper",
        "probability": 1.0,
        "extremes": "batch",
    }
    | _ALWAYS,
    # The published 95 % command: trained without noise, evaluated with it (--tra 0 --inf 1).
    "optimal_published": {
        "name": "linear_transform",
        "quality": "optimal",
        "point": "attention_input",
        "tokens": "patch",
        "train": False,
        "inference": True,
    },
    # Not from the paper: the optimal Q on all tokens at the last block's input, at inference only.
    # The whole decision passes through the mixed tokens there, so the leak shows at once.
    "optimal_all_tokens": {
        "name": "linear_transform",
        "quality": "optimal",
        "train": False,
        "inference": True,
    },
}


@dataclasses.dataclass(frozen=True)
class RetiredPreset:
    """A preset that is no longer offered.

    Attributes:
      settings: the settings that it named; stored configs that name it are read with these.
      reason: why it was retired, and what to use instead.
    """

    settings: Mapping[str, Any]
    reason: str


RETIRED_PRESETS: dict[str, RetiredPreset] = {
    "published_vit": RetiredPreset(
        _CYCLIC | {"strength": 0.3, "point": "attention_input", "tokens": "patch"} | _ALWAYS,
        "this preset is retired, because the published ViT has no cyclic shift: with "
        "--noise_type linear --OptimalQ 0 it injects nothing. Use 'paper_vit' for the cyclic shift "
        "of the paper's text, or 'optimal_published' for what the published ViT's command does",
    ),
}


def require_preset(name: str) -> None:
    """Raises ValueError unless ``name`` is one of `PRESETS`; says why a preset was retired."""
    if name in RETIRED_PRESETS:
        raise ValueError(f"preset={name!r}: {RETIRED_PRESETS[name].reason}")
    if name not in PRESETS:
        raise ValueError(checks.unknown(f"preset={name!r}: unknown preset", name, PRESETS))
