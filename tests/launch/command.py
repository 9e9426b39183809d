"""The real command line, in a separate process with one CPU device."""

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
from collections.abc import Mapping, Sequence

from tests.launch import fork_server

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
    # A shell's background jobs, such as CI may be, ignore it, and so would their children.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
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
        signal.signal(signal.SIGINT, previous)


def run(program: str, *arguments: object, **environment: str | None) -> tuple[int, str, str]:
    """The exit code of a program, its output and its errors.

    If its ``environment`` allows it, `run_forked` runs it.
    """
    if environment.keys() <= fork_server.VARIABLES.keys():
        return run_forked(f"launch.{program}", *arguments, variables=environment)
    process = start(program, *arguments, **environment)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def run_forked(module: str, *arguments: object, **options) -> tuple[int, str, str]:
    """Runs ``python -m <module>`` as a `Forked`: its exit code, its output and its errors."""
    process = Forked(module, *arguments, **options)
    output, errors = process.communicate()
    return process.returncode, output, errors


class Forked:
    """A process forked from one that has imported the libraries, which saves two seconds.

    It has methods of `subprocess.Popen`, but its output is available only at its end.
    """

    def __init__(
        self,
        module: str,
        *arguments: object,
        variables: Mapping[str, str | None] | None = None,
        directory: str | os.PathLike = ROOT,
        path: Sequence[str | os.PathLike] = (),
        strict: bool = False,
    ):
        """Starts ``python -m <module>``.

        Args:
          module: the program.
          arguments: its command line.
          variables: of its environment; None unsets one. See `fork_server.VARIABLES`.
          directory: its working directory.
          path: the start of its module path.
          strict: whether a warning is an error.
        """
        self.returncode: int | None = None
        self._output, self._errors = (tempfile.NamedTemporaryFile("r") for _ in range(2))  # noqa: SIM115
        self.pid = _ask(
            module=module,
            arguments=list(map(str, arguments)),
            variables=dict(variables or {}),
            directory=os.fspath(directory),
            path=list(map(os.fspath, path)),
            strict=strict,
            output=self._output.name,
            errors=self._errors.name,
        )

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._find_end(wait=False)

    def wait(self) -> int:
        """The exit code, once it has ended; the server kills it after a time limit."""
        return self._find_end(wait=True)

    def _find_end(self, *, wait: bool) -> int | None:
        if self.returncode is None:
            self.returncode = _ask(process=self.pid, wait=wait)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its output and its errors, once it has ended."""
        del timeout  # `fork_server.LIMIT`
        self.wait()
        with self._output, self._errors:
            return self._output.read(), self._errors.read()

    def send_signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.send_signal(signal.SIGKILL)


def _ask(**request) -> int | None:
    server = _fork_server()
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def _fork_server() -> subprocess.Popen:
    """The server of `fork_server`, which ends with this process."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.launch.fork_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"},  # more would start threads
    )
    atexit.register(server.communicate)
    return server


def start_on_hosts(*hosts: tuple, **environment: str) -> list[subprocess.Popen]:
    """Starts the hosts of one run, each a program and its arguments.

    A dict among the arguments contains environment variables for that host only; CODE is the
    directory of the copy of the project that it runs.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for index, (program, *arguments) in enumerate(hosts):
        of_host = {k: v for each in arguments if isinstance(each, dict) for k, v in each.items()}
        common = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(len(hosts)),
            "JAX_PROCESS_ID": str(index),
        }
        flags = [each for each in arguments if not isinstance(each, dict)]
        started.append(start(program, *flags, **(common | environment | of_host)))
    return started


def ends(hosts: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    """The exit codes of hosts and their errors, once they have ended."""
    errors = [host.communicate(timeout=300)[1] for host in hosts]
    return [host.returncode for host in hosts], errors
