"""Entropies and the paper's closed forms against determinants, quadrature and Monte Carlo."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, linalg, stats

from pnoise_jax import noise
from pnoise_jax.noise import information

SEEDS = range(5)


def random_joint(generator, shape=(4, 3)):
    """A joint distribution with an outcome that never happens."""
    p = generator.dirichlet(np.full(math.prod(shape), 0.3)).reshape(shape)
    p[generator.integers(shape[0]), generator.integers(shape[1])] = 0.0
    return p / p.sum()


def random_covariance(generator, n):
    root = generator.normal(size=(n, n + 2))
    return root @ root.T * np.outer(scale := generator.uniform(0.1, 10, n), scale)


def with_x_mapped(covariance, matrix):
    """The covariance of (Y, MX) from that of (Y, X)."""
    k = len(matrix)
    mapped = linalg.block_diag(np.eye(len(covariance) - k), matrix)
    return mapped @ covariance @ mapped.T


# Discrete distributions


@pytest.mark.parametrize("seed", SEEDS)
def test_discrete_measures_equal_scipys_and_their_definitions(seed):
    p = random_joint(np.random.default_rng(seed))
    p_x, p_y = p.sum(1), p.sum(0)
    assert information.entropy(p) == pytest.approx(stats.entropy(p.ravel()))
    column_entropies = [stats.entropy(p[:, j]) for j in range(3)]  # scipy divides by the sum
    assert information.conditional_entropy(p) == pytest.approx(np.dot(p_y, column_entropies))
    divergence = stats.entropy(p.ravel(), np.outer(p_x, p_y).ravel())
    assert information.mutual_information(p) == pytest.approx(divergence)
    assert information.mutual_information(p.T) == pytest.approx(divergence)


@pytest.mark.parametrize("seed", SEEDS)
def test_processing_loses_information_and_relabelling_does_not(seed):
    generator = np.random.default_rng(seed)
    p = random_joint(generator)
    channel = generator.dirichlet(np.ones(3), size=4)  # from x to a noisy x
    noisy = channel.T @ p
    assert 0 <= information.mutual_information(noisy) <= information.mutual_information(p) + 1e-12
    relabelled = p[generator.permutation(4)]
    assert information.conditional_entropy(relabelled.T) == pytest.approx(
        information.conditional_entropy(p.T)
    )


def test_known_discrete_values():
    assert information.entropy(np.full(8, 1 / 8)) == pytest.approx(3 * math.log(2))
    certain = information.entropy([0.0, 1.0, 0.0])
    assert certain == 0
    assert math.copysign(1, certain) == 1  # prints as 0.0
    same = np.eye(3) / 3
    assert information.mutual_information(same) == pytest.approx(math.log(3))
    assert information.conditional_entropy(same) == 0
    independent = np.outer([0.2, 0.8], [0.1, 0.3, 0.6])
    assert information.mutual_information(independent) == pytest.approx(0, abs=1e-15)
    assert information.mutual_information([[0.25], [0.75]]) == 0  # with a constant
    assert information.entropy([1.0 - 1e-300, 1e-300]) == pytest.approx(690.8e-300, rel=1e-3)


def test_probabilities_can_be_float32_and_jax_arrays():
    p = jax.nn.softmax(jax.random.normal(jax.random.key(0), (1000,)))
    assert information.entropy(p) == pytest.approx(stats.entropy(np.asarray(p, float)), rel=1e-6)
    independent = jnp.outer(p[:50] / p[:50].sum(), p[50:70] / p[50:70].sum())
    assert 0 <= information.mutual_information(independent) < 1e-6


# Gaussians


def test_gaussian_entropy_by_quadrature():
    variance = 0.3

    def term(x):
        density = stats.norm.pdf(x, scale=variance**0.5)
        return -density * np.log(density)

    value, _ = integrate.quad(term, -6, 6)
    assert information.gaussian_entropy([[variance]]) == pytest.approx(value, abs=1e-9)


def test_gaussian_information_by_quadrature_and_monte_carlo():
    rho = 0.8
    covariance = np.array([[2.0, rho * math.sqrt(6)], [rho * math.sqrt(6), 3.0]])
    exact = information.gaussian_mutual_information(covariance, 1)
    both = stats.multivariate_normal(cov=covariance)
    parts = stats.norm(scale=2**0.5), stats.norm(scale=3**0.5)

    def log_ratio(x, y):
        points = np.stack([x, y], -1)
        return both.logpdf(points) - parts[0].logpdf(x) - parts[1].logpdf(y)

    x, y = np.meshgrid(np.linspace(-12, 12, 601), np.linspace(-14, 14, 701), indexing="ij")
    integrand = both.pdf(np.stack([x, y], -1)) * log_ratio(x, y)
    quadrature = np.trapezoid(np.trapezoid(integrand, y[0], axis=1), x[:, 0])
    assert exact == pytest.approx(quadrature, abs=1e-6)
    assert exact == pytest.approx(-math.log(1 - rho**2) / 2)
    samples = both.rvs(100_000, random_state=0)
    assert log_ratio(*samples.T).mean() == pytest.approx(exact, abs=0.01)
    conditional = information.gaussian_conditional_entropy(covariance, 1)
    assert conditional == pytest.approx(information.gaussian_entropy([[2 * (1 - rho**2)]]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_gaussian_measures_by_determinants(n, seed):
    generator = np.random.default_rng(seed)
    c = random_covariance(generator, n)
    _, log_det = np.linalg.slogdet(2 * math.pi * math.e * c)
    assert information.gaussian_entropy(c) == pytest.approx(log_det / 2)
    for split in range(1, n):
        schur = c[:split, :split] - c[:split, split:] @ np.linalg.solve(
            c[split:, split:], c[split:, :split]
        )
        conditional = information.gaussian_conditional_entropy(c, split)
        assert conditional == pytest.approx(information.gaussian_entropy(schur), abs=1e-6)
        unconditional = information.gaussian_entropy(c[:split, :split])
        mutual = information.gaussian_mutual_information(c, split)
        assert mutual == pytest.approx(unconditional - conditional, abs=1e-8)
        matrix = generator.normal(size=(n - split,) * 2)
        mapped = with_x_mapped(c, matrix)
        again = information.gaussian_mutual_information(mapped, split)
        assert again == pytest.approx(mutual, abs=1e-6)


def test_singularity_depends_on_the_precision_and_not_on_units():
    assert math.isfinite(information.gaussian_entropy(np.diag([1e-200, 1.0, 1e200])))
    nearly = np.array([[1.0, 1 - 1e-10], [1 - 1e-10, 1.0]])
    assert information.gaussian_mutual_information(nearly, 1) == pytest.approx(11.16, abs=0.01)
    with pytest.raises(ValueError, match="singular"):
        information.gaussian_entropy(nearly.astype(np.float32))
    with pytest.raises(ValueError, match="singular"):  # fewer samples than variables
        information.gaussian_entropy(np.cov(np.random.default_rng(0).normal(size=(8, 5))))


@pytest.mark.parametrize("scale", [5e-324, 1e-320, 1e-300, 1e300, 1.7e308])
def test_gaussian_measures_of_extreme_units_are_exact(scale):
    covariance = np.diag([scale, scale])
    single = (1 + math.log(2 * math.pi) + math.log(scale)) / 2
    assert information.gaussian_entropy(covariance) == pytest.approx(2 * single)
    assert information.gaussian_conditional_entropy(covariance, 1) == pytest.approx(single)
    assert information.gaussian_mutual_information(covariance, 1) == pytest.approx(0, abs=1e-12)


# The paper's closed forms


def pairs(generator, k):
    """Variances of X and Y, and covariances, of k independent pairs; and the joint covariance."""
    x, y = generator.uniform(0.5, 2, (2, k))
    c = generator.uniform(-0.95, 0.95, k) * np.sqrt(x * y)
    return x, y, c, np.block([[np.diag(y), np.diag(c)], [np.diag(c), np.diag(x)]])


def with_noise(covariance, noise_covariance):
    zeros = np.zeros_like(noise_covariance)
    return covariance + np.block([[zeros, zeros], [zeros, noise_covariance]])


@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("variance", [0.0, 0.2, 1.0, 30.0])
def test_equation_10_is_exact_for_one_scalar_shared_by_all_examples(variance, k):
    x, y, c, clean = pairs(np.random.default_rng(k), k)
    shared = with_noise(clean, variance * np.ones((k, k)))
    exact = information.latent_gain(clean, shared, k)
    assert information.gaussian_noise_gain(variance, x, y, c) == pytest.approx(exact, abs=1e-12)
    f = information.gaussian_noise_f(variance, x, y, c)
    assert f <= 0
    assert math.exp(-2 * exact) == pytest.approx(1 - f)
    independent = with_noise(clean, variance * np.eye(k))
    per_example = -np.log1p(variance * y / (x * y - c**2)).sum() / 2
    assert information.latent_gain(clean, independent, k) == pytest.approx(per_example)
    if variance and k > 1:
        assert per_example < exact - 0.01  # the two differ
    # Adding noise loses information either way: the paper's sign is right.
    for noisy in (shared, independent):
        assert information.conditional_gain(clean, noisy, k) <= 1e-12


@pytest.mark.parametrize(
    ("variance", "x", "exact"),
    [
        (1e300, [1e-300], -math.log(1e300)),
        (1e308, [1e-10] * 3, -(math.log(1e308) + math.log(3e10)) / 2),
        (1.0, [1e-320], math.log(1e-320) / 2),
        (1.7e308, [5e-324], (math.log(5e-324) - math.log(1.7e308)) / 2),
        (5e-324, [1.7e308], 0.0),
        (1e-30, [1.0], -5e-31),
    ],
)
def test_equation_10_of_extreme_variances_is_finite(variance, x, exact):
    gain = information.gaussian_noise_gain(variance, x, x, np.zeros(len(x)))
    assert gain == pytest.approx(exact, rel=1e-12)


def test_no_noise_is_zero_and_not_minus_zero():
    for function in (information.gaussian_noise_f, information.gaussian_noise_gain):
        for variance in (0, 5e-324):
            assert str(function(variance, [1e100], [1.0], [0.5])) == "0.0"


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("quality", [noise.Optimal(), noise.CyclicShift(0.3), noise.Reverse(0.2)])
def test_equation_13_and_the_conditional_entropies_that_it_leaves_out(quality, k):
    generator = np.random.default_rng(k)
    m = np.eye(k) + np.asarray(quality.matrix(k), np.float64)
    joint = random_covariance(generator, 2 * k)
    unrelated = linalg.block_diag(joint[:k, :k], joint[k:, k:])  # X tells nothing about Y
    for clean in (joint, unrelated):
        noisy = with_x_mapped(clean, m)
        gain = information.latent_gain(clean, noisy, k)
        assert gain == pytest.approx(quality.mutual_information(k), abs=1e-4)
        by_entropies = information.gaussian_conditional_entropy(clean, k)
        by_entropies -= information.latent_task_entropy(clean, noisy, k)
        assert gain == pytest.approx(by_entropies)
        assert information.conditional_gain(clean, noisy, k) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
def test_equation_15_is_the_entropy_of_the_noise(alpha):
    expected = -stats.entropy([alpha / 2, alpha / 2, 1 - alpha])
    assert information.salt_and_pepper_gain(alpha) == pytest.approx(expected)


@pytest.mark.parametrize("k", [2, 10, 50])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_solve_quality_meets_every_constraint_with_any_number_of_nats(share, k):
    nats = share * 15.9 * (k - 1)
    quality = information.solve_quality(k, nats)
    assert quality.violations(k) == ()
    assert quality.mutual_information(k) == pytest.approx(nats, abs=1e-6)
    contraction = math.exp(-nats / (k - 1))
    i_plus_q = contraction * np.eye(k) + (1 - contraction) / k
    np.testing.assert_allclose(np.eye(k) + np.asarray(quality.matrix(k)), i_plus_q, atol=2e-6)


def test_solve_quality_finds_equation_19():
    for k in (2, 5, 40):
        optimal = information.solve_quality(k, (k - 1) * math.log(k + 1))
        assert optimal.strength == pytest.approx(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fourth_constraint_rules_out_negative_information(seed):
    """Rows of L1 norm 1 have a determinant of at most 1, so eq. 13 is at least 0."""
    rows = np.random.default_rng(seed).normal(size=(6, 6))
    quality = noise.Dense(rows / np.abs(rows).sum(axis=1, keepdims=True) - np.eye(6))
    assert quality.mutual_information(6) >= 0


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: information.entropy([0.5, 0.6]), "p sums to 1.1, not 1: divide"),
        (lambda: information.entropy([0.5, -0.5, 1.0]), r"p\[1\]=-0.5: a probability is not neg"),
        (lambda: information.entropy([0.5, math.nan]), r"p\[1\]=nan: give finite"),
        (lambda: information.entropy([0.0, 0.0]), "p sums to 0, not 1"),
        (lambda: information.entropy(1.0), r"p has shape \(\)"),
        (lambda: information.entropy([]), "p has shape .* empty"),
        (lambda: information.entropy(["a"]), "p has dtype .*: give real"),
        (lambda: information.entropy([0.5 + 0j, 0.5]), "p has dtype complex128"),
        (lambda: information.entropy([[1.0], [0.5, 0.5]]), "p is not an array"),
        (lambda: information.mutual_information([0.5, 0.5]), "joint has shape .* 2 axes"),
        (lambda: information.conditional_entropy(np.ones((2, 2))), "joint sums to 4"),
        (lambda: information.gaussian_entropy(1.0), r"square matrix .* \[\[variance\]\] for one"),
        (lambda: information.gaussian_entropy(np.ones((2, 3))), "square matrix"),
        (lambda: information.gaussian_entropy([[0.0]]), r"covariance\[0, 0\]=0: a variance"),
        (lambda: information.gaussian_entropy([[1, 1], [1, 1]]), r"singular \(rank 1 of 2\)"),
        (lambda: information.gaussian_entropy([[1, 2], [2, 1]]), "not positive definite.* -1"),
        (lambda: information.gaussian_entropy([[1, 0.2], [0.1, 1]]), r"not symmetric: \[0, 1\] is"),
        (lambda: information.gaussian_entropy([[math.inf]]), r"covariance\[0, 0\]=inf"),
        (lambda: information.gaussian_mutual_information([[1.0]], 1), "only one variable"),
        (lambda: information.gaussian_mutual_information(np.eye(3), 3), "split=3: .* from 1 to 2"),
        (lambda: information.gaussian_conditional_entropy(np.eye(3), 0), "split=0: "),
        (lambda: information.latent_gain(np.eye(2), np.eye(4), 1), "noisy has shape"),
        (lambda: information.conditional_gain(np.eye(2), np.ones((2, 2)), 1), "noisy is singular"),
        (lambda: information.gaussian_noise_gain(-1, [1], [1], [0]), "noise_variance=-1: give"),
        (lambda: information.gaussian_noise_gain(1, [1], [1], [1]), r"covariances\[0\]=1: with"),
        (lambda: information.gaussian_noise_f(1, [1, 0], [1, 1], [0, 0]), r"x_variances\[1\]=0"),
        (lambda: information.gaussian_noise_f(1, [1], [1, 1], [0]), "shapes differ"),
        (lambda: information.gaussian_noise_f(1e300, [1e-300], [1], [0]), r"f is -exp\(1382\)"),
        (lambda: information.gaussian_noise_f(1, [1e-320], [1], [1e300]), r"covariances\[0\]=1e"),
        (lambda: information.entropy([1e308, 1e308]), "p sums to inf"),
        (lambda: information.entropy(np.array(["1e400"], np.longdouble)), r"p\[0\]=inf: give"),
        (lambda: information.gaussian_entropy([[1, 1e308], [-1e308, 1]]), "not symmetric"),
        (lambda: information.gaussian_entropy([[1e-320, 1e300], [1e300, 1]]), "not positive def"),
        (lambda: information.salt_and_pepper_gain(1.5), "probability=1.5: give one number from 0"),
        (lambda: information.salt_and_pepper_gain(math.nan), "probability=nan"),
        (lambda: information.solve_quality(1, 1.0), "k=1: one example has no other"),
        (lambda: information.solve_quality(0, 1.0), "k=0: give a whole number"),
        (lambda: information.solve_quality(2, -1.0), "nats=-1.0: give one number from 0 to 15"),
        (lambda: information.solve_quality(2, 100.0), "nats=100.0: .* singular in float32 for k=2"),
        (lambda: noise.Optimal().mutual_information(0), "k=0: give a whole number"),
        (lambda: noise.CyclicShift(0.3).violations(2.5), "k=2.5: give a whole number"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_traced_arrays_are_refused():
    with pytest.raises(ValueError, match=r"p is traced by jax\.jit.*call them outside"):
        jax.jit(information.entropy)(jnp.full(4, 0.25))
    with pytest.raises(ValueError, match="covariance is traced"):
        jax.grad(lambda v: information.gaussian_entropy([[v]]))(1.0)


def test_one_example_has_nothing_to_be_mixed_with():
    for quality in (noise.Optimal(), noise.CyclicShift(0.3), noise.Reverse(0.3)):
        assert quality.mutual_information(1) == pytest.approx(0, abs=1e-12)
        assert quality.violations(1) == ()
