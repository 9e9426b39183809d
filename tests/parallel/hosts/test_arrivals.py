"""The meeting before JAX starts; threads stand in for processes."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from pnoise_jax import parallel
from pnoise_jax.parallel.hosts import arrivals
from pnoise_jax.parallel.hosts.arrivals import meet, numbers
from pnoise_jax.parallel.hosts.launchers import Place


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def run_meeting(port, monkeypatch):
    """Lets processes with these numbers meet; returns each error, or None, and the reports."""
    monkeypatch.setattr(arrivals, "_TICK", 0.1)

    def run(*indices, count, counts=None, timeout=20.0, every=60.0):
        reports = []

        def meet_at(place):
            try:
                meet(place, timeout=timeout, report=reports.append, every=every)
            except (ValueError, OSError) as error:
                return error
            return None

        places = [
            Place(f"127.0.0.1:{port}", (counts or {}).get(index, count), index) for index in indices
        ]
        with ThreadPoolExecutor(len(places)) as threads:
            return list(threads.map(meet_at, places)), reports

    return run


def test_all_go_on_when_all_are_there_and_the_port_is_free(run_meeting, port):
    ended, reports = run_meeting(2, 1, 0, 3, count=4)
    assert ended == [None] * 4
    assert reports == []
    socket.create_server(("", port)).close()


def test_missing_processes_are_named_repeatedly_and_at_the_end(run_meeting):
    ended, reports = run_meeting(0, 2, count=5, timeout=1.0, every=0.3)
    assert [type(error) for error in ended] == [TimeoutError] * 2
    for text in map(str, ended):
        assert re.search(r"processes 1, 3, 4 of 5 have not arrived after 1 s at 127\.0\.0\.1", text)
        assert "arrived: process 0 on" in text
        assert "process 2 on" in text
        assert "--start_timeout" in text
    assert "processes 1, 3, 4 of 5 have not arrived" in reports[0]


def test_without_process_0_the_others_say_so(run_meeting, port):
    ended, reports = run_meeting(1, count=2, timeout=0.6, every=0.2)
    assert isinstance(ended[0], TimeoutError)
    assert f"has been waiting for process 0 at 127.0.0.1:{port}" in str(ended[0])
    assert "Connection refused" in str(ended[0])
    assert reports


def test_two_processes_with_one_number_end_all(run_meeting):
    ended, _ = run_meeting(0, 1, 1, count=3)
    assert len({str(error) for error in ended}) == 1
    # Not a lasting error: one may be what is left of a host that was lost.
    assert {type(error) for error in ended} == {parallel.DisagreementError}
    assert "process 1 has arrived twice" in str(ended[0])


def test_processes_that_count_differently_end_all(run_meeting):
    ended, _ = run_meeting(0, 1, count=3, counts={1: 2})
    assert all("one of 2 processes, but process 0 on" in str(error) for error in ended)
    assert {type(error) for error in ended} == {parallel.DisagreementError}


def test_strangers_at_the_port_are_turned_away(run_meeting, port):
    """Scanners and health checks connect as well, and other JAX programs."""

    def knock(words):
        for _ in range(100):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                    stranger.sendall(words)
                    return stranger.recv(100)
            except ConnectionRefusedError:
                arrivals.time.sleep(0.02)
            except ConnectionResetError:
                return b""
        raise AssertionError("nobody listens")

    with ThreadPoolExecutor(3) as threads:
        meeting = threads.submit(run_meeting, 0, 1, count=3, timeout=2.0)
        assert knock(b"GET / HTTP/1.0\r\n\r\n") == b""
        assert knock(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == b""
        assert knock(b"[]\n") == b""
        ended, _ = meeting.result()
    assert "process 2 of 3 has not arrived" in str(ended[0])
    assert "other JAX programs, or other versions of this one, have connected" in str(ended[0])


def test_a_process_that_disconnects_is_waited_for(run_meeting, port):
    def come_and_go():
        for _ in range(100):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as guest:
                    text = arrivals._introduction(Place(f"127.0.0.1:{port}", 3, 1))
                    guest.sendall(json.dumps(text).encode() + b"\n")
                    return
            except ConnectionRefusedError:
                arrivals.time.sleep(0.02)

    with ThreadPoolExecutor(2) as threads:
        meeting = threads.submit(run_meeting, 0, count=3, timeout=1.0)
        come_and_go()
        ended, reports = meeting.result()
    assert "processes 1, 2 of 3 have not arrived" in str(ended[0])
    assert "process 1 on" in reports[0]
    assert "arrived but has disconnected" in reports[0]


def test_a_port_in_use_is_named(port):
    with (
        socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True),
        pytest.raises(OSError, match=f"process 0 cannot listen on port {port}"),
    ):
        meet(Place(f"127.0.0.1:{port}", 2, 0), timeout=5, report=print)


def test_the_error_on_a_tpus_port_names_one_that_is_open(run_meeting, monkeypatch, port):
    monkeypatch.setattr(arrivals, "_TPU_PORT", port)
    ended, _ = run_meeting(1, count=2, timeout=0.3)
    assert "JAX_COORDINATOR_PORT=8476" in str(ended[0])


@pytest.mark.parametrize(
    ("values", "text"),
    [([0], "0"), ([0, 1], "0, 1"), ([3, 0, 1, 2, 7], "0-3, 7"), ([1, 2, 4, 5, 6], "1, 2, 4-6")],
)
def test_numbers(values, text):
    assert numbers(values) == text
