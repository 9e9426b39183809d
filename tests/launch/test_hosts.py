"""Hosts that were started differently, or that are lost: real processes on this machine."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from launch import xla_options
from pnoise_jax.runs import RunDirectory
from tests.launch import command

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"--config={ROOT}/configs/digits_vit.py"


def arguments(data_dir, directory, *more):
    sizes = ("--config.batch_size=48", "--config.evaluation.batch_size=8")
    return (CONFIG, *sizes, f"--data_dir={data_dir}", f"--workdir={directory}", *more)


def assert_all_say(errors, *sentences):
    for text in errors:
        assert "Traceback" not in text
        for sentence in sentences:
            assert sentence in text


def test_hosts_with_different_configs_stop_and_say_what_differs(data_dir, tmp_path):
    """Also if the steps differ, which would make them wait forever."""
    run = tmp_path / "run"
    first = arguments(data_dir, run, "--config.steps=40")
    second = arguments(data_dir, run, "--config.steps=30", "--config.optimizer.learning_rate=0.002")
    codes, errors = command.ends(command.start_on_hosts(("train", *first), ("train", *second)))
    assert codes == [1, 1]
    assert_all_say(
        errors,
        "\n  optimizer.learning_rate: 0.001 on host 0; 0.002 on host 1\n",
        "\n  steps: 40 on host 0; 30 on host 1\n",
        "\n  steps in all: 40 on host 0; 30 on host 1\n",
    )
    assert not run.exists()


@pytest.mark.slow
def test_hosts_with_different_numbers_of_devices_stop(data_dir, tmp_path):
    run = tmp_path / "run"
    host_command = ("train", *arguments(data_dir, run))
    hosts = [(*host_command, {"JAX_NUM_CPU_DEVICES": count}) for count in ("1", "2")]
    codes, errors = command.ends(command.start_on_hosts(*hosts))
    assert codes == [1, 1]
    assert_all_say(errors, "\n  devices of the host: 1 x cpu on host 0; 2 x cpu on host 1\n")
    assert not run.exists()


@pytest.mark.slow
def test_groups_that_do_not_divide_the_devices_of_all_hosts_are_refused(data_dir, tmp_path):
    host_command = ("train", *arguments(data_dir, tmp_path / "run", "--config.fsdp=4"))
    codes, errors = command.ends(
        command.start_on_hosts(host_command, host_command, JAX_NUM_CPU_DEVICES="3")
    )
    assert codes == [64, 64]
    assert_all_say(errors, "fsdp=4 does not divide the 6 devices: choose one of 1, 2, 3, 6")


@pytest.mark.slow
def test_a_port_in_use_is_named(data_dir, tmp_path):
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = taken.getsockname()[1]
        address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
        code, _, errors = command.run(
            "train",
            *arguments(data_dir, tmp_path / "run"),
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID="0",
            **address,
        )
    assert code == 1
    assert_all_say([errors], f"process 0 cannot listen on port {port}", "set another port in JAX_")


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_devices_that_are_not_installed_are_named(data_dir, tmp_path, platform):
    run = tmp_path / "run"
    code, _, errors = command.run("train", *arguments(data_dir, run), JAX_PLATFORMS=platform)
    assert code == 1
    assert_all_say([errors], f"JAX_PLATFORMS='{platform}': JAX cannot start them (", "pip install")
    assert not run.exists()


@pytest.mark.slow
def test_a_work_directory_that_is_not_shared_is_refused(data_dir, tmp_path):
    hosts = [("train", *arguments(data_dir, tmp_path / f"{index}")) for index in range(2)]
    codes, errors = command.ends(command.start_on_hosts(*hosts))
    assert codes == [1, 1]
    assert_all_say(errors, "is not the same directory on all hosts", f"in {tmp_path / '1'}")
    assert not RunDirectory(tmp_path / "0").has_checkpoint()
    assert list((tmp_path / "0").iterdir()) == []


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run of two steps."""
    run = tmp_path_factory.mktemp("hosts") / "run"
    code, _, errors = command.run("train", *arguments(data_dir, run, "--config.steps=2"))
    assert code == 0, errors
    return run


@pytest.mark.slow
def test_evaluation_with_different_batches_stops(trained):
    hosts = [
        ("evaluate", f"--workdir={trained}", f"--config.evaluation.batch_size={size}")
        for size in (8, 16)
    ]
    codes, errors = command.ends(command.start_on_hosts(*hosts))
    assert codes == [1, 1]
    assert_all_say(errors, "\n  evaluation.batch_size: 8 on host 0; 16 on host 1\n")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["audit", "sweep"])
def test_programs_of_one_host_refuse_several(data_dir, tmp_path, program):
    config = f"--config={ROOT}/configs/figure2.py:vit" if program == "sweep" else CONFIG
    host_command = (program, config, f"--data_dir={data_dir}", f"--workdir={tmp_path}")
    codes, errors = command.ends(command.start_on_hosts(host_command, host_command))
    assert codes == [64, 64]
    assert_all_say(errors, "runs on one host")


@pytest.mark.slow
def test_two_programs_do_not_wait_for_each_other(data_dir, trained):
    hosts = ("train", *arguments(data_dir, trained)), ("evaluate", f"--workdir={trained}")
    codes, errors = command.ends(command.start_on_hosts(*hosts))
    assert codes == [1, 1]
    assert_all_say(errors, "\n  program: train on host 0; evaluate on host 1\n")


