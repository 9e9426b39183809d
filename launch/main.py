"""Runs a main program: common flags, errors without tracebacks, exit codes."""

import contextlib
import io
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from pnoise_jax import parallel, stopping, training
from pnoise_jax.terminal import printable, say

from . import config_errors, huge_pages, run_flags, values
from .compilation_cache import use_compilation_cache
from .ending import WRONG_COMMAND, code_of, end

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

# The messages of these errors are written for the user; for any other, the type is printed too.
_EXPECTED = (ValueError, OSError, training.NonFiniteLossError)


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


@contextlib.contextmanager
def naming(flag: str) -> Iterator[None]:
    """Begins the message of a ValueError or an OSError with a flag, such as ``--lists=FILE``.

    Raises:
      ValueError, OSError: the block has raised one.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{flag}: {error}") from error


def command_line(program: str) -> str:
    """The command that started this program, as the user typed it."""
    start = f"pnoise {program}" if __package__ != "launch" else f"python -m launch.{program}"
    return f"{start} {shlex.join(_TYPED)}"


def run(
    main: Callable[[], object], *, on_interrupt: str = "interrupted", keep_compiled: bool = True
) -> None:
    """Parses the flags and calls main; on an error, prints one message and exits.

    The exit code is `WRONG_COMMAND` if the flags or the config cannot be read; of other errors, see
    `code_of`. If a signal has stopped the program, it is `stopping.EXIT_CODE`.

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
            unexpected = printable(" ".join(argv[1:]))
            raise app.UsageError(f"unexpected arguments: {unexpected}", WRONG_COMMAND)
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
            end(str(stopped), stopping.EXIT_CODE)
        except KeyboardInterrupt as error:
            parallel.end_together(error, "interrupted")
            end(on_interrupt)
        except SystemExit as error:  # rich raises it when nobody reads the output any longer
            if not parallel.are_several():
                raise
            end(f"error: {parallel.end_together(error, 'its output was closed')}")
        except Exception as error:
            if _TRACEBACK.value:
                say(traceback.format_exc(), file=sys.stderr)
            text = str(error) if isinstance(error, _EXPECTED) else _summary(error)
            text = parallel.end_together(error, text)
            hint = "" if _TRACEBACK.value else "\n(--traceback shows where)"
            end(f"error: {text}{hint}", code_of(error))

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
        text, file = str(error).strip(), run_flags.typed_config_file()
        if file is not None and "whilst parsing config file" in text.partition("\n")[0]:
            end(f"error: {config_errors.describe_parsing(text, file)}", WRONG_COMMAND)
        if file is not None and text.startswith("flag --config=None:"):
            end(
                f"error: --config={file}: get_config() returns None; end it with 'return config'",
                WRONG_COMMAND,
            )
        end(f"error: {_describe_missing(text)}\n(--help lists the flags)", WRONG_COMMAND)
    except Exception as error:
        run_flags.end_on_config_error(error)


def _describe_missing(text: str) -> str:
    """Replaces the lines of absl's message on required flags that are not set."""
    line = r"^flag --(\w+)=None: Flag --\1 must have a value other than None\.$"
    meaning = lambda match: f"--{match[1]} is required: {flags.FLAGS[match[1]].help}"  # noqa: E731
    return re.sub(line, meaning, text, flags=re.MULTILINE)


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
    if lines[0].startswith("RESOURCE_EXHAUSTED"):  # JAX's word for it
        lines[0] = (
            f"{lines[0].rstrip('.')}: the memory of the device is too small. Try a smaller "
            "batch_size (evaluation.batch_size in evaluations), a larger accumulate, "
            "model.remat=True or dtype=bfloat16; pnoise compile shows what a run needs"
        )
    return f"{type(error).__name__}: {lines[0]}"
