"""Entropies and mutual information of discrete distributions (eq. 1-7)."""

from typing import Any

import numpy as np

from pnoise_jax.noise.information import arrays


def entropy(p: Any) -> float:
    """``H = -sum p log p`` in nats (eq. 1, discrete).

    For p(Y | X) of one X, it is the task's complexity H(T; X) (eq. 6); for p(Y | X + e), the
    complexity of the task with noise on the image (eq. 7).

    Args:
      p: the probabilities of all outcomes, in any shape; for a joint distribution, the result is
        the joint entropy.

    Raises:
      ValueError: p is not a distribution, or is traced.
    """
    return _expected_log(arrays.probabilities("p", p), 1.0)


def conditional_entropy(joint: Any) -> float:
    """``H(x | y) = -sum p(x, y) log p(x | y)`` in nats (eq. 3), which is ``H(x, y) - H(y)``.

    Args:
      joint: p(x, y), a row for each x and a column for each y.

    Raises:
      ValueError: joint is not a distribution of two variables, or is traced.
    """
    joint = arrays.probabilities("joint", joint, axes=2)
    return _expected_log(joint, joint.sum(axis=0))


def mutual_information(joint: Any) -> float:
    """``MI(x, y) = KL(p(x, y) || p(x) p(y)) = H(x) - H(x | y)`` in nats (eq. 2; eq. 4 of a task).

    It is symmetric and never negative. It is 0 if x and y are independent, and so also if one of
    them is a constant, such as a fixed quality matrix.

    Args:
      joint: p(x, y), a row for each x and a column for each y.

    Raises:
      ValueError: joint is not a distribution of two variables, or is traced.
    """
    joint = arrays.probabilities("joint", joint, axes=2)
    return max(0.0, entropy(joint.sum(axis=1)) - conditional_entropy(joint))


def _expected_log(p: np.ndarray, reference: np.ndarray | float) -> float:
    """``sum p log(reference / p)``, where p is at most the reference; outcomes of p = 0 count 0."""
    happens = p > 0
    logs = np.log(np.broadcast_to(reference, p.shape)[happens]) - np.log(p[happens])
    return max(0.0, float(np.sum(p[happens] * logs)))  # rounding, and -0.0, become 0.0
