"""Loss terms, each a float32 mean over a batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: Any, label_smoothing: float = 0.0) -> jax.Array:
    """Returns the cross-entropy of logits (batch, classes) with labels (batch,), in nats."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    targets = optax.smooth_labels(targets, label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def domain_loss(source_logits: jax.Array, target_logits: jax.Array) -> jax.Array:
    """Returns the binary cross-entropy of a discriminator, in nats; both domains have equal weight.

    Args:
      source_logits: logits for the source, of any shape; positive is right.
      target_logits: logits for the target, of any shape; negative is right.
    """
    source = optax.sigmoid_binary_cross_entropy(source_logits, jnp.ones_like(source_logits))
    target = optax.sigmoid_binary_cross_entropy(target_logits, jnp.zeros_like(target_logits))
    return (source.mean() + target.mean()) / 2


def domain_accuracy(source_logits: jax.Array, target_logits: jax.Array) -> jax.Array:
    """Returns the percentage of examples whose domain a discriminator gets right; 50 is chance."""
    source = (source_logits > 0).mean(dtype=jnp.float32)
    target = (target_logits <= 0).mean(dtype=jnp.float32)
    return 50 * (source + target)


def information_maximisation(logits: jax.Array) -> jax.Array:
    """Returns the mean entropy minus the entropy of the mean prediction, in bits.

    This is equation 10 of TVT, from SHOT. It falls as predictions become more confident and more
    different from each other.

    Args:
      logits: (batch, classes).
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    mean_entropy = -(p * log_p).sum(-1).mean()
    mean = p.mean(axis=0)
    entropy_of_mean = jax.scipy.special.entr(mean).sum()
    return (mean_entropy - entropy_of_mean) / jnp.log(jnp.float32(2))


def binary_entropy(logits: jax.Array) -> jax.Array:
    """Returns the entropy in bits of a binary decision, given its logit; 1 at a logit of 0."""
    p = jax.nn.sigmoid(logits)
    bits = -(p * jax.nn.log_sigmoid(logits) + (1 - p) * jax.nn.log_sigmoid(-logits))
    return bits / jnp.log(jnp.float32(2))


def confident_divergence(
    logits: jax.Array, other_logits: jax.Array, *, threshold: float
) -> jax.Array:
    """Returns the mean KL(p || q) in nats over the rows where p is confident; 0 if there are none.

    This is the self-refinement loss of SSRT (https://arxiv.org/abs/2204.07683).

    Args:
      logits: logits of p, (batch, classes).
      other_logits: logits of q, of the same shape. Gradients flow through both p and q.
      threshold: p is confident in a row if its largest probability is above this.
    """
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(other_logits)
    p = jnp.exp(log_p)
    kept = (p.max(-1) > threshold).astype(jnp.float32)
    divergence = (p * (log_p - log_q)).sum(-1)
    return (kept * divergence).sum() / jnp.maximum(kept.sum(), 1)
