"""SIGTERM and Ctrl-C, sent to the real programs at every stage."""

import json
import os
import pathlib
import signal
import socket
import time

import pytest

from pnoise_jax.runs import RunDirectory
from tests.launch import command

pytestmark = pytest.mark.long

TERM, INT = signal.SIGTERM, signal.SIGINT
STEPS = (
    "--config.steps=200",
    "--config.model.dim=16",
    "--config.model.depth=2",
    "--config.checkpoint.every=50 steps",
    "--config.log_every=10 steps",
)


def arguments(data_dir, workdir, *more):
    return (
        "--config=configs/digits_vit.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        *STEPS,
        *more,
    )


def send_when(ready, processes, *numbers, gap=0.0):
    """Sends signals once ``ready()``; returns exit codes and errors of all processes."""
    deadline = time.monotonic() + 300
    while not ready():
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in numbers:
        for process in processes:
            process.send_signal(number)
        time.sleep(gap)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    return [process.returncode for process in processes], errors


def has_lines(workdir, count=1):
    """A function that tells whether the run has reported ``count`` times."""
    file = pathlib.Path(workdir) / "metrics.jsonl"
    return lambda: file.exists() and len(file.read_text().splitlines()) >= count


def after_seconds(wait):
    end = time.monotonic() + wait
    return lambda: time.monotonic() > end


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_during_the_start_ends_the_program(data_dir, tmp_path, number):
    process = command.start("train", *arguments(data_dir, tmp_path / "run"))
    (code,), (errors,) = send_when(after_seconds(0.5), [process], number)
    assert code == 75
    assert errors == (
        f"stopped by {number.name} before any work was done; nothing was saved; start the same "
        "command again\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(data_dir, tmp_path):
    """Also while workers make the batches: they end, too."""
    workers = ("--config.data.num_workers=2", "--config.data.cache=False")
    process = command.start("train", *arguments(data_dir, tmp_path, *workers))
    (code,), (errors,) = send_when(has_lines(tmp_path), [process], INT, INT)
    assert code == 130
    assert "ended at once by a second Ctrl-C; anything not saved is lost\n" in errors


@pytest.mark.slow
def test_repeated_sigterms_change_nothing(data_dir, tmp_path):
    """Also while the interpreter exits: a scheduler relies on the exit code."""
    process = command.start("train", *arguments(data_dir, tmp_path))
    (code,), (errors,) = send_when(has_lines(tmp_path), [process], *[TERM] * 400, gap=0.02)
    assert code == 75, errors
    assert errors.count("SIGTERM: stopping at the next safe place") == 1
    assert "is saved" in errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [TERM, INT])
def test_workers_survive_a_signal_to_the_whole_group(data_dir, tmp_path, number):
    """Slurm sends SIGTERM to workers, too, and terminals send Ctrl-C."""
    workers = ("--config.data.num_workers=2", "--config.data.cache=False")
    process = command.start("train", *arguments(data_dir, tmp_path, *workers))
    deadline = time.monotonic() + 300
    while not has_lines(tmp_path)():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for children in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            os.kill(int(child), number)
    (code,), (errors,) = send_when(after_seconds(0), [process], number)
    assert code == 75, errors
    assert "the checkpoint of step" in errors


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to"), [(TERM, "all"), (TERM, "one"), (INT, "one")])
def test_two_processes_save_the_same_step(data_dir, tmp_path, number, to):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    more = ("--config.batch_size=48", "--config.evaluation.batch_size=8", "--config.steps=2000")
    processes = [
        command.start(
            "train",
            *arguments(data_dir, tmp_path, *more),
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=f"{index}",
        )
        for index in range(2)
    ]
    chosen = processes if to == "all" else processes[1:]
    while not has_lines(tmp_path, 3)():
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.01)
    for process in chosen:
        process.send_signal(number)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [75, 75], errors
    last = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert last < 2000
    for text in errors:
        assert f"after step {last} of 2000; the checkpoint of step {last} is saved" in text


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    code, _, errors = command.run("train", *arguments(data_dir, directory, "--config.steps=20"))
    assert code == 0, errors
    return directory


