"""The state of a run and the training step, as pure functions."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding

from pnoise_jax import parallel
from pnoise_jax.training.step.random_streams import RandomStreams
from pnoise_jax.training.task import Metrics, StepContext, Task, model_parameters

TrainStep = Callable[..., tuple["TrainState", Metrics]]  # (state, batch, key[, strength])


@flax.struct.dataclass
class TrainState:
    """Everything that a run carries from step to step.

    Attributes:
      step: int32 scalar, the number of updates made.
      params: the parameters, float32; the task's own are under "task".
      batch_stats: running statistics of the batch norms; empty if there are none.
      opt_state: the optimiser's state.
      ema: moving average of params and batch_stats, or None.
      task: the task's own collections.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any
    task: Any = flax.struct.field(default_factory=dict)

    def variables(self) -> dict[str, Any]:
        """The variables to evaluate the model with: the moving average if there is one."""
        variables = self.ema or {"params": self.params, "batch_stats": self.batch_stats}
        return {**variables, "params": model_parameters(variables["params"])}


def init_state(
    task: Task,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    images: jax.ShapeDtypeStruct,
    *,
    with_ema: bool,
    imported: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """The state before the first step; a pure function of the key.

    Args:
      task: the task.
      optimizer: the optimiser of the parameters.
      key: the run's key.
      images: shape and dtype of a batch of normalised images.
      with_ema: whether to keep a moving average.
      imported: arrays that replace the model's initial ones, by path, such as "params/head/bias".
    """
    variables = dict(task.init(key, images))
    if imported:
        flat = traverse_util.flatten_dict(variables, sep="/")
        variables = traverse_util.unflatten_dict(flat | dict(imported), sep="/")
    params, batch_stats = variables.pop("params"), variables.pop("batch_stats", {})
    averaged = {"params": params, "batch_stats": batch_stats}
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, averaged) if with_ema else None,
        task=variables,
    )
    return task.after_init(state)


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    ema_decay: float | None = None,
    frozen: Callable[[Any], Any] | None = None,
    scheduled: Callable[[Any, Any], Any] | None = None,
) -> TrainStep:
    """``step(state, batch, key, strength=None) -> state, metrics``, pure; see `jit_train_step`.

    Args:
      task: provides the loss.
      optimizer: the optimiser of the parameters.
      accumulate: micro-batches per update. Above 1, the batch's arrays are (accumulate, ...),
        gradients and metrics are means, and noise mixes within one micro-batch.
      ema_decay: the decay of the moving average; None keeps no average. At step t, the decay is at
        most (1 + t)/(10 + t), as in TensorFlow, so that a short run does not average its initial
        weights.
      frozen: maps parameters to a tree of bools, True for those to freeze: their gradients are not
        computed and do not count in grad_norm. Batch norms whose scale is frozen keep their
        running statistics.
      scheduled: maps the step and the strengths to the strengths of the injections at that step;
        None leaves them unchanged.

    Returns:
      The step. Its key is the run's key; the step folds its own number into it. A strength
      overrides the injection's own: a scalar, or one per injection; it may be traced. Metrics are
      float32 scalars: loss, those that the task returns, and grad_norm before clipping.

      With a bfloat16 model, the gradients of kernels are summed over devices in bfloat16: half the
      traffic, and common practice; `jit_train_step` can set another dtype. The optimiser works in
      float32.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    gradients = _make_gradients(_freeze(_check_result(task), frozen), accumulate)

    def step(state, batch, key, strength=None):
        key = jax.random.fold_in(key, state.step)
        if scheduled is not None:
            strength = scheduled(state.step, strength)
        collections = {"batch_stats": state.batch_stats, **state.task}
        grads, collections, metrics = gradients(
            state.params, collections, batch, state.step, key, strength
        )
        collections = dict(collections)
        batch_stats = collections.pop("batch_stats")
        if frozen is not None:
            batch_stats = _keep_frozen(frozen(state.params), state.batch_stats, batch_stats)
        updates, opt_state = optimizer.update(
            grads,
            state.opt_state,
            state.params,
            noise_key=RandomStreams(key)["gradient_noise"],
        )
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            averaged = {"params": params, "batch_stats": batch_stats}
            count = state.step.astype(jnp.float32)
            decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
            ema = optax.incremental_update(averaged, ema, 1 - decay)
        # Micro-batches are numbered from 0, so no micro-batch has used this key.
        context = StepContext(
            state.step, RandomStreams(jax.random.fold_in(key, accumulate)), strength
        )
        state = TrainState(state.step + 1, params, batch_stats, opt_state, ema, collections)
        state = task.after_update(state, context)
        return state, metrics | {"grad_norm": optax.tree.norm(grads)}

    return step


def _check_result(task: Task) -> Callable:
    """The loss of a task; while tracing, it raises ValueError if the result has a wrong form."""
    named = f"{type(task).__name__}.loss"

    def checked(params, state, batch, context):
        returned = task.loss(params, state, batch, context)
        try:
            value, (after, metrics) = returned
            shapes = {name: jnp.shape(x) for name, x in {"loss": value, **metrics}.items()}
            names = set(after)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{named} returned {type(returned).__name__}: return loss, (state, metrics), "
                "a scalar and two dicts"
            ) from error
        if names != set(state):
            raise ValueError(
                f"{named} was given the collections {sorted(state)} but returned {sorted(names)}: "
                "return each of them, changed or not"
            )
        if taken := metrics.keys() & {"loss", "grad_norm"}:
            raise ValueError(
                f"{named} returned the metric {min(taken)!r}, a reserved name: rename it"
            )
        for name, shape in shapes.items():
            if shape != ():
                raise ValueError(f"{named} returned {name} of shape {shape}: return a scalar")
        return value, (after, metrics)

    return checked


def _freeze(loss: Callable, frozen: Callable[[Any], Any] | None) -> Callable:
    """The loss, without a gradient for frozen parameters."""
    if frozen is None:
        return loss

    def frozen_loss(params, state, batch, context):
        params = jax.tree.map(
            lambda still, x: jax.lax.stop_gradient(x) if still else x, frozen(params), params
        )
        return loss(params, state, batch, context)

    return frozen_loss


def _keep_frozen(frozen: Any, before: Any, after: Any) -> Any:
    """The running statistics, restored to `before` for batch norms whose scale is frozen."""
    still = traverse_util.flatten_dict(frozen)
    before = traverse_util.flatten_dict(before)
    return traverse_util.unflatten_dict(
        {
            path: before[path] if still.get((*path[:-1], "scale"), False) else x
            for path, x in traverse_util.flatten_dict(after).items()
        }
    )


def _make_gradients(loss: Callable, accumulate: int) -> Callable:
    """``gradients(params, state, batch, step, key, strength) -> gradients, state, metrics``."""
    value_and_gradient = jax.value_and_grad(loss, has_aux=True)

    def of_micro_batch(params, state, batch, step, key, strength):
        context = StepContext(step, RandomStreams(key), strength)
        (value, (state, metrics)), grads = value_and_gradient(params, state, batch, context)
        return grads, state, {"loss": value, **metrics}

    def gradients(params, state, batch, step, key, strength):
        if accumulate == 1:
            return of_micro_batch(params, state, batch, step, jax.random.fold_in(key, 0), strength)

        def add_micro_batch(carry, numbered):
            state, totals = carry
            number, micro_batch = numbered
            grads, state, metrics = of_micro_batch(
                params, state, micro_batch, step, jax.random.fold_in(key, number), strength
            )
            return (state, jax.tree.map(jnp.add, totals, (grads, metrics))), None

        first = jax.tree.map(lambda x: x[0], batch)
        grads, _, metrics = jax.eval_shape(
            of_micro_batch, params, state, first, step, key, strength
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, metrics))
        numbers = jnp.arange(accumulate, dtype=jnp.int32)
        (state, totals), _ = jax.lax.scan(add_micro_batch, (state, zeros), (numbers, batch))
        grads, metrics = jax.tree.map(lambda total: total / accumulate, totals)
        return grads, state, metrics

    return gradients


def jit_train_step(
    step: TrainStep,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    with_strength: bool = False,
    together: bool = False,
    places: TrainState | None = None,
    reduce_dtype: str | None = None,
    matmul_split: parallel.MatmulSplit | None = None,
) -> TrainStep:
    """Jit ``step``: the state is donated, and batches are sharded as `batch_sharding` returns.

    Args:
      step: the step from `make_train_step`.
      mesh: the devices.
      accumulate: micro-batches per update.
      with_strength: whether the step has a fourth argument, the noise's strength, traced.
      together: whether the step advances several runs at once: every argument and result then has
        a leading axis of runs.
      places: the sharding of each array of the state; None replicates all of them.
      reduce_dtype: the dtype in which gradients of kernels are summed over devices; None keeps the
        one in which they are computed.
      matmul_split: the model's, for a mesh with a model axis.
    """
    everywhere = parallel.replicated(mesh)
    batches = batch_sharding(mesh, accumulate=accumulate, together=together)
    states = everywhere if places is None else places

    def sharded_step(*args):
        with (
            parallel.lay_out(mesh, matmul_split),
            parallel.reduce_kernels_in(reduce_dtype, mesh),
        ):
            return step(*args)

    return jax.jit(
        jax.vmap(sharded_step) if together else sharded_step,
        in_shardings=(states, batches, everywhere) + (everywhere,) * with_strength,
        out_shardings=(states, everywhere),
        donate_argnums=0,
    )


def batch_sharding(mesh: Mesh, *, accumulate: int = 1, together: bool = False) -> NamedSharding:
    """The sharding of a batch over its examples; axes of runs and micro-batches precede them."""
    return parallel.split_batch(mesh, axis=(accumulate > 1) + together)
