"""The real command line, in a process of its own with one CPU device."""

import atexit
import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "PYTHONUNBUFFERED": "1",
    "COLUMNS": "200",
}


def start(program: str, *arguments: object, **environment: str | None) -> subprocess.Popen:
    """Starts ``python -m launch.<program>``, which listens to SIGINT.

    A variable of ``environment`` that is None is not set.
    """
    variables = {k: v for k, v in (ENVIRONMENT | environment).items() if v is not None}
    # A shell's background jobs, such as CI may be, ignore it, and so would what they start.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", f"launch.{program}", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=environment.get("CODE", ROOT),
            env=variables,
        )
    finally:
        signal.signal(signal.SIGINT, ours)


def run(program: str, *arguments: object, **environment: str | None) -> tuple[int, str, str]:
    """Its exit code, what it printed, and its errors.

    Without an ``environment`` of its own the process is forked from one that has imported the
    libraries, which saves two seconds.
    """
    if not environment:
        return _run_forked(program, *map(str, arguments))
    process = start(program, *arguments, **environment)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def _run_forked(program: str, *arguments: str) -> tuple[int, str, str]:
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        request = {"program": program, "arguments": arguments}
        request |= {"output": output.name, "errors": errors.name}
        server = _fork_server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), output.read(), errors.read()


@functools.cache
def _fork_server() -> subprocess.Popen:
    """The server of `fork_server`, which ends with this process."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.launch.fork_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"},  # more of them are threads
    )
    atexit.register(server.communicate)
    return server


def start_on_hosts(*hosts: tuple, **environment: str) -> list[subprocess.Popen]:
    """Starts the hosts of one run, each a program and its arguments.

    A dict among the arguments holds variables of that host alone; of these CODE is the directory
    whose copy of the project it runs.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for index, (program, *arguments) in enumerate(hosts):
        own = {k: v for each in arguments if isinstance(each, dict) for k, v in each.items()}
        common = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(len(hosts)),
            "JAX_PROCESS_ID": str(index),
        }
        given = [each for each in arguments if not isinstance(each, dict)]
        started.append(start(program, *given, **(common | environment | own)))
    return started


def ends(hosts: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    """The exit codes of hosts, and their errors."""
    errors = [host.communicate(timeout=300)[1] for host in hosts]
    return [host.returncode for host in hosts], errors
