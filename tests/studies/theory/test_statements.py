"""Each statement of docs/theory.md holds, and the page has its figures."""

import math
import pathlib

import numpy as np
import pytest
from scipy import stats

from pnoise_jax import noise
from pnoise_jax.noise import information
from pnoise_jax.studies import theory
from pnoise_jax.studies.theory import statements
from pnoise_jax.studies.theory.toy import measure_accuracy

PAGE = (pathlib.Path(__file__).parents[3] / "docs" / "theory.md").read_text()
K = statements.K


@pytest.fixture(scope="module")
def findings():
    return {statement.__name__: statement() for statement in theory.STATEMENTS}


def figures(finding, column):
    return dict(
        zip([row[0] for row in finding.rows], [row[column] for row in finding.rows], strict=True)
    )


def test_the_page_has_every_table(findings):
    for number, finding in enumerate(findings.values(), start=1):
        assert finding.number == number
        assert finding.markdown() in PAGE, finding.title


def test_the_right_conditional_entropy_leaves_no_gain(findings):
    finding = findings["right_entropy"]
    np.testing.assert_allclose(list(figures(finding, 2).values()), 0, atol=1e-9)
    published = figures(finding, 1)
    assert published["optimal"] == pytest.approx((K - 1) * math.log(K + 1), rel=1e-6)
    assert published["halving every feature"] == pytest.approx(K * math.log(2))


def test_random_labels_score_the_same(findings):
    finding = figures(findings["independence_of_labels"], 1)
    dependent, random = (
        finding["optimal, labels that depend on X"],
        finding["optimal, random labels"],
    )
    assert dependent == pytest.approx(random, abs=1e-9)
    assert finding["optimal, 64 features an example"] == pytest.approx(64 * random, rel=1e-6)


def test_eq_20_is_not_a_maximum(findings):
    finding = findings["no_maximum"]
    assert set(figures(finding, 1).values()) == {"none"}
    nats = list(figures(finding, 2).values())
    assert nats == sorted(nats)
    bound = noise.Optimal().mutual_information(K)
    assert sum(value > bound + 2 for value in nats) == 3


def test_the_gain_exceeds_the_entropy_of_the_labels(findings):
    rows = {name: (gain, labels) for name, gain, labels in findings["units"].rows}
    gain, labels = rows["a batch of 64, 10 classes"]
    assert gain == pytest.approx(63 * math.log(65))
    assert labels == pytest.approx(64 * math.log(10))
    assert gain > labels
    gain, labels = rows["ImageNet's validation set, 1 000 classes"]
    assert (round(gain, -3), round(labels, -3)) == (541_000, 345_000)


def test_no_mutual_information_is_negative_and_a_fixed_q_has_none(findings):
    finding = findings["not_mutual_information"]
    gaussian, pepper, _ = figures(finding, 1).values()
    assert gaussian < 0
    assert pepper < 0
    np.testing.assert_allclose(list(figures(finding, 2).values()), 0, atol=1e-12)
    generator = np.random.default_rng(0)
    joints = generator.dirichlet(np.full(12, 0.2), 200).reshape(-1, 3, 4)
    assert min(map(information.mutual_information, joints)) >= 0


def test_eq_10_is_exact_for_one_shared_scalar_only(findings):
    (_, formula, shared, _), (_, _, independent, _) = findings["shared_noise"].rows
    assert formula == pytest.approx(shared, abs=1e-12)
    assert independent < formula - 1
    assert all(row[3] < 0 for row in findings["shared_noise"].rows)  # both lose information


def test_eq_15_is_exact_only_where_nothing_is_lost(findings):
    zero, replaced, injective = findings["salt_and_pepper"].rows
    assert zero[1:] == pytest.approx((-1.0397, 0, 0), abs=1e-4)
    flip = stats.entropy([0.25, 0.75])
    assert replaced[2:] == pytest.approx((-flip, -flip))
    assert injective[2] == pytest.approx(injective[1])
    assert injective[3] == pytest.approx(0, abs=1e-12)


def test_one_example_gains_only_from_mates_of_its_label(findings):
    finding = findings["example_by_example"]
    nats = list(figures(finding, 1).values())
    clean, independent, pure = nats[0], nats[1:3], nats[3:]
    assert max(independent) < clean < min(pure)
    assert max(pure) < math.log(2)
    for _, _, exact, simulated in finding.rows:
        assert simulated == pytest.approx(exact, abs=0.15)


