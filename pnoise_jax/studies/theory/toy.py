"""A toy problem in which the information about one example's label can be calculated exactly.

The label y is -1 or 1 with equal probability, and an example is ``x = a y + e`` with standard
normal e, so the sign of x is right with probability ``Phi(a)``. Noise replaces x by its row of
``(I + Q) X``, where X is the batch. Batch mates have either independent labels ("random") or the
example's label ("pure").
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from pnoise_jax import noise
from pnoise_jax.noise import information

Mates = Literal["random", "pure"]
_GRID = 4001  # points per integral of a smooth function that is 0 at both ends


@dataclasses.dataclass(frozen=True)
class Example:
    """What one noisy example tells about its label.

    Attributes:
      accuracy: how often its sign is right, as a fraction.
      nats: I(Y_i; X'_i), at most log 2.
    """

    accuracy: float
    nats: float


def read_example(weights: np.ndarray, a: float, mates: Mates) -> Example:
    """Computes the closed form for the first of k examples.

    Given its label, x' is normal with pure mates, and with random mates a mixture over their
    labels.

    Args:
      weights: the first row of ``I + Q``, (k,).
      a: the mean of x for the label 1.
      mates: the labels of the other examples: "random" or "pure".
    """
    means, shares = np.array([weights[0]]), np.ones(1)
    for weight in weights[1:]:
        if mates == "pure":
            means = means + weight
        elif weight:
            means, shares = _merged(np.concatenate([means + weight, means - weight]), shares)
    deviation = float(np.linalg.norm(weights))
    accuracy = float(shares @ scipy.stats.norm.cdf(a * means / deviation))
    far = abs(a) * np.abs(means).max() + 10 * deviation
    x = np.linspace(-far, far, _GRID)
    density = shares @ scipy.stats.norm.pdf(x, a * means[:, None], deviation)
    joint = np.stack([density, density[::-1]])  # of both labels: the grid is symmetric
    return Example(accuracy, information.mutual_information(joint / joint.sum()))


def _merged(means: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges equal means: of 2^k sums of equal weights only k + 1 differ."""
    means, places = np.unique(np.round(means, 12), return_inverse=True)
    return means, np.bincount(places, np.concatenate([shares, shares]) / 2)


def measure_accuracy(
    quality: noise.QualityMatrix, k: int, a: float, mates: Mates, *, batches: int, seed: int
) -> float:
    """Returns the fraction of right signs among simulated examples mixed by LinearTransform."""
    generator = np.random.default_rng(seed)
    shape = (batches, 1 if mates == "pure" else k)
    labels = np.broadcast_to(generator.choice([-1.0, 1.0], shape), (batches, k)).reshape(-1, 1)
    x = jnp.asarray(a * labels + generator.normal(size=labels.shape), jnp.float32)
    transform = noise.LinearTransform(quality, group_size=k)
    noisy = np.asarray(jax.jit(lambda x: transform(None, x))(x))
    return float(np.mean(np.sign(noisy) == labels))
