"""The runs of an audit, one for each seed: finds them, and checks that they belong together."""

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from pnoise_jax import training
from pnoise_jax.data import class_names
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training import NOT_OF_WEIGHTS, data_version, differing, run_config

_SEED_DIRECTORY = re.compile(r"seed_([0-9]+)")


def find_runs(workdir: Path) -> dict[int, Path]:
    """Returns the runs of a work directory by seed: the directory itself, and its seed_*.

    Raises:
      ValueError: the config of a run is not readable.
    """
    runs = {}
    if RunDirectory(workdir).has_run():
        runs[training.read_config(workdir).seed] = workdir
    for directory in sorted(workdir.glob("seed_*")):
        match = _SEED_DIRECTORY.fullmatch(directory.name)
        if match and RunDirectory(directory).has_run():
            runs.setdefault(int(match[1]), directory)
    return runs


def read_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """Returns the config of the first run in ``workdir``.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: the config is not readable.
    """
    runs = find_runs(Path(workdir).expanduser())
    if not runs:
        raise FileNotFoundError(
            f"--workdir={str(workdir)!r} holds no run: neither config.json nor seed_*/config.json "
            "exists; give --config, and missing runs are trained"
        )
    return training.read_config(next(iter(runs.values())))


def choose_seeds(
    seeds: Sequence[int] | None, runs: dict[int, Path], config: ml_collections.ConfigDict
) -> list[int]:
    if seeds is None:
        return sorted(runs) or [config.seed]
    if not seeds:
        raise ValueError("seeds is empty: give seeds, such as 0,1,2,3,4, or leave it out")
    chosen = [int(seed) for seed in seeds]
    for seed in chosen:
        if not 0 <= seed < 2**32 or chosen.count(seed) > 1:
            raise ValueError(f"seeds={chosen}: give different whole numbers from 0 to {2**32 - 1}")
    return chosen


def require_same_config(config: ml_collections.ConfigDict, runs: dict[int, Path]) -> None:
    """Raises ValueError unless the runs fit ``config`` and each other, as their mean requires."""
    reference = None
    for seed, path in runs.items():
        stored = training.read_config(path)
        if stored.seed != seed:
            raise ValueError(
                f"{path} holds the run of seed {stored.seed}: rename it to seed_{stored.seed}"
            )
        reference = reference or (path, stored)
        changed = differing(reference[1], with_seed(stored, reference[1].seed))
        if changed:
            listed = "; ".join(
                f"{field}: {one!r} in {reference[0].name}, {other!r} in {path.name}"
                for field, (one, other) in changed.items()
            )
            raise ValueError(
                f"the seeds in {path.parent} come from different configs ({listed}): audit them "
                "one by one, or move those that do not belong to another directory"
            )
        run_config.check(path, with_seed(config, seed), but=NOT_OF_WEIGHTS)
        _require_same_classes(reference[0], path)


def _require_same_classes(one: Path, other: Path) -> None:
    """Raises ValueError if two runs number their classes differently."""
    theirs, ours = (data_version.read(path).get("class_names") for path in (one, other))
    if theirs is None or ours is None:
        return
    if not class_names.are_same(theirs, ours):
        raise ValueError(
            f"the runs {one.name} and {other.name} in {one.parent} have numbered classes "
            f"differently ({class_names.describe_order(theirs, ours)}): audit them one by one, or "
            "move those that do not belong to another directory"
        )


def require_same_task(experiment: training.Experiment, runs: dict[int, Path]) -> None:
    """Raises ValueError unless the data set has the image shape and class count of the runs."""
    for path in list(runs.values())[:1]:
        stored = training.build(training.read_config(path)).test_data
        asked = experiment.test_data
        if (stored.image_shape, stored.num_classes) != (asked.image_shape, asked.num_classes):
            raise ValueError(
                f"data.name={asked.name!r} has images {asked.image_shape} of {asked.num_classes} "
                f"classes, but the runs in {path.parent} were trained on images "
                f"{stored.image_shape} of {stored.num_classes} classes: audit them on such data"
            )


def with_seed(config: ml_collections.ConfigDict, seed: int) -> ml_collections.ConfigDict:
    config = copy.deepcopy(config)
    config.seed = seed
    return config
