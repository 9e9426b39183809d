"""Eight statements about where the paper's derivations depart from the definitions.

Each is a function without arguments that returns its numbers. Information is in nats. Y are the
labels and X the representations of k examples; unless stated otherwise they are jointly normal, as
in the paper.
"""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
from scipy import linalg

from pnoise_jax import noise
from pnoise_jax.noise import information
from pnoise_jax.studies.theory.finding import Finding
from pnoise_jax.studies.theory.toy import Mates, measure_accuracy, read_example

K = 10  # examples in a batch
_CORRELATION = 0.8  # of a label with its example
_VARIANCE = 1.0  # of Gaussian noise, as in eq. 16
_ALPHA = 0.5  # of salt-and-pepper noise
_HALF = noise.Dense(-0.5 * np.eye(K))
_DRAWN = noise.Dense(np.random.default_rng(0).normal(0, 0.5, (K, K)))


def right_entropy() -> Finding:
    """An invertible transform does not change the conditional entropy of the labels."""
    clean = _pairs(_CORRELATION)
    rows = []
    for name, quality in {
        "cyclic shift of 0.3": noise.CyclicShift(0.3),
        "optimal": noise.Optimal(),
        "halving every feature": _HALF,
        "a random Q": _DRAWN,
    }.items():
        noisy = _transformed(clean, _mixing(quality))
        rows.append((name, *_gains(clean, noisy)))
    columns = (f"transform of {K} examples", "gain by eq. 8 and 13", "by conditional entropies")
    return Finding(1, "Subtracting H(X') in place of H(X) leaves no gain", columns, tuple(rows))


def independence_of_labels() -> Finding:
    """Eq. 13 depends only on the matrix."""
    mixing, features = _mixing(noise.Optimal()), 64
    gains = [
        information.latent_gain(clean, _transformed(clean, mixing), K)
        for clean in (_pairs(_CORRELATION), _pairs(0.0))
    ]
    _, log_det = np.linalg.slogdet(np.kron(mixing, np.eye(features)))
    rows = (
        ("optimal, labels that depend on X", gains[0]),
        ("optimal, random labels", gains[1]),
        (f"optimal, {features} features an example", -float(log_det)),
        ("halving every feature", _HALF.mutual_information(K)),
    )
    columns = (f"transform of {K} examples", "gain by eq. 13")
    return Finding(2, "The gain does not depend on the labels", columns, rows)


def no_maximum() -> Finding:
    """Matrices that satisfy every constraint of eq. 14, with more and more nats."""
    qualities = {
        "cyclic shift of 0.3": noise.CyclicShift(0.3),
        "optimal (eq. 19)": noise.Optimal(),
        "cyclic shift of 0.5 − 10⁻⁹": noise.CyclicShift(0.5 - 1e-9),
        "`solve_quality(10, 50)`": information.solve_quality(K, 50),
        "`solve_quality(10, 140)`": information.solve_quality(K, 140),
    }
    rows = tuple(
        (name, "; ".join(quality.violations(K)) or "none", quality.mutual_information(K))
        for name, quality in qualities.items()
    )
    columns = (f"Q for {K} examples", "constraints broken", "eq. 13")
    return Finding(3, "Eq. 14 has no maximum", columns, rows)


def units() -> Finding:
    """The gain can exceed the entropy of all labels."""
    rows = []
    for name, k, classes in (
        ("a batch of 10, 10 classes", 10, 10),
        ("a batch of 64, 10 classes", 64, 10),
        ("ImageNet's validation set, 1 000 classes", 50_000, 1000),
    ):
        label = information.entropy(np.full(classes, 1 / classes))
        rows.append((name, noise.Optimal().mutual_information(k), k * label))
    columns = ("examples", "eq. 20", "entropy of all labels")
    return Finding(4, "The gain can exceed all the information in the labels", columns, tuple(rows))


def not_mutual_information() -> Finding:
    """The values of eq. 10, 13 and 15, and the mutual information of such noise with (X, Y)."""
    clean, task = _pairs(_CORRELATION), np.array([[0.4, 0.1], [0.1, 0.4]])  # p(x, y), binary
    with_noise = linalg.block_diag(clean, [[_VARIANCE]])
    of_pepper = np.outer(task, _pepper_probabilities())
    ones = np.ones(K)
    rows = (
        (
            "Gaussian (eq. 10)",
            information.gaussian_noise_gain(_VARIANCE, ones, ones, _CORRELATION * ones),
            information.gaussian_mutual_information(with_noise, 2 * K),
        ),
        (
            "salt-and-pepper, one element (eq. 15)",
            information.salt_and_pepper_gain(_ALPHA),
            information.mutual_information(of_pepper.reshape(4, 3)),
        ),
        (
            "fixed Q, optimal (eq. 13)",
            noise.Optimal().mutual_information(K),
            information.mutual_information(task.reshape(4, 1)),
        ),
    )
    columns = ("noise", "the paper's MI(T, ε)", "mutual information of ε with the task")
    return Finding(5, "These gains are not mutual information", columns, rows)


