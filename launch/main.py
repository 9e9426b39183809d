"""What the main programs share: flags, errors without tracebacks, exit codes."""

import re
import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from pnoise_jax import parallel

_TRACEBACK = flags.DEFINE_bool(
    "traceback", False, "Show where an error comes from, not only what it says."
)


def define_config_flags(*, config_required: bool) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """--config and --workdir."""
    config = config_flags.DEFINE_config_file("config", None, "Config file; see configs/.")
    workdir = flags.DEFINE_string("workdir", None, "Directory of the run: made, or gone on with.")
    flags.mark_flags_as_required(["config", "workdir"] if config_required else ["workdir"])
    return config, workdir


def run(main: Callable[[], object]) -> None:
    """Parses the flags and calls main; an error that names its cause ends with exit code 1."""

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.WARNING)
        try:
            parallel.start()
            main()
        except (ValueError, OSError, ArithmeticError) as error:
            if _TRACEBACK.value:
                raise
            sys.exit(f"error: {error}\n(--traceback shows where)")
        except KeyboardInterrupt:
            sys.exit("interrupted; the same command goes on from the last checkpoint")

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:  # ml_collections, for --config.unknown=…
        text = str(error).replace("\\", "")
        field = re.search(r"'(\w+)'", text)
        near = re.search(r'Did you mean "(\w+)"', text)
        sys.exit(
            f"error: unknown config field {field[1] if field else error}"
            + (f"; did you mean {near[1]}?" if near else "; see default_config() for all fields")
        )
