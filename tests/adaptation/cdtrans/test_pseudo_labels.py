"""Pseudo labels and pairs, against a plain reading of their formulas."""

import numpy as np
import pytest

from pnoise_jax.adaptation.cdtrans import pseudo_labels


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def reference_labels(features, probabilities):
    """The labels, one example after another, in float64."""
    n = len(probabilities)
    rows = []
    for x in features.astype(np.float64):
        row = np.append(x, 1.0)
        rows.append(row / np.sqrt((row**2).sum()))
    predicted = sorted({int(np.argmax(p)) for p in probabilities})
    centres = {}
    for k in predicted:
        total = sum(probabilities[i, k] * rows[i] for i in range(n))
        centres[k] = total / (1e-8 + sum(probabilities[i, k] for i in range(n)))
    labels = [max(predicted, key=lambda k: cosine(row, centres[k])) for row in rows]
    for k in predicted:
        members = [rows[i] for i in range(n) if labels[i] == k]
        centres[k] = np.mean(members, axis=0) if members else None
    kept = [k for k in predicted if centres[k] is not None]
    return [max(kept, key=lambda k: cosine(row, centres[k])) for row in rows]


@pytest.mark.parametrize("seed", range(3))
def test_pseudo_labels_follow_the_formulas(seed):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(40, 6)).astype(np.float32)
    logits = 2 * generator.normal(size=(40, 5)) + 3 * features[:, :5]
    logits[:, 4] = -20  # never predicted
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = pseudo_labels.pseudo_labels(features, probabilities.astype(np.float32))
    assert labels.dtype == np.int32
    assert labels.tolist() == reference_labels(features, probabilities)
    assert 4 not in labels
    assert labels.tolist() != probabilities.argmax(1).tolist()
    first = pseudo_labels.pseudo_labels(features, probabilities, more_rounds=0)
    assert (first.tolist() != labels.tolist()) == (seed < 2)  # the second round moves some


def test_a_class_that_loses_all_its_examples_is_not_a_label():
    # Class 1 is barely predicted, for the last example only; all lie at the centre of class 0.
    features = np.array([[1, 0], [1, 0], [1, 0.1]], np.float32)
    probabilities = np.array([[0.9, 0.1], [0.51, 0.49], [0.49, 0.51]], np.float32)
    labels = pseudo_labels.pseudo_labels(features, probabilities)
    assert np.isfinite(labels).all()
    assert labels.tolist() == reference_labels(features, probabilities)


def test_the_nearest_is_found_over_blocks(monkeypatch):
    generator = np.random.default_rng(0)
    queries, keys = generator.normal(size=(23, 4)), generator.normal(size=(17, 4))
    expected = [max(range(17), key=lambda j: cosine(q, keys[j])) for q in queries]
    assert pseudo_labels.nearest(queries, keys).tolist() == expected
    monkeypatch.setattr(pseudo_labels, "_BLOCK", 5 * 17)
    assert pseudo_labels.nearest(queries, keys).tolist() == expected


def test_pairs_go_both_ways_and_have_one_label():
    generator = np.random.default_rng(1)
    source, target = generator.normal(size=(20, 3)), generator.normal(size=(12, 3))
    source_labels, target_labels = generator.integers(0, 2, 20), generator.integers(0, 2, 12)
    both = {(max(range(20), key=lambda s: cosine(source[s], target[t])), t) for t in range(12)} | {
        (s, max(range(12), key=lambda t: cosine(source[s], target[t]))) for s in range(20)
    }
    pairs = pseudo_labels.find_pairs(source, target, source_labels, target_labels, same_label=False)
    assert len(both) < 32  # pairs found from both sides appear once
    assert pairs.tolist() == sorted(map(list, both))
    kept = pseudo_labels.find_pairs(source, target, source_labels, target_labels)
    assert kept.tolist() == sorted([s, t] for s, t in both if source_labels[s] == target_labels[t])
    assert 0 < len(kept) < len(pairs)
