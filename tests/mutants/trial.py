"""The tests, run on the package as it is and on mutants, in private copies of the working tree."""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

from tests.mutants import table
from tests.mutants.mutations import Mutant

COPIED = ("pnoise_jax", "launch", "configs", "tests", "pyproject.toml")
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider")
PYTEST += ("-m", "not slow")
OUT_OF_TIME = "out of time"
_SLACK = 4.0  # on a mutant the tests may take this many times as long as on the package as it is,
_START = 30.0  # plus this many seconds


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the tests ended.

    Attributes:
      kind: "passed", "failed", "timed out" or `OUT_OF_TIME`.
      seconds: the time they took.
      noticed: the last line of pytest's that names a test or an error.
    """

    kind: str
    seconds: float
    noticed: str = ""


class Trials:
    """Runs tests on up to ``jobs`` mutants at a time, each in a process of its own.

    Args:
      directory: an empty directory for the copies.
      jobs: the number of copies.
      deadline: when tests that still run are ended, by `time.monotonic`.
      cache: a directory for what JAX compiles, kept for later runs; or None.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        jobs: int,
        deadline: float,
        cache: pathlib.Path | None = None,
    ):
        self.deadline = deadline
        self.cache = directory / "cache" if cache is None else cache
        self.cache.mkdir(parents=True, exist_ok=True)
        self.copies = [directory / str(number) for number in range(jobs)]
        self.free: queue.Queue[pathlib.Path] = queue.Queue()
        self.running: set[subprocess.Popen] = set()
        self.pool = concurrent.futures.ThreadPoolExecutor(jobs)
        for copy in self.copies:
            for name in COPIED:
                source = table.ROOT / name
                ignored = shutil.ignore_patterns("__pycache__")
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=ignored)
                else:
                    shutil.copy(source, copy / name)
            _copy_new(self.cache, copy / "cache")
            self.free.put(copy)

    def __enter__(self) -> "Trials":
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the tests that still run."""
        self.deadline = 0.0
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self.running):
            _kill(process)
        self.pool.shutdown()

    def unchanged(self, tests: Iterable[str]) -> dict[str, Outcome]:
        """Runs each test file on the package as it is, and keeps what JAX compiled for mutants."""
        tests = sorted(set(tests))
        outcomes = list(self.pool.map(lambda test: self._run([test]), tests))
        for copy in self.copies:
            _copy_new(copy / "cache", self.cache)
        for copy in self.copies:
            _copy_new(self.cache, copy / "cache")
        return dict(zip(tests, outcomes, strict=True))

    def mutants(
        self, mutants: list[Mutant], unchanged: dict[str, Outcome]
    ) -> Iterator[tuple[Mutant, Outcome]]:
        """Each mutant with the outcome of its file's tests, in the order in which they end."""

        def run(mutant):
            tests = table.tests_of(mutant.package, mutant.file)
            seconds = sum(unchanged[test].seconds for test in tests)
            return mutant, self._run(tests, mutant, limit=_SLACK * seconds + _START)

        futures = [self.pool.submit(run, mutant) for mutant in mutants]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()

    def _run(
        self, tests: Iterable[str], mutant: Mutant | None = None, limit: float = float("inf")
    ) -> Outcome:
        """Runs tests in a free copy, changed to the mutant for as long as they run."""
        copy = self.free.get()
        try:
            if mutant is None:
                return self._pytest(copy, tests, limit)
            file = copy / mutant.file
            before = file.read_text()
            file.write_text(mutant.code)
            try:
                return self._pytest(copy, tests, limit)
            finally:
                file.write_text(before)
        finally:
            self.free.put(copy)

    def _pytest(self, copy: pathlib.Path, tests: Iterable[str], limit: float) -> Outcome:
        start = time.monotonic()
        if start >= self.deadline:
            return Outcome(OUT_OF_TIME, 0.0)
        process = subprocess.Popen(
            [*PYTEST, f"--basetemp={copy / 'tmp'}", *tests],
            cwd=copy,
            env=_environment(copy),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that what the tests start ends with them
        )
        self.running.add(process)
        try:
            output, _ = process.communicate(timeout=min(limit, self.deadline - start))
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            seconds = time.monotonic() - start
            return Outcome("timed out" if seconds > limit else OUT_OF_TIME, seconds)
        finally:
            self.running.discard(process)
        lines = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        noticed = lines[-1] if lines else output[-300:]
        seconds = time.monotonic() - start
        return Outcome("failed" if process.returncode else "passed", seconds, noticed)


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment(copy: pathlib.Path) -> dict[str, str]:
    """For pytest: the copy before any installed package, and a compilation cache of its own."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "1",  # two mutants of one second would share their bytecode
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(copy / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def _copy_new(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies files that the target lacks; JAX's names identify the content."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if not (target / file.name).exists():
            shutil.copy(file, target / file.name)
