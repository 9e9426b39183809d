"""A run that stalls is reported once, with what it waits for."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from pnoise_jax import data, parallel
from pnoise_jax.data.batch_iterator import WorkerError
from pnoise_jax.parallel.hosts.progress import LATEST


@pytest.fixture(autouse=True)
def nothing_done_yet():
    LATEST.what, LATEST.when = "", 0.0


def wait_for(reports, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not reports and time.monotonic() < deadline:
        threading.Event().wait(0.02)


def test_a_run_that_stalls_is_reported_once_with_its_stack():
    reports = []
    with parallel.watchdog(0.3, reports.append):
        parallel.note_progress("step 7")
        wait_for(reports)
        time.sleep(0.6)
    assert len(reports) == 1
    assert "the last was step 7" in reports[0]
    assert "in wait_for" in reports[0]
    assert f'File "{__file__}"' in reports[0]


def test_another_stall_is_reported_and_none_before_anything_began():
    reports = []
    with parallel.watchdog(0.2, reports.append):
        time.sleep(0.5)
        assert reports == []
        parallel.note_progress("step 1")
        wait_for(reports)
        parallel.note_progress("step 2")
        time.sleep(1.5)  # the pause before was longer, so this one may be, too
    assert [text.partition("the last was ")[2][:6] for text in reports] == ["step 1", "step 2"]


def test_steps_that_are_as_slow_as_before_are_not_reported():
    reports = []
    parallel.note_progress("step 1")
    with parallel.watchdog(0.2, reports.append):
        for _ in range(60):
            parallel.note_progress("step 2")
            time.sleep(0.02)
    assert reports == []


def test_zero_watches_nothing():
    before = threading.active_count()
    with parallel.watchdog(0, print):
        assert threading.active_count() == before


def _sleep():
    time.sleep(60)


def test_a_stopped_worker_is_named():
    worker = multiprocessing.get_context("spawn").Process(target=_sleep, daemon=True)
    worker.start()
    try:
        os.kill(worker.pid, signal.SIGSTOP)
        reports = []
        with parallel.watchdog(0.3, reports.append):
            parallel.note_progress("step 1")
            wait_for(reports)
    finally:
        worker.kill()
        worker.join()
    assert f"data worker (pid {worker.pid}) is stopped (SIGSTOP or a debugger)" in reports[0]


def test_a_killed_data_worker_is_named(digits):
    with data.train_batches(
        digits, batch_size=50, seed=0, start_step=0, num_steps=10_000, num_workers=1, num_threads=1
    ) as batches:
        assert np.shape(next(batches)["label"]) == (50,)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"data.num_workers=1 .*killed by SIGKILL.*memory"):
            list(batches)
