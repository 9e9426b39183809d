"""Describes the table of a study in sentences: one per method, and one about the seeds."""

from collections.abc import Sequence

from pnoise_jax.studies.adaptation.methods import SOURCE_ONLY, TARGET_LABELS, Method
from pnoise_jax.studies.adaptation.summary import ENOUGH_SEEDS, Difference, Row
from pnoise_jax.studies.reporting.tables import number, signed

_METRICS = {"accuracy": "accuracy", "per_class_mean": "mean accuracy per class"}


def sentences(rows: Sequence[Row], *, metric: str = "accuracy") -> list[str]:
    """Describes what noise adds to each method that was trained with it, and the baseline.

    Args:
      rows: the rows from `summarise`.
      metric: the metric of their values.
    """
    by_method = {row.method: row for row in rows}
    told = [_on_seeds(rows[0].seeds)]
    for row in rows:
        if row.method.noise:
            told.append(_on_noise(row, by_method[Method(row.method.name)], _METRICS[metric]))
    if not any(row.method.noise for row in rows):
        told.append("Nothing was trained with noise, so this says nothing about what noise adds.")
    return told


def on_upper_bound(trained_on: int, tested_on: int) -> list[str]:
    """Says what the upper bound is if it was trained on test images; empty if it was not.

    Args:
      trained_on: how many test images are training images of the target.
      tested_on: the number of test images.
    """
    if not trained_on:
        return []
    share = "the" if trained_on == tested_on else f"{trained_on} of the {tested_on}"
    return [
        f"Target labels was trained on {share} test images with their labels, so its accuracy "
        "says how well the model fits them, not how well it predicts new images; “gap closed” is "
        "relative to that."
    ]


def _on_seeds(seeds: int) -> str:
    if seeds >= ENOUGH_SEEDS:
        return (
            f"{seeds} seeds. Intervals are 95 % and cover other seeds and other images; a "
            "difference is called resolved if its p-value, corrected by Holm over all "
            "differences of this study, is below 0.05."
        )
    which = "One seed" if seeds == 1 else f"{seeds} seeds"
    return (
        f"{which}, but an interval needs at least {ENOUGH_SEEDS}: none is given, and no difference "
        "is called resolved."
    )


def _on_noise(row: Row, plain: Row, metric: str) -> str:
    """Describes the effects of noise on one method in one sentence."""
    name, base = row.method.label.removesuffix(" + noise"), plain.values["clean"].value
    effects = row.effects
    parts = [
        f"on top of {_baseline(plain, base)}, noise changes the {metric} by "
        f"{_words(effects['trained'])} when it acts in training alone, and by "
        f"{_words(effects['shuffled'])} when it acts at inference as well, in shuffled order"
    ]
    order = effects["order"]
    if order.sign > 0:
        parts.append(
            f"the target's stored order adds {_words(order)} to the same runs, read from the batch "
            "and not from the image"
        )
    else:
        parts.append(f"the target's stored order changes that by {_words(order)}")
    return f"{_capital(name)}: {'; '.join(parts)}."


def _baseline(plain: Row, base: float) -> str:
    name = plain.method.label
    if plain.method.name in (SOURCE_ONLY, TARGET_LABELS) or plain.adapted is None:
        return f"{name} without noise ({number(base)} %)"
    return f"{name} without noise ({number(base)} %, {_words(plain.adapted)} against source only)"


def _words(difference: Difference) -> str:
    """Formats a difference as "+1.2 points (+0.4 to +2.0, resolved)"."""
    points = f"{signed(difference.value)} points"
    if difference.interval is None:
        return points
    low, high = difference.interval
    resolved = "resolved" if difference.sign else "not resolved"
    return f"{points} ({signed(low)} to {signed(high)}, {resolved})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
