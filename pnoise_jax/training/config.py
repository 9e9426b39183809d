"""The config of a run: its fields and defaults, and what each may be."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import ml_collections
from ml_collections import config_dict

from pnoise_jax import evaluation, models, noise, weights
from pnoise_jax.data.image.arguments import require_statistics
from pnoise_jax.training.durations import seconds_of, steps_of


def default_config() -> ml_collections.ConfigDict:
    """All fields of a run with their defaults; a config file changes those it cares about.

    Durations are strings: "500 steps", "10 epochs", "1e6 examples", for checkpoints also
    "15 minutes". Fields of None are not set.
    """
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.duration = "100 epochs"
    config.steps = config_dict.placeholder(int)  # if set, in place of duration: to try a config
    config.batch_size = 128  # over all devices; the examples of one update
    config.accumulate = 1  # micro-batches per update; noise mixes within a micro-batch
    config.dtype = "float32"  # of the computation; parameters are float32
    config.label_smoothing = 0.0
    config.ema_decay = config_dict.placeholder(float)  # evaluate a moving average of the weights
    config.log_every = "50 steps"
    config.model = model_config("vit_ti_16")
    config.noise = config_dict.ConfigDict(
        {
            field: config_dict.ConfigDict() if kind is dict else config_dict.placeholder(kind)
            for field, kind in noise.CONFIG_FIELDS.items()
        }
    )
    config.data = config_dict.create(
        name="digits",
        data_dir=config_dict.placeholder(str),  # $TFDS_DATA_DIR, else ~/tensorflow_datasets
        train_split="train",
        test_split="test",
        cache=False,  # decode everything into memory at the start: for small data sets
        image_size=config_dict.placeholder(int),  # that the model gets; by default its own
        train_transform="none",  # what makes them so: "random_resized_crop|flip"; "none" resizes
        test_transform="none",  # such as "resize_crop(0.875)"
        num_threads=config_dict.placeholder(int),  # that read and decode; one for each core
        num_workers=0,  # processes that do, each with its threads: for hosts with many cores
        mean=(0.5,),  # per channel, of images in [0, 1]
        std=(0.5,),
    )
    config.mixup = config_dict.create(
        alpha=0.0,  # of mixup; 0 for none
        cutmix_alpha=0.0,  # of CutMix
        probability=1.0,  # that a batch is mixed
        switch_probability=0.5,  # that it is by CutMix, where both are on
    )
    config.optimizer = config_dict.create(
        name="adamw",  # adamw, sgd
        learning_rate=1e-3,
        warmup="0 steps",  # linear, then the schedule
        schedule="cosine",  # cosine, cosine_by_epoch (the rate changes once an epoch), constant
        final_learning_rate=0.0,  # at the end of a cosine
        weight_decay=0.05,  # decoupled for adamw
        weight_decay_on="kernels",  # kernels (and other matrices), all (PyTorch's default)
        beta1=0.9,
        beta2=0.999,
        momentum=0.9,  # sgd, Nesterov
        clip_norm=config_dict.placeholder(float),  # of the gradient, over all that is trained
        layer_decay=config_dict.placeholder(float),  # d: layer l of N learns at d^(N + 1 - l)
        head_learning_rate_multiplier=1.0,  # 10 with a tenth of the rate: a slow backbone
        # Parameters that stay, by patterns: ("patch_embed/.*", "block_[1-6]/.*"). On the command
        # line --config.optimizer.freeze="('patch_embed/.*','block_[1-6]/.*')".
        freeze=(),
    )
    config.weights = config_dict.placeholder(str)  # to start from: npz, safetensors, a run
    config.weights_head = "keep"  # fresh: as the model initialises it; auto: where classes differ
    config.weights_required = False  # refuse to train without: for configs that only fine-tune
    config.evaluation = config_dict.create(
        batch_size=10,  # the protocols' batch, within which noise mixes
        seed=0,  # of the shuffled order and of random noise
        views=1,  # of each image, shifted by a 32nd of it; an example's logits are their mean
        every=config_dict.placeholder(str),  # a clean evaluation while training
    )
    config.checkpoint = config_dict.create(
        every="10 epochs",  # or in minutes, such as "5 minutes"; at_most then does not matter
        at_most="15 minutes",  # from one checkpoint to the next, however long epochs are
        keep=3,
    )
    return config


def model_config(name: str, **options: Any) -> ml_collections.ConfigDict:
    """The model section: a model's name and all its options, as `models.create_model` takes them.

    An option whose default is None is a placeholder for a whole number.

    Raises:
      ValueError: an unknown name or option.
    """
    allowed = models.default_options(name)
    for elsewhere in ("dtype", "axis_name"):  # config.dtype; there is no mapped axis under jit
        allowed.pop(elsewhere, None)
    for option in options:
        if option not in allowed:
            raise ValueError(unknown_field(f"model.{option}", [f"model.{key}" for key in allowed]))
    section = {"name": name} | allowed | options
    return ml_collections.ConfigDict({k: _option(k, v) for k, v in section.items()})


def _option(name: str, value: Any) -> Any:
    if name == "image_size":  # a number or a pair: the model checks it
        return config_dict.FieldReference(value, field_type=object)
    return config_dict.placeholder(int) if value is None else value


def parse_arguments(file: str, text: str | None, **choices: Sequence[Any]) -> SimpleNamespace:
    """What stands behind the colon of ``--config file.py:model=b16,size=384``.

    Args:
      file: the config's, for the error.
      text: what stands there; of what it leaves out, the first choice is taken.
      **choices: of each argument all it may be, strings or numbers.

    Raises:
      ValueError: an argument or a choice that there is not.
    """
    found = {name: allowed[0] for name, allowed in choices.items()}
    for part in filter(None, (text or "").split(",")):
        name, _, value = (side.strip() for side in part.partition("="))
        usage = ",".join(f"{known}={'|'.join(map(str, of))}" for known, of in choices.items())
        if name not in choices:
            raise ValueError(f"{file}:{part}: unknown argument {name!r}; give {usage}")
        allowed = {str(choice): choice for choice in choices[name]}
        if value not in allowed:
            raise ValueError(f"{file}:{part}: {name} is one of {', '.join(allowed)}")
        found[name] = allowed[value]
    return SimpleNamespace(**found)


# What a field does not change, by prefixes of fields. Every other field changes the weights.
# These change no result at all, and may even differ between the hosts of a run:
OF_HOST = (
    "data.data_dir",
    "data.num_threads",
    "data.num_workers",
    "data.cache",
    "weights_required",
)
# These change no result either: they may differ when a sweep goes on.
NOT_OF_RESULTS = (*OF_HOST, "log_every", "checkpoint.", "evaluation.every")
# These change neither batches nor weights: they may differ when a run goes on. The runs of a sweep
# are found again by a digest of all others.
HARMLESS = (*NOT_OF_RESULTS, "data.test_transform", "evaluation.")

_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "optimizer.name": ("adamw", "sgd"),
    "optimizer.schedule": ("cosine", "cosine_by_epoch", "constant"),
    "optimizer.weight_decay_on": ("kernels", "all"),
    "weights_head": weights.HEADS,
}
_POSITIVE_INTS = (
    "batch_size",
    "accumulate",
    "evaluation.batch_size",
    "evaluation.views",
    "checkpoint.keep",
)
_RANGES = {  # field: lowest, highest, and whether these two are allowed
    "label_smoothing": (0, 1, (True, False)),
    "ema_decay": (0, 1, (True, False)),
    "optimizer.learning_rate": (0, math.inf, (True, False)),
    "optimizer.final_learning_rate": (0, math.inf, (True, False)),
    "optimizer.weight_decay": (0, math.inf, (True, False)),
    "optimizer.beta1": (0, 1, (True, False)),
    "optimizer.beta2": (0, 1, (True, False)),
    "optimizer.momentum": (0, 1, (True, False)),
    "optimizer.clip_norm": (0, math.inf, (False, False)),
    "optimizer.layer_decay": (0, 1, (False, True)),
    "optimizer.head_learning_rate_multiplier": (0, math.inf, (False, False)),
    "steps": (1, math.inf, (True, False)),
    "seed": (0, 2**32 - 1, (True, True)),
    "evaluation.seed": (0, 2**32 - 1, (True, True)),
    "evaluation.views": (1, evaluation.MAX_VIEWS, (True, True)),
    "data.num_threads": (0, 1024, (True, True)),
    "data.num_workers": (0, 1024, (True, True)),
    "data.image_size": (1, math.inf, (True, False)),
    "mixup.alpha": (0, math.inf, (True, False)),
    "mixup.cutmix_alpha": (0, math.inf, (True, False)),
    "mixup.probability": (0, 1, (True, True)),
    "mixup.switch_probability": (0, 1, (True, True)),
}
_DURATIONS = ("duration", "log_every", "optimizer.warmup", "evaluation.every")


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for the first field that is unknown, missing, or out of its range."""
    known = dict(flatten(default_config()))
    given = dict(flatten(config))
    for field in given:
        if field not in known and not field.startswith(("model.", "noise.options.")):
            raise ValueError(unknown_field(field, known))
    for field in known:  # the model's other options may be left out
        if field not in given and (field == "model.name" or not field.startswith("model.")):
            raise ValueError(f"{field} is missing; start the config from default_config()")
    for field, default in known.items():
        of_model = field.startswith("model.") and field != "model.name"
        if not of_model and default is not None and given[field] is None:
            raise ValueError(f"{field}=None: give a value; the default is {default!r}")
    _require_model_options(given)
    for field in ("data.data_dir", "weights"):
        _require_path(field, given[field])
    for field, allowed in _CHOICES.items():
        if given[field] not in allowed:
            raise ValueError(f"{field}={given[field]!r}: choose one of {', '.join(allowed)}")
    for field in _POSITIVE_INTS:
        if not _is_int(given[field]) or given[field] < 1:
            raise ValueError(f"{field}={given[field]!r}: give a whole number of at least 1")
    for field, (low, high, closed) in _RANGES.items():
        _require_range(field, given[field], low, high, closed)
    for field in _DURATIONS:
        if given[field] is not None:
            steps_of(given[field], field=field, examples=1, batch_size=1)
    _require_checkpoint_intervals(given)
    if given["data.cache"] and given["data.num_workers"]:
        raise ValueError(
            f"data.cache=True, data.num_workers={given['data.num_workers']}: every worker would "
            "get a copy of the whole data set; set data.num_workers=0, or data.cache=False"
        )
    _require_patterns("optimizer.freeze", given["optimizer.freeze"])
    mean, std = given["data.mean"], given["data.std"]
    require_statistics(mean=mean, std=std)
    if len(mean) != len(std):
        raise ValueError(f"data.mean={mean!r}, data.std={std!r}: give as many numbers in each")


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two configs, {field: (ours, theirs)}, the harmless left out."""
    ours, theirs = (dict(flatten(config)) for config in (ours, theirs))
    return {
        field: (ours.get(field), theirs.get(field))
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field) != theirs.get(field) and not field.startswith(HARMLESS)
    }


def _require_model_options(given: Mapping[str, Any]) -> None:
    """Raises ValueError for an option of None that has a default; unknown models raise later."""
    name = given["model.name"]
    defaults = models.default_options(name) if name in models.list_models() else {}
    for option, default in defaults.items():
        if default is not None and given.get(f"model.{option}", default) is None:
            raise ValueError(f"model.{option}=None: give a value; {name} has {default!r}")


def _require_path(field: str, path: str | None) -> None:
    if path is None or (path.strip() and path not in ("None", "none") and "\0" not in path):
        return
    called = f" (./{path} where it is called that)" if path in ("None", "none") else ""
    raise ValueError(
        f"{field}={path!r} is not a path: give one{called}, or None to leave the field unset"
    )


def _require_checkpoint_intervals(given: Mapping[str, Any]) -> None:
    at_most = given["checkpoint.at_most"]
    if seconds_of(at_most, field="checkpoint.at_most") is None:
        raise ValueError(
            f"checkpoint.at_most={at_most!r}: give minutes, such as '15 minutes'; durations in "
            "steps, epochs or examples go into checkpoint.every"
        )
    every = given["checkpoint.every"]
    if seconds_of(every, field="checkpoint.every") is None:
        try:
            steps_of(every, field="checkpoint.every", examples=1, batch_size=1)
        except ValueError as error:
            raise ValueError(f"{error}; or of minutes, such as '5 minutes'") from None


def _require_patterns(field: str, patterns: Any) -> None:
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ValueError(
                f"{field}={patterns!r}: give patterns of names, such as ('patch_embed/.*',), or () "
                "to freeze nothing"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{field}={patterns!r}: {pattern!r} is not a valid regular expression ({error}); "
                "give one such as 'patch_embed/.*'"
            ) from error


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields of a config by their dotted names, tuples as lists."""
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def unknown_field(field: str, known: Iterable[str]) -> str:
    """The message for a field that is not among the known ones."""
    near = difflib.get_close_matches(field, known, n=3, cutoff=0.6)
    if near:
        return f"{field}: unknown field; did you mean {' or '.join(near)}?"
    return f"{field}: unknown field. There are: {', '.join(known)}"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_range(field: str, value: Any, low: float, high: float, closed: tuple) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{field}={value!r}: give a number")
    above = value >= low if closed[0] else value > low
    below = value <= high if closed[1] else value < high
    if not (above and below):
        interval = f"{'[' if closed[0] else '('}{low}, {high}{']' if closed[1] else ')'}"
        raise ValueError(f"{field}={value!r}: give a number in {interval}")
