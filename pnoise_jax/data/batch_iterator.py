"""An iterator over batches that threads and worker processes prepare ahead of time."""

import contextlib
import functools
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
from absl import flags

Batch = dict[str, np.ndarray]

# How many batches each worker prepares ahead: one to be consumed, and the next one in progress. Two
# batches of 4096 images of 224 x 224 pixels take 1.2 GB.
_AHEAD = 2


class WorkerError(OSError):
    """A worker process has ended prematurely."""

    def __init__(self, exit_code: int, num_workers: int):
        killed = -exit_code in set(signal.Signals)
        how = (
            f"was killed by {signal.Signals(-exit_code).name}"
            if killed
            else f"ended with exit code {exit_code}"
        )
        memory = (
            ", as happens when memory runs out: lower data.num_workers or data.num_threads"
            if -exit_code == signal.SIGKILL
            else ""
        )
        super().__init__(
            f"a data worker (one of data.num_workers={num_workers} processes) {how}{memory}. Start "
            "the same command again"
        )


class BatchIterator(Iterator[Batch]):
    """An iterator over batches that are prepared ahead of time; close it, or use `with`."""

    def __init__(
        self,
        batch_at: Callable[[int, int], Batch],
        steps: range,
        *,
        num_threads: int | None,
        num_workers: int = 0,
    ):
        """Iterates over ``batch_at(step, num_threads)`` for each step.

        Args:
          batch_at: a pure function of the step, which may use `num_threads` threads; workers get a
            pickled copy.
          steps: consecutive steps.
          num_threads: threads in every worker that prepare images ahead of time. 0: prepare each
            batch on demand. None: one thread per core that this process may use, at most 16,
            divided among the workers.
          num_workers: processes that prepare batches ahead of time, in turn; 0: none.
        """
        import grain  # not at the top: the import is slow, and listing flags does not need it

        if num_threads is None:
            num_threads = available_cores(num_workers)
        make_batch = functools.partial(_at, batch_at, num_threads)
        batches = grain.MapDataset.range(steps.start, steps.stop).map(make_batch)
        # Grain's threads only wait for the threads that prepare images, which all batches share.
        ahead = _AHEAD if num_threads else 0
        options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        stream = batches.to_iter_dataset(options)
        if num_workers:
            if not flags.FLAGS.is_parsed():  # not in an absl app; Grain reads absl flags
                flags.FLAGS.mark_as_parsed()
            workers = grain.MultiprocessingOptions(num_workers=num_workers)
            stream = stream.mp_prefetch(workers, _end_with_parent)
        self._iterator, self._num_workers = iter(stream), num_workers
        self._starts_workers = bool(num_workers)

    def __next__(self) -> Batch:
        shielded = (
            _signals_kept_from_workers() if self._starts_workers else contextlib.nullcontext()
        )
        self._starts_workers = False
        try:
            with shielded:
                return next(self._iterator)
        except RuntimeError as error:  # Grain's error, which states only the exit code
            ended = re.search(r"[Ww]orker process was terminated.*exit code (-?\d+)", str(error))
            if ended is None:
                raise
            raise WorkerError(int(ended[1]), self._num_workers) from error

    def close(self) -> None:
        """Stops threads and workers and drops the batches prepared so far; safe to call twice."""
        self._iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _end_with_parent(index: int, count: int) -> None:
    """Ends this worker when the main process dies, even by SIGKILL, as it would wait forever."""

    parent = multiprocessing.parent_process()
    if parent is None:  # this is the main process
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _signals_kept_from_workers() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM in threads and processes that are started in this context.

    Ctrl-C and Slurm send these signals to all processes of a job, but the main process needs its
    workers to finish the current step. It stops them itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def available_cores(num_workers: int = 0) -> int:
    """The number of cores that each of `num_workers` processes can use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    return max(1, min(16, cores // max(1, num_workers)))


def _at(batch_at: Callable[[int, int], Batch], num_threads: int, step: int) -> Batch:
    return batch_at(step, num_threads)
