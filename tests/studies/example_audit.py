"""Made-up audits in the form of audit.json, to look at and to test with."""

import copy
import math
from typing import Any

import numpy as np

SITE = "block_input, layer 4, all tokens"
RANDOM_ORDERS = 40
# Quality, strength, site, kinds of the verdict; top-1 shuffled and class-sorted by batch size.
DIGITS_NOISES = (
    ("optimal", 1.0, SITE, ("leak", "harm"), {10: (25.1, 98.8), 50: (12.2, 97.2)}),
    ("cyclic_shift", 0.3, SITE, ("undecided", "harm"), {10: (72.0, 72.4), 50: (71.8, 72.9)}),
    ("gaussian", 1.0, SITE, ("independent", "no_effect"), {10: (76.0, 76.0), 50: (76.0, 76.0)}),
)
GLYPHS_NOISES = (
    (
        "optimal",
        1.0,
        "attention_input, layer 8, patch tokens",
        ("leak", "harm"),
        {50: (48.3, 71.9)},
    ),
)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TARGETS = {  # words; percent predicted as the mates' class, and as the other class
    "contested": ("an example torn between two classes", 91.8, 6.6),
    "image": ("an example of a third class", 58.7, 4.9),
    "blank": ("a blank example", 84.3, 3.2),
}
ORIGIN = {
    "seconds": {"clean pass": 1.234, "protocols": 0.87, "interventions": 2.5},
    "units": {"top1": "percent", "nll": "nats", "label_bits_per_batch": "bits"},
    "model": "vit_ti_16",
    "project": "0.1.0",
    "device": "1 x cpu",
    "jax": "0.10.2",
    "date": "2026-01-02T03:04:05+00:00",
    "split": "test",
    "weights": "params",
    "notes": [],
    "config": {
        "model": {"name": "vit_ti_16", "depth": 4},
        "noise": {"preset": "optimal_all_tokens", "strength": 1.0, "layer": None},
        "betas": [0.9, 0.999],
    },
    "command": "python -m launch.audit --config=configs/digits.py --workdir=runs/digits",
}


def digits_audit() -> dict[str, Any]:
    """10 classes, 5 seeds, three noises, two batch sizes, with all optional parts."""
    audit = make_audit(DIGITS_NOISES, dataset="digits", classes=10, clean=76.1, seeds=5)
    metric = {
        "name": "my_metric",
        "shuffled": 31.25,
        "class_sorted": 90.75,
        "of_fixed_predictions": {"shuffled": [28.2, 36.1], "class_sorted": [30.5]},
        "depends_on_batching": True,
        "range_of_fixed_predictions": [28.2, 36.1],
    }
    return audit | {"metric": metric}


def glyphs_audit() -> dict[str, Any]:
    """1000 classes, one seed, one noise, one batch size; no configuration."""
    audit = make_audit(GLYPHS_NOISES, dataset="glyphs", classes=1000, clean=62.4, seeds=1)
    return audit | {"config": None}


def bare_audit(kinds: tuple[str, ...] = ("independent", "no_effect")) -> dict[str, Any]:
    """A function's audit of one seed, with one verdict: the least that an audit can contain."""
    shuffled, in_order = (70.0, 70.0) if "independent" in kinds else (70.0, 80.0)
    noise = ("gaussian", 1.0, SITE, kinds, {10: (shuffled, in_order)})
    audit = make_audit((noise,), dataset="digits", classes=10, clean=76.1, seeds=1)
    for key in ("rows", "findings"):
        audit[key] = [row | dict.fromkeys(("quality", "strength", "where")) for row in audit[key]]
    nothing = dict.fromkeys(("config", "steps", "split", "command", "clean_check"))
    audit |= {"purity": [], "per_class": [], "interventions": [], **nothing}
    return {key: value for key, value in audit.items() if key not in ("weights", "notes")}


