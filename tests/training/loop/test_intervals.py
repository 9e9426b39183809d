"""When checkpoints are due: by the step, by the clock, and who decides on several hosts."""

import jax
import pytest

from pnoise_jax import training
from pnoise_jax.training.configuration.durations import seconds_of
from pnoise_jax.training.loop import intervals
from pnoise_jax.training.loop.intervals import Every, SaveClock
from tests.training.runs import small_config


class Clock:
    """Replaces the module ``time``."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(intervals, "time", fake)
    return fake


def saved_at(clock, seconds, durations, start=0):
    """The steps after which a checkpoint is due, each with the seconds since the last one."""
    due, saved = SaveClock(seconds, start), clock.now
    saves = []
    for step, duration in enumerate(durations, start + 1):
        clock.now += duration
        if due.is_due(step):
            saves.append((step, round(clock.now - saved, 6)))
            due.restart(step)
            saved = clock.now
    return saves


def test_no_two_checkpoints_are_further_apart_than_asked(clock):
    assert saved_at(clock, 10.0, [0.5] * 60) == [(20, 10.0), (40, 10.0), (60, 10.0)]
    assert saved_at(clock, 10.0, [3.0] * 7) == [(3, 9.0), (6, 9.0)]  # the fourth would be too late
    assert saved_at(clock, 10.0, [4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], start=100) == [(107, 10.0)]
    assert saved_at(clock, 10.0, [20.0] * 3) == [(1, 20.0), (2, 20.0), (3, 20.0)]


def test_several_hosts_follow_the_first_one_and_rarely_ask_it(clock, monkeypatch):
    asked = []

    def broadcast(mine):
        asked.append(mine.tolist())
        return mine

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(intervals.multihost_utils, "broadcast_one_to_all", broadcast)
    saves = saved_at(clock, 900.0, [60.0, *[0.1] * 30_000])
    assert all(seconds <= 900 for _, seconds in saves)
    assert all(seconds > 800 for _, seconds in saves)
    assert len(saves) == 3
    assert len(asked) < 100  # in 30 000 steps
    # Another host follows the first one, whatever its own clock shows.
    answers = iter([(0, 1), (0, 4), (1, 1)])
    monkeypatch.setattr(
        intervals.multihost_utils, "broadcast_one_to_all", lambda mine: next(answers)
    )
    assert [step for step, _ in saved_at(clock, 1.0, [60.0] * 6)] == [6]


@pytest.mark.parametrize(
    ("changes", "save", "seconds"),
    [
        ({}, 4, 900.0),
        ({"checkpoint.at_most": "0.5 minutes"}, 4, 30.0),
        ({"checkpoint.every": "30 minutes"}, 13, 1800.0),
        ({"checkpoint.every": "1minute"}, 13, 60.0),
    ],
)
def test_intervals_are_read_from_the_config(data_dir, changes, save, seconds):
    every = Every.of(training.build(small_config(data_dir, **changes)))
    assert (every.save, every.seconds) == (save, seconds)
    assert every.saves(12, 12)  # the last step is always saved


def test_by_default_at_most_15_minutes_are_lost():
    section = training.default_config().checkpoint
    assert seconds_of(section.at_most, field="checkpoint.at_most") == 900


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("checkpoint.every", "0 minutes", r"checkpoint.every='0 minutes': give minutes above 0"),
        ("checkpoint.every", "-1 minutes", "give minutes above 0"),
        ("checkpoint.every", "inf minutes", "give minutes above 0"),
        ("checkpoint.every", "nan minutes", "give minutes above 0"),
        ("checkpoint.every", "ten minutes", "give minutes above 0"),
        ("checkpoint.every", "10 mins", r"epochs'; or of minutes, such as '5 minutes'"),
        ("checkpoint.at_most", "10 epochs", r"checkpoint.at_most='10 epochs': give minutes"),
        ("checkpoint.at_most", "15", "give minutes, such as '15 minutes'"),
        ("log_every", "5 minutes", "log_every='5 minutes': give a number of steps, epochs"),
        ("evaluation.every", "5 minutes", "give a number of steps, epochs"),
    ],
)
def test_bad_intervals_are_named(data_dir, field, value, message):
    with pytest.raises(ValueError, match=message):
        training.build(small_config(data_dir, **{field: value}))
