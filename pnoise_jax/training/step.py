"""The state of a run and the step that moves it on: pure functions."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding

from pnoise_jax import evaluation, parallel
from pnoise_jax.training.mixup import Mixing

Metrics = dict[str, jax.Array]
TrainStep = Callable[..., tuple["TrainState", Metrics]]  # of (state, batch, key[, strength])


@flax.struct.dataclass
class TrainState:
    """Everything that a run carries from step to step.

    Attributes:
      step: int32 scalar, the updates made.
      params: parameters, float32.
      batch_stats: moving statistics of the batch norms; empty where there are none.
      opt_state: the optimiser's.
      ema: moving average of params and batch_stats, or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any

    def variables(self) -> dict[str, Any]:
        """What to evaluate the model with: the moving average where there is one."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    images: jax.ShapeDtypeStruct,
    *,
    with_ema: bool,
    imported: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """The state before the first step; a pure function of the key.

    Args:
      images: shape and dtype of a batch of normalised images.
      with_ema: whether to keep a moving average.
      imported: arrays that stand in for those that the model begins with, by path, such as
        "params/head/bias".
    """
    variables = model.init({"params": key}, jnp.zeros(images.shape, images.dtype), train=False)
    if imported:
        flat = traverse_util.flatten_dict(variables, sep="/")
        variables = traverse_util.unflatten_dict(flat | dict(imported), sep="/")
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    averaged = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, averaged) if with_ema else None,
    )


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    label_smoothing: float = 0.0,
    mixing: Mixing | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
    frozen: Callable[[Any], Any] | None = None,
) -> TrainStep:
    """``step(state, batch, key, strength=None) -> state, metrics``, pure; see `jit_train_step`.

    Args:
      model: in training mode it sees normalised images.
      optimizer: of the parameters.
      mean, std: per channel, of images in [0, 1].
      label_smoothing: share of the target spread evenly over all classes.
      mixing: of images and targets, within a micro-batch, before noise enters.
      accumulate: micro-batches per update; the batch's arrays are then (accumulate, ...), gradients
        and metrics are means, and noise mixes within one micro-batch.
      ema_decay: of the moving average; None keeps none. Step t decays by at most (1 + t)/(10 + t),
        as in TensorFlow, so that a short run does not average its initial weights.
      frozen: maps parameters to a tree of bools, True for those that have no gradient: it is not
        computed, and grad_norm is that of the others. Batch norms whose scale is frozen keep their
        running statistics.

    Returns:
      The step. Its batch has "image", uint8 (batch, height, width, channels), and "label", int32
      (batch,); the key is the run's, and step folds its own number into it; a strength, a scalar,
      stands in for the injection's own and may be traced. Metrics are float32 scalars: loss, top1
      (percent; of mixed examples, that of the one with whom another is mixed) and grad_norm, before
      clipping.

      With a bfloat16 model the gradients of kernels are summed over devices in bfloat16: half the
      traffic, and common practice; the optimiser works in float32.
    """
    loss_of = _make_loss(model, mean, std, label_smoothing, mixing, frozen)
    gradients = _make_gradients(loss_of, accumulate)

    def step(state, batch, key, strength=None):
        key = jax.random.fold_in(key, state.step)
        grads, batch_stats, metrics = gradients(state, batch, key, strength)
        if frozen is not None:
            batch_stats = _keep_frozen(frozen(state.params), state.batch_stats, batch_stats)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            averaged = {"params": params, "batch_stats": batch_stats}
            count = state.step.astype(jnp.float32)
            decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
            ema = optax.incremental_update(averaged, ema, 1 - decay)
        state = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
        return state, metrics | {"grad_norm": optax.tree.norm(grads)}

    return step


def _keep_frozen(frozen: Any, before: Any, after: Any) -> Any:
    """Running statistics: those before the step where the batch norm's scale is frozen."""
    still = traverse_util.flatten_dict(frozen)
    before = traverse_util.flatten_dict(before)
    return traverse_util.unflatten_dict(
        {
            path: before[path] if still.get((*path[:-1], "scale"), False) else x
            for path, x in traverse_util.flatten_dict(after).items()
        }
    )


