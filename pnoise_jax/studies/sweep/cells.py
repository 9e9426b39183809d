"""The cells of a sweep: a config and what each cell overrides, checked before anything trains."""

import copy
import dataclasses
import functools
import itertools
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from pnoise_jax import data, models, training
from pnoise_jax.data import class_names
from pnoise_jax.training import check_training, flatten, unknown_field, unused_fields

Overrides = Mapping[str, Any]
_SEEDS = range(2**31)  # that every config allows; others are checked with all else
_Section = Mapping | ml_collections.ConfigDict


def product(fields: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of some fields, the last one changing fastest.

    ``product({"noise.strength": (0.1, 0.2), "seed": range(5)})`` is ten cells. Add such lists to
    join them.

    Raises:
      ValueError: of a field there are no values, or something else than several.
    """
    lists = {field: _values(field, values) for field, values in fields.items()}
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _values(field: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str | _Section) or not isinstance(values, Iterable):
        raise ValueError(
            f"product: {field}={values!r} is a single value: give those to try in a list, such as "
            f"{{{field!r}: [{values!r}]}}"
        )
    values = list(values)
    if not values:
        raise ValueError(
            f"product: {field}=[] leaves no cells: give at least one value, or leave the field out"
        )
    return values


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One point of a sweep.

    Attributes:
      values: of every field that the sweep sets somewhere, this cell's value as text; "" for None.
      experiment: the base config with the cell's overrides, built.
    """

    values: dict[str, str]
    experiment: training.Experiment

    @property
    def name(self) -> str:
        """Such as "strength=0.3, layer=4, seed=1"."""
        return name_of(self.values)


def name_of(values: Mapping[str, str]) -> str:
    """Short names of the fields and their values, those of None left out."""
    return ", ".join(f"{short(k, values)}={v}" for k, v in values.items() if v != "") or "base"


def short(field: str, fields: Iterable[str]) -> str:
    """ "noise.strength" to "strength"; what would not be clear among ``fields`` stays."""
    last = field.rpartition(".")[2]
    alike = [other for other in fields if other.rpartition(".")[2] == last]
    of_section = field.startswith(("evaluation.", "noise.others."))
    whole = last == "name" or of_section or len(alike) > 1
    return field if whole else last


def build_cells(
    base: ml_collections.ConfigDict,
    sweep: Iterable[Overrides],
    *,
    set_by_flags: Iterable[str] = (),
) -> list[Cell]:
    """Builds all cells, so that a bad one is found before the first is trained.

    Args:
      base: the config of all cells.
      sweep: the overrides of each cell by dotted field; "model" takes a whole section, as
        `training.model_config` makes it.
      set_by_flags: fields set on the command line, which no cell may set as well.

    Raises:
      ValueError: there are no cells, two are the same, or one is bad: it is named.
      OSError: the data of a cell, which is named, cannot be read or prepared.
    """
    sweep = list(sweep)
    if not sweep:
        raise ValueError("sweep() gives no cells; each is a dict such as {'noise.strength': 0.3}")
    for number, overrides in enumerate(sweep, 1):
        if not isinstance(overrides, Mapping):
            raise ValueError(
                f"cell {number} of sweep() is {overrides!r}: give a dict of dotted fields, such as "
                "{'noise.strength': 0.3}"
            )
    fields = list(dict.fromkeys(field for overrides in sweep for field in overrides))
    fields.sort(key=lambda field: field == "seed")  # the seed last
    _require_not_given(fields, set_by_flags)
    load = functools.cache(data.load)
    conditional = unused_fields.CONDITIONAL.intersection(fields)
    cells: dict[tuple[str, ...], Cell] = {}
    of_other_seeds: dict[str, training.Experiment] = {}  # by all fields but the seed
    for number, overrides in enumerate(sweep, 1):
        cell = _build_cell(base, overrides, fields, number, load, of_other_seeds)
        unused = unused_fields.find_unused(cell.experiment.config) if conditional else {}
        texts = cell.values | {field: as_text(training.FIELDS[field].default) for field in unused}
        key = tuple(texts[field] for field in fields)
        if key in cells:
            unused |= unused_fields.find_unused(cells[key].experiment.config)
            why = "".join(
                f"; {field} has no effect in them, as it needs {unused[field]}"
                for field in sorted(conditional & unused.keys())
            )
            raise ValueError(
                f"cell {number} of sweep() ({cell.name}) is the same as another "
                f"({cells[key].name}){why}: give each once"
            )
        cells[key] = cell
    return list(cells.values())


def describe_unused(cells: Iterable[Cell]) -> list[str]:
    """A sentence for each field that has no effect in any of the cells."""
    first, *others = (cell.experiment.config for cell in cells)
    unused = unused_fields.find_unused(first)
    for config in others:
        if not unused:
            break
        too = unused_fields.find_unused(config)
        unused = {field: needs for field, needs in unused.items() if field in too}
    return unused_fields.describe_needs(unused, dict(flatten(first)))


def _require_not_given(fields: Iterable[str], set_by_flags: Iterable[str]) -> None:
    """A section and a field in it exclude each other, too: the cell's would win silently."""
    for flag in set_by_flags:
        for field in fields:
            if f"{flag}.".startswith(f"{field}.") or f"{field}.".startswith(f"{flag}."):
                within = "" if flag == field else f" (as part of {min(flag, field, key=len)!r})"
                raise ValueError(
                    f"--config.{flag} is set on the command line and by sweep(){within}: leave one "
                    "of them out"
                )


def _build_cell(
    base: ml_collections.ConfigDict,
    overrides: Overrides,
    fields: Sequence[str],
    number: int,
    load: Callable[..., data.Dataset],
    of_other_seeds: dict[str, training.Experiment],
) -> Cell:
    others = repr({field: value for field, value in overrides.items() if field != "seed"})
    try:
        seed = overrides.get("seed")
        if others in of_other_seeds and type(seed) is int and seed in _SEEDS:
            experiment = _with_seed(of_other_seeds[others], seed)
        else:
            experiment = _build_experiment(override(base, overrides), load)
            experiment.task.check()
            of_other_seeds[others] = experiment
    except (ValueError, OSError) as error:
        named = ", ".join(f"{field}={as_text(value)}" for field, value in overrides.items())
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"cell {number} of sweep() ({named or 'base'}): {error}") from None
    config = experiment.config
    return Cell({field: text_at(config, field) for field in fields}, experiment)


