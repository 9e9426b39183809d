"""What a cell resolves to, by which two spellings of one cell are recognised."""

import dataclasses
from collections.abc import Hashable

from pnoise_jax import noise, training
from pnoise_jax.training import (
    FIELDS,
    NOT_OF_RESULTS,
    StrengthSchedule,
    flatten,
    unused_fields,
)

# Fields that `resolve` replaces by what they mean; so it does for those of the noise.
_REPLACED = (
    "seed",
    "duration",
    "steps",
    "reduce_dtype",
    "data.image_size",
    "optimizer.warmup",
    "optimizer.gradient_noise_schedule",
)


def resolve(experiment: training.Experiment) -> Hashable:
    """Returns what the results of a cell depend on, apart from its seed.

    Equal values mean equal results. The reverse is not certain: `docs/sweeps.md` lists what is
    compared as it is written.
    """
    config = experiment.config
    unused = {field: FIELDS[field].default for field in unused_fields.find_unused(config)}
    as_written = sorted(
        (field, repr(value))
        for field, value in (dict(flatten(config)) | dict(flatten(unused))).items()
        if field not in (*NOT_OF_RESULTS, *_REPLACED) and not field.startswith("noise.")
    )
    total = experiment.total_steps
    # config.steps shortens every other duration by the ratio of these two.
    whole = total if config.steps is None else experiment.steps(config.duration, "duration")
    warmup = experiment.cut_steps(config.optimizer.warmup, "optimizer.warmup")
    return (
        tuple(as_written),
        (total, whole, warmup),
        experiment.test_data.image_shape,
        config.reduce_dtype or config.dtype,
        _gradient_noise(experiment),
        _injections(experiment),
    )


def _injections(experiment: training.Experiment) -> Hashable:
    """Returns the injections with the numbers of their layers, and their schedules."""
    injections = experiment.injections
    if type(experiment.task).__module__.startswith("pnoise_jax."):
        # Only evaluations switch noise on at inference; your own task may do so in training.
        injections = noise.switch_for_evaluation(injections)
    return tuple(
        (each.section, _at_numbers(each, experiment), _in_steps(schedule, experiment))
        for each, schedule in zip(injections, experiment.noise_schedules, strict=True)
    )


def _at_numbers(injection: noise.Injection, experiment: training.Experiment) -> noise.Injection:
    if injection.draws_layer or injection.point == "image":
        return injection
    numbers = injection.layers(experiment.model.num_layers)
    return dataclasses.replace(injection, layer=tuple(sorted(set(numbers))))


def _gradient_noise(experiment: training.Experiment) -> Hashable:
    field = "optimizer.gradient_noise_schedule"
    text = experiment.config.optimizer.gradient_noise_schedule
    return _in_steps(text and StrengthSchedule.parse(text, field=field), experiment)


def _in_steps(schedule: StrengthSchedule | None, experiment: training.Experiment) -> Hashable:
    if schedule is None:
        return None
    over, begin = (
        experiment.cut_steps(duration, "schedule") for duration in (schedule.over, schedule.begin)
    )
    return schedule.shape, schedule.first, schedule.last, max(1, over), begin
