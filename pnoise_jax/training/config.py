"""The config of a run, built from its declared fields and validated."""

import functools
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import ml_collections
from ml_collections import config_dict

from pnoise_jax import models, noise
from pnoise_jax.registry import similar
from pnoise_jax.training.field_kinds import Affects
from pnoise_jax.training.fields import FIELDS, affecting, flatten, noise_config


def default_config() -> ml_collections.ConfigDict:
    """All fields of a run with their defaults; a config file changes those it cares about.

    docs/config.md lists them. Durations are strings: "500 steps", "10 epochs", "1e6 examples", for
    checkpoints also "15 minutes". Fields of None are not set.
    """
    config = ml_collections.ConfigDict()
    for name, field in FIELDS.items():
        section, _, key = name.rpartition(".")
        if section and section not in config:
            config[section] = ml_collections.ConfigDict()
        (config[section] if section else config)[key] = field.placeholder()
        if section == "model":
            config.model = model_config(field.default)
            config.noise = noise_config()
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


# May differ between the hosts of a run:
OF_HOST = affecting(Affects.HOST)
# May differ when a sweep goes on:
NOT_OF_RESULTS = affecting(Affects.HOST, Affects.NOTHING)
# May differ when a run goes on. The runs of a sweep are found again by a digest of all others.
HARMLESS = affecting(Affects.HOST, Affects.NOTHING, Affects.RESULTS)


# Sections whose fields are checked by what they describe.
_OPEN = ("model.", "task.", "noise.options.", "noise.others.")


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for the first field that is unknown, missing, or out of its range."""
    known = _default_fields()
    given = dict(flatten(config))
    for field in given:
        if field not in known and not field.startswith(_OPEN):
            raise ValueError(unknown_field(field, known))
    for field in known:  # the model's other options may be left out
        if field not in given and (field == "model.name" or not field.startswith("model.")):
            raise ValueError(f"{field} is missing; start the config from default_config()")
    for name, field in FIELDS.items():
        field.validate(name, given[name])
    if "others" not in config.noise:
        raise ValueError("noise.others is missing; start the config from default_config()")
    for name, section in config.noise.others.items():
        _require_noise_fields(f"noise.others.{name}", section)
    _require_model_options(given)
    if given["data.cache"] and given["data.num_workers"]:
        raise ValueError(
            f"data.cache=True, data.num_workers={given['data.num_workers']}: every worker would "
            "get a copy of the whole data set; set data.num_workers=0, or data.cache=False"
        )
    mean, std = given["data.mean"], given["data.std"]
    if given["data.mean_image"] is not None and list(std) != [1.0]:
        raise ValueError(
            f"data.mean_image={given['data.mean_image']!r}, data.std={std!r}: nothing is divided "
            "by where a mean image is subtracted; set data.std=(1.0,)"
        )
    if given["data.mean_image"] is None and len(mean) != len(std):
        raise ValueError(f"data.mean={mean!r}, data.std={std!r}: give as many numbers in each")


@functools.cache  # a sweep validates thousands of configs
def _default_fields() -> Mapping[str, Any]:
    return dict(flatten(default_config()))


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two configs, {field: (ours, theirs)}, the harmless left out."""
    ours, theirs = (dict(flatten(config)) for config in (ours, theirs))
    return {
        field: (ours.get(field), theirs.get(field))
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field) != theirs.get(field) and not field.startswith(HARMLESS)
    }


def _require_noise_fields(name: str, section: Any) -> None:
    """Raises ValueError unless one of noise.others has the fields of a noise section."""
    how = "make it by training.noise_config(...), such as noise_config(preset='paper_vit')"
    if not isinstance(section, ml_collections.ConfigDict):
        raise ValueError(f"{name}={section!r} is not a section: {how}")
    known = noise.CONFIG_FIELDS
    for key in section:
        if key not in known:
            raise ValueError(unknown_field(f"{name}.{key}", [f"{name}.{k}" for k in known]))
    for key in known:
        if key not in section:
            raise ValueError(f"{name}.{key} is missing: {how}")


def _require_model_options(given: Mapping[str, Any]) -> None:
    """Raises ValueError for an option of None that has a default; unknown models raise later."""
    name = given["model.name"]
    defaults = models.default_options(name) if name in models.list_models() else {}
    for option, default in defaults.items():
        if default is not None and given.get(f"model.{option}", default) is None:
            raise ValueError(f"model.{option}=None: give a value; {name} has {default!r}")


def unknown_field(field: str, known: Collection[str]) -> str:
    """The message for a field that is not among the known ones."""
    section, _, option = field.partition(".")
    options = [name.partition(".")[2] for name in known]
    if section == "model" and (why := models.explain_absent_option(option, options)):
        return f"{field}: {why}"
    section, dot, last = field.rpartition(".")
    of_section = [name for name in known if dot and name.startswith(f"{section}.")]
    siblings = {name.removeprefix(f"{section}."): name for name in of_section}
    among = of_section or list(known)
    near = [name for name in among if last in _short_forms(name)]
    if siblings:
        near = near or [siblings[short] for short in similar(last, siblings)]
    else:  # the section is wrong, or is missing
        near = (dot and similar(field, among)) or near or similar(field, among)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return f"{field}: unknown field{hint}" + ("" if near else f" Choose one of: {', '.join(among)}")


def _short_forms(field: str) -> tuple[str, ...]:
    """The last part of a dotted name, "learning_rate" say, and its initials, "lr"."""
    last = field.rpartition(".")[2]
    words = last.split("_")
    return (last, "".join(word[0] for word in words)) if len(words) > 1 else (last,)