@pytest.mark.slow
def test_hosts_with_different_code_settings_and_data_stop(data_dir, tmp_path):
    copy = tmp_path / "copy"
    for folder in ("pnoise_jax", "launch", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "pnoise_jax" / "training" / "step" / "step.py").open("a") as file:
        file.write("\n# another version\n")
    other_environment = {
        "CODE": str(copy),
        "PYTHONPATH": str(copy),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    xla_flags = [command.ENVIRONMENT.get("XLA_FLAGS", ""), "--xla_cpu_enable_fast_math=true"]
    environments = [command.ENVIRONMENT | {"XLA_FLAGS": flags} for flags in xla_flags]
    flags = [(each | xla_options.wanted(each))["XLA_FLAGS"] for each in environments]
    host_command = ("train", *arguments(data_dir, tmp_path / "run"))
    part = "--config.data.train_split=train[:299]"
    hosts = command.start_on_hosts(
        host_command, (*host_command, part, other_environment | {"XLA_FLAGS": xla_flags[1]})
    )
    codes, errors = command.ends(hosts)
    assert codes == [1, 1]
    assert_all_say(
        errors,
        "\n  data.train_split: 'train[:300]' on host 0; 'train[:299]' on host 1\n",
        "\n  training split, examples: 300 on host 0; 299 on host 1\n",
        "\n  training split, digest of the labels: ",
        "\n  jax_default_matmul_precision: None on host 0; highest on host 1\n",
        f"\n  XLA_FLAGS: {flags[0]!r} on host 0; {flags[1]!r} on host 1\n",
        "\n  code of pnoise_jax/training/step/step.py: ",
    )


@pytest.mark.slow
def test_an_error_of_one_host_ends_all_hosts(tmp_path, data_dir):
    hosts = [
        ("train", *arguments(place, tmp_path / "run")) for place in (data_dir, "/nowhere/data")
    ]
    codes, errors = command.ends(command.start_on_hosts(*hosts))
    assert codes == [1, 1]
    assert_all_say(errors, "'/nowhere' does not exist")
    assert re.search(r"error: host 1 \(\S+, pid \d+\) ended at \d{4}-", errors[0])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_host_is_named_with_the_time(data_dir, tmp_path, victim):
    """Not reported as a full disk. The last checkpoint stays, so other steps are refused."""
    run = tmp_path / "run"
    host_command = ("train", *arguments(data_dir, run, "--config.checkpoint.every=20 steps"))
    hosts = command.start_on_hosts(host_command, host_command)
    deadline = time.monotonic() + 200
    while not (run / "checkpoints" / "20").exists():
        assert all(host.poll() is None for host in hosts), command.ends(hosts)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    hosts[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    codes, errors = command.ends(hosts)
    assert time.monotonic() - killed < 150  # JAX gives up after 100 s if a save waits for it
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1
    name = rf"host {victim} \({socket.gethostname()}, pid {hosts[victim].pid}\)"
    (line,) = [line for line in errors[1 - victim].splitlines() if line.startswith("error: ")]
    assert re.match(rf"error: lost {name}.* at \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", line)
    assert "Make room" not in errors[1 - victim]
    hosts = command.start_on_hosts(*[(*host_command, "--config.steps=60")] * 2)
    outputs = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [64, 64]  # other steps are another config
    assert "contains a run of another config" in outputs[0][1]


@pytest.mark.slow
def test_a_host_whose_output_is_closed_ends_all(data_dir, tmp_path):
    """Also during a save, when the hosts wait for each other."""
    run = tmp_path / "run"
    more = ("--config.checkpoint.every=1 steps", "--config.log_every=1 steps")
    host_command = ("train", *arguments(data_dir, run, *more))
    hosts = command.start_on_hosts(host_command, host_command)
    deadline = time.monotonic() + 400
    while not (run / "checkpoints" / "3").exists():
        assert all(host.poll() is None for host in hosts), command.ends(hosts)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    hosts[0].stdout.close()
    hosts[0].stdout = None
    closed = time.monotonic()
    codes, errors = command.ends(hosts)
    assert time.monotonic() - closed < 150
    assert codes == [1, 1]
    assert "its output was closed" in errors[0]
    assert re.search(r"error: host 0 \(\S+, pid \d+\) ended at .*output was closed", errors[1])


@pytest.mark.slow
def test_a_stopped_data_worker_is_reported_and_nothing_ends(data_dir, tmp_path):
    more = ("--config.data.num_workers=2", "--config.data.cache=False", "--config.steps=300")
    process = command.start(
        "train", *arguments(data_dir, tmp_path / "run", *more), "--stall_minutes=0.05"
    )
    workers = []
    try:
        while "step 50/" not in process.stdout.readline():
            assert process.poll() is None
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        workers = [int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line]
        os.kill(workers[-1], signal.SIGSTOP)
        sentence = f"data worker (pid {workers[-1]}) is stopped"
        assert any(sentence in line for line in process.stderr)
        os.kill(workers[-1], signal.SIGCONT)
        process.communicate(timeout=120)
        assert process.returncode == 0
    finally:
        process.kill()
        for worker in workers:  # which would keep the pipes open
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        process.communicate()