def shared_noise() -> Finding:
    """Eq. 10, compared with entropies computed from determinants."""
    clean, ones = _pairs(_CORRELATION), np.ones(K)
    formula = information.gaussian_noise_gain(_VARIANCE, ones, ones, _CORRELATION * ones)
    rows = []
    for name, covariance in {
        "one number, added to all examples": np.ones((K, K)),
        "independent for each example": np.eye(K),
    }.items():
        noisy = clean + linalg.block_diag(np.zeros((K, K)), _VARIANCE * covariance)
        rows.append((name, formula, *_gains(clean, noisy)))
    columns = ("Gaussian noise", "eq. 10", "H(Y, X) − H(Y, X')", "change of I(Y; X)")
    return Finding(6, "Eq. 10 is exact for one shared scalar", columns, tuple(rows))


def salt_and_pepper() -> Finding:
    """Eq. 15, compared with exact joint distributions in small cases where Y is a fair coin."""
    cases: dict[str, tuple[Mapping[int, float], Callable[[float, int], float]]] = {
        "X = 0, multiplied by 1, 2 or 3": ({0: 0.0, 1: 0.0}, lambda x, e: x * (e + 1)),
        "X = Y, replaced by 1, by 0, or kept": (
            {0: 0.0, 1: 1.0},
            lambda x, e: (1.0, 0.0, x)[e],
        ),
        "X = 1 or 2, multiplied by 1, 3 or 9": ({0: 1.0, 1: 2.0}, lambda x, e: x * 3.0**e),
    }
    formula = information.salt_and_pepper_gain(_ALPHA)
    rows = []
    for name, (x_of_y, change) in cases.items():
        clean = _joint_of_coin(x_of_y, lambda x, _: x)
        noisy = _joint_of_coin(x_of_y, change)
        gain = information.entropy(clean) - information.entropy(noisy)
        told = information.mutual_information(noisy) - information.mutual_information(clean)
        rows.append((name, formula, gain, told))
    columns = ("one element", "eq. 15", "H(Y, X) − H(Y, X')", "change of I(Y; X)")
    title = "Eq. 15 holds only where the noise can be undone"
    return Finding(7, title, columns, tuple(rows))


def example_by_example() -> Finding:
    """The toy problem: what one example tells about its label, in closed form and simulated."""
    cases: tuple[tuple[str, noise.QualityMatrix, Mates], ...] = (
        ("clean", noise.CyclicShift(0.0), "random"),
        ("cyclic shift of 0.3, random mates", noise.CyclicShift(0.3), "random"),
        ("optimal, random mates", noise.Optimal(), "random"),
        ("cyclic shift of 0.3, mates of the same label", noise.CyclicShift(0.3), "pure"),
        ("optimal, mates of the same label", noise.Optimal(), "pure"),
        ("the mean (singular), mates of the same label", noise.Optimal((K + 1) / K), "pure"),
    )
    rows = []
    for name, quality, mates in cases:
        exact = read_example(_mixing(quality)[0], 1.0, mates)
        measured = measure_accuracy(quality, K, 1.0, mates, batches=100_000, seed=0)
        rows.append((name, exact.nats, 100 * exact.accuracy, 100 * measured))
    columns = (f"batch of {K}", "I(Y_i; X'_i)", "accuracy, %", "simulated, %")
    return Finding(8, "What changes is what one example tells", columns, tuple(rows))


STATEMENTS: tuple[Callable[[], Finding], ...] = (
    right_entropy,
    independence_of_labels,
    no_maximum,
    units,
    not_mutual_information,
    shared_noise,
    salt_and_pepper,
    example_by_example,
)


def _pairs(correlation: float) -> np.ndarray:
    """Returns the covariance of (Y, X) for K independent pairs of unit variance, (2K, 2K)."""
    return np.kron([[1.0, correlation], [correlation, 1.0]], np.eye(K))


def _mixing(quality: noise.QualityMatrix) -> np.ndarray:
    return np.eye(K) + np.asarray(quality.matrix(K), np.float64)


def _transformed(covariance: np.ndarray, mixing: np.ndarray) -> np.ndarray:
    """Returns the covariance of (Y, MX), where M is ``mixing``."""
    mapped = linalg.block_diag(np.eye(K), mixing)
    return mapped @ covariance @ mapped.T


def _gains(clean: np.ndarray, noisy: np.ndarray) -> tuple[float, float]:
    """Returns the gain as the paper derives it, and by the definition."""
    published = information.latent_gain(clean, noisy, K)
    return published, information.conditional_gain(clean, noisy, K)


def _pepper_probabilities() -> tuple[float, float, float]:
    """Returns the probabilities of the maximum, the minimum, and no change (eq. 18)."""
    return _ALPHA / 2, _ALPHA / 2, 1 - _ALPHA


def _joint_of_coin(
    x_of_y: Mapping[int, float], change: Callable[[float, int], float]
) -> np.ndarray:
    """Returns p(y, x'), (2, outcomes), for a fair coin y and an independent outcome e of noise."""
    p: dict[tuple[int, float], float] = {}
    for y, (e, share) in itertools.product(x_of_y, enumerate(_pepper_probabilities())):
        outcome = y, change(x_of_y[y], e)
        p[outcome] = p.get(outcome, 0.0) + share / 2
    values = sorted({x for _, x in p})
    return np.array([[p.get((y, x), 0.0) for x in values] for y in x_of_y])
