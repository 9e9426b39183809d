"""What hosts agree on before they work together: facts, outcomes, and a directory they share."""

import contextlib
import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import jax

from pnoise_jax import writing
from pnoise_jax.parallel import hosts
from pnoise_jax.parallel.arrivals import numbers
from pnoise_jax.parallel.hosts import LostHostError

_Result = TypeVar("_Result")
_ROUNDS = itertools.count()  # in the same order on all hosts
_EVERY = 60.0  # seconds from one sentence about who is waited for to the next
_MOST = 12  # differences listed in a message


class DisagreementError(ValueError):
    """The hosts were started differently; the message says what differs, and on which host."""


def require_agreement(
    facts: Mapping[str, str], *, where_known: Mapping[str, str] | None = None
) -> None:
    """Returns if all hosts give the same facts; otherwise all of them raise the same error.

    All hosts must call it. With one process it returns at once.

    Args:
      facts: values in words, by name; a fact that only some hosts give counts as different.
      where_known: further facts, compared only between the hosts that give them.

    Raises:
      DisagreementError: names the facts that differ, their values and the hosts.
      LostHostError: another host has failed.
    """
    if hosts.client() is None:
        return
    mine = json.dumps([dict(facts), dict(where_known or {})])
    verdict = collect("to compare what hosts were started with", mine, _compare)
    if verdict:
        raise DisagreementError(verdict)


def _compare(given: list[str]) -> str:
    """What differs, in words; empty if nothing does."""
    facts, where_known = zip(*map(json.loads, given), strict=True)
    differing = []
    for source, absent in ((facts, True), (where_known, False)):
        for name in dict.fromkeys(name for of_host in source for name in of_host):
            by_value: dict[str, list[int]] = {}
            for host, of_host in enumerate(source):
                if absent or name in of_host:
                    by_value.setdefault(of_host.get(name, "not set"), []).append(host)
            if len(by_value) > 1:
                differing.append(f"{name}: {_by_host(by_value)}")
    if not differing:
        return ""
    more = len(differing) - _MOST
    watch = hosts.watch()
    names = f" ({', '.join(map(watch.name, range(min(8, len(given)))))})" if watch else ""
    return (
        f"the hosts{names} do not agree:\n  "
        + "\n  ".join(differing[:_MOST])
        + (f"\n  and {more} more" if more > 0 else "")
        + "\nStart the same command on all, with the same code, packages and data"
    )


def _by_host(by_value: Mapping[str, list[int]]) -> str:
    ordered = sorted(by_value.items(), key=lambda item: (-len(item[1]), item[1]))
    return "; ".join(
        f"{value} on host{'s' if len(which) > 1 else ''} {numbers(which)}"
        for value, which in ordered
    )


def on_all_hosts(call: Callable[[], _Result]) -> _Result:
    """Calls a function on every host; if it raises on one, all raise, and none waits forever.

    Raises:
      LostHostError: the function failed on another host; its message is part of this one.
      Exception: whatever the function raised on this host.
    """
    if hosts.client() is None:
        return call()
    result, failure = None, None
    try:
        result = call()
    except Exception as error:  # of any kind, because the others wait
        failure = error
    text = "" if failure is None else (str(failure).strip() or repr(failure))
    failures = json.loads(collect("to hear of what was done", text, json.dumps))
    if failure is not None:
        raise failure
    for host, message in enumerate(failures):
        if message:
            raise LostHostError(f"{_name(host)} has failed: {message}")
    return result  # type: ignore[return-value]


def on_any_host(flag: bool) -> bool:
    """Whether the flag is true on some host; all hosts must call it."""
    values = collect("to hear of the others", json.dumps(flag), json.dumps)
    return any(map(json.loads, json.loads(values)))


