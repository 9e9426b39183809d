"""The real command line, in a process of its own with one CPU device."""

import os
import pathlib
import signal
import subprocess
import sys

ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


def start(program: str, *arguments: object, **environment: str) -> subprocess.Popen:
    """Starts ``python -m launch.<program>``, which listens to SIGINT."""
    # A shell's background jobs, such as CI may be, ignore it, and so would what they start.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", f"launch.{program}", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parents[2],
            env=ENVIRONMENT | environment,
        )
    finally:
        signal.signal(signal.SIGINT, ours)


def run(program: str, *arguments: object, **environment: str) -> tuple[int, str, str]:
    """Its exit code, what it printed, and its errors."""
    process = start(program, *arguments, **environment)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors
