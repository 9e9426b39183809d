"""The paper's closed forms (eq. 8-15), and what follows from the definitions instead.

X is the representations of k examples, one number each, and Y is their labels; as in the paper,
they are assumed to be jointly normal. X' is X with noise. A covariance lists Y first, then X.
"""

import math
from typing import Any

import numpy as np

from pnoise_jax.noise import checks
from pnoise_jax.noise.information import arrays
from pnoise_jax.noise.information.discrete import entropy
from pnoise_jax.noise.information.gaussian import Normal
from pnoise_jax.noise.quality import Optimal

_CONTRACTION = float(np.finfo(np.float32).eps)  # below this, I + Q is singular in float32


def latent_task_entropy(clean: Any, noisy: Any, split: int) -> float:
    """``H(T; X') = H(Y, X') - H(X)`` in nats, as in eq. 8, 9 and 12.

    The paper marks this step as different from a conditional entropy, which would subtract H(X').

    Args:
      clean, noisy: covariances of (Y, X) and of (Y, X'), of the same size.
      split: how many variables Y has.

    Raises:
      ValueError: as in `gaussian_conditional_entropy`, or if the sizes differ.
    """
    clean, noisy = _read_pair(clean, noisy, split)
    return noisy.entropy() - clean.entropy(slice(split, None))


def latent_gain(clean: Any, noisy: Any, split: int) -> float:
    """``MI(T, e) = H(Y, X) - H(Y, X')`` in nats: the second line of eq. 10, 13 and 15.

    Eq. 4 becomes this with `latent_task_entropy`. For ``X' = (I + Q) X`` it is
    ``-log |det(I + Q)|``, whatever Y is. Assumes, like eq. 10 and 13, that Y and X are jointly
    normal.

    Args:
      clean, noisy: covariances of (Y, X) and of (Y, X'), of the same size.
      split: how many variables Y has.

    Raises:
      ValueError: as in `latent_task_entropy`.
    """
    clean, noisy = _read_pair(clean, noisy, split)
    return clean.entropy() - noisy.entropy()


def conditional_gain(clean: Any, noisy: Any, split: int) -> float:
    """``H(Y | X) - H(Y | X') = I(Y; X') - I(Y; X)`` in nats: eq. 4 with conditional entropies.

    It is 0 for every invertible ``X' = (I + Q) X``, and at most 0 for every X' that is computed
    from X without looking at Y (the data processing inequality).

    Args:
      clean, noisy: covariances of (Y, X) and of (Y, X'), of the same size.
      split: how many variables Y has.

    Raises:
      ValueError: as in `latent_task_entropy`.
    """
    clean, noisy = _read_pair(clean, noisy, split)
    of_x = slice(split, None)
    return (clean.entropy() - clean.entropy(of_x)) - (noisy.entropy() - noisy.entropy(of_x))


def gaussian_noise_f(
    noise_variance: float, x_variances: Any, y_variances: Any, covariances: Any
) -> float:
    """f of eq. 11: 1 minus the argument's denominator in eq. 10; negative, or 0 without noise.

    Assumes that examples are independent, that each pair (X_i, Y_i) is jointly normal, and that one
    scalar noise is added to all k examples: the covariance of the noise is its variance times a
    matrix of ones. (For independent noise, compare determinants: `latent_gain`.) Its ``lambda`` is
    ``s^2 / (1 + s^2 sum_i 1/x_i)``, with the noise variance s^2 and the variances x_i of the X_i.

    Args:
      noise_variance: of e, at least 0.
      x_variances, y_variances: of each example's X_i and Y_i, (k,).
      covariances: of X_i with Y_i, (k,).

    Raises:
      ValueError: a variance is not positive, a covariance is as large as its variances allow or
        larger (the pair is singular), the shapes differ, or f is below the range of float64.
    """
    exponent = _log_one_minus_f(noise_variance, x_variances, y_variances, covariances)
    try:
        return 0.0 - math.expm1(exponent)
    except OverflowError as error:
        raise ValueError(
            f"noise_variance={noise_variance!r}: f is -exp({exponent:.4g}), beyond float64; use "
            "gaussian_noise_gain, its logarithm, or variances closer to one another"
        ) from error


def gaussian_noise_gain(
    noise_variance: float, x_variances: Any, y_variances: Any, covariances: Any
) -> float:
    """MI(T, e) of Gaussian noise in nats (eq. 10); never positive.

    Assumptions, arguments and errors are those of `gaussian_noise_f`, except for the last error:
    the gain is finite even if f is not. A mutual information is never negative, so this is not one.
    """
    exponent = _log_one_minus_f(noise_variance, x_variances, y_variances, covariances)
    return 0.0 - exponent / 2