def _make_loss(
    model: nn.Module,
    mean: tuple,
    std: tuple,
    label_smoothing: float,
    mixing: Mixing | None,
    frozen: Callable | None,
) -> Callable:
    """``loss_of(params, batch_stats, batch, key, strength) -> loss, (batch_stats, metrics)``."""

    def loss_of(params, batch_stats, batch, key, strength):
        given = {} if strength is None else {"noise_strength": strength}
        if frozen is not None:
            params = jax.tree.map(
                lambda still, x: jax.lax.stop_gradient(x) if still else x, frozen(params), params
            )
        images = evaluation.normalise(batch["image"], mean, std)
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], model.num_classes, dtype=jnp.float32), label_smoothing
        )
        if mixing is not None:
            images, targets = mixing(jax.random.fold_in(key, 2), images, targets)
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={
                "noise": jax.random.fold_in(key, 0),
                "dropout": jax.random.fold_in(key, 1),
            },
            **given,
        )
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        top1 = 100 * (logits.argmax(-1) == batch["label"]).mean(dtype=jnp.float32)
        return loss, (updated.get("batch_stats", {}), {"loss": loss, "top1": top1})

    return loss_of


def _make_gradients(loss_of: Callable, accumulate: int) -> Callable:
    """``gradients(state, batch, key, strength) -> gradients, batch_stats, metrics``: means."""
    gradient_of = jax.grad(loss_of, has_aux=True)

    def gradients(state, batch, key, strength):
        if accumulate == 1:
            grads, (batch_stats, metrics) = gradient_of(
                state.params, state.batch_stats, batch, jax.random.fold_in(key, 0), strength
            )
            return grads, batch_stats, metrics

        def add_micro_batch(carry, micro):
            batch_stats, totals = carry
            number, micro_batch = micro
            grads, (batch_stats, metrics) = gradient_of(
                state.params, batch_stats, micro_batch, jax.random.fold_in(key, number), strength
            )
            return (batch_stats, jax.tree.map(jnp.add, totals, (grads, metrics))), None

        zeros = (
            jax.tree.map(jnp.zeros_like, state.params),
            {name: jnp.zeros((), jnp.float32) for name in ("loss", "top1")},
        )
        (batch_stats, totals), _ = jax.lax.scan(
            add_micro_batch,
            (state.batch_stats, zeros),
            (jnp.arange(accumulate, dtype=jnp.int32), batch),
        )
        grads, metrics = jax.tree.map(lambda total: total / accumulate, totals)
        return grads, batch_stats, metrics

    return gradients


def jit_train_step(
    step: TrainStep,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    with_strength: bool = False,
    together: bool = False,
) -> TrainStep:
    """``step`` jitted: the state on every device and donated, batches as `batch_sharding` says.

    Args:
      step: `make_train_step`'s.
      mesh: the devices.
      accumulate: micro-batches per update.
      with_strength: the jitted step takes a fourth argument, the noise's strength, traced.
      together: the jitted step moves several runs on at once: every argument and result has a
        leading axis, the runs.
    """
    everywhere = parallel.replicated(mesh)
    batches = batch_sharding(mesh, accumulate=accumulate, together=together)
    return jax.jit(
        jax.vmap(step) if together else step,
        in_shardings=(everywhere, batches, everywhere) + (everywhere,) * with_strength,
        out_shardings=everywhere,
        donate_argnums=0,
    )


def batch_sharding(mesh: Mesh, *, accumulate: int = 1, together: bool = False) -> NamedSharding:
    """Over the examples; runs, and the micro-batches of an update, come before them."""
    return parallel.split_batch(mesh, axis=(accumulate > 1) + together)
