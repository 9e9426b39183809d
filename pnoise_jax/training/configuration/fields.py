"""The config fields, each declared once: default, meaning, allowed values, what it affects."""

from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from pnoise_jax import evaluation, noise, weights
from pnoise_jax.registry import did_you_mean
from pnoise_jax.training.configuration.field_kinds import (
    Affects,
    Choice,
    Duration,
    Field,
    Minutes,
    Number,
    Patterns,
    PerChannel,
    Place,
    Rates,
    Switch,
    Text,
    Whole,
    Window,
    WriterNames,
)

_SEEDS = 2**32 - 1

FIELDS: dict[str, Field] = {
    "seed": Whole(
        0, "seed of the initial weights, the order of the data and the noise", low=0, high=_SEEDS
    ),
    "duration": Duration("100 epochs", "how long to train"),
    "steps": Whole(None, "overrides duration if set: a short run to try out a config"),
    "batch_size": Whole(128, "examples per update, over all devices"),
    "accumulate": Whole(1, "micro-batches per update; noise mixes within a micro-batch"),
    "fsdp": Whole(
        1,
        "devices that share one copy of the parameters and the optimiser's state; for models too "
        "large for one device",
        affects=Affects.NOTHING,
    ),
    "tensor_parallel": Whole(
        1,
        "devices of a host that split the matrix products of each block, by heads and by hidden "
        "features, and process the same examples; for ViT, DeiT, BEiT and ViT-22B",
        affects=Affects.NOTHING,
    ),
    "dtype": Choice(
        "float32",
        "dtype of the computation; parameters are always float32",
        choices=("float32", "bfloat16"),
    ),
    "reduce_dtype": Choice(
        None,
        "dtype in which gradients of kernels are summed over devices; by default the dtype of the "
        "computation. float32 doubles the traffic of a bfloat16 model, bfloat16 halves the traffic "
        "of a float32 model",
        choices=("float32", "bfloat16"),
    ),
    "label_smoothing": Number(
        0.0, "share of each target to spread evenly over all classes", interval="[0, 1)"
    ),
    "ema_decay": Number(
        None,
        "decay of the weights' moving average; if set, the average is evaluated, not the weights",
        interval="[0, 1)",
    ),
    "log_every": Duration(
        "50 steps",
        "how often to write and print metrics, besides at evaluations and at the end",
        affects=Affects.NOTHING,
    ),
    "writers": WriterNames(
        ("tensorboard",),
        "writers of metrics, in addition to metrics.jsonl: tensorboard, wandb, mlflow, or "
        "module:Class",
        affects=Affects.NOTHING,
    ),
    "profile": Window(
        None,
        "START:STEPS profiles the STEPS steps after step START, and writes to the directory "
        "profile",
        affects=Affects.NOTHING,
    ),
    "task.name": Text(
        "classification",
        'the task, or "module:Name"; set the section with task_config(name, …)',
    ),
    "model.name": Text(
        "vit_ti_16", 'the model, or "module:Name"; set the section with model_config(name, …)'
    ),
    "data.name": Text(
        "digits", 'the data set: one from TFDS, digits, glyphs/N, or "module:function"'
    ),
    "data.data_dir": Place(
        None,
        "directory of the data sets, or gs://BUCKET/FOLDER; by default $TFDS_DATA_DIR, else "
        "~/tensorflow_datasets",
        affects=Affects.HOST,
    ),
    "data.train_split": Text("train", 'split to train on, such as "train[:300]"'),
    "data.test_split": Text("test", 'split to evaluate on, such as "validation"'),
    "data.cache": Switch(
        False,
        "decode all images into memory at the start, for small data sets",
        affects=Affects.HOST,
    ),
    "data.image_size": Whole(None, "side of the images in pixels; by default the model's"),
    "data.train_transform": Text(
        "none",
        'augmentation, such as "random_resized_crop|flip"; "none" leaves the images unchanged',
    ),
    "data.test_transform": Text(
        "none",
        'resizing and cropping, such as "resize_crop(0.875)"; "none" leaves the images unchanged',
        affects=Affects.RESULTS,
    ),
    "data.num_threads": Whole(
        None,
        "threads that read and decode images; by default one per core, at most 16",
        low=0,
        high=1024,
        affects=Affects.HOST,
    ),
    "data.num_workers": Whole(
        0,
        "processes that read and decode images, each with its own threads, for hosts with many "
        "cores",
        low=0,
        high=1024,
        affects=Affects.HOST,
    ),
    "data.mean": PerChannel((0.5,), "mean to subtract from the pixels, on a scale from 0 to 1"),
    "data.mean_image": Place(
        None,
        "Caffe's mean image, ilsvrc_2012_mean.npy, to subtract instead of data.mean; see TVT",
    ),
    "data.std": PerChannel((0.5,), "standard deviation to divide the pixels by, on the same scale"),
    "mixup.alpha": Number(0.0, "parameter of mixup's beta distribution; 0 turns mixup off"),
    "mixup.cutmix_alpha": Number(
        0.0, "parameter of CutMix's beta distribution; 0 turns CutMix off"
    ),
    "mixup.probability": Number(1.0, "probability of mixing a batch", interval="[0, 1]"),
    "mixup.switch_probability": Number(
        0.5,
        "probability of mixing a batch by CutMix rather than mixup, if both are on",
        interval="[0, 1]",
    ),
    "mixup.layer": Whole(
        0, "layer, from 1, whose input mixup mixes (Manifold Mixup); 0 mixes the images", low=0
    ),
    "mixup.labels_follow_noise": Switch(
        False,
        "mix the targets with the matrix by which linear_transform mixes the examples in training",
    ),
    "optimizer.name": Choice("adamw", "the optimiser", choices=("adamw", "sgd")),
    "optimizer.learning_rate": Number(1e-3, "learning rate at the end of the warm-up"),
    "optimizer.warmup": Duration("0 steps", "length of the linear warm-up, part of the duration"),
    "optimizer.schedule": Choice(
        "cosine",
        "schedule of the learning rate; cosine_by_epoch changes it once per epoch; inverse "
        "multiplies it by (1 + 0.001 step)^-0.75",
        choices=("cosine", "cosine_by_epoch", "constant", "inverse"),
    ),
    "optimizer.final_learning_rate": Number(0.0, "learning rate at the end of a cosine schedule"),
    "optimizer.weight_decay": Number(0.05, "weight decay, decoupled from the gradient for adamw"),
    "optimizer.weight_decay_on": Choice(
        "kernels",
        "parameters to decay: kernels and other matrices, or all (PyTorch's default)",
        choices=("kernels", "all"),
    ),
    "optimizer.beta1": Number(0.9, "decay of the mean of gradients, for adamw", interval="[0, 1)"),
    "optimizer.beta2": Number(
        0.999, "decay of the mean of squared gradients, for adamw", interval="[0, 1)"
    ),
    "optimizer.momentum": Number(0.9, "Nesterov momentum, for sgd", interval="[0, 1)"),
    "optimizer.clip_norm": Number(
        None,
        "maximum norm of the whole gradient; larger gradients are scaled down",
        interval="(0, inf)",
    ),
    "optimizer.gradient_noise_std": Number(
        0.0,
        "standard deviation of Gaussian noise on clipped gradients, at the first step; 0 turns it "
        "off",
    ),
    "optimizer.gradient_noise_decay": Number(
        0.55, "decay of that noise's variance: at step t, from 0, it is divided by (1 + t)^decay"
    ),
    "optimizer.gradient_noise_schedule": Text(
        None,
        "additional factor of that noise's standard deviation, written like `noise.schedule`; by "
        "default 1",
    ),
    "optimizer.layer_decay": Number(
        None,
        "layer-wise decay d: the learning rate of layer l of N is multiplied by d^(N + 1 - l)",
        interval="(0, 1]",
    ),
    "optimizer.head_learning_rate_multiplier": Number(
        1.0,
        "factor for the head's learning rate",
        interval="(0, inf)",
    ),
    "optimizer.rates": Rates(
        (),
        "factors for the learning rate, from the first pattern that matches a parameter's whole "
        "path: ('head/.*=10', '.*/bias=2'); in addition to layer_decay",
    ),
    "optimizer.freeze": Patterns(
        (),
        "patterns of parameters not to train: ('patch_embed/.*', 'block_[1-6]/.*'); a batch norm "
        "whose scale is frozen keeps its running statistics, but in training still normalises by "
        "those of the batch",
    ),
    "weights": Place(
        None,
        "pretrained weights to start from: an npz or safetensors file, hf_hub:OWNER/NAME, "
        "gs://BUCKET/NAME, or a run",
    ),
    "weights_head": Choice(
        "keep",
        "keep the weights' head, use a fresh one, or (auto) use a fresh one if the classes differ",
        choices=weights.HEADS,
    ),
    "weights_required": Switch(
        False,
        "raise an error if `weights` is not set, for configs that only fine-tune",
        affects=Affects.HOST,
    ),
    "evaluation.batch_size": Whole(
        10, "batch size of evaluations; noise mixes within a batch", affects=Affects.RESULTS
    ),
    "evaluation.seed": Whole(
        0,
        "seed of the shuffled order and of random noise",
        low=0,
        high=_SEEDS,
        affects=Affects.RESULTS,
    ),
    "evaluation.views": Whole(
        1,
        "views of each image to average the logits over, shifted by 1/32 of its size",
        high=evaluation.MAX_VIEWS,
        affects=Affects.RESULTS,
    ),
    "evaluation.draws": Whole(
        1,
        "draws of random noise to average the probabilities over, in additional rows of the "
        "report; 1 adds no rows",
        high=1000,
        affects=Affects.RESULTS,
    ),
    "evaluation.classes": Choice(
        "all",
        "logits that count: all, or only those of the classes that occur in the whole test split "
        "(of_data_set), as in published results on ImageNet-A and -R",
        choices=("all", "of_data_set"),
        affects=Affects.RESULTS,
    ),
    "evaluation.every": Duration(
        None, "how often to evaluate without noise during training", affects=Affects.NOTHING
    ),
    "checkpoint.every": Minutes(
        "10 epochs",
        "how often to save a checkpoint; if in minutes, checkpoint.at_most has no effect",
        or_steps=True,
        affects=Affects.NOTHING,
    ),
    "checkpoint.at_most": Minutes(
        "15 minutes",
        "maximum time between two checkpoints, however long the epochs are",
        affects=Affects.NOTHING,
    ),
    "checkpoint.keep": Whole(
        3, "how many of the newest checkpoints to keep", affects=Affects.NOTHING
    ),
}


