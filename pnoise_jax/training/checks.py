"""What is checked of an experiment before any long work."""

import typing

import ml_collections

from pnoise_jax import parallel
from pnoise_jax.training.config import flatten
from pnoise_jax.training.durations import seconds_of
from pnoise_jax.training.optimizer import require_frozen

if typing.TYPE_CHECKING:
    from pnoise_jax.training.experiment import Experiment


def check_shapes(experiment: "Experiment") -> None:
    """Raises ValueError where model, images and protocols do not fit together."""
    shape = experiment.test_data.image_shape
    if len(experiment.mean) not in (1, shape[-1]):
        raise ValueError(
            f"data.mean={experiment.mean}: images of {experiment.test_data.name} have "
            f"{shape[-1]} channels; give 1 or {shape[-1]} numbers"
        )
    try:
        _ = experiment.variables  # runs the model on shapes alone
    except ValueError as error:
        raise ValueError(
            f"model.name={experiment.config.model.name!r} does not fit "
            f"{experiment.test_data.name}, whose images are {shape}: {error}"
        ) from None
    for protocol in experiment.protocols:
        if protocol.noise:
            _check_views(experiment)
            _check_groups(experiment)
            experiment.model.injection.in_batches_of(
                protocol.batch_size * experiment.config.evaluation.views
            )


def _check_groups(experiment: "Experiment") -> None:
    noise_model, test_data = experiment.model.injection.noise, experiment.test_data
    batch_size = experiment.config.evaluation.batch_size
    if noise_model.mixes_batch and (noise_model.group_size or batch_size) > len(test_data):
        raise ValueError(
            f"evaluation.batch_size={batch_size}: this noise mixes a batch, and data.test_split="
            f"{experiment.config.data.test_split!r} has {len(test_data)} examples, so the shuffled "
            "and the class-sorted order would be the same single batch; lower evaluation.batch_size"
        )


def _check_views(experiment: "Experiment") -> None:
    injection, views = experiment.model.injection, experiment.config.evaluation.views
    if injection.noise.mixes != "views":
        return
    if injection.noise.group_size != views:
        raise ValueError(
            f"noise.axis='views' with noise.group_size={injection.noise.group_size} mixes so many "
            f"views of an image, and evaluation.views={views}: set both to the same number"
        )


def check_training(experiment: "Experiment") -> None:
    """Raises ValueError where what was built can be evaluated, but not trained on these devices."""
    config, train_data = experiment.config, experiment.train_data
    _ = experiment.train_transform  # checks it
    parallel.require_divisible("batch_size", config.batch_size, by_micro_batches=config.accumulate)
    if config.batch_size > len(train_data):
        raise ValueError(
            f"batch_size={config.batch_size} is larger than data.train_split="
            f"{config.data.train_split!r} with its {len(train_data)} examples; lower batch_size"
        )
    if experiment.steps(config.duration, "duration") < 1:
        raise ValueError(f"duration={config.duration!r} is less than one step")
    for field in ("log_every", "checkpoint.every", "evaluation.every"):
        duration = dict(flatten(config))[field]
        by_clock = field == "checkpoint.every" and seconds_of(duration, field=field) is not None
        if duration is not None and not by_clock and experiment.steps(duration, field) < 1:
            raise ValueError(f"{field}={duration!r} is less than one step")
    _ = experiment.schedule  # checks the warm-up
    require_weights(config)
    require_frozen(experiment.variables["params"], config.optimizer.freeze)
    injection = experiment.model.injection
    if injection is not None and injection.train:
        if injection.noise.mixes == "views":
            raise ValueError(
                "noise.axis='views' with noise.train=True: training shows one view of each image, "
                "so there are no views to mix; set noise.train=False"
            )
        injection.in_batches_of(config.batch_size // config.accumulate)


def require_weights(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError where a config that only fine-tunes names no weights."""
    if config.weights_required and config.weights is None:
        raise ValueError(
            "weights=None: this config fine-tunes; give --config.weights=FILE, or train "
            "from scratch with --config.weights_required=False"
        )
