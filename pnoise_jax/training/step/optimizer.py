"""Optimisers: AdamW and SGD, warm-up and decay of the learning rate, clipping, weight decay.

For fine-tuning: frozen parameters, and learning rates by layer and by pattern.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from pnoise_jax.registry import similar
from pnoise_jax.training.configuration.field_kinds import parse_rate
from pnoise_jax.training.step.gradient_noise import add_gradient_noise

# Several axes, but not weights of a layer, and modules that compute positions' biases from such;
# timm does not decay them either. It does decay the query of attention pooling, `latent`.
_UNDECAYED = {"cls_token", "dist_token", "reg_token", "pos_embed", "relative_position_bias_table"}
_UNDECAYED |= {"logit_scale", "cpb_fc1", "cpb_fc2"}  # of Swin V2
# The modules and parameters before the first layer, in all models.
_EMBEDDING = ("patch_embed", "patch_norm", "cls_token", "dist_token", "reg_token", "pos_embed")
_EMBEDDING += ("norm_pre",)  # of CLIP
_EMBEDDING += ("conv1", "bn1", "conv2")  # stems of ResNet and MaxViT
HEADS = ("head", "head_dist")
_LISTED = 8  # paths in an error


def learning_rate_schedule(
    config: ml_collections.ConfigDict,
    *,
    warmup_steps: int,
    total_steps: int,
    steps_per_epoch: Fraction | int = 1,
) -> optax.Schedule:
    """The learning rate by step: linear warm-up, then the config's schedule.

    "cosine" falls to the final rate; "constant" stays constant; "inverse" is (1 + 0.001 i)^-0.75
    times the learning rate i steps after the warm-up, as in SSRT, however long the run is.

    Args:
      config: the config's optimizer section.
      warmup_steps, total_steps: the steps of the warm-up and of the run, warm-up included.
      steps_per_epoch: for the schedule "cosine_by_epoch", exactly: every step of an epoch, also
        during warm-up, has the rate of the epoch's beginning, as with PyTorch's CosineAnnealingLR.
        A step that spans two epochs belongs to the one in which it begins.

    Raises:
      ValueError: the warm-up is longer than the run, or leaves no steps for a cosine schedule; or
        a cosine schedule begins at 0 and has another final rate.
    """
    if warmup_steps > total_steps:
        raise ValueError(
            f"optimizer.warmup={config.warmup!r} is {warmup_steps} steps, longer than the run's "
            f"{total_steps}; shorten it, or raise duration (or steps)"
        )
    peak = config.learning_rate
    start = 0.0 if warmup_steps else peak  # without warm-up, optax would keep the initial value
    if config.schedule == "constant":
        return optax.warmup_constant_schedule(start, peak, warmup_steps)
    if config.schedule == "inverse":
        warmup = optax.linear_schedule(start, peak, warmup_steps)
        return optax.join_schedules([warmup, lambda i: peak * _inverse(i)], [warmup_steps])
    if warmup_steps == total_steps:
        raise ValueError(
            f"optimizer.warmup={config.warmup!r} is all of the run's {total_steps} steps, which "
            f"leaves none for optimizer.schedule={config.schedule!r}; shorten it, or set "
            "optimizer.schedule='constant'"
        )
    if peak == 0 and config.final_learning_rate:  # optax would keep the rate at 0
        raise ValueError(
            f"optimizer.learning_rate={peak!r}, optimizer.final_learning_rate="
            f"{config.final_learning_rate!r}: optimizer.schedule={config.schedule!r} scales the "
            "learning rate, and cannot raise it from 0; set optimizer.learning_rate above 0, or "
            "optimizer.final_learning_rate=0"
        )
    cosine = optax.warmup_cosine_decay_schedule(
        start, peak, warmup_steps, total_steps, end_value=config.final_learning_rate
    )
    if config.schedule == "cosine_by_epoch":
        return _by_epoch(cosine, Fraction(steps_per_epoch), total_steps)
    return cosine


def _by_epoch(
    schedule: optax.Schedule, steps_per_epoch: Fraction, total_steps: int
) -> optax.Schedule:
    """The schedule, constant within each epoch.

    The beginnings of the epochs are listed in advance: products of steps and examples may not fit
    32 bits, and quotients of floats may be rounded to the next epoch.
    """
    size, per = steps_per_epoch.as_integer_ratio()
    begins = np.arange(total_steps * per // size + 1) * size  # in units of 1 / per steps
    first_steps = (-(-begins // per)).astype(np.int32)
    begins = (begins / per).astype(np.float32)

    def by_epoch(step: Any) -> Any:
        epoch = jnp.searchsorted(jnp.asarray(first_steps), step, side="right") - 1
        return schedule(jnp.asarray(begins)[epoch])

    return by_epoch


def _inverse(step: Any) -> jax.Array:
    return (1 + 0.001 * jnp.asarray(step, jnp.float32)) ** -0.75


def create_optimizer(
    config: ml_collections.ConfigDict,
    schedule: optax.Schedule,
    *,
    layers: Sequence[str] = (),
    gradient_noise: optax.Schedule | None = None,
) -> optax.GradientTransformation:
    """Create the optimiser of the config's optimizer section.

    Parameters that ``optimizer.freeze`` names are not updated or decayed, do not count in the norm
    for clipping, and have no state in the optimiser.

    Args:
      config: the config's optimizer section.
      schedule: the learning rate by step.
      layers: names of the model's layers, from the first, for `learning_rate_multipliers`.
      gradient_noise: the factor of the gradients' noise by step; None is 1.
    """
    mask = decayed if config.weight_decay_on == "kernels" else None
    steps = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm is not None else []
    if config.gradient_noise_std:
        std, decay = config.gradient_noise_std, config.gradient_noise_decay
        noise = add_gradient_noise(std, decay, gradient_noise)
        steps.append(noise)  # after clipping, as in its paper
    if config.name == "adamw":
        adamw = optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=mask,
        )
        steps.append(adamw)
    else:
        if config.weight_decay:
            steps.append(optax.add_decayed_weights(config.weight_decay, mask=mask))
        steps.append(optax.sgd(schedule, momentum=config.momentum, nesterov=True))
    by_layer = config.layer_decay is not None or config.head_learning_rate_multiplier != 1
    if by_layer or config.rates:
        steps.append(_scale_by_layer(config, layers))
    optimizer = optax.chain(*steps)
    if not config.freeze:
        return optimizer

    def labels(params):
        flags = frozen(params, config.freeze)
        return jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", flags)

    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def _scale_by_layer(
    config: ml_collections.ConfigDict, layers: Sequence[str]
) -> optax.GradientTransformation:
    # The last transformation, so that it scales the whole update, like a learning rate does:
    # weight decay too.
    def scale(updates, params):
        factors = learning_rate_multipliers(updates, config, layers)
        return jax.tree.map(lambda factor, x: factor * x, factors, updates)

    return optax.stateless(scale)


def learning_rate_multipliers(
    params: optax.Params, config: ml_collections.ConfigDict, layers: Sequence[str]
) -> optax.Params:
    """The factor of the learning rate for every parameter.

    With d = ``optimizer.layer_decay`` and N layers, the factor of layer l is d^(N + 1 - l).
    Parameters before the first layer (embeddings, stem) count as layer 0, and those after the last
    (final norm, heads) have the factor 1, as in BEiT and MAE; timm treats the final norm as part of
    the last block. In a Swin Transformer, patch merging counts as part of the block that follows.
    The factors of heads are also multiplied by ``optimizer.head_learning_rate_multiplier``, and
    every factor by that of the first of ``optimizer.rates`` whose pattern matches the parameter's
    whole path, such as "task/out/bias".
    """
    rates = [parse_rate(text) for text in config.rates]
    numbers = {name: number for number, name in enumerate(layers, 1)}
    numbers |= {f"merge_{s}": n for s in range(9) if (n := numbers.get(f"stage{s}_block1"))}
    numbers |= dict.fromkeys(_EMBEDDING, 0)
    base = 1.0 if config.layer_decay is None else config.layer_decay

    def multiplier(path, _):
        factor = base ** (len(layers) + 1 - numbers.get(path[0].key, len(layers) + 1))
        is_head = path[0].key in HEADS
        factor *= config.head_learning_rate_multiplier if is_head else 1.0
        matching = (rate for pattern, rate in rates if re.fullmatch(pattern, path_name(path)))
        return factor * next(matching, 1.0)

    return jax.tree.map_with_path(multiplier, params)


def of_heads(params: optax.Params) -> optax.Params:
    """True for the parameters that ``optimizer.head_learning_rate_multiplier`` affects."""
    return jax.tree.map_with_path(lambda path, _: path[0].key in HEADS, params)


def frozen(params: optax.Params, patterns: Sequence[str]) -> optax.Params:
    """True for parameters whose whole path, such as "block_1/attn/qkv/kernel", matches a pattern.

    A batch norm whose scale is frozen also keeps its statistics.

    Args:
      params: a tree; its leaves may be arrays, ShapeDtypeStructs or anything else.
      patterns: regular expressions.
    """
    return jax.tree.map_with_path(
        lambda path, _: any(re.fullmatch(pattern, path_name(path)) for pattern in patterns), params
    )


def require_frozen(params: optax.Params, patterns: Sequence[str]) -> None:
    """Raises ValueError if a pattern matches no parameter, or all parameters are frozen."""
    require_fitting("optimizer.freeze", params, patterns)
    if all(jax.tree.leaves(frozen(params, patterns))):
        raise ValueError(
            f"optimizer.freeze={tuple(patterns)!r} leaves no parameter to train: leave the "
            "head's out"
        )


def require_rates(params: optax.Params, rates: Sequence[str]) -> None:
    """Raises ValueError if the pattern of one of ``optimizer.rates`` matches no parameter."""
    require_fitting("optimizer.rates", params, [parse_rate(text)[0] for text in rates])


def require_fitting(field: str, params: optax.Params, patterns: Sequence[str]) -> None:
    """Raises ValueError if a pattern of the config's ``field`` matches no parameter's path."""
    paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    for pattern in patterns:
        if not any(re.fullmatch(pattern, path) for path in paths):
            near = similar(pattern, paths, count=_LISTED, cutoff=0.3)
            shown = near or sorted({f"{path.split('/')[0]}/…" for path in paths})[:_LISTED]
            raise ValueError(
                f"{field}: {pattern!r} matches none of the {len(paths)} parameters, which include "
                f"{', '.join(shown)}; a pattern must match a whole path, so 'block_1' needs '/.*'"
            )


def path_name(path: jax.tree_util.KeyPath) -> str:
    """A parameter's path for matching with patterns, such as "block_1/attn/qkv/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def decayed(params: optax.Params) -> optax.Params:
    """True for the parameters to decay: kernels, but not biases, norms or tokens."""

    def is_decayed(path, leaf):
        return leaf.ndim > 1 and _UNDECAYED.isdisjoint(key.key for key in path[-2:])

    return jax.tree.map_with_path(is_decayed, params)
