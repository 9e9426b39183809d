"""Runs programs of launch/ in separate processes that need not import everything again.

Imports take most of the seconds that a program needs to start. Here the libraries and this package
are imported once, and each program is forked from there: it imports its own module of launch/ and
starts JAX itself. Only variables in `VARIABLES` can be set for it: others may have been read.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from tests import parameter_shapes

# None of them starts a thread when imported: threads do not survive a fork.
MODULES = (
    "cv2",
    "flax.linen",
    "grain",
    "jax",
    "jinja2",
    "matplotlib.figure",
    "ml_collections.config_flags",
    "optax",
    "orbax.checkpoint",
    "PIL.Image",
    "pnoise_jax.adaptation",
    "pnoise_jax.denoising",
    "pnoise_jax.robustness",
    "pnoise_jax.semi_supervised",
    "pnoise_jax.studies.reporting",
    "pnoise_jax.studies.sweep",
    "pnoise_jax.training",
    "rich.progress",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.model_selection",
    "tensorboardX",
    "tensorflow_datasets",
)
# Those that a program reads itself, and, with a type, those that JAX reads when imported.
VARIABLES: Mapping[str, Callable[[str], Any] | None] = {
    "JAX_COMPILATION_CACHE_DIR": str,
    "JAX_COORDINATOR_ADDRESS": None,
    "JAX_NUM_CPU_DEVICES": int,
    "JAX_NUM_PROCESSES": None,
    "JAX_PROCESS_ID": None,
    "SLURM_STEP_NUM_TASKS": None,
    "XDG_CACHE_HOME": None,
}
THRESHOLDS = (50_000, 20, 50)  # tracing makes many long-lived objects
LIMIT = 600  # seconds that a program may take


def serve() -> str | None:
    """Answers each request on stdin, a JSON object in one line, with a number on stdout.

    A request either starts a process, with the arguments of `_begin`: the answer is its process
    id. Or it asks for the exit code of a process, for which it may wait: the answer is null if the
    process has not ended.

    Returns:
      The name of the module to run in a new process; None in the server.
    """
    for name in MODULES:
        importlib.import_module(name)
    parameter_shapes.remember()
    gc.freeze()  # the collector skips what all share
    gc.set_threshold(*THRESHOLDS)
    for line in sys.stdin:
        request = json.loads(line)
        if "process" in request:
            answer = _ended(**request)
        else:
            answer = os.fork()
            if not answer:
                return _begin(**request)
        print(json.dumps(answer), flush=True)
    return None


def _ended(process: int, wait: bool) -> int | None:
    pid, status = os.waitpid(process, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def _begin(
    module: str,
    arguments: list[str],
    variables: dict[str, str | None],
    directory: str,
    path: list[str],
    strict: bool,
    output: str,
    errors: str,
) -> str:
    _redirect(output, errors)
    signal.alarm(LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    sys.argv[1:] = arguments
    _set_variables(variables)
    os.chdir(directory)
    sys.path[:0] = path
    if strict:
        warnings.simplefilter("error")
    return module


def _redirect(output: str, errors: str) -> None:
    for descriptor, file in enumerate((os.devnull, output, errors)):
        opened = os.open(file, os.O_RDWR)
        os.dup2(opened, descriptor)
        os.close(opened)


def _set_variables(variables: dict[str, str | None]) -> None:
    import jax

    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
        if (parse := VARIABLES[name]) is not None:
            jax.config.update(name.lower(), None if value is None else parse(value))


if __name__ == "__main__":
    module = serve()
    if module is not None:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