@pytest.mark.slow
def test_a_stopped_evaluation_writes_nothing(trained):
    before = (trained / "evaluation.json").read_text()
    process = command.start("evaluate", f"--workdir={trained}", "--config.noise.strength=0.3")
    process.stdout.readline()  # describes the noise
    (code,), (errors,) = send_when(after_seconds(0), [process], TERM)
    assert code == 75
    assert "stopped by SIGTERM while evaluating; nothing was written" in errors
    assert (trained / "evaluation.json").read_text() == before


@pytest.mark.slow
def test_a_stopped_audit_keeps_its_runs(trained, tmp_path):
    out = tmp_path / "out"  # made when the measurements begin
    process = command.start("audit", f"--workdir={trained}", f"--out={out}", "--orders=2000")
    (code,), (errors,) = send_when(out.exists, [process], TERM)
    assert code == 75, errors
    assert f"the runs of seeds 0 are kept in {trained}; there is no report yet" in errors
    assert not (out / "audit.json").exists()


SWEEP = """
from configs import digits_vit
from pnoise_jax.studies.sweep.cells import product

def get_config():
    config = digits_vit.get_config()
    config.model.dim, config.model.depth = 8, 1
    config.steps = 400
    config.noise.preset = "paper_vit"
    return config

def sweep():
    yield from product({"noise.train": (True,), "noise.strength": (0.1, 0.2, 0.3)})
"""


@pytest.mark.slow
@pytest.mark.parametrize("together", ["never", "always"])
def test_a_stopped_sweep_keeps_its_cells(data_dir, tmp_path, together):
    file, workdir = tmp_path / "config.py", tmp_path / "sweep"
    file.write_text(SWEEP)
    flags = (
        f"--config={file}",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        f"--together={together}",
    )

    def ready():
        runs = workdir.glob("runs/*")
        if together == "always":
            return any(has_lines(run)() for run in runs)
        return (workdir / "results.csv").exists() and any(
            RunDirectory(run).has_checkpoint() for run in runs
        )

    process = command.start("sweep", *flags)
    (code,), (errors,) = send_when(ready, [process], TERM)
    assert code == 75, errors
    finished = 0 if together == "always" else 1
    assert f"{finished} of 3 cells are finished and have a row in" in errors
    code, output, errors = command.run("sweep", *flags)
    assert code == 0, errors
    assert f"3 cells, {finished} of them already finished" in output
    assert len((workdir / "results.csv").read_text().splitlines()) == 4


def kinds_of_kill(total=200):
    """When to kill: while saving, after some steps, near the end."""
    return [
        *(("save", n) for n in (1, 2, 3)),
        *(("steps", n) for n in range(25, total, 25)),
        *(("time", n) for n in (1, 2, 3, 4, 5, 6, 7, 8)),
        *(("final", n) for n in (0, 1)),
    ]


def when_to_kill(checkpoints, kind, when):
    """A function that tells whether to kill now."""
    if kind == "time":
        return after_seconds(when)

    def ready():
        names = [path.name for path in checkpoints.iterdir()] if checkpoints.exists() else []
        steps = [int(name) for name in names if name.isdigit()]
        if kind == "save":
            return len(steps) >= when and len(steps) < len(names)
        return max(steps, default=0) >= (200 if kind == "final" else when)

    return ready


@pytest.mark.slow
def test_twenty_kills_lose_nothing_but_the_steps_since_the_last_checkpoint(data_dir, tmp_path):
    more = ("--config.checkpoint.every=5 steps", "--config.evaluation.every=50 steps")
    straight = tmp_path / "straight"
    code, _, errors = command.run("train", *arguments(data_dir, straight, *more))
    assert code == 0, errors
    tries = kinds_of_kill()
    assert len(tries) == 20
    for number, (kind, when) in enumerate(tries):
        workdir = tmp_path / f"killed_{number}"
        ready = when_to_kill(workdir / "checkpoints", kind, when)
        process = command.start("train", *arguments(data_dir, workdir, *more))
        send_when(ready, [process], signal.SIGKILL)
        code, _, errors = command.run("train", *arguments(data_dir, workdir, *more))
        assert code == 0, (kind, when, errors)
        assert final_results(workdir) == final_results(straight), (kind, when)


def final_results(workdir):
    speed = {"steps_per_second", "examples_per_second", "data_wait"}
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return (
        json.loads((workdir / "checkpoints" / "200" / "arrays" / "metadata").read_text()),
        json.loads((workdir / "evaluation.json").read_text())["rows"],
        [{k: v for k, v in line.items() if k not in speed} for line in lines],
    )
