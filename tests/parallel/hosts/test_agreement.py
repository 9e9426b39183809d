"""What two real processes on this machine tell each other."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from pnoise_jax import parallel

HERE = pathlib.Path(__file__)


def run_two(program, *arguments):
    """Runs a program of this directory as two processes; `arguments` has those of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    hosts = []
    for index, own_arguments in enumerate(arguments):
        environment = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(HERE.parents[3]),
        }
        hosts.append(
            subprocess.Popen(
                [sys.executable, HERE.with_name(program), *own_arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | environment,
            )
        )
    try:
        outputs = [host.communicate(timeout=120) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    return [host.returncode for host in hosts], outputs


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What both printed, by case."""
    root = tmp_path_factory.mktemp("hosts")
    for name in ("shared", "0", "1"):
        (root / name).mkdir()
    codes, outputs = run_two(
        "two_hosts.py", *((root / "shared", root / index) for index in ("0", "1"))
    )
    assert codes == [0, 0], outputs
    return [json.loads(output) for output, _ in outputs]


def error(results, case):
    """The message of the error that both hosts raised."""
    first, second = (result[case] for result in results)
    assert first == second
    assert first[0] == "DisagreementError"
    return first[1]


def test_hosts_that_agree_go_on(results):
    for result in results:
        assert result["same"] is None
        assert result["known on one"] is None
        assert result["all do"] == "done"
        assert (result["any"], result["none"]) == (True, False)
        assert result["still together"] is True


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("value", "rate: 0.001 on host 0; 0.002 on host 1"),
        ("absent", "depth: 3 on host 0; not set on host 1"),
        ("known on both", "mine: 1 on host 0; 2 on host 1"),
    ],
)
def test_what_differs_is_named_with_the_host(results, case, line):
    text = error(results, case)
    assert f"\n  {line}\n" in text
    assert f"host 1 ({socket.gethostname()}, pid " in text
    assert "a: " not in text


def test_a_long_list_of_differences_is_shortened(results):
    assert "\n  and 18 more\n" in error(results, "many")


def test_what_fails_on_one_host_fails_on_all(results):
    assert results[1]["one fails"] == ["RuntimeError", "as no library should"]
    kind, text = results[0]["one fails"]
    assert kind == "LostHostError"
    assert text.startswith("host 1 (")
    assert text.endswith("has failed: as no library should")


def test_a_directory_that_is_not_shared_is_named(results):
    for result in results:
        assert result["shared"] is None
        kind, text = result["own"]
        assert kind == "DisagreementError"
        assert "is not the same directory on all hosts: a file that host 0 (" in text
        assert "is not seen by host 1 (" in text


def test_nothing_is_left_in_a_shared_directory(results):
    assert results[0]["left in it"] == []


def test_a_directory_that_host_0_cannot_write(results):
    assert results[0]["first cannot write"][0] == "FileNotFoundError"
    kind, text = results[1]["first cannot write"]
    assert kind == "LostHostError"
    assert text.startswith("host 0 (")


def test_hosts_that_do_different_things_do_not_wait_for_each_other(results):
    text = error(results, "other topics")
    assert "the hosts are doing different things" in text
    assert "on host 0" in text
    assert "on host 1" in text


def test_the_loss_of_the_coordinator_ends_a_host_that_asks_it(tmp_path):
    """While JAX aborts, a request that waits for its answer would keep the host for ever."""
    codes, (_, (_, errors)) = run_two("lost_coordinator.py", *2 * [(tmp_path / "joined",)])
    assert codes == [1, 1]
    assert "lost host 0, which coordinates all hosts: it did not answer at 127.0.0.1:" in errors


def test_one_host_agrees_with_itself(tmp_path):
    parallel.require_agreement({"rate": "1"})
    parallel.require_shared_directory(tmp_path / "absent", flag="workdir")
    assert parallel.on_all_hosts(lambda: 3) == 3
    assert list(tmp_path.iterdir()) == []