def make_audit(noises, *, dataset: str, classes: int, clean: float, seeds: int) -> dict[str, Any]:
    """An audit with this clean accuracy, in percent, and these noises."""
    rng = np.random.default_rng(0)
    n = 1000 if classes == 10 else 20_000
    context = {"n": n, "classes": classes, "seeds": seeds}
    sizes = list(noises[0][4])
    first, size = noises[0], sizes[0]
    findings = [_finding(noise, clean, size) for noise in noises]
    return {
        "version": 2,
        "question": f"Where does the accuracy of vit_ti_16 on {dataset} come from?",
        "verdict": findings[0]["verdict"],
        "findings": findings,
        "rows": _rows(rng, noises, clean, **context),
        "comparisons": [
            row for noise in noises for k in sizes for row in _compared(noise, clean, k)
        ],
        "orders": [row for noise in noises for k in sizes for row in _orders(rng, noise, clean, k)],
        "interventions": [row for noise in noises for k in sizes for row in _targets(noise, k)],
        "purity": [point for noise in noises[:2] for point in _purity(rng, noise, size, **context)],
        "per_class": _per_class(rng, first[4][size], clean, classes, n // classes),
        "metric": None,
        "headline": {"noise_id": _name(first), "batch_size": size},
        "clean_check": {"largest_logit_difference": 1.9e-6, "examples": 256},
        "confidence": 0.95,
        "equivalence": 1.0,
        "shuffled_orders": RANDOM_ORDERS,
        "interval_over": "seeds and examples" if seeds > 1 else "examples",
        "seeds": list(range(seeds)),
        "num_classes": classes,
        "n": n,
        "dataset": dataset,
        "steps": [600] * seeds,
        **copy.deepcopy(ORIGIN),
    }


def _name(noise) -> str:
    return f"{noise[0]} {noise[1]:g} at {noise[2]}"


def _rows(rng, noises, clean, **context) -> list[dict[str, Any]]:
    orders = ("shuffled", "class_sorted")
    rows = [_row(rng, clean, order, k, **context) for order in orders for k in noises[0][4]]
    for noise in noises:
        for i, order in enumerate(orders):
            for k, pair in noise[4].items():
                rows.append(_row(rng, pair[i], order, k, noise=noise, **context))
    return rows


def _row(rng, top1, order, size, *, n, classes, seeds, noise=None) -> dict[str, Any]:
    half = (2.6 if top1 < 90 else 1.2) + size / 400
    in_order = order == "class_sorted"
    return {
        "noise": noise is not None,
        "noise_id": noise and _name(noise),
        "quality": noise and noise[0],
        "strength": noise and noise[1],
        "where": noise and noise[2],
        "order": order,
        "batch_size": size,
        "top1": top1,
        "top5": min(100.0, top1 + 12.34),
        "nll": round(float(-math.log(top1 / 100) * 2.1), 4),
        "balanced": top1 - 0.3,
        "printed": top1 + (1.9 if in_order else -0.4),
        "printed_top5": min(100.0, top1 + 12.94),
        "n": n,
        "seeds": list(range(seeds)),
        "top1_by_seed": [round(float(top1 + d), 2) for d in rng.normal(0, half / 2, seeds)],
        "interval": [round(top1 - half, 2), min(100.0, round(top1 + half, 2))],
        "purity": (0.96 if size > 50 else 1.0) if in_order else 1 / classes,
        "label_bits_per_batch": size * math.log2(classes) * (0.9 if in_order else 0.1) / 1.5,
        "batch_vote_top1": 99.1 - size / 70 if in_order else 23.7,
    }


def _finding(noise, clean, size) -> dict[str, Any]:
    shuffled, class_sorted = noise[4][size]
    text = (
        f"The {noise[0]} noise (strength {noise[1]:g}) is {noise[3][0]}: in batches of {size} the "
        f"same weights score {class_sorted:.1f} % in class order and {shuffled:.1f} % in random "
        f"orders, against {clean:.1f} % clean."
    )
    verdict = {
        "kind": noise[3][0],
        "kinds": list(noise[3]),
        "text": text,
        "batch_size": size,
        "evidence": _evidence(noise, clean, size),
    }
    keys = {"noise_id": _name(noise), "quality": noise[0], "strength": noise[1], "where": noise[2]}
    return keys | {"batch_size": size, "verdict": verdict}


def _evidence(noise, clean, size) -> dict[str, Any]:
    shuffled, class_sorted = noise[4][size]
    independent = "independent" in noise[3]
    is_effect = {"leak", "order_effect"} & set(noise[3])
    pulls = {
        kind: {"p_toward": 0.0005 if is_effect else 0.4, "p_away": 1.0 if is_effect else 0.6}
        for kind in TARGETS
    }
    return {
        "name": f"the {noise[0]} noise (strength {noise[1]:g})",
        "dependence": {
            "deterministic": True,
            "largest_change": 0.0 if independent else 4.79,
            "allowed": 4.3e-06,
            "batches": 6,
            "examples": 1000,
            "orders": 62,
            "changed": 0 if independent else 987,
            "independent": independent,
        },
        "class_order": {
            "value": class_sorted,
            "mean": shuffled,
            "p_adjusted": 1e-9 if is_effect else 0.4,
            "orders": RANDOM_ORDERS,
            "below": RANDOM_ORDERS if class_sorted > shuffled else 0,
            "above": RANDOM_ORDERS if class_sorted < shuffled else 0,
            "interval": [class_sorted - shuffled - 3, class_sorted - shuffled + 3],
        },
        "interventions": {"mates": size - 1, "pairs": 55, "pulls": pulls},
    }


def _compared(noise, clean, size) -> list[dict[str, Any]]:
    accuracy = {"clean": clean}
    accuracy["noisy, shuffled"], accuracy["noisy, class-sorted"] = noise[4][size]
    rows = []
    for protocol, against in (
        ("noisy, shuffled", "clean"),
        ("noisy, class-sorted", "clean"),
        ("noisy, class-sorted", "noisy, shuffled"),
    ):
        difference = accuracy[protocol] - accuracy[against]
        proven = "independent" in noise[3] and against != "clean"
        half = 0.0 if proven else 2.5
        rows.append(
            {
                "noise_id": _name(noise),
                "batch_size": size,
                "of": protocol,
                "against": against,
                "difference": difference,
                "interval": [difference - half, difference + half],
                "p_value": 0.0001 if abs(difference) > 3 else 0.107,
                "difference_by_seed": [difference - 0.5, difference + 0.5],
                "p_adjusted": 0.0009 if abs(difference) > 3 else 0.214,
                "resolved": abs(difference) > 3,
            }
        )
    return rows


def _orders(rng, noise, clean, size) -> list[dict[str, Any]]:
    shuffled, class_sorted = noise[4][size]
    spread = 0.0 if "independent" in noise[3] else 1.0
    rows = []
    for kind, words, count, mean in (
        ("shuffled", "random orders", RANDOM_ORDERS, shuffled),
        ("class_sorted", "class by class, in the data set's order", 1, class_sorted),
        ("class_sorted, files permuted", "class by class, files permuted", 10, class_sorted),
        ("as given", "the data set's own order", 1, shuffled - 2 * spread),
        ("sorted by own clean predictions", "by own predictions", 10, (clean + shuffled) / 2),
    ):
        values = mean + spread * rng.normal(0, 0.8, count)
        rows.append(
            {
                "noise_id": _name(noise),
                "batch_size": size,
                "order": kind,
                "words": words,
                "orders": count,
                "top1": float(values.mean()),
                "deviation": float(values.std(ddof=1)) if count > 1 else None,
                "lowest": float(values.min()),
                "highest": float(values.max()),
                "random_orders_below": 37 if kind != "as given" else 3,
                "top1_by_order": values.tolist(),
            }
        )
    return rows


def _targets(noise, size) -> list[dict[str, Any]]:
    rows = []
    for target, (words, called, other) in TARGETS.items():
        row = {"noise_id": _name(noise), "batch_size": size, "target": target, "words": words}
        row |= {"mates": size - 1, "pairs": 55, "called": called, "called_other": other}
        rows.append(row | {"logit": 1.55, "p_toward": 0.0123, "p_away": 0.99, "batches": 220})
    return rows


def _purity(rng, noise, size, *, n, classes, seeds) -> list[dict[str, Any]]:
    points = []
    low, high = noise[4][size]
    for mixed in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        purity = (1 - mixed) ** 2 + (1 - (1 - mixed) ** 2) / classes
        top1 = low + (high - low) * purity**0.6
        row = _row(rng, top1, "shuffled", size, n=n, classes=classes, seeds=seeds)
        for key in ("noise", "quality", "strength", "where", "order"):
            del row[key]
        where = {"noise_id": _name(noise), "mixed_share": mixed, "purity": purity}
        points.append(row | where | {"batch_vote_top1": 23.7 + 75.4 * purity**0.5})
    return points


def _per_class(rng, pair, clean, classes, n) -> list[dict[str, Any]]:
    def draw(mean: float) -> np.ndarray:
        share = mean / 100
        return 100 * rng.binomial(n, rng.beta(6 * share, 6 * (1 - share), classes)) / n

    columns = [draw(mean).tolist() for mean in (clean, *pair)]
    names = NAMES if classes == len(NAMES) else [f"glyph {i}" for i in range(classes)]
    return [
        {"class": i, "name": names[i], "n": n, "clean": a, "shuffled": b, "class_sorted": c}
        for i, (a, b, c) in enumerate(zip(*columns, strict=True))
    ]
