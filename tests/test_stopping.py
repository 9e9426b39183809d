"""Signals, really sent to this process."""

import os
import signal
import time

import pytest

from pnoise_jax import stopping


def send(number):
    """Sends a signal, and waits until the thread has seen it."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 10
    while not stopping.requested() and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_are_put_back(number, capfd):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        with stopping.listening():
            assert not stopping.requested()
            stopping.check("never")
            send(number)
            assert stopping.requested()
            assert stopping.requested()
            with pytest.raises(stopping.StoppedError) as caught:
                stopping.check("after step 3 of 7", "step 3 is saved", "train on")
    finally:
        signal.signal(signal.SIGINT, before[1])
    assert str(caught.value) == (
        f"stopped by {number.name} after step 3 of 7; step 3 is saved; start the same command to "
        "train on"
    )
    assert f"{number.name}: stopping at the next safe place" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert not stopping.requested()  # the next to listen starts anew


def test_what_may_end_at_once_does_not_begin_after_a_signal():
    with stopping.listening():
        with stopping.at_once("while copying"):
            stopping.check("never")
        send(signal.SIGTERM)
        with (
            pytest.raises(stopping.StoppedError, match="stopped by SIGTERM while copying"),
            stopping.at_once("while copying"),
        ):
            raise AssertionError


def test_without_listening_nothing_is_requested():
    assert not stopping.requested()
    stopping.begin()
    stopping.check("never")


def test_an_ignored_sigint_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping.listening():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert not stopping.requested()
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_kept_adds_up():
    inner = stopping.StoppedError("after step 1 of 2", "step 1 is saved")
    assert inner.with_kept("2 of 3 cells are finished").kept == (
        "step 1 is saved; 2 of 3 cells are finished"
    )
    assert stopping.StoppedError("while evaluating").with_kept("runs stay").kept == "runs stay"
