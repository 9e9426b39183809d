"""The work directory: which config it belongs to, and whether it can be written."""

import contextlib
import fcntl
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import jax
import ml_collections

from pnoise_jax import noise, weights, writing
from pnoise_jax.registry import MissingModuleError
from pnoise_jax.training import data_version, own_modules
from pnoise_jax.training.config import default_config, differing, model_config

_WEIGHTS = "weights.json"  # beside config.json, where a run starts from weights
_FILES = ("config.json", "data.json", own_modules.FILE, _WEIGHTS, "metrics.jsonl")
_FILES += ("evaluation.json", ".lock")
_DIRECTORIES = ("checkpoints", "evaluations", "unreadable")


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
    path = make_writable(workdir)
    require_layout(path)
    file = path / "config.json"
    trained = has_checkpoint(path)
    if trained and not file.exists():
        raise ValueError(
            f"--workdir={str(workdir)!r} has checkpoints but no config.json, so it is not known "
            "what was trained; choose another directory"
        )
    if trained:  # else whatever was begun here has left nothing
        check(path, config, described=described)
    elif jax.process_index() == 0:
        _require_no_results(path, config)
        write_config(file, config)
        note_weights(path, config.weights)
        data_version.note(path, config, described)
        own_modules.note(path, config)
    return path


def note_weights(path: Path, given: str | None) -> None:
    """Writes down which weights a run starts from, so that it knows them wherever they are."""
    note = path / _WEIGHTS
    if given is None:
        note.unlink(missing_ok=True)
    else:
        digest = weights.fingerprint(Path(given).expanduser())
        content = json.dumps({"weights": given, "fingerprint": digest}) + "\n"
        writing.replace_file(note, content)


