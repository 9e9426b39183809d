"""The flags of programs that work on a config or a run: --config, --workdir and --data_dir."""

import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_collections
from absl import flags
from ml_collections import config_flags

from pnoise_jax import training, writing
from pnoise_jax.registry import did_you_mean
from pnoise_jax.terminal import say

from . import config_errors, values
from .ending import WRONG_COMMAND, code_of, end

_BUILT_IN_CONFIGS = Path(__file__).parents[1] / "configs"

flags.disclaim_key_flags()  # these flags are the programs' own, and so in their --help


def define_run_flags(
    *,
    config_required: bool,
    workdir_required: bool = True,
    workdir_may_be_url: bool = False,
    read_config: Callable[[str], ml_collections.ConfigDict] = training.read_config,
) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """Defines --config, --workdir and --data_dir.

    If no config is required, the default is the run's config.

    Args:
      config_required: whether --config is required, because there may be no run yet.
      workdir_required: whether --workdir is required; if not, a config can be enough.
      workdir_may_be_url: whether the program can work in a bucket.
      read_config: reads the config of the run from the work directory.
    """
    meaning = "Work directory of the run; it is created, or the run in it is resumed."
    if workdir_may_be_url:
        meaning += " It can be gs://BUCKET/FOLDER."
    if not workdir_required:
        meaning = "Work directory of a run whose weights to use."
    workdir = flags.DEFINE_string("workdir", None, meaning)
    given = _given_on_command_line("workdir")
    if given is not None and not workdir_may_be_url:
        try:
            writing.require_local(given, named=f"--workdir={given!r}")
        except ValueError as error:
            end(f"error: {error}", WRONG_COMMAND)
    if workdir_required:  # before --config, which an error then names second
        flags.mark_flag_as_required("workdir")
    if config_required or given is None or _given_on_command_line("config") is not None:
        config = define_config_flag(
            "" if config_required else "; by default, the config of the run in --workdir"
        )
    else:
        _define_data_dir()
        try:
            stored = read_config(given)
        except (ValueError, OSError) as error:
            end(f"error: {error}", code_of(error))
        try:
            config = config_flags.DEFINE_config_dict("config", stored, "The config of the run.")
        except Exception as error:
            end_on_config_error(error)
    return config, workdir


def define_config_flag(default: str = "") -> flags.FlagHolder:
    """Defines --config and --data_dir, for programs that need no run.

    Args:
      default: what --help adds about the config that is used without the flag.
    """
    _define_data_dir()
    _find_config_file()
    config = config_flags.DEFINE_config_file(
        "config",
        None,
        f"Config file, or the name of a built-in config, such as digits_vit{default}.",
    )
    flags.mark_flag_as_required("config")
    return config


def _define_data_dir() -> None:
    flags.DEFINE(
        values.Parser(str, flags.ArgumentParser()),
        "data_dir",
        None,
        "Directory of the data sets; short for --config.data.data_dir.",
        serializer=flags.ArgumentSerializer(),
    )
    values.let_none_unset_fields()


def read_sweep() -> tuple[list, list[str]]:
    """The cells of the config file's ``sweep()``, and the fields that the command line sets.

    Raises:
      ValueError: the file has no such function, or it returns no cells.
    """
    cells = call_config_function("sweep")
    file = config_file()
    if cells is None and "sweep" not in _config_names(file):
        raise ValueError(
            f"--config={file} has no sweep(): define it next to get_config() to return a list "
            "with a dict of fields for each cell, such as {'noise.strength': 0.3, 'seed': 1}"
        )
    if not isinstance(cells, list):
        raise ValueError(
            f"--config={file}: sweep() returns {cells!r}: make it return a list of cells, each a "
            "dict such as {'noise.strength': 0.3, 'seed': 1}"
        )
    return cells, set_by_flags()


def set_by_flags() -> list[str]:
    """The dotted fields that the command line sets, such as "optimizer.learning_rate"."""
    return list(config_flags.get_override_values(flags.FLAGS["config"]))


