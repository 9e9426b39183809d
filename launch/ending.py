"""How a program ends with an error: one message on stderr, and an exit code."""

import contextlib
import os
import re
import sys
import threading
from typing import NoReturn

from pnoise_jax import parallel, runs, stopping, training
from pnoise_jax.terminal import say

WRONG_COMMAND = 64  # EX_USAGE of sysexits.h: the same command would fail again

_LASTING = (ValueError, NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)
_LASTING += (training.NonFiniteLossError, runs.TakenOverError)
# How XLA begins its ValueErrors about what may pass, such as "UNAVAILABLE: ".
_OF_XLA = re.compile(
    "(ABORTED|CANCELLED|DATA_LOSS|DEADLINE_EXCEEDED|FAILED_PRECONDITION|INTERNAL|NOT_FOUND"
    "|RESOURCE_EXHAUSTED|UNAVAILABLE|UNKNOWN): "
)


def code_of(error: Exception) -> int:
    """The exit code of an error: `WRONG_COMMAND` if the same command would fail again, else 1.

    A missing file, a full disk, a lost host or a busy device may be different at the next start. So
    may hosts that disagree, once the others are started again.
    """
    if isinstance(error, parallel.DisagreementError) or _OF_XLA.match(str(error)):
        return 1
    return WRONG_COMMAND if isinstance(error, _LASTING) else 1


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
