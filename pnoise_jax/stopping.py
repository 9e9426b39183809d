"""Stopping on SIGTERM or Ctrl-C: signals are recorded, and long loops check where they can stop.

Main programs call `listen` before they import anything heavy. Nothing here imports JAX before
`begin`.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes
_AT_ONCE = 130  # 128 + SIGINT, as in shells
_NOTHING = "nothing was written"


class StoppedError(Exception):
    """A loop has stopped because of a signal.

    Attributes:
      when: where the loop was, such as "after step 7 of 100".
      kept: what was saved, as a clause.
    """

    def __init__(self, when: str, kept: str = _NOTHING, then: str = "resume"):
        super().__init__(
            f"stopped by {_state.name} {when}; {kept}; start the same command to {then}"
        )
        self.when, self.kept = when, kept

    def with_kept(self, kept: str) -> "StoppedError":
        """The same error for an enclosing piece of work, which has saved something as well."""
        return StoppedError(self.when, kept if self.kept == _NOTHING else f"{self.kept}; {kept}")


class _State:
    """The state of this process, which has a single set of signal handlers."""

    def __init__(self):
        self.name = "SIGTERM"  # of the signal; one from another host always has this name
        self.received = False
        self.has_begun = False  # whether there is anything to finish
        self.is_shared = False  # whether other processes must stop at the same place
        self.at_once: str | None = None  # current work that can be ended at any moment
        self.polls = 0
        self.close: Callable[[], None] | None = None  # undoes `listen`


_state = _State()


def listen() -> None:
    """Starts recording SIGTERM and SIGINT; until `begin`, they end the process immediately.

    If SIGINT is ignored, as in a background job of a shell, it stays ignored. Call this in the main
    thread; a second call does nothing.
    """
    if _state.close is not None:
        return
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signals = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signals.append(signal.SIGINT)
    # Python runs handlers only between bytecodes, not while XLA compiles. The thread always runs.
    thread = threading.Thread(target=_watch, args=(readable,), name="signals", daemon=True)
    thread.start()
    descriptor = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _do_nothing) for number in signals}

    def close() -> None:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(descriptor)
        os.close(writable)  # ends the thread
        thread.join()
        os.close(readable)

    _state.close = close


def begin() -> None:
    """From now on, a signal waits until the work checks for it; call this after JAX has started.

    Without `listen`, it only imports JAX.
    """
    import jax

    if _state.close is None:
        return
    _state.is_shared = jax.process_count() > 1
    _state.has_begun = True
    options: Any = jax.config  # type checkers do not see its options
    if _state.is_shared and not options.jax_enable_preemption_service:
        restore()  # the processes cannot agree where to stop, so a signal ends them


@contextlib.contextmanager
def at_once(when: str) -> Iterator[None]:
    """In this block, a signal ends this host's process immediately, because nothing is lost.

    Args:
      when: for the message, such as "while copying data".

    Raises:
      StoppedError: a signal was received before the block.
    """
    if _state.received:
        raise StoppedError(when)
    before, _state.at_once = _state.at_once, when
    try:
        yield
    finally:
        _state.at_once = before


def end() -> None:
    """Ignores SIGTERM from now on: everything is saved, and the exit code should say so.

    Schedulers send it again while the interpreter shuts down. A second Ctrl-C still ends the
    process.
    """
    if _state.close is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def restore() -> None:
    """Restores the handlers from before `listen`, and forgets any signal received."""
    global _state
    if _state.close is not None:
        _state.close()
    _state = _State()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Calls `listen` and `begin` for a block of code, and `restore` at its end."""
    listen()
    try:
        begin()
        yield
    finally:
        restore()


def requested() -> bool:
    """Whether to stop here, on all hosts; once it is true, it stays true.

    With several hosts, all must call it equally often, because their n-th calls are matched.
    """
    if _state.received or not _state.is_shared:
        return _state.received
    from jax.experimental import multihost_utils

    _state.polls += 1
    _state.received = multihost_utils.reached_preemption_sync_point(_state.polls)
    return _state.received


def check(when: str, kept: str = _NOTHING, then: str = "resume") -> None:
    """Raises StoppedError, with these arguments, if a signal was received."""
    if requested():
        raise StoppedError(when, kept, then)


def _do_nothing(number: int, frame: object) -> None:
    """Handles a signal: without a handler, Python would write nothing to the pipe."""


def _watch(readable: int) -> None:
    while byte := os.read(readable, 1):
        if byte[0] in (signal.SIGTERM, signal.SIGINT):
            _receive(signal.Signals(byte[0]))


def _receive(number: signal.Signals) -> None:
    """Handles a signal, in the thread, as soon as it arrives."""
    if not _state.has_begun:
        _end_at_once(
            f"stopped by {number.name} before any work was done; nothing was saved; start the "
            "same command again",
            EXIT_CODE,
        )
    if _state.at_once is not None:
        _end_at_once(
            f"stopped by {number.name} {_state.at_once}; start the same command to resume",
            EXIT_CODE,
        )
    if _state.received or _state.name == "SIGINT":
        if number == signal.SIGINT:
            _end_at_once("ended at once by a second Ctrl-C; anything not saved is lost", _AT_ONCE)
        return
    _state.name = number.name
    _say(f"{number.name}: stopping at the next safe place (press Ctrl-C again to end at once)")
    if _state.is_shared:  # JAX tells the other hosts, but only about SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        _state.received = True


def _end_at_once(sentence: str, code: int) -> None:
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar may have hidden it
    _say(show_cursor + sentence)
    os._exit(code)


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, f"{sentence}\n".encode())
