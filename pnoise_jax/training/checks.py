"""Checks of an experiment before any long work."""

import contextlib
from collections.abc import Iterator, Sequence

import ml_collections

from pnoise_jax import data, evaluation, noise, parallel
from pnoise_jax.training.configuration.durations import seconds_of
from pnoise_jax.training.configuration.fields import flatten
from pnoise_jax.training.configuration.strength_schedule import StrengthSchedule
from pnoise_jax.training.setup import Setup
from pnoise_jax.training.step.optimizer import require_frozen, require_rates


class ConfigError(ValueError):
    """The config or work directory is bad, so starting the run again would fail again."""


@contextlib.contextmanager
def as_config_errors(part: str | None = None) -> Iterator[None]:
    """Turns a ValueError into a ConfigError.

    Args:
      part: the part of a study that is being built, such as "cell 3"; the messages of its
        ValueErrors and OSErrors then begin with it.
    """
    prefix = "" if part is None else f"{part}: "
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from error
    except OSError as error:
        if part is None:
            raise
        raise OSError(f"{prefix}{error}") from error


def check_test_split(test_data: data.Dataset) -> None:
    """Raises ValueError if the parts of the test split overlap, as each example counts once."""
    if repeated := data.count_repeated(test_data):
        raise ValueError(
            f"data.test_split={test_data.split!r}: its parts overlap, so {repeated} of its "
            f"{len(test_data)} examples are repeated and would count again; give parts that do "
            "not overlap"
        )


def check_shapes(setup: Setup) -> None:
    """Raises ValueError if the model, the images and the protocols do not fit together."""
    shape = setup.test_data.require_image_shape()
    if not isinstance(setup.mean, data.MeanImage) and len(setup.mean) not in (1, shape[-1]):
        raise ValueError(
            f"data.mean={setup.mean}: images of {setup.test_data.name} have "
            f"{shape[-1]} channels; give 1 or {shape[-1]} numbers"
        )
    try:
        _ = setup.variables  # runs the model on shapes alone
    except ValueError as error:
        raise ValueError(
            f"model.name={setup.config.model.name!r} does not fit "
            f"{setup.test_data.name}, whose images are {shape}: {error}"
        ) from None
    _ = setup.noise_schedules  # checks them
    section = setup.config.evaluation
    for injection in setup.evaluated_injections:
        _check_views(setup, injection)
        _check_groups(setup, injection)
        injection.in_batches_of(section.batch_size * section.views)


def check_draws(
    config: ml_collections.ConfigDict,
    averaged: Sequence[evaluation.Protocol],
    *,
    classifies: bool,
) -> None:
    """Raises ValueError if draws are to be averaged, but nothing is drawn or classified."""
    draws = config.evaluation.draws
    if draws > 1 and not classifies:
        raise ValueError(
            f"evaluation.draws={draws} averages the probabilities of classes, and task.name="
            f"{config.task.name!r} classifies nothing; set evaluation.draws=1"
        )
    if draws > 1 and not averaged:
        raise ValueError(
            f"evaluation.draws={draws}, but an evaluation draws nothing: no noise of the config "
            "is random, and its task has no noise on weights; set evaluation.draws=1"
        )


def check_classes(config: ml_collections.ConfigDict, *, classifies: bool) -> None:
    """Raises ValueError if logits are to be left out, but the task does not classify."""
    classes = config.evaluation.classes
    if classes != "all" and not classifies:
        raise ValueError(
            f"evaluation.classes={classes!r} chooses logits, and task.name={config.task.name!r} "
            "classifies nothing; set evaluation.classes='all'"
        )


def _check_groups(setup: Setup, injection: noise.Injection) -> None:
    noise_model, test_data = injection.noise, setup.test_data
    batch_size = setup.config.evaluation.batch_size
    if noise_model.mixes_batch and (noise_model.group_size or batch_size) > len(test_data):
        raise ValueError(
            f"evaluation.batch_size={batch_size}: {injection.section} mixes a batch, and "
            "data.test_split="
            f"{setup.config.data.test_split!r} has {len(test_data)} examples, so the shuffled "
            "and the class-sorted order would be the same single batch; lower evaluation.batch_size"
        )


def _check_views(setup: Setup, injection: noise.Injection) -> None:
    section, views = injection.section, setup.config.evaluation.views
    if injection.noise.mixes != "views":
        return
    if injection.noise.group_size != views:
        raise ValueError(
            f"{section}.axis='views' with {section}.group_size={injection.noise.group_size} mixes "
            f"that many views of an image, but evaluation.views={views}: set both to the same "
            "number"
        )


