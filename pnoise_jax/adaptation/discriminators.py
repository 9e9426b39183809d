"""Domain discriminators and the reversal of their gradient."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax.adaptation.losses import binary_entropy


@jax.custom_vjp
def reverse_gradient(x: jax.Array, coefficient: jax.Array) -> jax.Array:
    """Returns x, and multiplies its gradient by ``-coefficient``.

    This is the gradient reversal layer of DANN (https://arxiv.org/abs/1505.07818).

    Args:
      x: an array of any shape.
      coefficient: a scalar; may be traced. Its gradient is 0.
    """
    del coefficient
    return x


def _forward(x, coefficient):
    return x, coefficient


def _backward(coefficient, gradient):
    return (-coefficient * gradient).astype(gradient.dtype), jnp.zeros_like(coefficient)


reverse_gradient.defvjp(_forward, _backward)


def reversal_coefficient(progress: jax.Array, *, steepness: float = 10.0) -> jax.Array:
    """Returns 2 / (1 + exp(-steepness * progress)) - 1, which rises from 0 to about 1.

    See section 5.2.2 of DANN (https://arxiv.org/abs/1505.07818).

    Args:
      progress: the finished fraction of the training, a scalar of at least 0.
      steepness: how fast the coefficient rises.
    """
    return 2 * jax.nn.sigmoid(steepness * progress) - 1


class Discriminator(nn.Module, kw_only=True):
    """Three dense layers with ReLU and dropout between them, as in TVT.

    Attributes:
      hidden_dim: number of features of the two hidden layers.
      dropout: dropout rate after each hidden layer; uses the "dropout" stream.
      train: whether dropout is on.
    """

    hidden_dim: int
    dropout: float = 0.5
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (..., dim) to logits (...,), positive for the source."""
        dense = functools.partial(nn.Dense, kernel_init=nn.initializers.xavier_normal())
        x = x.astype(jnp.float32)
        for number in (1, 2):
            x = nn.relu(dense(self.hidden_dim, name=f"hidden_{number}")(x))
            x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        return dense(1, name="out")(x)[..., 0]


class TransferGate(nn.Module, kw_only=True):
    """Computes how transferable each patch is: the entropy of a domain discriminator on its keys.

    TVT (https://arxiv.org/abs/2108.05988) uses it in the last block, in training and inference. The
    discriminator's output is stored as the intermediate "domain_logits". Its gradient is reversed
    before it reaches the keys; the factor is "reversal" in the collection "coefficients".

    Attributes:
      prefix_tokens: number of tokens before the patches; their factor is 1.
      detach: whether to stop the gradient at the factors. TVT's published code does not, so its
        classification loss also trains the discriminator.
      dropout: dropout rate of the discriminator.
      train: whether dropout is on.
    """

    prefix_tokens: int
    detach: bool = True
    dropout: float = 0.5
    train: bool = False

    @nn.compact
    def __call__(self, key: jax.Array) -> jax.Array:
        """Maps keys (batch, tokens, heads, head_dim) to factors (batch, tokens, heads)."""
        coefficient = self.get_variable("coefficients", "reversal", jnp.float32(0))
        patches = reverse_gradient(key[:, self.prefix_tokens :], coefficient)
        discriminator = Discriminator(
            hidden_dim=key.shape[-1],
            dropout=self.dropout,
            train=self.train,
            name="discriminator",
        )
        logits = discriminator(patches)
        self.sow("intermediates", "domain_logits", logits)
        factors = binary_entropy(logits)
        if self.detach:
            factors = jax.lax.stop_gradient(factors)
        ones = jnp.ones((*key.shape[:1], self.prefix_tokens, key.shape[2]), factors.dtype)
        return jnp.concatenate([ones, factors], axis=1)


def find_sown(collections: Any, name: str) -> jax.Array:
    """Returns the only array that modules stored under a name."""
    (leaf,) = (
        leaf
        for path, leaf in jax.tree.leaves_with_path(collections)
        if any(getattr(part, "key", None) == name for part in path)
    )
    return leaf
