"""The periods of a run: when its task prepares batches, and when they are opened and closed."""

import contextlib
import dataclasses
import itertools

import pytest

from pnoise_jax.training.loop import periods
from pnoise_jax.training.task import Task


@dataclasses.dataclass
class State:
    task: dict


class Prepared:
    """A task whose batches are step numbers, from the one where they were opened."""

    def __init__(self, preparations):
        self.preparations, self.calls = preparations, []

    @contextlib.contextmanager
    def open_period(self, start, state):
        self.calls.append(("open", start, state["prepared"]))
        try:
            yield itertools.count(start)
        finally:
            self.calls.append(("close", start))

    def prepare(self, step, state):
        self.calls.append(("prepare", step, state.task["step"]))
        return State(state.task | {"prepared": step})


def run(monkeypatch, task, start, total, stop=None):
    """The batches that a run gets."""

    def advance(program, state, batches, constants, *, start):
        for step, batch in enumerate(batches, start):
            state = State(state.task | {"step": step + 1})
            yield state, batch

    monkeypatch.setattr(periods, "advance", advance)
    state = State({"step": start, "prepared": None})
    steps = periods.advance_in_periods(
        None, task, state, (), steps=range(start, total), prepare=task.prepare, watch=iter
    )
    with contextlib.closing(steps):
        seen = list(itertools.islice(steps, stop))
    return [batch for _, batch in seen]


def test_batches_are_prepared_with_the_state_at_that_step(monkeypatch):
    task = Prepared(range(3, 9, 4))
    assert run(monkeypatch, task, 0, 9) == list(range(9))
    assert task.calls == [
        ("open", 0, None),
        ("close", 0),
        ("prepare", 3, 3),
        ("open", 3, 3),
        ("close", 3),
        ("prepare", 7, 7),
        ("open", 7, 7),
        ("close", 7),
    ]


@pytest.mark.parametrize(
    ("start", "prepared"), [(0, [3, 7]), (3, [3, 7]), (4, [7]), (7, [7]), (8, []), (9, [])]
)
def test_a_resumed_run_prepares_only_what_is_still_to_come(monkeypatch, start, prepared):
    task = Prepared((3, 7))
    assert run(monkeypatch, task, start, 9) == list(range(start, 9))
    assert [call[1] for call in task.calls if call[0] == "prepare"] == prepared
    assert [call[1] for call in task.calls if call[0] == "open"][:1] == [start][: 9 - start]


def test_a_run_that_is_stopped_closes_its_batches(monkeypatch):
    task = Prepared((3,))
    assert run(monkeypatch, task, 0, 9, stop=5) == [0, 1, 2, 3, 4]
    assert task.calls[-2:] == [("open", 3, 3), ("close", 3)]


def test_a_task_has_one_period_by_default(monkeypatch):
    assert Task(model=None).preparations == ()
    task = Prepared(())
    assert run(monkeypatch, task, 2, 5) == [2, 3, 4]
    assert task.calls == [("open", 2, None), ("close", 2)]