def affecting(*kinds: Affects) -> tuple[str, ...]:
    """The names of the fields whose `affects` is one of these."""
    return tuple(name for name, field in FIELDS.items() if field.affects in kinds)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields of a config with their dotted names; tuples become lists."""
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def noise_config(**fields: Any) -> ml_collections.ConfigDict:
    """A noise section, which describes one injection; `noise.CONFIG_FIELDS` declares its fields.

    `config.noise` is such a section, and so is each entry of ``config.noise.others``::

        config.noise.preset = "paper_vit"
        config.noise.others.early = noise_config(name="gaussian", std=0.1, layer=1)

    Args:
      **fields: the fields to set.

    Raises:
      ValueError: a field is unknown.
      TypeError: a value has the wrong type for its field.
    """
    section = config_dict.ConfigDict({k: _noise_field(k) for k in noise.CONFIG_FIELDS})
    for key, value in fields.items():
        if key not in section:
            raise ValueError(
                f"noise.{key}: unknown field"
                + did_you_mean(key, noise.CONFIG_FIELDS, listed=len(noise.CONFIG_FIELDS))
            )
        section[key] = value
    return section


def _noise_field(key: str) -> Any:
    kind = noise.CONFIG_FIELDS[key].kind
    if kind is dict:
        return config_dict.ConfigDict()
    return _Layers(None, field_type=str) if key == "layer" else config_dict.placeholder(kind)


class _Layers(config_dict.FieldReference):
    """A field that stores numbers as text, as on the command line: (6, 8) becomes "6,8".

    This makes configs with the same meaning equal, and lets runs that stored text be resumed.
    """

    def set(self, value: Any, type_safe: bool = True) -> None:
        numbers = value if isinstance(value, tuple | list) else (value,)
        if numbers and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
            value = ",".join(map(str, numbers))
        super().set(value, type_safe)
