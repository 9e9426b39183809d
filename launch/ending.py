"""How a program ends with an error: one message on stderr, and an exit code."""

import contextlib
import os
import sys
import threading
from typing import NoReturn

from pnoise_jax import parallel, stopping
from pnoise_jax.terminal import say

WRONG_COMMAND = 64  # EX_USAGE of sysexits.h: the same command would fail again


def end(message: str, code: int = 1) -> NoReturn:
    """Prints the message and ends the process, and does not wait for what would not end."""
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
