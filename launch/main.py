"""Code that the main programs share: flags, errors without tracebacks, exit codes."""

import contextlib
import io
import os
import runpy
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from pnoise_jax import parallel, runs, stopping, training, writing
from pnoise_jax.registry import did_you_mean
from pnoise_jax.terminal import printable, say

from . import config_errors, huge_pages, values
from .compilation_cache import use_compilation_cache

_TRACEBACK = flags.DEFINE_bool(
    "traceback", False, "Show the traceback of an error, not only its message."
)
_MULTI_HOST = flags.DEFINE_bool(
    "multi_host", False, "Join the other hosts, which JAX detects: TPU pods, Slurm, Open MPI."
)
_START_TIMEOUT = flags.DEFINE_integer(
    "start_timeout", 600, "Seconds to wait for the other hosts to start.", lower_bound=1
)
_STALL_MINUTES = flags.DEFINE_float(
    "stall_minutes",
    5.0,
    "Report where a run stalls after this many minutes without a finished step; 0 turns this off.",
    lower_bound=0.0,
)

_TYPED = sys.argv[1:]
_BUILT_IN_CONFIGS = Path(__file__).parents[1] / "configs"

WRONG_COMMAND = 64  # EX_USAGE of sysexits.h

# The messages of these errors are written for the user; for any other, the type is printed too.
_EXPECTED = (ValueError, OSError, training.NonFiniteLossError)
_AGAIN = (training.ConfigError, runs.TakenOverError)  # the same command would raise them again


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
            _end(f"error: {error}", WRONG_COMMAND)
    if config_required or given is None or _given_on_command_line("config") is not None:
        config = define_config_flag()
    else:
        _define_data_dir()
        try:
            stored = read_config(given)
        except _EXPECTED as error:
            _end(f"error: {error}")
        try:
            config = config_flags.DEFINE_config_dict("config", stored, "The config of the run.")
        except Exception as error:
            _end_on_config_error(error)
    if workdir_required:
        flags.mark_flag_as_required("workdir")
    return config, workdir


def define_config_flag() -> flags.FlagHolder:
    """Defines --config and --data_dir, for programs that need no run."""
    _define_data_dir()
    _find_config_file()
    config = config_flags.DEFINE_config_file(
        "config", None, "Config file, or the name of a built-in config, such as digits_vit."
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
            f"--config={file} has no sweep(): define it next to get_config() to return a dict of "
            "dotted fields for each cell, such as {'noise.strength': 0.3, 'seed': 1}"
        )
    if not isinstance(cells, list):
        raise ValueError(
            f"--config={file}: sweep() returns {cells!r}: make it return a list of cells, each a "
            "dict such as {'noise.strength': 0.3, 'seed': 1}"
        )
    return cells, list(config_flags.get_override_values(flags.FLAGS["config"]))


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
        _end_on_config_error(error)


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


def whole_numbers(
    flag: str, values: list[str], *, minimum: int = 0, repeats: bool = False
) -> tuple[int, ...]:
    """Converts the values of ``--flag=0,1,2`` to numbers.

    Raises:
      ValueError: a value is not a whole number of at least ``minimum``, there are no values, or a
        value occurs twice and ``repeats`` is False.
    """
    given = ",".join(values)
    for value in values:
        if not value.strip().isdecimal() or int(value) < minimum:
            raise ValueError(
                f"--{flag}={given}: {value!r} is not a whole number of at least {minimum}; give "
                "numbers such as " + ",".join(str(minimum + n) for n in range(3))
            )
    numbers = tuple(map(int, values))
    if not numbers or (len(set(numbers)) < len(numbers) and not repeats):
        once = "" if repeats else ", each once"
        raise ValueError(f"--{flag}={given}: give one or more numbers{once}")
    return numbers


def command_line(program: str) -> str:
    """The command that started this program, as the user typed it."""
    start = f"pnoise {program}" if __package__ != "launch" else f"python -m launch.{program}"
    return f"{start} {shlex.join(_TYPED)}"