def noted_weights(path: Path) -> tuple[str, str] | None:
    """The path and the fingerprint of the weights that a run there has started from, as noted."""
    try:
        note = json.loads((path / _WEIGHTS).read_text())
        return note["weights"], note["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def same_weights(path: Path, ours: str | None, theirs: str | None) -> bool:
    """Whether two paths stand for the weights that the run there has started from.

    Their content says it. Where the second leads nowhere, as what is no longer needed may be gone,
    its name decides, and where no content was noted the whole path.

    Raises:
      ValueError, OSError: the second leads somewhere, but not to weights that can be read.
    """
    if ours is None or theirs is None:
        return ours == theirs
    place = Path(theirs).expanduser()
    if not place.exists():
        return place.name == Path(ours).name
    noted = noted_weights(path)
    return ours == theirs if noted is None else noted[1] == weights.fingerprint(place)


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Whether a run there would go on, rather than start."""
    checkpoints = (Path(workdir).expanduser() / "checkpoints").glob("[0-9]*")
    return any(path.name.isdigit() for path in checkpoints)  # not one that is half written


def make_writable(workdir: str | os.PathLike, *, flag: str = "workdir") -> Path:
    """The directory, made if need be; the flag that names it is for errors.

    Raises:
      ValueError: that is no path of one.
      OSError: it cannot be written.
    """
    if not str(workdir).strip() or "://" in str(workdir):
        raise ValueError(
            f"--{flag}={str(workdir)!r} is not a directory: give the path of one. To keep runs in "
            "a bucket, mount it with gcsfuse; several hosts can share NFS, Filestore or Lustre, too"
        )
    path = Path(workdir).expanduser().absolute()
    if flag == "workdir" and os.fsencode(path).decode(errors="ignore") != str(path):
        raise ValueError(
            f"--{flag}={str(workdir)!r} is not in UTF-8, and checkpoints cannot be written there: "
            "choose another directory, or rename it"
        )
    return writing.make_directory(path, named=f"--{flag}={str(workdir)!r}")


def require_layout(path: Path) -> None:
    """Raises OSError where a file stands in the place of a directory of a run, or the reverse."""
    named = f"--workdir={str(path)!r}"
    writing.require_places(path, named=named, files=_FILES, directories=_DIRECTORIES)
    for place in sorted((path / "checkpoints").glob("*")):  # Orbax takes such for its own
        if place.name.isdecimal() and (not place.is_dir() or place.name != str(int(place.name))):
            raise OSError(f"{named}: {place} is called like a checkpoint and is none: move it away")


def _require_no_results(path: Path, config: ml_collections.ConfigDict) -> None:
    """Raises ValueError where the results of another run are, whose checkpoints are gone."""
    if not ((path / "evaluation.json").exists() and (path / "config.json").exists()):
        return
    changed = differing(read_config(path), config)
    if changed:
        raise ValueError(
            f"--workdir={str(path)!r} has the evaluation.json of a run of another config, whose "
            f"checkpoints are gone (other {', '.join(changed)}): choose another directory, or move "
            "evaluation.json away"
        )


def write_config(file: Path, config: ml_collections.ConfigDict) -> None:
    """Writes a config as JSON, at once or not at all."""
    writing.replace_file(file, config.to_json_best_effort(indent=2) + "\n")


@contextlib.contextmanager
def lock(path: Path) -> Iterator[Callable[[], None]]:
    """Keeps other processes on this machine from training in ``path``; ends with the process.

    Yields:
      A function that raises OSError where the directory has been deleted or replaced since.

    Raises:
      OSError: one does.
    """
    if jax.process_index() != 0:
        yield functools.partial(_require_there, path, None)
        return
    writing.require_places(path, named=f"--workdir={str(path)!r}", files=(".lock",))
    with (path / ".lock").open("a") as file:  # a directory that is refused stays as it was
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"--workdir={str(path)!r} is in use: another process trains there; wait for it, or "
                "choose another directory"
            ) from None
        yield functools.partial(_require_there, path, file)


def _require_there(path: Path, locked: IO | None) -> None:
    """Raises OSError where the directory was deleted, or another run has made it anew."""
    file, named = path / ".lock", f"--workdir={str(path)!r}"
    what = None
    if not path.is_dir():
        what = "was replaced by a file" if os.path.lexists(path) else "was deleted or moved"
    elif locked is not None and file.exists() and not _is_same_file(file, locked):
        what = "was deleted, and another run has made it anew"
    elif not (path / "config.json").exists():
        if not has_checkpoint(path):
            what = "has lost its config.json"
        else:
            raise OSError(
                f"{named} has lost its config.json while this run was going on: put it back, and "
                "start the same command again; the checkpoints there are as they were, and what "
                "was trained since the last one is lost"
            )
    if what is not None:
        raise OSError(
            f"{named} {what} while this run was going on: its checkpoints and metrics there are "
            "lost, and so is what it has trained. Put the directory back, or start again in "
            "another one"
        )


def _is_same_file(file: Path, opened: IO) -> bool:
    return os.path.samestat(file.stat(), os.fstat(opened.fileno()))


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
    if not known and not same_weights(Path(workdir), started, asked):
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
    data_version.check(Path(workdir).expanduser(), stored, config, described)


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
    file = Path(workdir).expanduser() / name
    named = f"--workdir={str(workdir)!r}"
    try:
        if file.exists() and not file.is_file():
            kind = "a directory" if file.is_dir() else "not a regular file"
            raise FileNotFoundError(f"{named} holds no run: {file} is {kind}; move it away")
        stored = json.loads(file.read_text(), object_hook=_lists_to_tuples)
    except (FileNotFoundError, NotADirectoryError) as error:
        if error.errno is None:
            raise
        raise FileNotFoundError(
            f"{named} holds no run: {file} does not exist; train there first"
        ) from None
    except OSError as error:
        raise OSError(f"{named}: {file} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); restore it from a copy") from None
    own_modules.remember(file.parent)
    try:
        config = default_config()
        config.model = model_config(stored["model"]["name"])
        if "noise" in stored:
            stored["noise"] = noise.spell_out_retired(stored["noise"])
        config.update(stored)
    except MissingModuleError as error:
        raise ValueError(f"{named}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is not the config of a run ({error})") from None
    return config


def _lists_to_tuples(section: dict) -> dict:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in section.items()}


def require_room(path: Path, needed: int) -> None:
    """Raises OSError unless the file system of ``path`` has ``needed`` bytes left."""
    free = shutil.disk_usage(path).free
    if free < needed:
        raise OSError(
            f"--workdir={str(path)!r} has {free / 1e6:.0f} MB left and the checkpoints need about "
            f"{needed / 1e6:.0f} MB: make room, or lower checkpoint.keep"
        )
