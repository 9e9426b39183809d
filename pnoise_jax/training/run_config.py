"""Which config the directory of a run belongs to."""

import os
from pathlib import Path
from typing import Any

import jax
import ml_collections

from pnoise_jax import noise, runs
from pnoise_jax.registry import MissingModuleError
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training import data_version, own_modules
from pnoise_jax.training.config import default_config, differing, model_config
from pnoise_jax.training.fields import noise_config
from pnoise_jax.training.starting_weights import note_weights, same_weights
from pnoise_jax.training.task_registry import task_config


def claim(
    workdir: str | os.PathLike,
    config: ml_collections.ConfigDict,
    described: dict[str, Any] | None = None,
) -> Path:
    """Makes ``workdir`` this config's: creates it, or checks that it already is.

    Args:
      workdir: the directory.
      config: of the run.
      described: its data, as `data_version.describe` gives it, to be noted or compared.

    Raises:
      ValueError: it belongs to another config, or has used other data by this name; the error
        names what differs.
      OSError: it cannot be written.
    """
    path = runs.make_writable(workdir, may_be_in_bucket=True)
    runs.require_layout(path)
    run = RunDirectory(path)
    trained = run.has_checkpoint()
    if trained and not run.has_run():
        raise ValueError(
            f"--workdir={str(workdir)!r} has checkpoints but no config.json, so it is not known "
            "what was trained; choose another directory"
        )
    if trained:  # else whatever was begun here has left nothing
        check(path, config, described=described)
    elif jax.process_index() == 0:
        _require_no_results(path, config)
        runs.write_config(run.config, config)
        note_weights(path, config.weights)
        data_version.note(path, config, described)
        own_modules.note(path, config)
    return path


def _require_no_results(path: Path, config: ml_collections.ConfigDict) -> None:
    """Raises ValueError where the results of another run are, whose checkpoints are gone."""
    run = RunDirectory(path)
    if not (run.evaluation.exists() and run.has_run()):
        return
    changed = differing(read_config(path), config)
    if changed:
        raise ValueError(
            f"--workdir={str(path)!r} has the evaluation.json of a run of another config, whose "
            f"checkpoints are gone (other {', '.join(changed)}): choose another directory, or move "
            "evaluation.json away"
        )


def check(
    workdir: Path,
    config: ml_collections.ConfigDict,
    *,
    but: tuple[str, ...] = (),
    described: dict[str, Any] | None = None,
) -> None:
    """Raises ValueError where the work directory's config, or its data's version, is another.

    Args:
      workdir: one that holds a run.
      config: what it should be.
      but: prefixes of fields that may differ; with "weights", those the run has started from need
        not be given, nor be there, but others are refused.
      described: the data to go on with, see `claim`.
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
            f"--workdir={str(workdir)!r} holds a run of another config ({listed}): choose another "
            "directory, or set these fields back"
        )
    data_version.check(runs.locate(workdir), stored, config, described)


def read_config(
    workdir: str | os.PathLike, *, name: str = "config.json"
) -> ml_collections.ConfigDict:
    """The config of the run that ``workdir`` holds; what it does not say is at its default.

    A preset that is retired by now is replaced by the settings that it stood for.

    Args:
      workdir: the work directory.
      name: of the file there.

    Raises:
      FileNotFoundError: it holds none.
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
