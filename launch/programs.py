"""Facts about a program that can be determined before it imports anything."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_PLUGINS = ("jax_plugins", "libtpu")  # modules with which JAX uses accelerators


def is_program(command: Sequence[str], arguments: Sequence[str]) -> bool:
    """Whether Python was started to run one of these programs, and has not begun to run it.

    This is False if a notebook, a debugger, a test or a worker process imports them.

    Args:
      command: `sys.orig_argv`.
      arguments: `sys.argv`; its first item is "-m" while Python looks for a module to run.
    """
    started = command[len(command) - len(arguments) :][:1]
    if not arguments or not started:
        return False
    if arguments[0] == "-m":
        package = __package__ or ""
        return f"{started[0].removeprefix('-m')}.".startswith(f"{package}.")
    return started[0] == arguments[0] and Path(arguments[0]).name == "pnoise"


def compute_on_cpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether programs in this environment compute on the CPU."""
    platforms = environment.get("JAX_PLATFORMS") or environment.get("JAX_PLATFORM_NAME")
    if platforms:
        return {name.strip().lower() for name in platforms.split(",")} == {"cpu"}
    return not any(importlib.util.find_spec(name) for name in _PLUGINS)
