"""Checks that hosts agree before they work together: on facts, outcomes and a directory."""

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
from pnoise_jax.parallel.hosts import hosts
from pnoise_jax.parallel.hosts.arrivals import DisagreementError, numbers
from pnoise_jax.parallel.hosts.hosts import LostHostError

_Result = TypeVar("_Result")
_ROUNDS = itertools.count()  # in the same order on all hosts
_EVERY = 60.0  # seconds between reports about who is being waited for
_MOST = 12  # differences listed in a message


def require_agreement(
    facts: Mapping[str, str], *, where_known: Mapping[str, str] | None = None
) -> None:
    """Returns if all hosts pass the same facts; otherwise all of them raise the same error.

    All hosts must call it. With one process it returns at once.

    Args:
      facts: values as text, by name; a fact that only some hosts pass counts as different.
      where_known: further facts, compared only between the hosts that pass them.

    Raises:
      DisagreementError: facts differ; the message names them, their values and the hosts.
      LostHostError: another host has failed.
    """
    if hosts.client() is None:
        return
    mine = json.dumps([dict(facts), dict(where_known or {})])
    verdict = collect("to compare how the hosts were started", mine, _compare)
    if verdict:
        raise DisagreementError(verdict)


def _compare(texts: list[str]) -> str:
    """Describes what differs; empty if nothing does."""
    facts, where_known = zip(*map(json.loads, texts), strict=True)
    differing = []
    for source, absent in ((facts, True), (where_known, False)):
        for name in dict.fromkeys(name for values in source for name in values):
            by_value: dict[str, list[int]] = {}
            for host, values in enumerate(source):
                if absent or name in values:
                    by_value.setdefault(values.get(name, "not set"), []).append(host)
            if len(by_value) > 1:
                differing.append(f"{name}: {_by_host(by_value)}")
    if not differing:
        return ""
    more = len(differing) - _MOST
    watch = hosts.watch()
    names = f" ({', '.join(map(watch.name, range(min(8, len(texts)))))})" if watch else ""
    return (
        f"the hosts{names} do not agree:\n  "
        + "\n  ".join(differing[:_MOST])
        + (f"\n  and {more} more" if more > 0 else "")
        + "\nStart the same command on all hosts, with the same code, packages and data"
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
    except Exception as error:  # of any kind, because the other hosts are waiting
        failure = error
    text = "" if failure is None else (str(failure).strip() or repr(failure))
    failures = json.loads(collect("to learn whether all succeeded", text, json.dumps))
    if failure is not None:
        raise failure
    for host, message in enumerate(failures):
        if message:
            raise LostHostError(f"{_name(host)} has failed: {message}")
    return result  # type: ignore[return-value]


def on_any_host(flag: bool) -> bool:
    """Whether the flag is true on some host; all hosts must call it."""
    values = collect("to learn their answers", json.dumps(flag), json.dumps)
    return any(map(json.loads, json.loads(values)))


def require_shared_directory(directory: Path, *, flag: str, within: float = 15.0) -> None:
    """Returns if all hosts see the same directory under this path.

    All hosts must call it. With one process it returns at once.

    Args:
      directory: a path that exists on every host; it can be in a bucket.
      flag: the flag that names it, for the error.
      within: seconds that a network file system may take to show a new file.

    Raises:
      DisagreementError: some host does not see what host 0 wrote; the message names both.
      OSError: host 0 cannot write there.
      LostHostError: another host has failed.
    """
    if hosts.client() is None:
        return
    # A new name, so nothing has cached it.
    file = directory / f".shared-{secrets.token_hex(8)}"
    if hosts.index() == 0:
        on_all_hosts(lambda: file.write_text(file.name))
    else:
        on_all_hosts(lambda: None)
    name = json.loads(collect(f"to share --{flag}", file.name, lambda names: json.dumps(names[0])))
    seen = "yes" if _appears(directory / name, within) else str(directory)
    unseen = json.loads(collect(f"to check that --{flag} is shared", seen, json.dumps))
    if hosts.index() == 0:
        file.unlink(missing_ok=True)
    blind = {host: where for host, where in enumerate(unseen) if where != "yes"}
    if blind:
        listed = ", ".join(f"{_name(host)} in {where}" for host, where in blind.items())
        raise DisagreementError(
            f"--{flag}={str(directory)!r} is not the same directory on all hosts: a file that "
            f"{_name(0)} wrote there is not seen by {listed}. Give a directory that all hosts "
            "share, such as one on NFS, Lustre, Filestore or gcsfuse"
        )


def _appears(file: Path, within: float) -> bool:
    deadline = time.monotonic() + within
    while True:
        try:  # a listing asks the server again; a lookup of a name may come from a cache
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
    """Returns, on every host, the result that host 0 computes from the values of all hosts.

    Args:
      topic: the purpose of the exchange, such as "to compare their configs"; the same on all
        hosts.
      value: the value of this host.
      conclude: maps the values, in the order of the hosts, to the result; called only on host 0.

    Raises:
      DisagreementError: the hosts have different topics, because they run different programs.
      LostHostError: a host has failed in the meantime.
    """
    client = hosts.client()
    if client is None:
        return conclude([value])
    key = f"pnoise/round/{next(_ROUNDS)}"
    if hosts.index() == 0:
        messages = [_wait_for(f"{key}/{host}", topic, host) for host in range(1, hosts.count())]
        topics, values = zip((topic, value), *map(json.loads, messages), strict=True)
        error = "" if len(set(topics)) == 1 else _describe_topics(topics)
        conclusion = [error, "" if error else conclude(list(values))]
        client.key_value_set(f"{key}/conclusion", json.dumps(conclusion))
    else:
        client.key_value_set(f"{key}/{hosts.index()}", json.dumps([topic, value]))
        conclusion = json.loads(_wait_for(f"{key}/conclusion", topic, 0))
    # No host continues, or ends, before all have read it from host 0.
    with contextlib.suppress(
        jax.errors.JaxRuntimeError
    ):  # host 0 may end once it has read all of them
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
        f"the hosts are doing different things: they are waiting {_by_host(by_topic)}. Start the "
        "same command on all hosts, with the same code"
    )


def _wait_for(key: str, topic: str, host: int) -> str:
    """Waits for the value of a key that a host will set, until a host is known to have failed."""
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
                f"{hosts.own_name()} has been waiting for {_name(host)} for {now - started:.0f} s, "
                f"{topic}"
            )


def _name(host: int) -> str:
    watch = hosts.watch()
    return f"host {host}" if watch is None else watch.name(host)