def run(
    main: Callable[[], object], *, on_interrupt: str = "interrupted", keep_compiled: bool = True
) -> None:
    """Parses the flags and calls main; on an error, prints one message and exits with code 1.

    The exit code is `WRONG_COMMAND` if the same command should not be tried again: the flags or the
    config cannot be read, or main raises a `training.ConfigError` or a `runs.TakenOverError`. If a
    signal has stopped the program, it is `stopping.EXIT_CODE`.

    Args:
      main: the work.
      on_interrupt: the message on Ctrl-C, if the program does not listen to signals itself.
      keep_compiled: whether to keep compiled programs on disk; False if compiling is timed.
    """

    for stream in (sys.stdout, sys.stderr):  # names may contain letters that a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {printable(' '.join(argv[1:]))}")
        # Libraries log at length the errors that they then raise.
        logging.set_verbosity(logging.INFO if _TRACEBACK.value else logging.FATAL)
        try:
            parallel.start(multi_host=_MULTI_HOST.value, timeout=_START_TIMEOUT.value)
            if keep_compiled:
                use_compilation_cache()
            stopping.begin()
            parallel.require_agreement({"program": Path(sys.argv[0]).stem})
            if "config" in flags.FLAGS and flags.FLAGS["data_dir"].present:
                flags.FLAGS.config.data.data_dir = flags.FLAGS.data_dir
            with parallel.watchdog(60 * _STALL_MINUTES.value):
                main()
            if huge_pages.in_use():  # after the work: an error is the only line on stderr
                _say_once(huge_pages.SENTENCE)
        except stopping.StoppedError as stopped:
            stopping.end()
            _end(str(stopped), stopping.EXIT_CODE)
        except KeyboardInterrupt as error:
            parallel.end_together(error, "interrupted")
            _end(on_interrupt)
        except SystemExit as error:  # rich raises it when nobody reads the output any longer
            if not parallel.are_several():
                raise
            _end(f"error: {parallel.end_together(error, 'its output was closed')}")
        except Exception as error:
            if _TRACEBACK.value:
                say(traceback.format_exc(), file=sys.stderr)
            text = str(error) if isinstance(error, _EXPECTED) else _summary(error)
            text = parallel.end_together(error, text)
            code = WRONG_COMMAND if isinstance(error, _AGAIN) else 1
            _end(
                f"error: {text}" + ("" if _TRACEBACK.value else "\n(--traceback shows where)"), code
            )

    app.run(guarded, flags_parser=_parse_flags)


def _say_once(sentence: str) -> None:
    """Prints a sentence to stderr, on the first host."""
    if not parallel.are_several() or jax.process_index() == 0:
        say(sentence, file=sys.stderr)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        left = flags.FLAGS(argv)
        values.unset_flags(flags.FLAGS)
        return left
    except flags.Error as error:
        text, file = str(error).strip(), _typed_config_file()
        if file is not None and "whilst parsing config file" in text.partition("\n")[0]:
            _end(f"error: {config_errors.describe_parsing(text, file)}", WRONG_COMMAND)
        if file is not None and text.startswith("flag --config=None:"):
            _end(
                f"error: --config={file}: get_config() returns None; end it with 'return config'",
                WRONG_COMMAND,
            )
        _end(f"error: {error}\n(--help lists the flags)", WRONG_COMMAND)
    except Exception as error:
        _end_on_config_error(error)


def _end_on_config_error(error: Exception) -> NoReturn:
    _end(f"error: {config_errors.describe(error, _typed_config_file())}", WRONG_COMMAND)


def _typed_config_file() -> str | None:
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
            _end(f"error: --config={given}: {missing}", WRONG_COMMAND)
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
    for argument, following in zip(sys.argv[1:], [*sys.argv[2:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else following
    return None


def _summary(error: Exception) -> str:
    origin = traceback.extract_tb(error.__traceback__)[-1]
    if origin.filename.endswith("xla_bridge.py"):  # where JAX starts devices
        options: Any = jax.config  # type checkers do not know its attributes
        platforms = options.jax_platforms
        named = "no devices" if platforms is None else f"JAX_PLATFORMS={platforms!r}"
        return (
            f"{named}: JAX cannot start them ({str(error).partition(' (set ')[0] or 'not there'}): "
            "pip install 'pnoise_jax[tpu]' or 'pnoise_jax[cuda12]', and the drivers; or set "
            "JAX_PLATFORMS=cpu"
        )
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _end(message: str, code: int = 1) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        say(message, file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
    if code != stopping.EXIT_CODE and parallel.are_several():
        os._exit(code)  # JAX's own shutdown waits for the other hosts, for minutes
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    if code != stopping.EXIT_CODE and any(not thread.daemon for thread in others):
        os._exit(code)  # after a failed save Orbax's threads wait forever
    sys.exit(code)