def _build_experiment(
    config: ml_collections.ConfigDict, load: Callable[..., data.Dataset]
) -> training.Experiment:
    """Builds a cell's experiment; raises ValueError where no sweep can train it."""
    experiment = training.build(config, load=load)
    if not experiment.task.classifies:
        raise ValueError(
            f"task.name={config.task.name!r} classifies nothing, and a sweep compares "
            "accuracies: train each variant with launch.train"
        )
    if config.evaluation.draws > 1:
        raise ValueError(
            f"evaluation.draws={config.evaluation.draws}: the table of a sweep has no rows for "
            "means of draws; set evaluation.draws=1, or evaluate the runs by launch.evaluate"
        )
    check_training(experiment)
    return experiment


def _with_seed(experiment: training.Experiment, seed: int) -> training.Experiment:
    """The same with another seed, which decides nothing that was built or checked.

    Their configs share their sections, which nothing changes: copies would take most of the time of
    a large plan.
    """
    config: Any = experiment.config
    fields = dict(config.items(preserve_field_references=True))
    config = ml_collections.ConfigDict(fields, convert_dict=False)
    config.seed = seed
    return dataclasses.replace(experiment, config=config)


def require_one_numbering(cells: Sequence[Cell]) -> None:
    """The cells of one training call the same class by the same number, wherever their data are."""
    one = cells[0].experiment.test_data.class_names
    for cell in cells[1:]:
        other = cell.experiment.test_data.class_names
        if one is None or other is None:
            continue
        if not class_names.are_same(one, other):
            raise ValueError(
                f"{cells[0].name} and {cell.name} share a training, and their data name other "
                f"classes ({class_names.describe_order(one, other)}): give them in sweeps of "
                "their own"
            )


def override(base: ml_collections.ConfigDict, overrides: Overrides) -> ml_collections.ConfigDict:
    """A copy of ``base`` with some fields changed.

    Raises:
      ValueError: an unknown field, or a value of another type than the field's.
    """
    config = copy_config(base)
    sections = {field: value for field, value in overrides.items() if isinstance(value, _Section)}
    for field, section in sections.items():
        if field != "model":
            raise ValueError(f"{field}={section!r}: only 'model' takes a whole section")
        with config.unlocked():
            config.model = ml_collections.ConfigDict(section)
    for field, value in overrides.items():
        if field in sections:
            continue
        if not _has_field(config, field):
            raise ValueError(unknown_field(str(field), [name for name, _ in flatten(config)]))
        value = value.item() if isinstance(value, np.generic) else value
        try:
            config.update_from_flattened_dict({field: value})
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0].rpartition(". ")[2]
            raise ValueError(f"{field}={value!r}: {reason}") from None
    return config


def copy_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy that shares nothing; a sixth of the time of ``copy.deepcopy``."""
    try:
        return pickle.loads(pickle.dumps(config))
    except (pickle.PicklingError, AttributeError, TypeError):  # such as a reference with a lambda
        return copy.deepcopy(config)


def _has_field(config: ml_collections.ConfigDict, field: Any) -> bool:
    """Whether a dotted name is that of a field, and not of a section."""
    value: Any = config
    for part in str(field).split("."):
        if not isinstance(value, _Section) or part not in value:
            return False
        value = value[part]
    return not isinstance(value, _Section)


def text_at(config: ml_collections.ConfigDict, field: str) -> str:
    """`as_text` of a dotted field; "" where the config has no such field."""
    value = config
    for part in field.split("."):
        value = value.get(part) if isinstance(value, _Section) else None
    return as_text(value)


def as_text(value: Any) -> str:
    """A value as results.csv has it; of a model's section, in what it differs from its name's."""
    if value is None:
        return ""
    if isinstance(value, np.generic):
        return str(value.item())
    if not isinstance(value, _Section):
        return str(value)
    options = dict(value)
    name = options.pop("name", None)
    defaults = models.default_options(name) if name in models.list_models() else {}
    differing = (f"{k}={v!r}" for k, v in options.items() if v != defaults.get(k))
    return f"{name}({', '.join(differing)})"