# The toy


@pytest.mark.parametrize("a", [0.3, 1.0])
@pytest.mark.parametrize("k", [2, 5, 10])
def test_the_toy_matches_its_closed_form(k, a):
    for quality, expected in (
        (noise.Optimal(), a * (k + 1) / math.sqrt(k + 3)),
        (noise.CyclicShift(0.3), a / math.sqrt(0.58)),
        (noise.CyclicShift(0.0), a),
        (noise.Optimal((k + 1) / k), a * math.sqrt(k)),
    ):
        weights = np.eye(k)[0] + np.asarray(quality.matrix(k), float)[0]
        pure = theory.read_example(weights, a, "pure")
        assert pure.accuracy == pytest.approx(stats.norm.cdf(expected), abs=1e-6)
        # An example tells no more than all mates of its label tell together.
        assert pure.accuracy <= stats.norm.cdf(a * math.sqrt(k)) + 1e-6


def test_the_toys_mixture_by_enumeration_and_monte_carlo():
    weights = np.array([0.4, 0.3, -0.2, 0.1])
    signs = 2.0 * np.array(np.unravel_index(np.arange(8), (2, 2, 2))).T - 1
    means = weights[0] + signs @ weights[1:]
    expected = stats.norm.cdf(means / np.linalg.norm(weights)).mean()
    exact = theory.read_example(weights, 1.0, "random")
    assert exact.accuracy == pytest.approx(expected)

    generator = np.random.default_rng(0)
    y = generator.choice([-1.0, 1.0], (200_000, 4))
    x = (y + generator.normal(size=y.shape)) @ weights
    scale = np.linalg.norm(weights)
    right, wrong = (
        stats.norm.pdf(x[:, None], sign * y[:, :1] * means, scale).mean(1) for sign in (1, -1)
    )
    sampled = np.log(2 * right / (right + wrong)).mean()
    assert exact.nats == pytest.approx(sampled, abs=0.01)


@pytest.mark.parametrize("seed", range(10))
def test_independent_mates_never_add_information(seed):
    weights = np.random.default_rng(seed).normal(size=7)
    clean = theory.read_example(np.ones(1), 1.0, "random")
    assert theory.read_example(weights, 1.0, "random").nats <= clean.nats + 1e-9


def test_the_simulation_uses_the_noise_of_the_package():
    for mates in ("random", "pure"):
        exact = theory.read_example(np.full(5, 1 / 6) + np.eye(5)[0] / 6, 0.7, mates)
        measured = measure_accuracy(noise.Optimal(), 5, 0.7, mates, batches=20_000, seed=1)
        assert measured == pytest.approx(exact.accuracy, abs=0.01)


# The probe


def toy_features(quality, mates, n=6000):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, n)
    if mates == "pure":
        labels = np.repeat(labels[: n // K], K)
    x = 2.0 * labels[:, None] - 1 + generator.normal(size=(n, 1))
    mixed = np.asarray(noise.LinearTransform(quality, group_size=K)(None, x.astype(np.float32)))
    return mixed, labels, np.arange(n) // K


@pytest.mark.parametrize("mates", ["random", "pure"])
def test_the_probe_bounds_the_toys_information(mates):
    for quality in (noise.CyclicShift(0.0), noise.CyclicShift(0.3), noise.Optimal()):
        weights = np.eye(K)[0] + np.asarray(quality.matrix(K), float)[0]
        exact = theory.read_example(weights, 1.0, mates).nats
        estimate = theory.label_information(*toy_features(quality, mates))
        assert estimate.interval[0] <= exact
        assert estimate.nats == pytest.approx(exact, abs=0.03)


def test_the_probe_finds_nothing_in_unrelated_features():
    _, labels, batches = toy_features(noise.Optimal(), "random")
    features = np.random.default_rng(1).normal(size=(len(labels), 5))
    assert theory.label_information(features, labels, batches).nats < 0.001


def test_the_probe_needs_batches_of_every_class():
    features, labels = np.zeros((40, 2)), np.repeat([0, 1], 20)
    with pytest.raises(ValueError, match="class 0 is in 1 batches, but the probe needs 5"):
        theory.label_information(features, labels, np.repeat([0, 1], 20))
