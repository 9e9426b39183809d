"""The losses that attacks increase at test time.

Cross-entropy alone can mislead: where logits are large, its gradients vanish, or point away from
the nearest mistake. The signs of the margin's gradients do not depend on the scale of the logits
(N. Carlini, D. Wagner, https://arxiv.org/abs/1608.04644; F. Croce, M. Hein,
https://arxiv.org/abs/2003.01690).
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

Loss = Literal["cross_entropy", "margin"]
LOSSES: tuple[Loss, ...] = ("cross_entropy", "margin")
BLIND = "blind"  # not a loss of the model: a random direction, which an attack must beat


def total(name: str, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The sum over examples: with a mean, gradients would be divided by the batch size.

    Args:
      name: one of `LOSSES`: "margin" is the largest wrong logit minus the true one.
      logits: (batch, classes).
      labels: (batch,) int32.
    """
    logits = logits.astype(jnp.float32)
    if name == "cross_entropy":
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()
    is_true = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    true = jnp.where(is_true, logits, 0).sum(axis=1)
    return (jnp.where(is_true, -jnp.inf, logits).max(axis=1) - true).sum()


def require(losses: tuple[str, ...]) -> None:
    """Raises ValueError unless all are known."""
    known = (*LOSSES, BLIND)
    if not losses or not isinstance(losses, tuple) or not set(losses) <= set(known):
        raise ValueError(f"losses={losses!r}: give a tuple of some of {', '.join(known)}")