def check_training(setup: Setup, *, devices: int | None = None) -> None:
    """Raises ValueError if the setup, which can be evaluated, cannot be trained on these devices.

    Args:
      setup: the parts of the run.
      devices: the number of devices; None for those that JAX has.
    """
    config, train_data = setup.config, setup.train_data
    _ = setup.train_transform  # checks it
    _check_devices(setup, devices)
    if config.fsdp > 1:  # `parameters` traces the model's initialisation, which takes long
        parallel.require_split(setup.parameters, config.fsdp)
    parallel.require_divisible(
        "batch_size",
        config.batch_size,
        by_micro_batches=config.accumulate,
        tensor_parallel=config.tensor_parallel,
        devices=devices,
    )
    if config.batch_size > len(train_data):
        raise ValueError(
            f"batch_size={config.batch_size} is larger than data.train_split="
            f"{config.data.train_split!r} with its {len(train_data)} examples; lower batch_size"
        )
    if setup.steps(config.duration, "duration") < 1:
        raise ValueError(f"duration={config.duration!r} is less than one step")
    fields = dict(flatten(config))
    for field in ("log_every", "checkpoint.every", "evaluation.every"):
        duration = fields[field]
        by_clock = field == "checkpoint.every" and seconds_of(duration, field=field) is not None
        if duration is not None and not by_clock and setup.steps(duration, field) < 1:
            raise ValueError(f"{field}={duration!r} is less than one step")
    _ = setup.schedule  # checks the warm-up
    _check_schedules(setup)
    require_weights(config)
    if config.optimizer.freeze or config.optimizer.rates:
        require_frozen(setup.parameters, config.optimizer.freeze)
        require_rates(setup.parameters, config.optimizer.rates)
    evaluated = {each.section for each in setup.evaluated_injections}
    for injection in setup.injections:
        if not injection.train:
            _require_acting(injection, evaluated)
            continue
        section = injection.section
        if injection.noise.mixes == "views":
            raise ValueError(
                f"{section}.axis='views' with {section}.train=True: training shows one view of "
                f"each image, so there are no views to mix; set {section}.train=False"
            )
        injection.in_batches_of(config.batch_size // config.accumulate)


def _check_devices(setup: Setup, devices: int | None) -> None:
    """Raises ValueError if the devices cannot share parameters and products as configured."""
    config = setup.config
    if devices is None:
        parallel.training_mesh(config.fsdp, config.tensor_parallel)
    parallel.require_mesh(config.fsdp, config.tensor_parallel, devices)
    if config.tensor_parallel == 1:
        return
    if setup.matmul_split is None:
        raise ValueError(
            f"tensor_parallel={config.tensor_parallel}: the matrix products of model.name="
            f"{config.model.name!r} cannot be split over devices, only those of ViT, DeiT, BEiT "
            "and ViT-22B can; set tensor_parallel=1, and fsdp if the model is too large for one "
            "device"
        )
    setup.matmul_split.require(config.tensor_parallel)
    if config.reduce_dtype is not None:
        raise ValueError(
            f"reduce_dtype={config.reduce_dtype!r} with tensor_parallel={config.tensor_parallel}: "
            "the gradients of split products are summed in the dtype in which they are computed; "
            "leave reduce_dtype out, or set tensor_parallel=1"
        )


def _check_schedules(setup: Setup) -> None:
    """Raises ValueError if the schedule of a noise is bad, or begins after the end of the run."""
    field, section = "optimizer.gradient_noise_schedule", setup.config.optimizer
    if (text := section.gradient_noise_schedule) is not None:
        if not section.gradient_noise_std:
            raise ValueError(
                f"{field}={text!r}, but optimizer.gradient_noise_std is 0: set it, or leave "
                f"{field} out"
            )
        setup.require_beginning(StrengthSchedule.parse(text, field=field), field)
    for schedule, injection in zip(setup.noise_schedules, setup.injections, strict=True):
        if schedule is not None:
            setup.require_beginning(schedule, f"{injection.section}.schedule")


def _require_acting(injection: noise.Injection, evaluated: set[str]) -> None:
    """Raises ValueError if noise that is off in training is also off in noisy evaluation."""
    section = injection.section
    if section not in evaluated:
        raise ValueError(
            f"{section}.train=False and {section}.inference=False: noisy evaluation applies the "
            f"noise of {', '.join(sorted(evaluated))}, whose inference is True, so {section} never "
            "acts; set one of the two to True"
        )


def require_weights(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError if a config that only fine-tunes names no weights."""
    if config.weights_required and config.weights is None:
        raise ValueError(
            "weights=None: this config only fine-tunes; give --config.weights=FILE, or train "
            "from scratch with --config.weights_required=False"
        )
