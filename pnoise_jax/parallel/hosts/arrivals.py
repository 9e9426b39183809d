"""All processes meet at the coordinator's port before JAX starts there.

JAX's own start does not say which process is missing, and kills the process if it takes too long.
So process 0 first listens on that port itself. The others connect and identify themselves, with one
JSON object per line. Once all have arrived, they are told to continue, and JAX takes over the port.
"""

import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from pnoise_jax.parallel.hosts.launchers import Place

_EVERY = 60.0  # seconds between reports about the missing ones
_TICK = 1.0
_LONGEST_LINE = 4096
_TPU_PORT = 8482  # JAX's default; some of Google's firewall rules open a different one


class DisagreementError(ValueError):
    """The hosts were started differently; the message says what differs, and on which host."""


def meet(
    place: Place, *, timeout: float, report: Callable[[str], None], every: float = _EVERY
) -> None:
    """Returns when all processes have arrived.

    Args:
      place: of this process.
      timeout: seconds to wait for the others.
      report: called with a sentence about who is missing.
      every: seconds between such sentences.

    Raises:
      DisagreementError: two processes have the same number, or the number of processes differs.
      TimeoutError: some processes have not arrived; the message says which.
      OSError: the port cannot be used.
    """
    if place.count == 1:
        return
    if place.index == 0:
        _Reception(place, timeout, report, every).run()
    else:
        _arrive(place, timeout, report, every)


