"""CDTrans' three streams through one transformer: source, target, and the fusion of both."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

STREAMS = ("source", "target", "fusion")
_SOURCE, _TARGET, _FUSION = range(3)
_ATTENDED = "attended"  # the collection of the inputs of attention, and their name in it


def run_branches(
    model: nn.Module,
    variables: Any,
    inputs: jax.Array,
    rngs: Sequence[dict[str, jax.Array]],
    **call: Any,
) -> jax.Array:
    """Returns the features of the three streams, in training mode, with shared weights.

    In every block, the fusion attends with the source's queries to the target's keys and values,
    and adds the result to its own stream. Noise that mixes examples mixes each stream separately.

    Args:
      model: a transformer, for example from `models.create_model`.
      variables: the model's variables.
      inputs: inputs to the first block, (3, batch, ...), in the order of `STREAMS`.
      rngs: the keys of each stream, by name.
      **call: other keyword arguments of `Classifier.__call__`.

    Returns:
      The features, (3, batch, dim) float32.

    Raises:
      ValueError: a layer has no attention with a method `weigh_values`.
    """

    def run(variables: Any, x: jax.Array, keys: dict[str, jax.Array]) -> Any:
        return model.apply(
            variables,
            x,
            start=1,
            end="features",
            train=True,
            rngs=keys,
            method="forward",
            mutable=[] if _ATTENDED in variables else [_ATTENDED],
            **call,
        )

    keys = {name: jnp.stack([each[name] for each in rngs[:_FUSION]]) for name in rngs[0]}
    with nn.intercept_methods(_store_attended):
        # vmap instead of a longer batch: examples stay on their devices, and noise that mixes a
        # batch sees only one stream.
        both, stored = jax.vmap(run, in_axes=(None, 0, 0))(variables, inputs[:_FUSION], keys)
    attended = jax.tree.map(_cross, stored.get(_ATTENDED, {}), is_leaf=_is_attended)
    if (crossed := len(jax.tree.leaves(attended, is_leaf=_is_attended))) != model.num_layers:
        raise ValueError(
            f"{crossed} of the {model.num_layers} layers of {type(model).__name__} have an "
            "attention with a method weigh_values(query, key, value, ...), which CDTrans needs in "
            "every layer: choose another model, such as vit_b_16"
        )
    with nn.intercept_methods(_use_attended):
        # A separate pass, so that the compiler can drop the unused queries, keys and values.
        fusion, _ = run({**variables, _ATTENDED: attended}, inputs[_FUSION], rngs[_FUSION])
    return jnp.concatenate([both, fusion[None]])


def _store_attended(method: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """Stores the query, key and value of each attention."""
    if context.method_name == "weigh_values":
        context.module.sow(_ATTENDED, _ATTENDED, args[:3], reduce_fn=lambda _, last: last)
    return method(*args, **kwargs)


def _use_attended(method: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """Runs each attention on the inputs stored for it."""
    if context.method_name != "weigh_values":
        return method(*args, **kwargs)
    stored = context.module.get_variable(_ATTENDED, _ATTENDED)
    return method(*stored, *args[3:], **kwargs)


def _is_attended(x: Any) -> bool:
    return isinstance(x, tuple)


def _cross(attended: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
    """Combines the source's query with the target's key and value; each input is (2, ...)."""
    query, key, value = attended
    return query[_SOURCE], key[_TARGET], value[_TARGET]


class BnNeck(nn.Module, kw_only=True):
    """A batch norm in front of the last dense layer (https://arxiv.org/abs/1903.07071).

    The norm has a scale but no bias, and the dense layer has no bias either. The normalised
    features are stored as the intermediate "neck". The running variance averages the biased
    variance of each batch, as always in Flax; PyTorch averages the unbiased one, which is larger by
    a factor of n/(n-1) for n rows.

    Attributes:
      num_classes: number of logits.
      train: whether to normalise by the statistics of the batch and update the running ones.
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
            use_fast_variance=False,  # E[x^2] - E[x]^2 loses precision if features are far from 0
            dtype=jnp.float32,
            name="norm",
        )
        x = norm(features)
        self.sow("intermediates", "neck", x)
        init = nn.initializers.normal(0.001)
        return nn.Dense(self.num_classes, use_bias=False, kernel_init=init, name="dense")(x)
