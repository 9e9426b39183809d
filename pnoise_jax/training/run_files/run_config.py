"""Checks that a work directory belongs to a config."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import ml_collections

from pnoise_jax import noise, runs
from pnoise_jax.registry import MissingModuleError
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training.configuration.config import default_config, differing, model_config
from pnoise_jax.training.configuration.fields import noise_config
from pnoise_jax.training.run_files import data_version, own_modules
from pnoise_jax.training.run_files.starting_weights import note_weights, same_weights
from pnoise_jax.training.task_registry import task_config

_SECTIONS = {"model", "data", "optimizer"}  # of every config


def claim(
    workdir: str | os.PathLike,
    config: ml_collections.ConfigDict,
    described: dict[str, Any] | None = None,
) -> Path:
    """Makes ``workdir`` the work directory of this config, or checks that it already is.

    Args:
      workdir: the directory.
      config: the run's config.
      described: the data, as returned by `data_version.describe`, to note or compare.

    Raises:
      ValueError: the directory belongs to a sweep or a study, to another config or to something
        else than a run, or its run used other data of this name; the error names what differs.
      OSError: the directory is not writable.
    """
    path = runs.make_writable(workdir, may_be_in_bucket=True)
    runs.require_layout(path)
    run = RunDirectory(path)
    if (file := run.study_file()) is not None:
        raise ValueError(
            f"--workdir={str(workdir)!r} belongs to a sweep or a study, whose runs have their own "
            f"directories in it (it has {file.relative_to(path)}): choose another directory"
        )
    trained = run.has_checkpoint()
    if trained and not run.has_run():
        raise ValueError(
            f"--workdir={str(workdir)!r} has checkpoints but no config.json, so it is unknown "
            "what was trained; choose another directory"
        )
    if trained:  # otherwise an earlier run has left nothing to resume
        check(path, config, described=described)
    elif jax.process_index() == 0:
        require_own_files(run.config, (run.data, run.modules, run.weights, run.metrics))
        _require_no_results(path, config)
        runs.write_config(run.config, config)
        note_weights(path, config.weights)
        data_version.note(path, config, described)
        own_modules.note(path, config)
    return path


def require_own_files(config: Path, others: Iterable[Path]) -> None:
    """Raises ValueError if files that would be replaced were not written by this package.

    Args:
      config: the config file, which is written first.
      others: the other files.
    """
    directory = config.parent
    if config.exists():
        stored = runs.read_config(config, named=f"--workdir={str(directory)!r}")
        foreign = [] if isinstance(stored, dict) and stored.keys() >= _SECTIONS else [config]
    else:
        foreign = [file for file in others if file.exists()]
    if foreign:
        names = ", ".join(file.name for file in foreign)
        raise ValueError(
            f"--workdir={str(directory)!r} has files of other programs, or of an incomplete run, "
            f"that would be replaced ({names}): choose another directory, or move them away"
        )


def _require_no_results(path: Path, config: ml_collections.ConfigDict) -> None:
    """Raises ValueError if the directory has the results of another run without checkpoints."""
    run = RunDirectory(path)
    if not (run.evaluation.exists() and run.has_run()):
        return
    changed = differing(read_config(path), config)
    if changed:
        raise ValueError(
            f"--workdir={str(path)!r} has the evaluation.json of a run of another config, whose "
            f"checkpoints are gone (different {', '.join(changed)}): choose another directory, or "
            "move evaluation.json away"
        )


def check(
    workdir: Path,
    config: ml_collections.ConfigDict,
    *,
    but: tuple[str, ...] = (),
    described: dict[str, Any] | None = None,
) -> None:
    """Raises ValueError if the run in the work directory has another config or other data.

    Args:
      workdir: a directory that contains a run.
      config: the expected config.
      but: prefixes of fields that may differ. With "weights", the weights that the run started from
        need not be set, nor still exist, but different weights are rejected.
      described: the data to resume with; see `claim`.
    """
    stored = read_config(workdir)
    changed = {
        field: values
        for field, values in differing(stored, config).items()
        if field != "weights" and not field.startswith(but)
    }
    started, asked = stored.weights, config.weights
    known = "weights" in but and asked in (None, started)
    if not known and not same_weights(runs.locate(workdir), started, asked):
        then = started if started != asked else f"{started} with other content"
        changed["weights"] = (then, asked)
    if changed:
        listed = "; ".join(
            f"{field}: {old!r} there, {new!r} now" for field, (old, new) in changed.items()
        )
        raise ValueError(
            f"--workdir={str(workdir)!r} contains a run of another config ({listed}): choose "
            "another directory, or set these fields back"
        )
    data_version.check(runs.locate(workdir), stored, config, described)


def read_config(
    workdir: str | os.PathLike, *, name: str = "config.json"
) -> ml_collections.ConfigDict:
    """The config of the run in ``workdir``; fields that the file does not set have their defaults.

    A retired preset is replaced by the settings that it represented.

    Args:
      workdir: the work directory.
      name: the name of the config file there.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is not a config, or its model is in a module that is not found.
    """
    file = runs.locate(workdir) / name
    named = f"--workdir={str(workdir)!r}"
    stored = runs.read_config(file, named=named)
    own_modules.remember(file.parent)
    try:
        config = default_config()
        config.model = model_config(stored["model"]["name"])
        if "task" in stored:
            config.task = task_config(stored["task"]["name"])
        if "noise" in stored:
            stored["noise"] = noise.spell_out_retired(stored["noise"])
            others = stored["noise"].get("others", {})
            config.noise.others = {name: noise_config() for name in others}
        config.update(stored)
    except MissingModuleError as error:
        raise ValueError(f"{named}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is not the config of a run ({error})") from None
    return config
