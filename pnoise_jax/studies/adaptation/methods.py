"""The runs of a study: each method, with and without the config's noise, for each seed."""

import copy
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax import data, training
from pnoise_jax.noise import injections_from_config
from pnoise_jax.registry import did_you_mean
from pnoise_jax.studies.sweep.cells import override
from pnoise_jax.studies.training_runs import require_seeds
from pnoise_jax.writing import file_name

SOURCE_ONLY, TARGET_LABELS = "source_only", "target_labels"  # the lower and the upper bound
METHODS = (SOURCE_ONLY, "dann", "tvt", "ssrt", "cdtrans", TARGET_LABELS)
LABELS = {
    SOURCE_ONLY: "source only",
    "dann": "DANN",
    "tvt": "TVT",
    "ssrt": "SSRT",
    "cdtrans": "CDTrans",
    TARGET_LABELS: "target labels",
}

NOISE = "-noise"  # ends the name of a row with noise

Overrides = Mapping[str, Mapping[str, Any]]  # by method, the values of dotted fields
# Fields that are the same in all rows, which are compared image by image, and where to set them.
_COMMON = {
    "seed": "--seeds",
    **dict.fromkeys(
        (
            "task.source",
            "task.source_split",
            "data.name",
            "data.data_dir",
            "data.test_split",
            "evaluation.batch_size",
            "evaluation.classes",
            "evaluation.draws",
            "evaluation.seed",
            "evaluation.views",
        ),
        "get_config() or pairs()",
    ),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the study's table.

    Attributes:
      name: one of `METHODS`, or one that the config adds.
      noise: whether to train, and also evaluate, with the config's noise.
    """

    name: str
    noise: bool = False

    @property
    def label(self) -> str:
        """The name shown to readers."""
        return LABELS.get(self.name, self.name) + (" + noise" if self.noise else "")

    def run_name(self, seed: int) -> str:
        """Returns the name of the run directory for a seed."""
        return f"{self.name}{NOISE if self.noise else ''}-seed_{seed}"


@dataclasses.dataclass(frozen=True, eq=False)
class StudyRun:
    """One training of a study, built and checked."""

    method: Method
    seed: int
    experiment: training.Experiment

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return self.method.run_name(self.seed)


def choose(names: Iterable[str] | None, overrides: Overrides, *, noise: bool) -> list[Method]:
    """Returns the rows of the table, including both bounds and every method without noise.

    Args:
      names: names of methods; None selects all of `METHODS`, and those that `overrides` adds.
      overrides: the result of the config's ``methods()``.
      noise: whether the config has noise.

    Raises:
      ValueError: a method is unknown or named twice.
    """
    known = list(dict.fromkeys([*METHODS[:-1], *overrides, TARGET_LABELS]))
    require_names(known, "methods()")
    names = known if names is None else list(names)
    for name in names:
        if name not in known:
            raise ValueError(f"methods: {name!r} is unknown{did_you_mean(name, known)}")
        if names.count(name) > 1:
            raise ValueError(f"methods: {name!r} appears twice; give each once")
    rows = []
    for name in known:
        if name in names or name in (SOURCE_ONLY, TARGET_LABELS):
            rows.append(Method(name))
        if name in names and noise:
            rows.append(Method(name, noise=True))
    return rows


def require_names(names: Iterable[Any], where: str) -> None:
    """Raises ValueError unless these names can be parts of the names of directories.

    Args:
      names: names of methods or pairs.
      where: the function of the config that returns them, for the message.
    """
    for name in names:
        if not isinstance(name, str) or file_name(name) != name:
            raise ValueError(
                f"{where} returns the name {name!r}, which names a directory: use letters, digits, "
                "hyphens and underscores"
            )
        if name.endswith(NOISE):
            raise ValueError(
                f"{where} returns the name {name!r}: {NOISE} marks rows with noise; choose another"
            )


def build_runs(
    base: ml_collections.ConfigDict,
    rows: Sequence[Method],
    seeds: Sequence[int],
    overrides: Overrides,
    *,
    directory: Path,
) -> list[StudyRun]:
    """Builds and checks all runs, seed by seed, before the first one trains.

    Args:
      base: the study's config, whose task section names the source.
      rows: the rows of the table, from `choose`.
      seeds: seeds of the runs.
      overrides: the result of the config's ``methods()``. The weights "source_only" are those of
        the study's source-only run with the same seed.
      directory: the absolute path of the directory of the runs; it is not accessed.

    Raises:
      ValueError: the config has no source, a seed is given twice, or a run is invalid; the message
        names the method.
      OSError: the data cannot be read or prepared.
    """
    require_seeds(seeds)
    _require_study(base)
    runs, load = [], functools.cache(data.load)
    for seed in seeds:
        for row in rows:
            with training.as_config_errors(row.label):
                fields = dict(overrides.get(row.name, {}))
                _require_common(fields)
                _require_noise(base, row, fields)
                if fields.get("weights") == SOURCE_ONLY:
                    fields["weights"] = str(directory / Method(SOURCE_ONLY).run_name(seed))
                config = configure(base, row, fields, seed)
                experiment = training.build(config, load=load)
                training.check_training(experiment)
                experiment.task.check()
            runs.append(StudyRun(row, seed, experiment))
    return runs


def _require_study(base: ml_collections.ConfigDict) -> None:
    """Raises ValueError unless the config names a source, and tables can show its evaluation."""
    if not base.task.get("source"):
        raise ValueError(
            f"task.name={base.task.name!r}: an adaptation study needs a source and a target; set "
            "config.task = task_config('dann', source='NAME', source_split='train'), and name the "
            "target in the data section"
        )
    if (draws := base.evaluation.draws) > 1:
        raise ValueError(
            f"evaluation.draws={draws}: the tables of a study have no rows for means over draws; "
            "set evaluation.draws=1, or evaluate its runs with pnoise evaluate"
        )


def _require_common(fields: Mapping[str, Any]) -> None:
    """Raises ValueError if a method changes a field that must be the same for all methods."""
    for field, where in _COMMON.items():
        if field in fields:
            raise ValueError(
                f"methods() sets {field}={fields[field]!r}, which must be the same for all "
                f"methods, as they are compared image by image: leave it out, and use {where}"
            )


def _require_noise(base: ml_collections.ConfigDict, row: Method, fields: Mapping[str, Any]) -> None:
    """Raises ValueError if a method's fields add noise to no row, or take it from a row with it."""
    changed = [field for field in fields if field.startswith("noise.")]
    if not changed:
        return
    if not injections_from_config(base.noise):
        raise ValueError(
            f"methods() sets {changed[0]}={fields[changed[0]]!r}, but the config has no noise, so "
            "no row has any: set the noise in get_config(), and here only what differs"
        )
    if row.noise and not injections_from_config(
        override(base, {f: fields[f] for f in changed}).noise
    ):
        raise ValueError(
            f"methods() sets {changed[0]}={fields[changed[0]]!r}, which leaves the row without "
            "noise: leave it out, as each method also has a row without noise"
        )


def configure(
    base: ml_collections.ConfigDict, row: Method, overrides: Mapping[str, Any], seed: int
) -> ml_collections.ConfigDict:
    """Creates the config of one run: the base with the method's task, overrides, noise and seed.

    Raises:
      ValueError: a task or field is unknown, or a value has the wrong type for its field.
    """
    config = copy.deepcopy(base)
    usual = "classification" if row.name == TARGET_LABELS else row.name
    with config.unlocked():
        config.task = _task_section(base.task, overrides.get("task.name", usual))
    rest = {field: value for field, value in overrides.items() if field != "task.name"}
    config = override(config, rest)
    if not row.noise:
        config.noise = training.default_config().noise
    config.seed = seed
    return config


def _task_section(base: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """Returns a method's task section: the base's if it is the same task, or else the defaults."""
    if name == base.name:
        return copy.deepcopy(base)
    if name == "classification":
        return training.task_config(name)
    return training.task_config(name, source=base.source, source_split=base.source_split)
