"""Runs programs of launch/ in processes of their own that need not import everything again.

Imports take most of the seconds that a program needs to start. Here the libraries and this package
are imported once, and each program is forked from there: it imports its own module of launch/ and
starts JAX itself.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys

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
THRESHOLDS = (50_000, 20, 50)  # tracing makes many objects that stay
LIMIT = 300  # seconds that a program may take


def serve() -> str | None:
    """Forks a process for each request on stdin, and prints its exit code once it has ended.

    A request is a JSON object in one line: the program, its arguments, and the files that its
    output and its errors go to.

    Returns:
      In such a process the name of the program, which it is to run; in the server None.
    """
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # what all share is not looked through again
    gc.set_threshold(*THRESHOLDS)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _redirect(request["output"], request["errors"])
            signal.alarm(LIMIT)
            sys.argv[1:] = request["arguments"]
            return request["program"]
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _redirect(output: str, errors: str) -> None:
    for descriptor, file in enumerate((os.devnull, output, errors)):
        opened = os.open(file, os.O_RDWR)
        os.dup2(opened, descriptor)
        os.close(opened)


if __name__ == "__main__":
    program = serve()
    if program is not None:
        runpy.run_module(f"launch.{program}", run_name="__main__", alter_sys=True)
