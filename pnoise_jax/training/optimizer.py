"""Optimisers: AdamW and SGD, warm-up and cosine, clipping, decay of matrices and kernels only."""

import jax
import ml_collections
import optax

# Matrices by shape, but not weights of a layer; as timm leaves them.
_UNDECAYED = ("cls_token", "pos_embed")


def learning_rate_schedule(
    config: ml_collections.ConfigDict, *, warmup_steps: int, total_steps: int
) -> optax.Schedule:
    """The learning rate by step: linear warm-up, then a cosine to zero, or constant.

    Args:
      config: the config's optimizer section.
      warmup_steps, total_steps: the warm-up is part of the total.

    Raises:
      ValueError: the warm-up is longer than the run.
    """
    if warmup_steps > total_steps:
        raise ValueError(
            f"optimizer.warmup={config.warmup!r} is {warmup_steps} steps, longer than the run's "
            f"{total_steps}; shorten it, or raise duration (or steps)"
        )
    peak = config.learning_rate
    start = 0.0 if warmup_steps else peak  # optax stays at the start where there is no warm-up
    if config.schedule == "constant":
        return optax.warmup_constant_schedule(start, peak, warmup_steps)
    return optax.warmup_cosine_decay_schedule(start, peak, warmup_steps, total_steps)


def create_optimizer(
    config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optimiser of the config's optimizer section."""
    steps = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm is not None else []
    if config.name == "adamw":
        adamw = optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        )
        return optax.chain(*steps, adamw)
    if config.weight_decay:
        steps.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    return optax.chain(*steps, optax.sgd(schedule, momentum=config.momentum, nesterov=True))


def decayed(params: optax.Params) -> optax.Params:
    """True for the parameters that weight decay acts on: kernels, not biases, norms or tokens."""

    def is_decayed(path, leaf):
        return leaf.ndim > 1 and path[-1].key not in _UNDECAYED

    return jax.tree.map_with_path(is_decayed, params)
