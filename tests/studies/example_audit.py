"""Audits that nobody measured: made up, in the form of audit.json, to look at and to test with."""

import math
from typing import Any

import numpy as np

DATE = "2026-01-02T03:04:05+00:00"
SITE = "block_input, layer 4, all tokens"
# quality, strength, the site, whether it mixes; top-1 shuffled and class-sorted by batch size.
DIGITS_NOISES = (
    ("optimal", 1.0, SITE, True, {10: (25.1, 98.8), 50: (12.2, 97.2), 100: (10.4, 95.9)}),
    ("cyclic_shift", 0.3, SITE, True, {10: (73.0, 84.2), 50: (72.8, 84.9), 100: (72.7, 85.3)}),
    ("gaussian", 1.0, SITE, False, {10: (74.6, 74.9), 50: (74.4, 74.7), 100: (74.5, 74.4)}),
)
GLYPHS_NOISES = (
    ("optimal", 1.0, "attention_input, layer 8, patch tokens", True, {50: (48.3, 71.9)}),
)


def digits_audit() -> dict[str, Any]:
    """10 classes, 5 seeds, three noises, three batch sizes, with everything that can be there."""
    return make_audit(DIGITS_NOISES, dataset="digits", classes=10, clean=76.1, seeds=5)


def glyphs_audit() -> dict[str, Any]:
    """1000 classes, one seed, one noise, one batch size; no bits, no configuration."""
    audit = make_audit(GLYPHS_NOISES, dataset="glyphs", classes=1000, clean=62.4, seeds=1)
    for row in (*audit["rows"], *audit["purity"]):
        row["label_bits_per_batch"] = None
    return audit | {"config": None}


def bare_audit() -> dict[str, Any]:
    """One seed and noise that mixes nothing: as little as an audit can have."""
    audit = make_audit(DIGITS_NOISES[2:], dataset="digits", classes=10, clean=76.1, seeds=1)
    nothing = dict.fromkeys(("config", "steps", "split", "command"))
    return audit | {"purity": [], "per_class": [], **nothing}


