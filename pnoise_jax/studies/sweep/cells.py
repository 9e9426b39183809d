"""The cells of a sweep: a base config with overrides, checked before anything trains."""

import copy
import dataclasses
import functools
import itertools
import pickle
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from ml_collections import config_dict

from pnoise_jax import data, models, training
from pnoise_jax.data import class_names
from pnoise_jax.studies.sweep.resolved import resolve
from pnoise_jax.training import (
    NOT_OF_RESULTS,
    check_training,
    flatten,
    unknown_field,
    unused_fields,
)

Overrides = Mapping[str, Any]
_SEEDS = range(2**31)  # valid in every config; other seeds are checked in full
_Section = Mapping | ml_collections.ConfigDict
_Built = tuple[training.Experiment, Hashable]  # with what it resolves to


def product(fields: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Returns every combination of the fields' values; the last field changes fastest.

    ``product({"noise.strength": (0.1, 0.2), "seed": range(5)})`` makes ten cells. Concatenate such
    lists with ``+``.

    Raises:
      ValueError: a field has an empty list of values, or a single value instead of a list.
    """
    lists = {field: _values(field, values) for field, values in fields.items()}
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _values(field: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str | _Section) or not isinstance(values, Iterable):
        raise ValueError(
            f"product: {field}={values!r} is a single value: give a list of values, such as "
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
      values: this cell's value, as text, of every field that any cell of the sweep sets; "" for
        None.
      experiment: the experiment built from the base config with the cell's overrides.
    """

    values: dict[str, str]
    experiment: training.Experiment

    @property
    def name(self) -> str:
        """The cell's name, such as "strength=0.3, layer=4, seed=1"."""
        return name_of(self.values)


def name_of(values: Mapping[str, str]) -> str:
    """Joins the fields' short names and values, without the fields that are None."""
    return ", ".join(f"{short(k, values)}={v}" for k, v in values.items() if v != "") or "base"


def short(field: str, fields: Iterable[str]) -> str:
    """Shortens "noise.strength" to "strength", unless that is ambiguous among ``fields``."""
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
    """Builds all cells, so that an invalid one is reported before any training starts.

    Args:
      base: the config that all cells share.
      sweep: each cell's overrides by dotted field. "model" accepts a whole section, as returned by
        `training.model_config`.
      set_by_flags: fields set on the command line; no cell may set them as well.

    Raises:
      ValueError: there are no cells, two are the same, or one is invalid; the message names it.
      OSError: a cell's data cannot be read or prepared; the message names the cell.
    """
    sweep = list(sweep)
    if not sweep:
        raise ValueError(
            "sweep() returns no cells: return at least one dict, such as {'noise.strength': 0.3}"
        )
    for number, overrides in enumerate(sweep, 1):
        if not isinstance(overrides, Mapping):
            raise ValueError(
                f"cell {number} of sweep() is {overrides!r}: give a dict of dotted fields, such as "
                "{'noise.strength': 0.3}"
            )
    fields = list(dict.fromkeys(field for overrides in sweep for field in overrides))
    fields.sort(key=lambda field: field == "seed")  # the seed last
    _require_not_set_by_flags(fields, set_by_flags)
    load = functools.cache(data.load)
    cells: list[Cell] = []
    by_text: dict[Hashable, Cell] = {}
    by_meaning: dict[Hashable, Cell] = {}
    built: dict[str, _Built] = {}  # keyed by every field except the seed
    for number, overrides in enumerate(sweep, 1):
        cell, meaning = _build_cell(base, overrides, fields, number, load, built)
        text = tuple(cell.values.items())
        same = by_text.get(text) or by_meaning.get(meaning)
        if same is not None:
            raise ValueError(
                f"cell {number} of sweep() ({cell.name}) is the same as another ({same.name})"
                f"{_explain_same(cell, same)}: list each cell once"
            )
        by_text[text] = by_meaning[meaning] = cell
        cells.append(cell)
    return cells


def _explain_same(cell: Cell, same: Cell) -> str:
    """Says why the fields in which two cells differ make no difference."""
    unused = unused_fields.find_unused(cell.experiment.config)
    unused |= unused_fields.find_unused(same.experiment.config)
    reasons = []
    for field in sorted(cell.values):
        ours, theirs = cell.values[field], same.values[field]
        if ours == theirs:
            continue
        if field in unused:
            reasons.append(f"{field} has no effect in them, as it needs {unused[field]}")
        elif field in NOT_OF_RESULTS:
            reasons.append(f"{field} changes no result")
        else:
            values = f"{theirs or None} and {ours or None}"
            reasons.append(f"{field}: {values} come to the same in them")
    return "".join(f"; {reason}" for reason in reasons)


def describe_unused(cells: Iterable[Cell]) -> list[str]:
    """Returns a sentence for each field that has no effect in any of the cells."""
    first, *others = (cell.experiment.config for cell in cells)
    unused = unused_fields.find_unused(first)
    for config in others:
        if not unused:
            break
        too = unused_fields.find_unused(config)
        unused = {field: needs for field, needs in unused.items() if field in too}
    return unused_fields.describe_needs(unused, dict(flatten(first)))


def _require_not_set_by_flags(fields: Iterable[str], set_by_flags: Iterable[str]) -> None:
    """Raises ValueError if a cell sets a field that a flag sets, or a section that contains it.

    Otherwise the cell's value would silently override the flag.
    """
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
    built: dict[str, _Built],
) -> tuple[Cell, Hashable]:
    """Returns a cell, and a key that is equal for cells whose results are the same."""
    others = repr({field: value for field, value in overrides.items() if field != "seed"})
    named = ", ".join(f"{field}={as_text(value)}" for field, value in overrides.items())
    with training.as_config_errors(f"cell {number} of sweep() ({named or 'base'})"):
        seed = overrides.get("seed")
        if others in built and type(seed) is int and seed in _SEEDS and not _has_reference(base):
            experiment, resolved = built[others]
            experiment = _with_seed(experiment, seed)
        else:
            experiment = _build_experiment(override(base, overrides), load)
            experiment.task.check()
            resolved = resolve(experiment)
            built[others] = experiment, resolved
    config = experiment.config
    cell = Cell({field: text_at(config, field) for field in fields}, experiment)
    return cell, (config.seed, resolved)


