"""The config of a run, built from its declared fields and validated."""

import functools
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import ml_collections
from ml_collections import config_dict

from pnoise_jax import models, noise
from pnoise_jax.registry import similar
from pnoise_jax.training.configuration.field_kinds import Affects
from pnoise_jax.training.configuration.fields import FIELDS, affecting, flatten, noise_config


def default_config() -> ml_collections.ConfigDict:
    """All fields of a run with their defaults; a config file changes only some of them.

    docs/config.md lists them. Durations are strings: "500 steps", "10 epochs", "1e6 examples"; for
    checkpoints also "15 minutes". Fields that are None are not set.
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
    """The model section: a model's name and all its options for `models.create_model`.

    An option whose default is None becomes a placeholder for a whole number.

    Raises:
      ValueError: the name or an option is unknown.
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
    """Parse the arguments after the colon in ``--config file.py:model=b16,size=384``.

    Args:
      file: the name of the config file, for the error message.
      text: the text after the colon, if any. An argument that it omits has its first choice.
      **choices: the allowed values of each argument, strings or numbers.

    Raises:
      ValueError: an argument is unknown, or its value is not one of the choices.
    """
    arguments = {name: allowed[0] for name, allowed in choices.items()}
    for part in filter(None, (text or "").split(",")):
        name, _, value = (side.strip() for side in part.partition("="))
        usage = ",".join(f"{key}={'|'.join(map(str, any_of))}" for key, any_of in choices.items())
        if name not in choices:
            raise ValueError(f"{file}:{part}: unknown argument {name!r}; give {usage}")
        allowed = {str(choice): choice for choice in choices[name]}
        if value not in allowed:
            raise ValueError(f"{file}:{part}: {name} must be one of {', '.join(allowed)}")
        arguments[name] = allowed[value]
    return SimpleNamespace(**arguments)


# Fields that may differ between the hosts of a run.
OF_HOST = affecting(Affects.HOST)
# Fields that may change when a sweep is resumed.
NOT_OF_RESULTS = affecting(Affects.HOST, Affects.NOTHING)
# Fields that may change when a run is resumed. A digest of all others identifies a sweep's runs.
HARMLESS = affecting(Affects.HOST, Affects.NOTHING, Affects.RESULTS)


# Sections whose fields are checked by the model, task or noise that they describe.
_OPEN = ("model.", "task.", "noise.options.", "noise.others.")


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for the first field that is unknown, missing, or out of its range."""
    known = _default_fields()
    values = dict(flatten(config))
    for field in values:
        if field not in known and not field.startswith(_OPEN):
            raise ValueError(unknown_field(field, known))
    for field in known:  # the model's other options may be left out
        if field not in values and (field == "model.name" or not field.startswith("model.")):
            raise ValueError(f"{field} is missing; start the config from default_config()")
    for name, field in FIELDS.items():
        field.validate(name, values[name])
    if "others" not in config.noise:
        raise ValueError("noise.others is missing; start the config from default_config()")
    for name, section in config.noise.others.items():
        _require_noise_fields(f"noise.others.{name}", section)
    _require_model_options(values)
    if values["data.cache"] and values["data.num_workers"]:
        raise ValueError(
            f"data.cache=True, data.num_workers={values['data.num_workers']}: every worker would "
            "get a copy of the whole data set; set data.num_workers=0, or data.cache=False"
        )
    mean, std = values["data.mean"], values["data.std"]
    if values["data.mean_image"] is not None and list(std) != [1.0]:
        raise ValueError(
            f"data.mean_image={values['data.mean_image']!r}, data.std={std!r}: pixels are not "
            "divided by anything if a mean image is subtracted; set data.std=(1.0,)"
        )
    if values["data.mean_image"] is None and len(mean) != len(std):
        raise ValueError(
            f"data.mean={mean!r}, data.std={std!r}: give the same number of values in both"
        )


@functools.cache  # a sweep validates thousands of configs
def _default_fields() -> Mapping[str, Any]:
    return dict(flatten(default_config()))


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields that differ between two configs, {field: (ours, theirs)}, except `HARMLESS`."""
    ours, theirs = (dict(flatten(config)) for config in (ours, theirs))
    return {
        field: (ours.get(field), theirs.get(field))
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field) != theirs.get(field) and not field.startswith(HARMLESS)
    }


def _require_noise_fields(name: str, section: Any) -> None:
    """Raises ValueError unless an entry of noise.others has the fields of a noise section."""
    how = "create it with training.noise_config(...), such as noise_config(preset='paper_vit')"
    if not isinstance(section, ml_collections.ConfigDict):
        raise ValueError(f"{name}={section!r} is not a section: {how}")
    known = noise.CONFIG_FIELDS
    for key in section:
        if key not in known:
            raise ValueError(unknown_field(f"{name}.{key}", [f"{name}.{k}" for k in known]))
    for key in known:
        if key not in section:
            raise ValueError(f"{name}.{key} is missing: {how}")


def _require_model_options(values: Mapping[str, Any]) -> None:
    """Raises ValueError if an option with a default is None; unknown models raise later."""
    name = values["model.name"]
    defaults = models.default_options(name) if name in models.list_models() else {}
    for option, default in defaults.items():
        if default is not None and values.get(f"model.{option}", default) is None:
            raise ValueError(
                f"model.{option}=None: give a value; the default of {name} is {default!r}"
            )


def unknown_field(field: str, known: Collection[str]) -> str:
    """The error message for a field that is not among the known ones."""
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
    """The last part of a dotted name, such as "learning_rate", and its initials, "lr"."""
    last = field.rpartition(".")[2]
    words = last.split("_")
    return (last, "".join(word[0] for word in words)) if len(words) > 1 else (last,)
