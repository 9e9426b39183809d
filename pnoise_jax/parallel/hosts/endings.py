"""How hosts end when one of them fails: all end, and name the host that failed."""

import ctypes
import os
import re
import signal
import socket
import time
from collections.abc import Iterator

import jax

from pnoise_jax.parallel.hosts import hosts
from pnoise_jax.parallel.hosts.arrivals import DisagreementError
from pnoise_jax.parallel.hosts.hosts import LostHostError, Watch
from pnoise_jax.parallel.hosts.progress import LATEST

# How errors of XLA's collectives begin: a JaxRuntimeError or, in some places, a ValueError.
_STATUS = re.compile(
    r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): "
)
_AGAIN = "The others cannot continue without it: start the same command again on all hosts"


def end_together(error: BaseException, text: str) -> str:
    """Tells the other hosts that this one is ending, and finds out whether another is the cause.

    Args:
      error: the error that ends this host.
      text: its message.

    Returns:
      The text; or, if another host is the cause, which host was lost and when. In a run with one
      process, always the text.
    """
    watch = hosts.watch()
    if watch is None:
        return text
    if isinstance(error, DisagreementError):
        return text  # the same on all hosts
    if not isinstance(error, LostHostError) and _may_come_from_others(error):
        text = _find_lost(watch) or text
    hosts.post_failure(text)
    if hosts.index() == 0:  # the others read the failure from this process
        time.sleep(2 * hosts.BEAT)
    return text


def _may_come_from_others(error: BaseException) -> bool:
    return any(
        isinstance(each, jax.errors.JaxRuntimeError) or _STATUS.match(str(each))
        for each in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _find_lost(watch: Watch) -> str | None:
    """Which host has failed or is silent; waits a few beats, because it may have died just now."""
    for _ in range(5):
        try:
            watch.look()
            failure = hosts.read_failure()
        except jax.errors.JaxRuntimeError:
            return _lost_coordinator(watch)
        if failure is not None and failure["host"] != hosts.index():
            return hosts.describe_failure(failure)
        time.sleep(hosts.BEAT)
    return _lost(watch.describe_silent())


def _lost(who: str) -> str | None:
    at = f" at {LATEST.what}" if LATEST.what else ""
    return f"lost {who} (this is {hosts.own_name()}{at}). {_AGAIN}" if who else None


def _lost_coordinator(watch: Watch) -> str:
    # Do not ask it for its name: while JAX aborts, that call would never return.
    now = hosts.clock(time.time())
    return str(
        _lost(
            f"{watch.known_name(0)}, which coordinates all hosts: it did not answer at "
            f"{watch.address} at {now}"
        )
    )


def name_lost_hosts_at_abort(watch: Watch) -> None:
    """Adds a last message when JAX aborts this process because another one is gone.

    JAX aborts in C++, with a stack trace and a task number, and calls no Python function first. So
    the handler of the signal that abort() raises writes the message.
    """

    def last_words(_: int) -> None:
        text = _reason(watch)
        os.write(2, f"error: {text}\n".encode(errors="replace"))
        os._exit(1)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(last_words)
    watch.keep = handler  # ctypes keeps no reference to it
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))


def _reason(watch: Watch) -> str:
    if watch.failure is not None:
        return hosts.describe_failure(watch.failure)
    if hosts.index() != 0 and not _answers(watch.address):
        return _lost_coordinator(watch)
    return _lost(watch.describe_silent()) or (
        f"{hosts.own_name()} was aborted at {hosts.clock(time.time())}, for the reason above"
    )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
        return True
    except OSError:
        return False
