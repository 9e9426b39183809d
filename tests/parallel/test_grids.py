"""Processes x devices per process: the same run on every grid, in real processes."""

import json
import shutil
import socket

import pytest

from tests.launch import command

pytestmark = pytest.mark.long

# (processes, devices of each): how many devices share one copy of the parameters. Groups of two and
# four are in several processes.
GRIDS = {(1, 1): 1, (2, 1): 2, (1, 2): 1, (4, 1): 2, (2, 2): 4}
OTHERS = [grid for grid in GRIDS if grid != (1, 1)]
STEPS, EXAMPLES = 6, 101


def run_grid(grid, data_dir, *runs, **groups):
    """Trains the runs in these directories on a grid; returns what each process prints.

    `groups` are fsdp and tensor_parallel; by default those of the grid.
    """
    processes, devices = grid
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    groups = {"fsdp": GRIDS[grid], "tensor_parallel": 1} | groups
    settings = {"data_dir": str(data_dir), "runs": list(map(str, runs))} | groups
    started = []
    for index in range(processes):
        variables = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
            "JAX_NUM_CPU_DEVICES": str(devices),
        }
        started.append(
            command.Forked("tests.parallel.grid_member", json.dumps(settings), variables=variables)
        )
    try:
        outputs = [process.communicate() for process in started]
    finally:
        for process in started:  # one that has ended is not killed
            process.kill()
            process.wait()
    messages = "\n".join(errors[-2000:] for _, errors in outputs)
    assert [process.returncode for process in started] == [0] * processes, messages
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def global_batches(members):
    """The examples that all processes have on their devices, in order, for each step."""
    batches = []
    for parts in zip(*(member["batches"] for member in members), strict=True):
        by_place = {int(place): example for part in parts for place, example in part.items()}
        assert sum(map(len, parts)) == len(by_place) == 16  # no example is in two processes
        batches.append([by_place[place] for place in range(16)])
    return batches


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def assert_same(members, run, expected, expected_run):
    """The same batches, losses and reports as on another grid, to tolerance."""
    assert global_batches(members) == global_batches(expected)
    assert_same_numbers(run, expected_run)
    for member in members:
        for indices in member["evaluated"].values():
            assert indices == list(range(EXAMPLES))


def assert_same_numbers(run, expected_run):
    assert losses(run) == pytest.approx(losses(expected_run), rel=1e-5)
    assert len(losses(run)) == STEPS
    reports = [json.loads((d / "evaluation.json").read_text())["rows"] for d in (run, expected_run)]
    for ours, theirs in zip(*reports, strict=True):
        assert ours["n"] == theirs["n"] == EXAMPLES
        assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-4)


@pytest.fixture(scope="module")
def single_run(data_dir, tmp_path_factory):
    """The run of one process with one device, and what it printed."""
    run = tmp_path_factory.mktemp("alone") / "run"
    return run, run_grid((1, 1), data_dir, run)


def test_two_processes_of_two_devices_train_as_one(single_run, data_dir, tmp_path):
    """The parameters are split over both, which can also resume the run of a single device."""
    expected_run, expected = single_run
    run, resumed = tmp_path / "run", tmp_path / "goes_on"
    copy_first_half(expected_run, resumed)
    members = run_grid((2, 2), data_dir, run, resumed)
    assert [member["devices"] for member in members] == [[2, 4], [2, 4]]
    assert_same(members, run, expected, expected_run)
    assert_same_numbers(resumed, expected_run)


@pytest.mark.slow
def test_the_devices_of_a_process_share_products(single_run, data_dir, tmp_path):
    """Each process has a part of every batch, the same on both of its devices."""
    expected_run, expected = single_run
    run, resumed = tmp_path / "run", tmp_path / "goes_on"
    copy_first_half(expected_run, resumed)
    members = run_grid((2, 2), data_dir, run, resumed, fsdp=2, tensor_parallel=2)
    assert_same(members, run, expected, expected_run)
    assert_same_numbers(resumed, expected_run)


@pytest.fixture(scope="module")
def runs(single_run, data_dir, tmp_path_factory):
    """{grid: (its run, what its processes printed)}."""
    root = tmp_path_factory.mktemp("grids")
    by_grid = {(1, 1): single_run}
    for grid in OTHERS:
        run = root / "{}x{}".format(*grid)
        by_grid[grid] = run, run_grid(grid, data_dir, run)
    return by_grid


@pytest.mark.slow
@pytest.mark.parametrize("grid", OTHERS)
def test_every_grid_trains_alike(grid, runs):
    run, members = runs[grid]
    assert len(members) == grid[0]
    assert all(member["devices"] == [grid[1], grid[0] * grid[1]] for member in members)
    expected_run, expected = runs[1, 1]
    assert_same(members, run, expected, expected_run)


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_resumes_from_the_checkpoints_of_all_others(grid, runs, data_dir, tmp_path):
    copies = []
    for other, (run, _) in runs.items():
        if other != grid:
            copies.append(tmp_path / run.parent.name / run.name)
            copy_first_half(run, copies[-1])
    run_grid(grid, data_dir, *copies)
    for copy in copies:
        assert_same_numbers(copy, runs[1, 1][0])


def copy_first_half(run, copy):
    """A run as it was after the checkpoint of step 3."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "6")
    (copy / "evaluation.json").unlink()