def _introduction(place: Place) -> dict[str, Any]:
    return {
        "pnoise_jax": "arrival",
        "process": place.index,
        "processes": place.count,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


class _Reception:
    """On process 0: records who has arrived, and lets all continue together."""

    def __init__(
        self, place: Place, timeout: float, report: Callable[[str], None], every: float
    ) -> None:
        self._place, self._timeout, self._report, self._every = place, timeout, report, every
        self._selector = selectors.DefaultSelector()
        self._received: dict[socket.socket, bytes] = {}
        self._guests: dict[socket.socket, dict[str, Any]] = {}
        self._strangers: set[str] = set()

    def run(self) -> None:
        try:
            with self._listen() as listener:
                self._selector.register(listener, selectors.EVENT_READ)
                self._wait(listener)
                self._selector.unregister(listener)
            self._tell_all({"go": True})  # the port is free by now
        except (ValueError, TimeoutError) as error:
            self._tell_all({"error": str(error), "kind": type(error).__name__})
            raise
        except KeyboardInterrupt:
            self._tell_all({"error": "process 0 was interrupted", "kind": "TimeoutError"})
            raise
        finally:
            self._close_all()

    def _listen(self) -> socket.socket:
        bound = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", f":{self._place.port}")
        host, _, port = bound.rpartition(":")
        host = host.strip("[]")
        both = not host and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
        try:
            return socket.create_server(
                (host, int(port)), family=family, dualstack_ipv6=both, backlog=self._place.count
            )
        except OSError as error:
            raise OSError(
                f"process 0 cannot listen on port {port} ({error.strerror}): set another port in "
                "JAX_COORDINATOR_ADDRESS, or JAX_COORDINATOR_PORT with --multi_host; or end the "
                "program that uses it"
            ) from error

    def _wait(self, listener: socket.socket) -> None:
        started = time.monotonic()
        told = said = started
        while self._missing():
            for key, _ in self._selector.select(_TICK):
                if key.fileobj is listener:
                    self._accept(listener)
                elif isinstance(key.fileobj, socket.socket):
                    self._hear(key.fileobj)
            now = time.monotonic()
            if now - told >= 5 * _TICK:  # so that the others know that process 0 is alive
                told = now
                self._tell_all({"missing": self._describe()})
            if now - started > self._timeout:
                raise TimeoutError(self._describe(now - started) + _remedy(self._place))
            if now - said >= self._every:
                said = now
                self._report(self._describe(now - started))

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(5.0)
        self._received[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_LONGEST_LINE)
        except OSError:
            data = b""
        line = self._received[connection] = self._received[connection] + data
        if not data:
            left = self._forget(connection)
            if left is not None:
                self._report(f"{_name(left)} arrived but has disconnected; waiting for it")
        elif b"\n" in line or len(line) > _LONGEST_LINE:
            self._admit(connection, line)

    def _admit(self, connection: socket.socket, line: bytes) -> None:
        try:
            guest = json.loads(line)
            number, total = guest["process"], guest["processes"]
            if guest["pnoise_jax"] != "arrival" or not isinstance(number, int):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            if line.startswith(b"PRI "):  # a JAX process that runs something else
                self._strangers.add(str(connection.getpeername()[0]))
            self._forget(connection)
            return
        everybody = [_introduction(self._place), *self._guests.values()]
        twin = next((other for other in everybody if other["process"] == number), None)
        self._guests[connection] = guest
        if total != self._place.count or not 0 <= number < total:
            raise DisagreementError(
                f"{_name(guest)} says that it is one of {total} processes, but process 0 on "
                f"{socket.gethostname()} expects {self._place.count}: set the same "
                "JAX_NUM_PROCESSES on all"
            )
        if twin is not None:
            raise DisagreementError(
                f"process {number} has arrived twice, on {_where(twin)} and on {_where(guest)}: "
                "give each process its own JAX_PROCESS_ID, from 0"
            )

    def _missing(self) -> list[int]:
        present = {guest["process"] for guest in self._guests.values()}
        return [n for n in range(1, self._place.count) if n not in present]

    def _describe(self, seconds: float | None = None) -> str:
        missing = self._missing()
        arrived = [_introduction(self._place), *self._guests.values()]
        arrived.sort(key=lambda guest: guest["process"])
        after = "" if seconds is None else f" after {seconds:.0f} s"
        text = (
            f"{'processes' if len(missing) > 1 else 'process'} {numbers(missing)} of "
            f"{self._place.count} {'have' if len(missing) > 1 else 'has'} not arrived{after} at "
            f"{self._place.address}; arrived: " + ", ".join(_name(guest) for guest in arrived)
        )
        if self._strangers:
            text += (
                f"; other JAX programs, or other versions of this one, have connected from "
                f"{', '.join(sorted(self._strangers))}"
            )
        return text

    def _tell_all(self, message: dict[str, Any]) -> None:
        for guest in list(self._guests):
            try:
                _send(guest, message)
            except OSError:
                self._forget(guest)

    def _forget(self, connection: socket.socket) -> dict[str, Any] | None:
        self._selector.unregister(connection)
        self._received.pop(connection)
        connection.close()
        return self._guests.pop(connection, None)

    def _close_all(self) -> None:
        deadline = time.monotonic() + 2.0
        while (
            self._guests and time.monotonic() < deadline
        ):  # the side that disconnects first keeps the port
            for key, _ in self._selector.select(0.1):
                guest = key.fileobj
                if not isinstance(guest, socket.socket) or guest not in self._guests:
                    continue
                if not _is_open(guest):
                    self._forget(guest)
        for connection in list(self._received):
            self._forget(connection)
        self._selector.close()


def _is_open(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(_LONGEST_LINE))
    except OSError:
        return False


def _arrive(place: Place, timeout: float, report: Callable[[str], None], every: float) -> None:
    """On the other processes: identifies this one, and waits until process 0 lets it continue."""
    started = said = time.monotonic()
    news = reason = ""
    while True:
        try:
            with (
                socket.create_connection((place.host, place.port), timeout=5.0) as connection,
                connection.makefile("rb") as lines,
            ):
                _send(connection, _introduction(place))
                connection.settimeout(30.0)  # process 0 says something every few seconds
                while line := lines.readline(64 * _LONGEST_LINE):
                    message = json.loads(line)
                    if message.get("go"):
                        return
                    if "error" in message:
                        kinds = {kind.__name__: kind for kind in (DisagreementError, TimeoutError)}
                        raise _Refused(kinds[message["kind"]](message["error"]))
                    news, reason = message["missing"], ""
                    if time.monotonic() - said >= every:
                        said = time.monotonic()
                        report(f"process {place.index}: {news}")
            reason = "it has disconnected"
        except _Refused as refused:
            raise refused.args[0] from None
        except (OSError, ValueError, KeyError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        waited = time.monotonic() - started
        text = (
            f"process {place.index} of {place.count}, on {socket.gethostname()}, has been waiting "
            f"for process 0 at {place.address} for {waited:.0f} s ({reason})"
        )
        if waited > timeout:
            raise TimeoutError(text + _remedy(place))
        if time.monotonic() - said >= every:
            said = time.monotonic()
            report(text)
        time.sleep(_TICK / 2)


class _Refused(Exception):  # noqa: N818
    """Carries the answer of process 0 through the handler of network errors."""


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _where(guest: dict[str, Any]) -> str:
    return f"{guest['host']} (pid {guest['pid']})"


def _name(guest: dict[str, Any]) -> str:
    return f"process {guest['process']} on {_where(guest)}"


def _remedy(place: Place) -> str:
    text = (
        f": start the missing ones, make sure that all can reach TCP port {place.port} of "
        f"{place.host}, or raise --start_timeout"
    )
    if place.port == _TPU_PORT:
        text += (
            "; if a firewall blocks that port, as Google's own rule for TPU v6e does, set "
            "JAX_COORDINATOR_PORT=8476 on all hosts"
        )
    return text


def numbers(values: list[int]) -> str:
    """Formats whole numbers in order, such as "0-3, 7"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )
