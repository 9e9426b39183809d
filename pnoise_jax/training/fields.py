"""The fields of a config, each declared once: default, meaning, what it may be, what it affects."""

import dataclasses
import enum
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import ml_collections
from ml_collections import config_dict

from pnoise_jax import evaluation, noise, weights
from pnoise_jax.data.image import require_statistics
from pnoise_jax.runs import find_writer
from pnoise_jax.training.durations import seconds_of, steps_of


class Affects(enum.Enum):
    """What another value of a field would change, and so when it may be another."""

    WEIGHTS = "the weights: it stays as it is when a run goes on"
    RESULTS = "results, not weights: it may change when a run goes on, not within a sweep"
    NOTHING = "no result: it may change when a run or a sweep goes on"
    HOST = "no result: it may change when a run goes on, and differ between hosts"


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a config.

    Attributes:
      default: what it is where a config says nothing; None where it is then not set.
      meaning: in words, as the documentation has it.
      affects: what depends on it.
    """

    default: Any
    meaning: str
    affects: Affects = dataclasses.field(default=Affects.WEIGHTS, kw_only=True)

    kind = str  # the type of its values
    expected: ClassVar[str] = "a text"  # what its values are, in words; of some fields a property

    def placeholder(self) -> Any:
        """What stands for the field in a config: its default, or an empty place of its type."""
        return config_dict.placeholder(self.kind) if self.default is None else self.default

    def validate(self, name: str, value: Any) -> None:
        """Raises ValueError, naming the field, unless it may have this value."""
        if value is None:
            if self.default is not None:
                raise ValueError(f"{name}=None: give a value; the default is {self.default!r}")
        elif not self._allows(name, value):
            raise ValueError(f"{name}={value!r}: give {self.expected}")

    def _allows(self, name: str, value: Any) -> bool:
        return isinstance(value, str)


@dataclasses.dataclass(frozen=True)
class Text(Field):
    """Any text."""


@dataclasses.dataclass(frozen=True)
class Switch(Field):
    """True or False."""

    kind = bool
    expected = "True or False"

    def _allows(self, name: str, value: Any) -> bool:
        return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Whole(Field):
    """A whole number from `low` to `high`, both allowed."""

    low: int = dataclasses.field(default=1, kw_only=True)
    high: float = dataclasses.field(default=math.inf, kw_only=True)

    kind = int

    @property
    def expected(self) -> str:
        if self.high == math.inf:
            return f"a whole number of at least {self.low}"
        return f"a whole number from {self.low} to {self.high}"

    def _allows(self, name: str, value: Any) -> bool:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Number(Field):
    """A number in an interval, as it is written: "[0, 1)"; inf is open."""

    interval: str = dataclasses.field(default="[0, inf)", kw_only=True)

    kind = float

    @property
    def expected(self) -> str:
        return f"a number in {self.interval}"

    def _allows(self, name: str, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = map(float, self.interval[1:-1].split(","))
        above = value >= low if self.interval[0] == "[" else value > low
        return above and (value <= high if self.interval[-1] == "]" else value < high)


@dataclasses.dataclass(frozen=True)
class Choice(Field):
    """One of a few texts."""

    choices: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.choices)}"

    def _allows(self, name: str, value: Any) -> bool:
        return value in self.choices


@dataclasses.dataclass(frozen=True)
class Duration(Field):
    """A text such as "10 epochs"."""

    expected = "a number of steps, epochs or examples"

    def _allows(self, name: str, value: Any) -> bool:
        steps_of(value, field=name, examples=1, batch_size=1)  # raises
        return True


@dataclasses.dataclass(frozen=True)
class Minutes(Field):
    """A text such as "15 minutes"; with `or_steps` also a duration in steps, epochs, examples."""

    or_steps: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def expected(self) -> str:
        return "steps, epochs, examples or minutes" if self.or_steps else "minutes"

    def _allows(self, name: str, value: Any) -> bool:
        if seconds_of(value, field=name) is not None:
            return True
        if not self.or_steps:
            raise ValueError(
                f"{name}={value!r}: give minutes, such as '15 minutes'; durations in steps, epochs "
                "or examples go into checkpoint.every"
            )
        try:
            steps_of(value, field=name, examples=1, batch_size=1)
        except ValueError as error:
            raise ValueError(f"{error}; or of minutes, such as '5 minutes'") from None
        return True


@dataclasses.dataclass(frozen=True)
class Place(Field):
    """The path of a file or directory."""

    expected = "a path"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if value.strip() and value not in ("None", "none") and "\0" not in value:
            return True
        called = f" (./{value} where it is called that)" if value in ("None", "none") else ""
        raise ValueError(
            f"{name}={value!r} is not a path: give one{called}, or None to leave the field unset"
        )


@dataclasses.dataclass(frozen=True)
class Patterns(Field):
    """Regular expressions, none or several."""

    kind = tuple
    expected = "patterns of names, such as ('patch_embed/.*',), or () for none"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, tuple | list):
            return False
        for pattern in value:
            if not isinstance(pattern, str):
                return False
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"{name}={value!r}: {pattern!r} is not a valid regular expression ({error}); "
                    "give one such as 'patch_embed/.*'"
                ) from error
        return True


@dataclasses.dataclass(frozen=True)
class Rates(Field):
    """Texts "PATTERN=FACTOR", none or several."""

    kind = tuple
    expected = "texts PATTERN=FACTOR, such as ('task/.*=10', '.*/bias=2'), or () for none"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, tuple | list) or not all(isinstance(v, str) for v in value):
            return False
        for text in value:
            try:
                parse_rate(text)
            except ValueError as error:
                raise ValueError(f"{name}={value!r}: {error}") from error
        return True


def parse_rate(text: str) -> tuple[str, float]:
    """The pattern and the factor of a text "PATTERN=FACTOR".

    Raises:
      ValueError: the text has no "=", the pattern is not a regular expression, or the factor is
        not a positive number.
    """
    pattern, equals, factor = text.rpartition("=")
    if not equals or not pattern:
        raise ValueError(f"{text!r} is not PATTERN=FACTOR; give one such as 'head/.*=10'")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{pattern!r} is not a valid regular expression ({error}); give one such as 'head/.*'"
        ) from error
    try:
        number = float(factor)
    except ValueError as error:
        raise ValueError(f"{text!r}: the factor {factor!r} is not a number") from error
    if not 0 < number < math.inf:
        raise ValueError(
            f"{text!r}: give a factor above 0 and below inf; optimizer.freeze keeps parameters as "
            "they are"
        )
    return pattern, number


@dataclasses.dataclass(frozen=True)
class WriterNames(Field):
    """Names of writers, none or several."""

    kind = tuple
    expected = "names of writers, such as ('tensorboard',), or () for none"

    def _allows(self, name: str, value: Any) -> bool:
        if not isinstance(value, tuple | list) or not all(isinstance(v, str) for v in value):
            return False
        for each in value:
            find_writer(each)  # raises
        return True


@dataclasses.dataclass(frozen=True)
class Window(Field):
    """A text "START:STEPS", whole numbers."""

    expected = "START:STEPS, such as '10:5' for the 5 steps that follow step 10"

    def _allows(self, name: str, value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(r"\d{1,9}:[1-9]\d{0,8}", value) is not None


@dataclasses.dataclass(frozen=True)
class PerChannel(Field):
    """Numbers, one per channel or one for all."""

    kind = tuple
    expected = "one number per channel, or one for all"

    def _allows(self, name: str, value: Any) -> bool:
        require_statistics(**{name.rpartition(".")[2]: value})  # raises
        return True


_SEEDS = 2**32 - 1

FIELDS: dict[str, Field] = {
    "seed": Whole(
        0, "seed of the initial weights, the order of the data and the noise", low=0, high=_SEEDS
    ),
    "duration": Duration("100 epochs", "how long to train"),
    "steps": Whole(None, "replaces duration if set: a short run to try a config"),
    "batch_size": Whole(128, "examples per update, over all devices"),
    "accumulate": Whole(1, "micro-batches per update; noise mixes within a micro-batch"),
    "dtype": Choice(
        "float32",
        "dtype of the computation; parameters are always float32",
        choices=("float32", "bfloat16"),
    ),
    "label_smoothing": Number(
        0.0, "share of each target that is spread evenly over all classes", interval="[0, 1)"
    ),
    "ema_decay": Number(
        None,
        "decay of a moving average of the weights, which is then what is evaluated",
        interval="[0, 1)",
    ),
    "log_every": Duration(
        "50 steps", "how often metrics are written and printed", affects=Affects.NOTHING
    ),
    "writers": WriterNames(
        ("tensorboard",),
        "where metrics go beside metrics.jsonl: tensorboard, wandb, mlflow, or module:Class",
        affects=Affects.NOTHING,
    ),
    "profile": Window(
        None,
        "START:STEPS writes a profile of these steps to the directory profile",
        affects=Affects.NOTHING,
    ),
    "task.name": Text(
        "classification",
        'what is learned, or "module:Name"; set the section with task_config(name, …)',
    ),
    "model.name": Text(
        "vit_ti_16", 'the model, or "module:Name"; set the section with model_config(name, …)'
    ),
    "data.name": Text(
        "digits", 'the data set: one of TFDS, digits, glyphs/N, or "module:function"'
    ),
    "data.data_dir": Place(
        None,
        "directory of the data sets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets",
        affects=Affects.HOST,
    ),
    "data.train_split": Text("train", 'what to train on, such as "train[:300]"'),
    "data.test_split": Text("test", 'what to evaluate on, such as "validation"'),
    "data.cache": Switch(
        False,
        "decode everything into memory at the start, for small data sets",
        affects=Affects.HOST,
    ),
    "data.image_size": Whole(None, "side of the images in pixels; by default the model's"),
    "data.train_transform": Text(
        "none",
        'augmentation, such as "random_resized_crop|flip"; "none" leaves the images as they are',
    ),
    "data.test_transform": Text(
        "none",
        'resizing and cropping, such as "resize_crop(0.875)"; "none" leaves the images as they are',
        affects=Affects.RESULTS,
    ),
    "data.num_threads": Whole(
        None,
        "threads that read and decode; by default one for each core",
        low=0,
        high=1024,
        affects=Affects.HOST,
    ),
    "data.num_workers": Whole(
        0,
        "processes that read and decode, each with its own threads, for hosts with many cores",
        low=0,
        high=1024,
        affects=Affects.HOST,
    ),
    "data.mean": PerChannel((0.5,), "mean of the pixels, on a scale from 0 to 1; it is subtracted"),
    "data.mean_image": Place(
        None,
        "Caffe's mean image, ilsvrc_2012_mean.npy, to subtract in place of data.mean; see TVT",
    ),
    "data.std": PerChannel(
        (0.5,), "standard deviation of the pixels, on the same scale; they are divided by it"
    ),
    "mixup.alpha": Number(0.0, "parameter of mixup's beta distribution; 0 turns mixup off"),
    "mixup.cutmix_alpha": Number(
        0.0, "parameter of CutMix's beta distribution; 0 turns CutMix off"
    ),
    "mixup.probability": Number(1.0, "probability that a batch is mixed", interval="[0, 1]"),
    "mixup.switch_probability": Number(
        0.5, "probability that CutMix, not mixup, mixes a batch, if both are on", interval="[0, 1]"
    ),
    "optimizer.name": Choice("adamw", "the optimiser", choices=("adamw", "sgd")),
    "optimizer.learning_rate": Number(1e-3, "learning rate at the end of the warm-up"),
    "optimizer.warmup": Duration("0 steps", "linear warm-up, which is part of the duration"),
    "optimizer.schedule": Choice(
        "cosine",
        "schedule of the learning rate; cosine_by_epoch changes it once an epoch; inverse "
        "multiplies it with (1 + 0.001 step)^-0.75",
        choices=("cosine", "cosine_by_epoch", "constant", "inverse"),
    ),
    "optimizer.final_learning_rate": Number(0.0, "learning rate at the end of a cosine"),
    "optimizer.weight_decay": Number(0.05, "weight decay, decoupled from the gradient for adamw"),
    "optimizer.weight_decay_on": Choice(
        "kernels",
        "what decays: kernels and other matrices, or all parameters (PyTorch's default)",
        choices=("kernels", "all"),
    ),
    "optimizer.beta1": Number(0.9, "decay of the mean of gradients, for adamw", interval="[0, 1)"),
    "optimizer.beta2": Number(
        0.999, "decay of the mean of squared gradients, for adamw", interval="[0, 1)"
    ),
    "optimizer.momentum": Number(0.9, "Nesterov momentum, for sgd", interval="[0, 1)"),
    "optimizer.clip_norm": Number(
        None, "largest norm of the whole gradient; a longer one is scaled down", interval="(0, inf)"
    ),
    "optimizer.layer_decay": Number(
        None,
        "layer-wise decay d: layer l of N learns at d^(N + 1 - l) times the learning rate",
        interval="(0, 1]",
    ),
    "optimizer.head_learning_rate_multiplier": Number(
        1.0,
        "how much faster the head learns than the rest",
        interval="(0, inf)",
    ),
    "optimizer.rates": Rates(
        (),
        "what the learning rate is multiplied with, by the first pattern that fits a parameter's "
        "whole path: ('head/.*=10', '.*/bias=2'); beside layer_decay",
    ),
    "optimizer.freeze": Patterns(
        (), "parameters to leave as they are: ('patch_embed/.*', 'block_[1-6]/.*')"
    ),
    "weights": Place(
        None,
        "pretrained weights to start from: an npz or safetensors file, hf_hub:OWNER/NAME, or a run",
    ),
    "weights_head": Choice(
        "keep",
        "keep the head of the weights, use a fresh one, or (auto) a fresh one if classes differ",
        choices=weights.HEADS,
    ),
    "weights_required": Switch(
        False,
        "refuse to train without weights, for configs that only fine-tune",
        affects=Affects.HOST,
    ),
    "evaluation.batch_size": Whole(
        10, "batch size of the protocols, within which noise mixes", affects=Affects.RESULTS
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
        "views of each image, shifted by a 32nd of it, whose logits are averaged",
        high=evaluation.MAX_VIEWS,
        affects=Affects.RESULTS,
    ),
    "evaluation.every": Duration(
        None, "how often to evaluate without noise while training", affects=Affects.NOTHING
    ),
    "checkpoint.every": Minutes(
        "10 epochs",
        "how often to save; checkpoint.at_most has no effect if this is in minutes",
        or_steps=True,
        affects=Affects.NOTHING,
    ),
    "checkpoint.at_most": Minutes(
        "15 minutes",
        "longest time between two checkpoints, however long epochs are",
        affects=Affects.NOTHING,
    ),
    "checkpoint.keep": Whole(
        3, "how many of the newest checkpoints are kept", affects=Affects.NOTHING
    ),
}


def affecting(*kinds: Affects) -> tuple[str, ...]:
    """The names of the fields that affect one of these."""
    return tuple(name for name, field in FIELDS.items() if field.affects in kinds)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields of a config by their dotted names, tuples as lists."""
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def noise_section() -> ml_collections.ConfigDict:
    """The noise section with nothing set; `noise.CONFIG_FIELDS` declares its fields."""
    return config_dict.ConfigDict(
        {
            name: config_dict.ConfigDict()
            if field.kind is dict
            else config_dict.placeholder(field.kind)
            for name, field in noise.CONFIG_FIELDS.items()
        }
    )
