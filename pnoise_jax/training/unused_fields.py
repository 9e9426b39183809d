"""Finds fields that have no effect because of other fields; runs and sweeps report them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import optax

from pnoise_jax.training.configuration.durations import seconds_of
from pnoise_jax.training.configuration.field_kinds import parse_rate
from pnoise_jax.training.configuration.fields import FIELDS, flatten
from pnoise_jax.training.experiment import Experiment
from pnoise_jax.training.step.optimizer import HEADS, frozen, of_heads

_Fields = Mapping[str, Any]


def _mixes(fields: _Fields) -> bool:
    return max(fields["mixup.alpha"], fields["mixup.cutmix_alpha"]) > 0


_MIXES = ("mixup.alpha or mixup.cutmix_alpha above 0", _mixes)
_SOMETIMES_MIXES = ("mixup.probability above 0", lambda fields: fields["mixup.probability"] > 0)
_ADAMW = ("optimizer.name='adamw'", lambda fields: fields["optimizer.name"] == "adamw")

# What each field needs to have an effect: in words, and as a condition on the fields of a config.
_NEEDS: dict[str, tuple[str, Callable[[_Fields], bool]]] = {
    "weights_head": ("weights", lambda fields: fields["weights"] is not None),
    "data.mean": ("data.mean_image=None", lambda fields: fields["data.mean_image"] is None),
    "optimizer.beta1": _ADAMW,
    "optimizer.beta2": _ADAMW,
    "optimizer.momentum": (
        "optimizer.name='sgd'",
        lambda fields: fields["optimizer.name"] == "sgd",
    ),
    "optimizer.final_learning_rate": (
        "optimizer.schedule 'cosine' or 'cosine_by_epoch'",
        lambda fields: fields["optimizer.schedule"].startswith("cosine"),
    ),
    "optimizer.gradient_noise_decay": (
        "optimizer.gradient_noise_std above 0",
        lambda fields: fields["optimizer.gradient_noise_std"] > 0,
    ),
    "optimizer.weight_decay_on": (
        "optimizer.weight_decay above 0",
        lambda fields: fields["optimizer.weight_decay"] > 0,
    ),
    "mixup.alpha": _SOMETIMES_MIXES,
    "mixup.cutmix_alpha": _SOMETIMES_MIXES,
    "mixup.probability": _MIXES,
    "mixup.switch_probability": (
        "mixup.alpha, mixup.cutmix_alpha and mixup.probability above 0",
        lambda fields: min(fields[f"mixup.{each}"] for each in _SWITCHED) > 0,
    ),
    "checkpoint.at_most": (
        "checkpoint.every in steps, epochs or examples",
        lambda fields: seconds_of(fields["checkpoint.every"], field="checkpoint.every") is None,
    ),
}
_SWITCHED = ("alpha", "cutmix_alpha", "probability")
_DEFAULTS = dict(flatten({name: FIELDS[name].default for name in _NEEDS}))
CONDITIONAL = frozenset(_NEEDS)


def find_unused(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Fields that differ from their defaults but have no effect, and what each needs for one."""
    fields = dict(flatten(config))
    return {
        name: needs
        for name, (needs, is_met) in _NEEDS.items()
        if fields[name] != _DEFAULTS[name] and not is_met(fields)
    }


def describe_needs(unused: Mapping[str, str], fields: Mapping[str, Any]) -> list[str]:
    """A sentence for each field from `find_unused`."""
    return [
        f"{name}={fields[name]!r} has no effect: it needs {needs}" for name, needs in unused.items()
    ]


def describe_unused(experiment: Experiment) -> list[str]:
    """A sentence for each field that a run has set without effect."""
    fields = dict(flatten(experiment.config))
    return [
        *describe_needs(find_unused(experiment.config), fields),
        *_describe_untrained(experiment, fields),
        *_describe_late(experiment, fields),
    ]


def _describe_untrained(experiment: Experiment, fields: _Fields) -> list[str]:
    """Sentences about factors of learning rates that apply to no trained parameter."""
    factor, rates = fields["optimizer.head_learning_rate_multiplier"], fields["optimizer.rates"]
    if factor == 1 and (experiment.frozen is None or not rates):
        return []
    params = experiment.parameters
    still = frozen(params, fields["optimizer.freeze"])

    def is_trained(chosen: optax.Params) -> bool:
        both = jax.tree.map(lambda is_chosen, is_frozen: is_chosen and not is_frozen, chosen, still)
        return any(jax.tree.leaves(both))

    sentences = []
    if factor != 1 and not is_trained(of_heads(params)):
        sentences.append(
            f"optimizer.head_learning_rate_multiplier={factor!r} has no effect: no parameter of "
            f"{' or '.join(map(repr, HEADS))} is trained"
        )
    return sentences + [
        f"optimizer.rates: {text!r} has no effect: optimizer.freeze freezes all that it matches"
        for text in rates
        if not is_trained(frozen(params, [parse_rate(text)[0]]))
    ]


def _describe_late(experiment: Experiment, fields: _Fields) -> list[str]:
    """Sentences about evaluations and profiles that would begin after the last step."""
    total, sentences = experiment.total_steps, []
    every, window = fields["evaluation.every"], fields["profile"]
    if every is not None and (first := experiment.steps(every, "evaluation.every")) >= total:
        sentences.append(
            f"evaluation.every={every!r} is {first} steps, but the run has {total}: it is only "
            "evaluated at its end"
        )
    if window is not None and int(window.partition(":")[0]) >= total:
        sentences.append(
            f"profile={window!r} begins after the run's last step, {total}: no profile is written"
        )
    return sentences
