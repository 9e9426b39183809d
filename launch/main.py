"""What the main programs share: flags, errors without tracebacks, exit codes."""

import difflib
import os
import re
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from pnoise_jax import parallel, stopping, training

_TRACEBACK = flags.DEFINE_bool(
    "traceback", False, "Show where an error comes from, not only what it says."
)
_MULTI_HOST = flags.DEFINE_bool(
    "multi_host", False, "Join the other hosts, which JAX finds itself: TPU pods, Slurm, Open MPI."
)

# Their messages are written for the reader; of any other error the type says as much.
_EXPECTED = (ValueError, OSError, training.NonFiniteLossError)


def define_run_flags(
    *,
    config_required: bool,
    read_config: Callable[[str], ml_collections.ConfigDict] = training.read_config,
) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """--config, --workdir and --data_dir; where no config is required, the run's own stands in.

    Args:
      config_required: whether there is no run yet.
      read_config: takes the run's own from the work directory.
    """
    workdir = flags.DEFINE_string("workdir", None, "Directory of the run: made, or gone on with.")
    flags.DEFINE_string("data_dir", None, "Where data sets are: short for --config.data.data_dir.")
    given = _given_on_command_line("workdir")
    _require_config_file(_given_on_command_line("config"))
    if config_required or given is None or _given_on_command_line("config") is not None:
        config = config_flags.DEFINE_config_file("config", None, "Config file; see configs/.")
        flags.mark_flag_as_required("config")
    else:
        try:
            stored = read_config(given)
        except _EXPECTED as error:
            _end(f"error: {error}")
        try:
            config = config_flags.DEFINE_config_dict("config", stored, "The run's own config.")
        except Exception as error:
            _end_on_config_error(error)
    flags.mark_flag_as_required("workdir")
    return config, workdir


def read_sweep() -> tuple[list, list[str]]:
    """What the config file's ``sweep()`` gives, and the fields that the command line sets.

    Like ``get_config``, it is called with what follows a colon in --config, if anything does.

    Raises:
      ValueError: the file has no such function, or it returns no cells.
    """
    flag = flags.FLAGS["config"]
    file, *argument = config_flags.get_config_filename(flag).split(":", 1)
    try:
        function = runpy.run_path(file).get("sweep")
        cells = None if function is None else function(*argument)
        cells = list(cells) if isinstance(cells, Iterable) else cells
    except Exception as error:
        _end_on_config_error(error)
    if function is None:
        raise ValueError(
            f"--config={file} has no sweep(): define it beside get_config(), to return a dict of "
            "dotted fields for each cell, such as {'noise.strength': 0.3, 'seed': 1}"
        )
    if not isinstance(cells, list):
        raise ValueError(
            f"--config={file}: sweep() returns {cells!r}: let it return a list of cells, each a "
            "dict such as {'noise.strength': 0.3, 'seed': 1}"
        )
    return cells, list(config_flags.get_override_values(flag))


def run(main: Callable[[], object], *, on_interrupt: str = "interrupted") -> None:
    """Parses the flags and calls main; an error ends with one message and exit code 1.

    Where a signal has stopped it, the exit code is `stopping.EXIT_CODE`.

    Args:
      main: the work.
      on_interrupt: what to say of a Ctrl-C, where the program does not listen to signals itself.
    """

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        # Libraries log what they then raise, at length.
        logging.set_verbosity(logging.INFO if _TRACEBACK.value else logging.FATAL)
        try:
            parallel.start(multi_host=_MULTI_HOST.value)
            stopping.begin()
            if "config" in flags.FLAGS and flags.FLAGS.data_dir is not None:
                flags.FLAGS.config.data.data_dir = flags.FLAGS.data_dir
            main()
        except stopping.StoppedError as stopped:
            _end(str(stopped), stopping.EXIT_CODE)
        except KeyboardInterrupt:
            _end(on_interrupt)
        except Exception as error:
            if _TRACEBACK.value:
                traceback.print_exc()
            text = str(error) if isinstance(error, _EXPECTED) else _summary(error)
            _end(f"error: {text}" + ("" if _TRACEBACK.value else "\n(--traceback shows where)"))
        finally:
            stopping.restore()

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        if "whilst parsing config file" in lines[0]:  # a whole traceback; the last line says it
            _end(f"error: the config file fails: {lines[-1].strip()}")
        _end(f"error: {error}\n(--help lists the flags)")
    except Exception as error:
        _end_on_config_error(error)


def _end_on_config_error(error: Exception) -> NoReturn:
    origin = traceback.extract_tb(error.__traceback__)[-1]
    if "config_dict" not in origin.filename:  # the config file's own
        place = f"{origin.filename}:{origin.lineno}"
        _end(f"error: the config file fails: {_summary(error)} ({place})")
    text = str(error).replace("\\", "")
    field = re.search(r"'(\w+)'", text)
    near = re.search(r'Did you mean "(\w+)"', text)
    hint = f"did you mean {near[1]}?" if near else "see default_config() for all fields"
    _end(f"error: unknown config field {field[1] if field else text}; {hint}")


def _require_config_file(given: str | None) -> None:
    """Ends the program where --config names a file that is not there."""
    file = Path((given or "").partition(":")[0])
    if given is None or file.is_file():
        return
    there = sorted(str(path) for path in file.parent.glob("*.py"))
    near = difflib.get_close_matches(str(file), there, n=2)
    listed = f"there are: {', '.join(there)}" if there else "give the path of one, see configs/"
    hint = f"did you mean {' or '.join(near)}?" if near else listed
    _end(f"error: --config={given}: there is no such file; {hint}")


def _given_on_command_line(flag: str) -> str | None:
    """A flag's value before flags are parsed, None if it is not there."""
    for argument, following in zip(sys.argv[1:], [*sys.argv[2:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else following
    return None


def _summary(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _end(message: str, code: int = 1) -> NoReturn:
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    if code == 1 and any(not thread.daemon for thread in others):
        os._exit(code)  # after a failed save Orbax's threads wait for ever
    sys.exit(code)
