"""The losses that attacks increase at test time.

Cross-entropy alone can mislead: if logits are large, its gradients vanish or point away from the
nearest mistake. The signs of the margin's gradients do not depend on the scale of the logits
(N. Carlini, D. Wagner, https://arxiv.org/abs/1608.04644; F. Croce, M. Hein,
https://arxiv.org/abs/2003.01690).
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

Loss = Literal["cross_entropy", "margin"]
LOSSES: tuple[Loss, ...] = ("cross_entropy", "margin")
BLIND = "blind"  # a random direction instead of a loss of the model; attacks must beat it


def total(name: str, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss summed over examples, so that gradients do not depend on the batch size.

    Args:
      name: one of `LOSSES`; "margin" is the largest logit of a wrong class minus the true logit.
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
    """Raises ValueError unless this is a non-empty tuple of known losses."""
    known = (*LOSSES, BLIND)
    if not losses or not isinstance(losses, tuple) or not set(losses) <= set(known):
        raise ValueError(f"losses={losses!r}: give a tuple of some of {', '.join(known)}")
