"""The other hosts: who they are, and whether they are alive.

Everything goes through the key-value store of JAX's coordination service, on process 0. It needs no
device and no compilation, and works while the devices wait for a lost host.
"""

import atexit
import contextlib
import dataclasses
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import jax
from jax._src import distributed  # JAX has no public API for its key-value store

from pnoise_jax.parallel.hosts.progress import LATEST
from pnoise_jax.terminal import say

BEAT = 2.5  # seconds between heartbeats
_LOOK = 4  # heartbeats between looks at all the other hosts
_SILENCE = 3.5 * BEAT  # if something failed, a host without a heartbeat for this long is lost
_GRACE = 10.0  # seconds that a host has to end on its own after another one has failed
_ANSWER = 10.0  # seconds in which the key-value store must answer
_FAILURE = "pnoise/failure"

_Answer = TypeVar("_Answer")


class LostHostError(OSError):
    """Another host has failed, or no longer sends heartbeats; the message names it."""


@dataclasses.dataclass(frozen=True)
class Sign:
    """The last heartbeat of a host.

    Attributes:
      name: such as "host 1 (node7, pid 1234)".
      count: number of its heartbeats so far.
      what: what it did last, such as "step 312 of 1000"; empty before it began.
      said: when it was sent, by the clock of that host, in seconds since 1970.
      seen: when this process first saw it, by `time.monotonic()`.
    """

    name: str
    count: int
    what: str
    said: float
    seen: float

    def __str__(self) -> str:
        at = f", at {self.what}" if self.what else ""
        return f"{self.name}: last heartbeat at {clock(self.said)}{at}"


def count() -> int:
    """The number of processes; does not touch a device."""
    return distributed.global_state.num_processes or 1


def index() -> int:
    """The number of this process, from 0; does not touch a device."""
    return distributed.global_state.process_id or 0


def client() -> Any:
    """The client of the key-value store if there are several processes, else None."""
    return distributed.global_state.client if count() > 1 else None


def are_several() -> bool:
    """Whether this process is connected to others."""
    return client() is not None


def own_name() -> str:
    """The name of this host, for messages."""
    return f"host {index()} ({socket.gethostname()}, pid {os.getpid()})"


def clock(seconds: float) -> str:
    """A time in seconds since 1970, for messages."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def ask(request: Callable[[Any], _Answer]) -> _Answer:
    """The answer of the key-value store to a request, a function of its client.

    JAX's own calls have no time limit: if process 0 ends at a bad moment, they wait forever.

    Raises:
      JaxRuntimeError: there is no answer within 10 seconds, or the request raises it.
    """
    answers: queue.SimpleQueue = queue.SimpleQueue()
    store = client()

    def run() -> None:
        try:
            answers.put((request(store), None))
        except jax.errors.JaxRuntimeError as error:
            answers.put((None, error))

    threading.Thread(target=run, name="request", daemon=True).start()
    try:
        answer, error = answers.get(timeout=_ANSWER)
    except queue.Empty:
        raise jax.errors.JaxRuntimeError(
            f"UNAVAILABLE: process 0 has not answered for {_ANSWER:g} s"
        ) from None
    if error is not None:
        raise error
    return answer


def post_failure(text: str) -> None:
    """Tells the other hosts that this one is ending, and why; only the first failure is kept."""
    failure = {"host": index(), "name": own_name(), "time": time.time(), "text": text}
    value = json.dumps(failure | {"what": LATEST.what})
    with contextlib.suppress(
        jax.errors.JaxRuntimeError
    ):  # another failure came first, or the store is gone
        ask(lambda store: store.key_value_set(_FAILURE, value))


def read_failure() -> dict[str, Any] | None:
    """The failure that the first host to fail has posted; None if none has.

    Raises:
      JaxRuntimeError: process 0, which keeps the store, does not answer.
    """
    try:
        return json.loads(ask(lambda store: store.key_value_try_get(_FAILURE)))
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def describe_failure(failure: dict[str, Any]) -> str:
    """Describes a failure."""
    at = f", at {failure['what']}" if failure["what"] else ""
    return f"{failure['name']} ended at {clock(failure['time'])}{at}: {failure['text']}"


class Watch:
    """A thread that sends heartbeats, and notices when another host has failed.

    Attributes:
      address: of the coordinator, "host:port".
      report: called with a sentence, such as which hosts are being waited for.
      signs: the last heartbeat of each host, as of the last look.
      failure: the failure of the host that failed first, unless it is this one.
      keep: an object that must live as long as the process.
    """

    def __init__(self, address: str, report: Callable[[str], None]):
        self.address, self.report = address, report
        self.signs: dict[int, Sign] = {}
        self.failure: dict[str, Any] | None = None
        self.keep: Any = None
        self._stopped = threading.Event()
        self._beats = 0
        self._thread = threading.Thread(target=self._run, name="signs of life", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._beat()
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Ends the thread; JAX's client must outlive it."""
        self._stopped.set()
        self._thread.join(2 * BEAT)

    def look(self) -> None:
        """Reads the heartbeats of all hosts.

        Raises:
          JaxRuntimeError: process 0 does not answer.
        """
        now = time.monotonic()
        for key, text in ask(lambda store: store.key_value_dir_get("pnoise/sign")):
            number, sign = int(key.rpartition("/")[2]), json.loads(text)
            known = self.signs.get(number)
            if known is None or known.count != sign["count"]:
                self.signs[number] = Sign(seen=now, **sign)

    def name(self, number: int) -> str:
        """The name of a host, with its machine if that is known; may query the store for it."""
        if number not in self.signs:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self.look()
        return self.known_name(number)

    def known_name(self, number: int) -> str:
        """The name of a host, with its machine if that is already known."""
        return self.signs[number].name if number in self.signs else f"host {number}"

    def silent(self) -> list[int]:
        """The other hosts that have sent no heartbeat for a few beats."""
        now = time.monotonic()
        return [
            number
            for number in range(count())
            if number != index()
            and (number not in self.signs or now - self.signs[number].seen > _SILENCE)
        ]

    def describe_silent(self) -> str:
        """The silent hosts, and when they were last heard from; empty if there are none."""
        return "; ".join(
            str(self.signs[number]) if number in self.signs else f"host {number}: no heartbeat"
            for number in self.silent()
        )

    def _beat(self) -> None:
        self._beats += 1
        sign = {
            "name": own_name(),
            "count": self._beats,
            "what": LATEST.what,
            "said": time.time(),
        }
        client().key_value_set(f"pnoise/sign/{index()}", json.dumps(sign), allow_overwrite=True)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT):
            try:
                self._beat()
                if self._beats % _LOOK == 1:
                    self.look()
                failure = read_failure()
            except jax.errors.JaxRuntimeError:  # process 0 is gone: JAX ends this process as well
                continue
            if failure is not None and failure["host"] != index():
                self.failure = failure
                self._end_after_grace()
                return

    def _end_after_grace(self) -> None:
        """Ends the process, because the main thread may wait forever for a host that failed."""
        assert self.failure is not None
        if not self._stopped.wait(_GRACE):
            say(f"error: {describe_failure(self.failure)}", file=sys.stderr)
            os._exit(1)


_WATCHES: list[Watch] = []  # empty, or the one of this process


def watch() -> Watch | None:
    """The watch of this process, if it is connected to others."""
    return _WATCHES[0] if _WATCHES else None


def introduce(address: str, *, report: Callable[[str], None]) -> Watch:
    """Starts to send heartbeats to the other hosts, once JAX has connected them."""
    _WATCHES.append(Watch(address, report))
    _WATCHES[0].start()
    return _WATCHES[0]
