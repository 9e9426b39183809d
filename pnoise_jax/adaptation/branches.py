"""CDTrans' three streams through one transformer: source, target, and the fusion of both."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

STREAMS = ("source", "target", "fusion")
_SOURCE, _TARGET, _FUSION = range(3)
_AXIS = "streams"


def run_branches(
    model: nn.Module,
    variables: Any,
    inputs: jax.Array,
    rngs: Sequence[dict[str, jax.Array]],
    **call: Any,
) -> jax.Array:
    """The features of the three streams, in training mode, by one pass through the same weights.

    In every block the fusion's queries are the source's, and its keys and values the target's; the
    result is added to a stream of its own. Noise mixes each stream on its own.

    Args:
      model: a transformer, such as `models.create_model` makes.
      variables: of the model.
      inputs: of the first block, (3, batch, ...), in the order of `STREAMS`.
      rngs: of each stream.
      **call: further keywords of `Classifier.__call__`.

    Returns:
      (3, batch, dim) float32.

    Raises:
      ValueError: some layers have attention of another kind.
    """
    crossed = 0

    def intercept(method: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        nonlocal crossed
        if context.method_name != "weigh_values":
            return method(*args, **kwargs)
        crossed += 1
        query, key, value, *rest = args
        query = _give_fusion(query, _SOURCE)
        key, value = _give_fusion(key, _TARGET), _give_fusion(value, _TARGET)
        return method(query, key, value, *rest, **kwargs)

    def run(x: jax.Array, keys: dict[str, jax.Array]) -> Any:
        return model.apply(
            variables,
            x,
            start=1,
            end="features",
            train=True,
            rngs=keys,
            method="forward",
            **call,
        )

    keys = {name: jnp.stack([of[name] for of in rngs]) for name in rngs[0]}
    with nn.intercept_methods(intercept):
        # A mapped axis and not a longer batch: examples stay on their devices, and noise that mixes
        # a batch finds the batch of one stream.
        features = jax.vmap(run, axis_name=_AXIS)(inputs, keys)
    if crossed != model.num_layers:
        raise ValueError(
            f"{crossed} of the {model.num_layers} layers of {type(model).__name__} have an "
            "attention with a method weigh_values(query, key, value, ...), which CDTrans needs in "
            "each: choose another model, such as vit_b_16"
        )
    return features


def _give_fusion(x: jax.Array, origin: int) -> jax.Array:
    """x of this stream; in the fusion's place, x of the stream of origin."""
    everyone = lax.all_gather(x, _AXIS)
    return jnp.where(lax.axis_index(_AXIS) == _FUSION, everyone[origin], x)


class BnNeck(nn.Module, kw_only=True):
    """A batch norm in front of the last dense layer (https://arxiv.org/abs/1903.07071).

    The norm has a scale and no bias, and the dense layer has none either. The normalised features
    are stored as the intermediate "neck".

    Attributes:
      num_classes: number of logits.
      train: whether to normalise by the batch, and to update the running statistics.
    """

    num_classes: int
    train: bool = False

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features (batch, dim) to logits (batch, num_classes), float32."""
        norm = nn.BatchNorm(
            use_running_average=not self.train,
            momentum=0.9,
            epsilon=1e-5,
            use_bias=False,
            dtype=jnp.float32,
            name="norm",
        )
        x = norm(features)
        self.sow("intermediates", "neck", x)
        init = nn.initializers.normal(0.001)
        return nn.Dense(self.num_classes, use_bias=False, kernel_init=init, name="dense")(x)