def make_audit(noises, *, dataset: str, classes: int, clean: float, seeds: int) -> dict[str, Any]:
    """An audit with the clean accuracy and the noises given, in percent."""
    rng = np.random.default_rng(0)
    n = 1000 if classes == 10 else 20_000
    grid = {_name(noise): noise for noise in noises}
    rows = [
        _row(rng, clean, order=order, size=size, n=n, classes=classes, seeds=seeds)
        for order in ("shuffled", "class_sorted")
        for size in noises[0][4]
    ]
    for noise in noises:
        rows += _noisy_rows(rng, noise, n=n, classes=classes, seeds=seeds)
    first = next(iter(grid))
    size = next(iter(noises[0][4]))
    return {
        "version": 1,
        "question": f"Does noise at inference help vit_ti_16 on {dataset}, or does it read labels "
        "from the order of the test set?",
        "verdict": _verdict(noises[0], clean, size),
        "findings": [_finding(noise, clean, size) for noise in noises],
        "rows": rows,
        "comparisons": [
            _comparison(name, batch, of, against, clean, noise)
            for name, noise in grid.items()
            for batch in noise[4]
            for of, against in (
                ("noisy, shuffled", "clean"),
                ("noisy, class-sorted", "clean"),
                ("noisy, class-sorted", "noisy, shuffled"),
            )
        ],
        "purity": [
            point
            for noise in noises
            if noise[3]
            for point in _purity(rng, noise, size, clean, classes=classes, seeds=seeds)
        ],
        "per_class": _per_class(rng, noises[0][4][size], clean, classes, n // classes),
        "headline": {"noise_id": first, "batch_size": size},
        "clean_check": {"largest_logit_difference": 1.9e-6, "examples": 256},
        "confidence": 0.95,
        "resamples": 2000,
        "interval_over": "seeds and batches" if seeds > 1 else "batches",
        "seeds": list(range(seeds)),
        "steps": [600] * seeds,
        "dataset": dataset,
        "split": "test",
        "num_classes": classes,
        "n": n,
        "model": "vit_ti_16",
        "seconds": {"clean pass": 1.234, "protocols": 0.87, "intervals": 2.5},
        "device": "cpu",
        "jax": "0.10.2",
        "date": DATE,
        "command": "python -m launch.audit --config=configs/digits.py --workdir=runs/digits",
        "units": {"top1": "percent", "nll": "nats", "label_bits_per_batch": "bits"},
        "config": {
            "model": {"name": "vit_ti_16", "depth": 4},
            "noise": {"preset": "optimal_all", "strength": 1.0, "layer": None},
            "batch_size": 50,
            "betas": [0.9, 0.999],
        },
    }


def _name(noise) -> str:
    return f"{noise[0]} {noise[1]:g} at {noise[2]}"


def _row(rng, top1, *, order, size, n, classes, seeds, noise=None) -> dict[str, Any]:
    half = (2.6 if top1 < 90 else 1.2) + size / 400
    by_seed = [round(float(top1 + d), 2) for d in rng.normal(0, half / 2, seeds)]
    in_order = order == "class_sorted"
    purity = min(1.0, 0.96 if size > 50 else 1.0) if in_order else 1 / classes
    mixes = noise is not None and noise[3]
    return {
        "noise": noise is not None,
        "noise_id": noise and _name(noise),
        "quality": noise and noise[0],
        "strength": noise and noise[1],
        "where": noise and noise[2],
        "order": order,
        "batch_size": size,
        "n": n,
        "top1": top1,
        "top5": min(100.0, top1 + 12.34),
        "nll": round(float(-math.log(top1 / 100) * 2.1), 4),
        "seeds": list(range(seeds)),
        "top1_by_seed": by_seed,
        "interval": [round(top1 - half, 2), min(100.0, round(top1 + half, 2))],
        "purity": purity,
        "label_bits_per_batch": size * math.log2(classes) * (0.9 if in_order else 0.1) / 1.5,
        "batch_vote_top1": (99.1 - size / 70 if in_order else 23.7) if mixes else None,
        "agreement": (97.5 if in_order else 61.3) if mixes else None,
    }


def _noisy_rows(rng, noise, **context) -> list[dict[str, Any]]:
    return [
        _row(rng, top1, order=order, size=size, noise=noise, **context)
        for i, order in enumerate(("shuffled", "class_sorted"))
        for size, top1 in ((size, pair[i]) for size, pair in noise[4].items())
    ]


def _verdict(noise, clean, size) -> str:
    shuffled, class_sorted = noise[4][size]
    if not noise[3]:
        return (
            f"No effect: {noise[0]} noise gives {shuffled:.1f} % in shuffled and "
            f"{class_sorted:.1f} % in class-sorted batches of {size}, {clean:.1f} % without noise."
        )
    return (
        f"The {noise[0]} quality matrix (strength {noise[1]:g}) reads labels from the order of "
        f"the test set: in batches of {size} the same weights score {class_sorted:.1f} % in class "
        f"order and {shuffled:.1f} % shuffled, against {clean:.1f} % without noise; honestly it "
        f"costs {clean - shuffled:.1f} points, and the order alone is worth "
        f"{class_sorted - shuffled:.1f} points."
    )


def _finding(noise, clean, size) -> dict[str, Any]:
    shuffled, class_sorted = noise[4][size]
    honest = "harm" if shuffled < clean - 3 else "no effect"
    return {
        "noise_id": _name(noise),
        "quality": noise[0],
        "strength": noise[1],
        "where": noise[2],
        "batch_size": size,
        "leaks": noise[3],
        "honest": honest,
        "sentence": f"{_name(noise)}: {honest} in shuffled batches ({shuffled:.1f} % against "
        f"{clean:.1f} %); in class order {class_sorted:.1f} %.",
    }


def _comparison(name, size, of, against, clean, noise) -> dict[str, Any]:
    accuracy = {"clean": clean}
    accuracy["noisy, shuffled"], accuracy["noisy, class-sorted"] = noise[4][size]
    found = accuracy[of] - accuracy[against]
    return {
        "noise_id": name,
        "batch_size": size,
        "of": of,
        "against": against,
        "difference": found,
        "interval": [found - 2.5, found + 2.5],
        "p_value": 0.0005 if abs(found) > 3 else 0.214,
        "difference_by_seed": [found - 0.5, found + 0.5],
    }


def _purity(rng, noise, size, clean, *, classes, seeds) -> list[dict[str, Any]]:
    points = []
    low, high = noise[4][size]
    for mixed in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        purity = (1 - mixed) ** 2 + (1 - (1 - mixed) ** 2) / classes
        top1 = low + (high - low) * purity**0.6
        row = _row(rng, top1, order="shuffled", size=size, n=1000, classes=classes, seeds=seeds)
        points.append(
            {
                "noise_id": _name(noise),
                "batch_size": size,
                "mixed_share": mixed,
                "purity": purity,
                "batch_vote_top1": 23.7 + 75.4 * purity**0.5,
                "agreement": 61.3 + 36.2 * purity,
            }
            | {k: row[k] for k in ("top1", "interval", "top1_by_seed", "label_bits_per_batch")}
        )
    return points


def _per_class(rng, pair, clean, classes, n) -> list[dict[str, Any]]:
    def draw(mean: float) -> np.ndarray:
        share = mean / 100
        return 100 * rng.binomial(n, rng.beta(6 * share, 6 * (1 - share), classes)) / n

    accuracies = zip(draw(clean), draw(pair[0]), draw(pair[1]), strict=True)
    return [
        {"class": i, "n": n, "clean": float(a), "shuffled": float(b), "class_sorted": float(c)}
        for i, (a, b, c) in enumerate(accuracies)
    ]
