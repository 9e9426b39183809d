"""Reports where a run stalls: the step, the stack, the data workers and the other hosts."""

import contextlib
import multiprocessing
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from pnoise_jax.parallel.hosts import hosts
from pnoise_jax.parallel.hosts.progress import LATEST
from pnoise_jax.terminal import say

_LONGER_THAN_BEFORE = 1.5  # times the longest pause so far, such as compilation
_STATES = {"T": "is stopped (SIGSTOP or a debugger)", "t": "is stopped by a debugger"}
_STATES |= {"Z": "is dead", "D": "is waiting for a disk or a network file system"}


@contextlib.contextmanager
def watchdog(limit: float, report: Callable[[str], None] | None = None) -> Iterator[None]:
    """While it is open, reports if no progress was noted for a while; it does not end the run.

    It reports each stall once, after ``limit`` seconds, or after 1.5 times the longest pause so
    far, such as compilation, if that is longer.

    Args:
      limit: in seconds; 0 turns the watchdog off.
      report: called in a separate thread with the text, which has several lines; by default it is
        printed to stderr.
    """
    if not limit:
        yield
        return
    if report is None:
        report = _to_stderr
    stopped = threading.Event()
    main = threading.get_ident()
    thread = threading.Thread(
        target=_watch, args=(stopped, main, limit, report), name="watchdog", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _to_stderr(text: str) -> None:
    say(text, file=sys.stderr)


def _watch(
    stopped: threading.Event, main: int, limit: float, report: Callable[[str], None]
) -> None:
    longest = 0.0
    seen, told = LATEST.when, None
    while not stopped.wait(min(1.0, limit / 10)):
        latest = LATEST.when
        if latest != seen:
            longest = max(longest, latest - seen if seen else 0.0)
            seen = latest
        still = time.monotonic() - latest
        if latest and told != latest and still > max(limit, _LONGER_THAN_BEFORE * longest):
            told = latest
            report(describe(main, still))


def describe(main: int, seconds: float) -> str:
    """Describes a run that has stalled.

    Args:
      main: the identity of the main thread.
      seconds: how long it has stalled.
    """
    since = hosts.clock(time.time() - seconds)
    lines = [
        f"watchdog: no progress for {seconds:.0f} s, since {since}; the last was {LATEST.what}. "
        "The run is not ended. Compilation, as in a first step, can take minutes; otherwise, the "
        "following shows what the run is waiting for:"
    ]
    lines += [f"  {line}" for line in _workers()] + [f"  {line}" for line in _others()]
    frame = sys._current_frames().get(main)
    if frame is not None:
        stack = "".join(traceback.format_stack(frame)).rstrip()
        lines.append(f"  the main thread is at\n{stack}")
    return "\n".join(lines)


def _workers() -> list[str]:
    """The processes that make batches, and their states."""
    lines = []
    for child in multiprocessing.active_children():
        state = _state(child.pid)
        lines.append(f"data worker (pid {child.pid}) {_STATES.get(state, 'is running')}")
    return lines


def _state(pid: int | None) -> str:
    """The letter that Linux uses for the state of a process; "" if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _others() -> list[str]:
    """The other hosts, and how far they were at their last heartbeat."""
    watch = hosts.watch()
    if watch is None:
        return []
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # then these are from the last look
        watch.look()
    silent = watch.silent()
    return [
        f"{sign}{' (no heartbeat since)' if number in silent else ''}"
        for number, sign in sorted(watch.signs.items())
        if number != hosts.index()
    ]