def _build_experiment(
    config: ml_collections.ConfigDict, load: Callable[..., data.Dataset]
) -> training.Experiment:
    """Builds a cell's experiment; raises ValueError if a sweep cannot train it."""
    experiment = training.build(config, load=load)
    if not experiment.task.classifies:
        raise ValueError(
            f"task.name={config.task.name!r} classifies nothing, and a sweep compares "
            "accuracies: train each variant with pnoise train"
        )
    if config.evaluation.draws > 1:
        raise ValueError(
            f"evaluation.draws={config.evaluation.draws}: the table of a sweep has no rows for "
            "means over draws; set evaluation.draws=1, or evaluate the runs with pnoise evaluate"
        )
    check_training(experiment)
    return experiment


def _with_seed(experiment: training.Experiment, seed: int) -> training.Experiment:
    """Returns the experiment with another seed; nothing that was built or checked depends on it.

    The two configs share their sections, which nothing modifies: copying them would take most of
    the time needed to plan a large sweep.
    """
    config: Any = experiment.config
    fields = dict(config.items(preserve_field_references=True))
    config = ml_collections.ConfigDict(fields, convert_dict=False)
    config.seed = seed
    return dataclasses.replace(experiment, config=config)


def _has_reference(config: Any) -> bool:
    """Returns whether the seed is a reference: other fields may follow it, and copies share it."""
    seed = dict(config.items(preserve_field_references=True))["seed"]
    return isinstance(seed, config_dict.FieldReference)


def require_one_numbering(cells: Sequence[Cell]) -> None:
    """Raises ValueError unless the cells' data sets number their classes alike.

    The cells share one training, even if their data are in different places.
    """
    one = cells[0].experiment.test_data.class_names
    for cell in cells[1:]:
        other = cell.experiment.test_data.class_names
        if one is None or other is None:
            continue
        if not class_names.are_same(one, other):
            raise ValueError(
                f"{cells[0].name} and {cell.name} share a training, but their data sets name the "
                f"classes differently ({class_names.describe_order(one, other)}): put them in "
                "separate sweeps"
            )


def override(base: ml_collections.ConfigDict, overrides: Overrides) -> ml_collections.ConfigDict:
    """Returns a copy of ``base`` with some fields changed.

    Raises:
      ValueError: a field is unknown, or a value has the wrong type for its field.
    """
    config = copy_config(base)
    sections = {field: value for field, value in overrides.items() if isinstance(value, _Section)}
    for field, section in sections.items():
        if field != "model":
            raise ValueError(f"{field}={section!r}: only 'model' accepts a whole section")
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
    """Returns a deep copy, in a sixth of the time of ``copy.deepcopy``."""
    try:
        return pickle.loads(pickle.dumps(config))
    except (pickle.PicklingError, AttributeError, TypeError):  # such as a reference with a lambda
        return copy.deepcopy(config)


def _has_field(config: ml_collections.ConfigDict, field: Any) -> bool:
    """Returns whether a dotted name refers to an existing field, not to a section."""
    value: Any = config
    for part in str(field).split("."):
        if not isinstance(value, _Section) or part not in value:
            return False
        value = value[part]
    return not isinstance(value, _Section)


def text_at(config: ml_collections.ConfigDict, field: str) -> str:
    """Returns a dotted field `as_text`; "" if the config has no such field."""
    value = config
    for part in field.split("."):
        value = value.get(part) if isinstance(value, _Section) else None
    return as_text(value)


def as_text(value: Any) -> str:
    """Formats a value for results.csv; a model section as its name and non-default options."""
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