def tell_overridden(
    function: str, changes: Mapping[str, Mapping[str, Any]], *, seeds: str = "--seeds"
) -> None:
    """Says where a flag has no effect, because a function of the config file sets the same field.

    Args:
      function: the name of the function, such as "methods()".
      changes: what it returns: by name, the fields that it changes.
      seeds: the flags that set the seeds of the study.

    Raises:
      ValueError: the command line sets the seed in the config.
    """
    for field in set_by_flags():
        if field == "seed":
            raise ValueError(
                f"--config.seed: a study trains with several seeds: give them in {seeds}"
            )
        names = [name for name, fields in changes.items() if field in fields]
        if names:
            say(
                f"note: {function} sets {field} for {', '.join(names)}, so --config.{field} has no "
                "effect there"
            )


def call_config_function(name: str) -> Any:
    """The result of another function of the config file; None if there is no such function.

    Like ``get_config``, it is called with the text after the colon in --config, if there is any.
    An iterable other than a mapping is converted to a list.
    """
    _, *argument = config_flags.get_config_filename(flags.FLAGS["config"]).split(":", 1)
    try:
        function = _config_names(config_file()).get(name)
        returned = None if function is None else function(*argument)
        if isinstance(returned, Iterable) and not isinstance(returned, Mapping):
            return list(returned)
        return returned
    except Exception as error:
        end_on_config_error(error)


def config_file() -> str:
    """The file that --config names, without the colon and the text after it."""
    return config_flags.get_config_filename(flags.FLAGS["config"]).split(":", 1)[0]


def built_in_config(name: str) -> ml_collections.ConfigDict:
    """One of the package's configs, by name."""
    return runpy.run_path(str(_BUILT_IN_CONFIGS / f"{name}.py"))["get_config"]()


def _config_names(file: str) -> dict[str, Any]:
    """The names that the config file defines; the file is not run again if the flag has run it."""
    module = sys.modules.get("config_config")  # ml_collections' name for it
    if module is not None and getattr(module, "__file__", None) == file:
        return vars(module)
    return runpy.run_path(file)


def typed_config_file() -> str | None:
    """The file that --config names on the command line, before flags are parsed."""
    given = _given_on_command_line("config")
    return None if given is None else given.partition(":")[0]


def _find_config_file() -> None:
    """Finds the file that --config names, and makes the modules next to it importable.

    The configs of this package are found by name from any directory: ``--config digits_vit``. If
    there is no such file, the program exits with an error.
    """
    given = _given_on_command_line("config")
    if given is None:
        return
    name, colon, argument = given.partition(":")
    file = Path(name)
    if not file.is_file():
        by_name = file.parent in (Path(), Path("configs")) and file.suffix in ("", ".py")
        file = _BUILT_IN_CONFIGS / f"{file.stem}.py"
        if not by_name or not file.is_file():
            missing = f"there is no such file{_similar_configs(name)}"
            end(f"error: --config={given}: {missing}", WRONG_COMMAND)
        _replace_on_command_line("config", f"{file}{colon}{argument}")
    sys.path.insert(0, str(file.parent.absolute()))


def _similar_configs(name: str) -> str:
    beside = [str(path) for path in Path(name).parent.glob("*.py")]
    built_in = sorted(path.stem for path in _BUILT_IN_CONFIGS.glob("*.py"))
    return f"{did_you_mean(name, [*beside, *built_in])}; or give the path of a file"


def _replace_on_command_line(flag: str, value: str) -> None:
    for i, argument in enumerate(sys.argv):
        name, equals, _ = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            sys.argv[i : i + 1 + (not equals)] = [f"--{flag}={value}"]
            return


def _given_on_command_line(flag: str) -> str | None:
    """The value of a flag before flags are parsed; None if it is not set."""
    for argument, following in zip(sys.argv[1:], [*sys.argv[2:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else following
    return None


def end_on_config_error(error: Exception) -> NoReturn:
    """Ends the program with what went wrong in the config, and where."""
    end(f"error: {config_errors.describe(error, typed_config_file())}", WRONG_COMMAND)