def salt_and_pepper_gain(probability: float) -> float:
    """MI(T, e) of salt-and-pepper noise on one element, ``-H(e)`` in nats (eq. 15).

    e is the maximum, the minimum, or nothing, with probabilities alpha/2, alpha/2 and 1 - alpha
    (eq. 18). Assumes that e is independent of X and Y, and that (X, e) can be read from the noisy
    X'. (If so, X can be read too, and nothing is lost.) The gains of several elements add up.

    Args:
      probability: alpha, in [0, 1].

    Raises:
      ValueError: probability is not in [0, 1].
    """
    alpha = arrays.number_within("probability", probability, 0, 1)
    return 0.0 - entropy([alpha / 2, alpha / 2, 1 - alpha])


def solve_quality(k: int, nats: float) -> Optimal:
    """A quality matrix that meets every constraint of eq. 14 and has this mutual information.

    Eq. 14 itself has no solution: ``I + Q = e I + (1 - e) 1 1^T / k`` meets its constraints for
    each e in (0, 1] and has ``-(k - 1) log e`` nats, so there is no maximum. Eq. 19 is the case
    e = 1/(k + 1). No matrix can have less than 0 nats: with rows of L1 norm 1, ``|det(I + Q)|`` is
    at most 1 (Hadamard's inequality).

    Args:
      k: the number of examples that are mixed.
      nats: the mutual information by eq. 13.

    Returns:
      That matrix, which is `Optimal` with the strength ``(1 - e)(k + 1) / k``.

    Raises:
      ValueError: k is 1, where no Q has any mutual information; nats is below 0; or nats is so high
        that I + Q would be singular in float32, in which noises compute.
    """
    checks.require_count("k", k)
    if k == 1:
        raise ValueError("k=1: one example has no other to mix with; give k of at least 2")
    most = -(k - 1) * math.log(_CONTRACTION)
    why = f"; the constraints rule out less, and with more I+Q is singular in float32 for k={k}"
    contraction = math.exp(-arrays.number_within("nats", nats, 0, most, why) / (k - 1))
    return Optimal(strength=(1 - contraction) * (k + 1) / k)


def _log_one_minus_f(noise_variance: float, x: Any, y: Any, c: Any) -> float:
    """``log(1 - f)``, at least 0: in logarithms throughout, since f may be beyond float64."""
    x, squared = _read_examples(x, y, c)
    variance = arrays.number_within("noise_variance", noise_variance, 0, np.inf)
    if not variance:
        return 0.0
    ratios = math.log(variance) - np.log(x)
    with np.errstate(divide="ignore"):  # -inf where X_i and Y_i are independent
        weights = np.log(squared) - np.log1p(-squared)
    spread = np.logaddexp(0, np.logaddexp.reduce(ratios))
    coupling = np.logaddexp.reduce(ratios + weights) - spread
    return float(spread + np.logaddexp(0, coupling))  # 1 - f is a product of these two


def _read_pair(clean: Any, noisy: Any, split: int) -> tuple[Normal, Normal]:
    first, second = (
        Normal.read(name, value, split=split)
        for name, value in (("clean", clean), ("noisy", noisy))
    )
    if first.covariance.shape != second.covariance.shape:
        raise ValueError(
            f"noisy has shape {second.covariance.shape} and clean {first.covariance.shape}: give "
            "covariances of the same variables"
        )
    return first, second


def _read_examples(x: Any, y: Any, c: Any) -> tuple[np.ndarray, np.ndarray]:
    """The variances of X and the squared correlations of k pairs, each (k,)."""
    named = {"x_variances": x, "y_variances": y, "covariances": c}
    named = {name: arrays.real_numbers(name, value) for name, value in named.items()}
    shapes = {value.shape for value in named.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        listed = ", ".join(f"{name} {value.shape}" for name, value in named.items())
        raise ValueError(f"shapes differ or are not (k,): {listed}; give a number for each example")
    for name in ("x_variances", "y_variances"):
        if (named[name] <= 0).any():
            i = int(np.argmax(named[name] <= 0))
            raise ValueError(f"{name}[{i}]={named[name][i]:g}: a variance is positive")
    x, y, c = named.values()
    with np.errstate(over="ignore"):  # infinity is rejected below, too
        squared = (c / np.sqrt(x) / np.sqrt(y)) ** 2
    if (squared >= 1).any():
        i = int(np.argmax(squared >= 1))
        raise ValueError(
            f"covariances[{i}]={c[i]:g}: with variances of {x[i]:g} and {y[i]:g} the pair is "
            f"singular, or impossible; give one within {math.sqrt(x[i]) * math.sqrt(y[i]):g} of 0"
        )
    return x, squared
