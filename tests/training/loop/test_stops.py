"""Runs stopped by a signal, a crash or a deleted directory, and their results once resumed."""

import json
import os
import re
import shutil
import signal

import pytest

from pnoise_jax import evaluation, stopping, training
from pnoise_jax.runs import RunDirectory, open_writers
from pnoise_jax.training.loop.window import Window
from tests.training.runs import small_config

pytestmark = pytest.mark.long

SPEED = {"steps_per_second", "examples_per_second", "data_wait"}


def config_of(data_dir, **changes):
    """12 steps, with reports after 5 and 10 and an evaluation after 6."""
    intervals = {
        "log_every": "5 steps",
        "checkpoint.every": "12 steps",
        "checkpoint.keep": 12,
        "evaluation.every": "6 steps",
        "model.dropout": 0.1,
    }
    return small_config(data_dir, **(intervals | changes))


def final_results(directory):
    """The checksums of the last checkpoint, and the lines of metrics.jsonl without speeds."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    checksums = json.loads((directory / "checkpoints" / "12" / "arrays" / "metadata").read_text())
    return checksums, [{k: v for k, v in line.items() if k not in SPEED} for line in lines]


def saved(directory):
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def straight(data_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("straight")
    return directory, training.train(config_of(data_dir), directory)


def do_after(step, action, monkeypatch):
    """Makes the loop call ``action`` after ``step`` steps."""
    add, made = Window.add, []

    def add_and_act(window, metrics):
        made.append(add(window, metrics))
        if len(made) == step:
            action()

    monkeypatch.setattr(Window, "add", add_and_act)


def send_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)
    while not stopping.requested():  # until the thread notices it
        pass


@pytest.mark.parametrize("step", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 6))])
def test_a_stopped_run_saves_its_step_and_resumes_as_if_never_stopped(
    straight, data_dir, tmp_path, monkeypatch, step
):
    """Between two reports, at one, and before an evaluation."""
    directory, rows = straight
    do_after(step, send_sigterm, monkeypatch)
    with (
        stopping.listening(),
        pytest.raises(stopping.StoppedError) as caught,
    ):
        training.train(config_of(data_dir), tmp_path)
    assert str(caught.value) == (
        f"stopped by SIGTERM after step {step} of 12; the checkpoint of step {step} is saved in "
        f"{tmp_path / 'checkpoints'}; start the same command to resume"
    )
    assert saved(tmp_path) == [step]
    monkeypatch.undo()
    assert training.train(config_of(data_dir), tmp_path) == rows
    assert final_results(tmp_path) == final_results(directory)


def test_a_stopped_evaluation_during_training_is_repeated(
    straight, data_dir, tmp_path, monkeypatch
):
    directory, rows = straight
    open_batches = evaluation.evaluate.__globals__["_open_batches"]

    def send_and_open(*arguments):
        send_sigterm()
        return open_batches(*arguments)

    monkeypatch.setitem(evaluation.evaluate.__globals__, "_open_batches", send_and_open)
    with stopping.listening(), pytest.raises(stopping.StoppedError, match="after step 6 of 12"):
        training.train(config_of(data_dir), tmp_path)
    assert saved(tmp_path) == [6]
    with (
        stopping.listening(),  # again, in the repeated evaluation: nothing is saved twice
        pytest.raises(stopping.StoppedError, match="the checkpoint of step 6 is saved"),
    ):
        training.train(config_of(data_dir), tmp_path)
    monkeypatch.undo()
    assert training.train(config_of(data_dir), tmp_path) == rows
    assert final_results(tmp_path) == final_results(directory)


def test_a_signal_in_the_last_evaluation_leaves_a_trained_run(
    straight, data_dir, tmp_path, monkeypatch
):
    directory, rows = straight
    do_after(12, send_sigterm, monkeypatch)
    with stopping.listening(), pytest.raises(stopping.StoppedError) as caught:
        training.train(config_of(data_dir), tmp_path)
    assert "in the evaluation after training; all 12 steps are done" in str(caught.value)
    assert str(caught.value).endswith("start the same command to evaluate")
    assert not (tmp_path / "evaluation.json").exists()
    assert training.train(config_of(data_dir), tmp_path) == rows
    assert final_results(tmp_path) == final_results(directory)


def test_a_signal_before_the_first_step_saves_nothing_and_says_so(data_dir, tmp_path):
    with stopping.listening():
        send_sigterm()
        with pytest.raises(stopping.StoppedError) as caught:
            training.train(config_of(data_dir), tmp_path)
    assert "before the first step; nothing was trained or saved" in str(caught.value)
    assert saved(tmp_path) == []


def test_a_crash_loses_only_what_the_clock_has_not_saved(straight, data_dir, tmp_path, monkeypatch):
    """With a checkpoint after every step, as a step takes longer than 6 ms."""
    directory, rows = straight

    def crash():
        raise RuntimeError("a crash")

    do_after(9, crash, monkeypatch)
    often = config_of(data_dir, **{"checkpoint.at_most": "0.0001 minutes"})
    with pytest.raises(RuntimeError, match="a crash"):
        training.train(often, tmp_path)
    assert saved(tmp_path) == [*range(1, 9)]
    monkeypatch.undo()
    assert training.train(often, tmp_path) == rows
    assert final_results(tmp_path) == final_results(directory)


@pytest.mark.slow
def test_the_clock_saves_no_state_that_is_not_finite(data_dir, tmp_path):
    changes = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1e30,
        "optimizer.warmup": "1 step",
        "checkpoint.every": "0.0001 minutes",
    }
    with pytest.raises(training.NonFiniteLossError, match=r"step 3 is nan.*that of step 2, in"):
        training.train(config_of(data_dir, **changes), tmp_path)
    assert saved(tmp_path) == [1, 2]


def test_a_checkpoint_copied_to_another_number_is_not_used(straight, data_dir, tmp_path):
    """A copy of step 6, called 12, would end the training at once."""
    directory, rows = straight
    config = config_of(data_dir, **{"checkpoint.every": "6 steps"})
    training.train(config, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    shutil.copytree(tmp_path / "checkpoints" / "6", tmp_path / "checkpoints" / "12")
    shutil.copytree(tmp_path / "checkpoints" / "6", tmp_path / "checkpoints" / "40")
    assert training.train(config, tmp_path) == rows
    assert final_results(tmp_path)[0] == final_results(directory)[0]
    assert {path.name for path in (tmp_path / "unreadable").iterdir()} == {"12", "40"}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def recreate(directory):
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / ".lock").touch()


def replace_by_file(directory):
    shutil.rmtree(directory)
    directory.write_text("")


@pytest.mark.parametrize(
    ("delete", "message"),
    [
        (shutil.rmtree, "was deleted or moved while this run was training"),
        slow(lambda path: path.rename(path.with_name("elsewhere")), "was deleted or moved"),
        slow(replace_by_file, "was replaced by a file"),
        slow(lambda path: (path / "config.json").unlink(), "lost its config.json"),
        slow(recreate, "was deleted, and another run has recreated it"),
    ],
)
def test_a_run_ends_if_its_directory_is_gone_and_does_not_recreate_it(
    data_dir, tmp_path, monkeypatch, delete, message
):
    directory = tmp_path / "run"
    do_after(7, lambda: delete(directory), monkeypatch)
    with pytest.raises(OSError, match=f"{re.escape(str(directory))}.*{message}.*are lost"):
        training.train(config_of(data_dir), directory)
    left = set(os.listdir(directory)) if directory.is_dir() else set()
    assert "checkpoints" not in left or delete not in (shutil.rmtree, recreate)
    assert not (directory / "evaluation.json").exists()


@pytest.mark.slow
def test_a_directory_that_is_deleted_during_a_save_is_named(data_dir, tmp_path, monkeypatch):
    directory = tmp_path / "run"
    save = training.loop.loop.Checkpoints.save

    def save_and_delete(checkpoints, step, *arguments):
        save(checkpoints, step, *arguments)
        shutil.rmtree(directory, ignore_errors=True)

    monkeypatch.setattr(training.loop.loop.Checkpoints, "save", save_and_delete)
    with pytest.raises(OSError, match="while this run was training"):
        training.train(config_of(data_dir, **{"checkpoint.every": "7 steps"}), directory)


@pytest.mark.slow
def test_a_run_without_its_config_says_that_its_checkpoints_are_there(
    data_dir, tmp_path, monkeypatch
):
    do_after(7, (tmp_path / "config.json").unlink, monkeypatch)
    config = config_of(data_dir, **{"checkpoint.every": "3 steps"})
    with pytest.raises(OSError, match=r"put it back, .*the checkpoints there are intact"):
        training.train(config, tmp_path)
    assert saved(tmp_path) == [3, 6]


def test_metrics_that_are_deleted_during_a_run_continue_in_a_new_file(tmp_path):
    writer = open_writers(RunDirectory(tmp_path), ("tensorboard",), config={}, step=0)
    writer.write(1, {"loss": 1.0})
    (tmp_path / "metrics.jsonl").unlink()
    writer.write(2, {"loss": 2.0})
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 2, "loss": 2.0}\n'


@pytest.mark.slow
def test_a_directory_that_is_deleted_after_the_last_step_is_named(data_dir, tmp_path, monkeypatch):
    directory = tmp_path / "run"
    wait = training.loop.loop.Checkpoints.wait
    monkeypatch.setattr(
        training.loop.loop.Checkpoints,
        "close",
        lambda checkpoints: (wait(checkpoints), shutil.rmtree(directory)),
    )
    with pytest.raises(OSError, match="was deleted or moved"):
        training.train(config_of(data_dir), directory)
    assert not directory.exists()
