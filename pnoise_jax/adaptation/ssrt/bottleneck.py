"""SSRT's head: a bottleneck whose features feed both a classifier and a discriminator."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

FEATURES = "bottleneck_features"  # name of the intermediate


class TwoLayers(nn.Module, kw_only=True):
    """Two dense layers with ReLU and dropout between them: SSRT's classifier and discriminator.

    Attributes:
      hidden_dim: number of features of the hidden layer.
      out_dim: number of features of the output.
      dropout: dropout rate; uses the "dropout" stream.
      train: whether dropout is on.
    """

    hidden_dim: int
    out_dim: int
    dropout: float = 0.5
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, dim) to (batch, out_dim)."""
        init = nn.initializers.normal(0.01)
        x = nn.relu(nn.Dense(self.hidden_dim, kernel_init=init, name="hidden")(x))
        x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        return nn.Dense(self.out_dim, kernel_init=init, name="out")(x)


class BottleneckHead(nn.Module, kw_only=True):
    """A bottleneck with a batch norm, followed by a classifier; stores the bottleneck's features.

    The running variance averages the biased variance of each batch, as always in Flax; PyTorch
    averages the unbiased one, which is larger by a factor of n/(n-1) for n rows.

    Attributes:
      num_classes: number of logits.
      dim: number of features of the bottleneck and of the classifier's hidden layer.
      dropout: dropout rate of both; uses the "dropout" stream.
      train: whether to apply dropout and to normalise by the statistics of the batch.
    """

    num_classes: int
    dim: int
    dropout: float = 0.5
    train: bool = False

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features (batch, features) to logits (batch, num_classes)."""
        x = nn.Dense(
            self.dim,
            kernel_init=nn.initializers.normal(0.005),
            bias_init=nn.initializers.constant(0.1),
            name="bottleneck",
        )(features.astype(jnp.float32))
        x = nn.BatchNorm(
            use_running_average=not self.train,
            momentum=0.9,
            epsilon=1e-5,
            use_fast_variance=False,  # E[x^2] - E[x]^2 loses precision if features are far from 0
            name="norm",
        )(x)
        x = nn.Dropout(self.dropout, deterministic=not self.train)(nn.relu(x))
        self.sow("intermediates", FEATURES, x)
        return TwoLayers(
            hidden_dim=self.dim,
            out_dim=self.num_classes,
            dropout=self.dropout,
            train=self.train,
            name="classifier",
        )(x)


@dataclasses.dataclass(frozen=True)
class HeadFactory:
    """Creates the head of a model. Instances with the same settings are equal.

    Attributes:
      dim, dropout: as in `BottleneckHead`.
    """

    dim: int
    dropout: float

    def __post_init__(self) -> None:
        if type(self.dim) is not int or self.dim < 1:
            raise ValueError(f"bottleneck_dim={self.dim!r}: give a whole number of at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}: give a rate in [0, 1)")

    def __call__(self, *, num_classes: int, train: bool, name: str) -> BottleneckHead:
        """Returns the head as a submodule."""
        return BottleneckHead(
            num_classes=num_classes, dim=self.dim, dropout=self.dropout, train=train, name=name
        )