def require_shared_directory(directory: Path, *, flag: str, within: float = 15.0) -> None:
    """Returns if all hosts see the same directory under this path.

    All hosts must call it. With one process it returns at once.

    Args:
      directory: its path, which exists on every host; it may be in a bucket.
      flag: the flag that names it, for the error.
      within: seconds that a network file system may take to show a new file.

    Raises:
      DisagreementError: some host does not see what host 0 wrote; names both.
      OSError: host 0 cannot write there.
      LostHostError: another host has failed.
    """
    if hosts.client() is None:
        return
    # A new name, so that nothing has cached it.
    file = directory / f".shared-{secrets.token_hex(8)}"
    if hosts.index() == 0:
        on_all_hosts(lambda: file.write_text(file.name))
    else:
        on_all_hosts(lambda: None)
    name = json.loads(collect(f"to share --{flag}", file.name, lambda given: json.dumps(given[0])))
    seen = "yes" if _appears(directory / name, within) else str(directory)
    unseen = json.loads(collect(f"to see the files of --{flag}", seen, json.dumps))
    if hosts.index() == 0:
        file.unlink(missing_ok=True)
    blind = {host: where for host, where in enumerate(unseen) if where != "yes"}
    if blind:
        listed = ", ".join(f"{_name(host)} in {where}" for host, where in blind.items())
        raise DisagreementError(
            f"--{flag}={str(directory)!r} is not the same directory on all hosts: what {_name(0)} "
            f"has written there is not seen by {listed}. Give a directory that all hosts share, "
            "such as one on NFS, Lustre, Filestore or gcsfuse"
        )


def _appears(file: Path, within: float) -> bool:
    deadline = time.monotonic() + within
    while True:
        try:  # listing asks the server again; looking up a name may be answered from a cache
            if not writing.is_url(file):  # buckets have no such caches
                os.listdir(file.parent)
            if file.read_text() == file.name:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def collect(topic: str, value: str, conclude: Callable[[list[str]], str]) -> str:
    """Returns, on every host, what host 0 concludes from the values of all hosts.

    Args:
      topic: the purpose, such as "to compare their configs"; the same on all hosts.
      value: the value of this host.
      conclude: maps the values, in the order of the hosts, to the result; called on host 0.

    Raises:
      DisagreementError: the hosts have different topics, because they run different programs.
      LostHostError: a host has failed in the meantime.
    """
    client = hosts.client()
    if client is None:
        return conclude([value])
    key = f"pnoise/round/{next(_ROUNDS)}"
    if hosts.index() == 0:
        given = [_wait_for(f"{key}/{host}", topic, host) for host in range(1, hosts.count())]
        topics, values = zip((topic, value), *map(json.loads, given), strict=True)
        error = "" if len(set(topics)) == 1 else _describe_topics(topics)
        conclusion = [error, "" if error else conclude(list(values))]
        client.key_value_set(f"{key}/conclusion", json.dumps(conclusion))
    else:
        client.key_value_set(f"{key}/{hosts.index()}", json.dumps([topic, value]))
        conclusion = json.loads(_wait_for(f"{key}/conclusion", topic, 0))
    # No host continues, or ends, before all have read it from host 0.
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # host 0 ends once it has all of them
        client.key_value_set(f"{key}/read/{hosts.index()}", "yes")
    if hosts.index() == 0:
        for host in range(1, hosts.count()):
            _wait_for(f"{key}/read/{host}", topic, host)
    if conclusion[0]:
        raise DisagreementError(conclusion[0])
    return conclusion[1]


def _describe_topics(topics: Sequence[str]) -> str:
    by_topic: dict[str, list[int]] = {}
    for host, topic in enumerate(topics):
        by_topic.setdefault(topic, []).append(host)
    return (
        f"the hosts do different things: they wait {_by_host(by_topic)}. Start the same command "
        "on all, with the same code"
    )


def _wait_for(key: str, topic: str, host: int) -> str:
    """The value of a key that a host will set; waits for it as long as that host is alive."""
    watch = hosts.watch()
    started = said = time.monotonic()
    while True:
        try:
            return hosts.client().blocking_key_value_get(key, 1000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        now = time.monotonic()
        if watch is not None and watch.failure is not None:
            raise LostHostError(hosts.describe_failure(watch.failure))
        if watch is not None and now - said > _EVERY:
            said = now
            watch.report(
                f"{hosts.own_name()} waits for {_name(host)} since {now - started:.0f} s, {topic}"
            )


def _name(host: int) -> str:
    watch = hosts.watch()
    return f"host {host}" if watch is None else watch.name(host)
