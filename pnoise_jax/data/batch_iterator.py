"""An iterator over batches that threads, and other processes, make ahead of time."""

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

# Batches that are made ahead, in each worker: one is being taken, the next one is on its way. With
# 4096 images of 224 x 224 pixels two have 1.2 GB.
_AHEAD = 2


class WorkerError(OSError):
    """A process that makes batches has ended before its time."""

    def __init__(self, exit_code: int, num_workers: int):
        killed = -exit_code in set(signal.Signals)
        how = (
            f"was ended by {signal.Signals(-exit_code).name}"
            if killed
            else f"has ended with exit code {exit_code}"
        )
        memory = (
            "; the system does so when memory runs out: lower data.num_workers or data.num_threads"
            if -exit_code == signal.SIGKILL
            else ""
        )
        super().__init__(
            f"a data worker (one of data.num_workers={num_workers} processes) {how}{memory}. Start "
            "the same command again"
        )


class BatchIterator(Iterator[Batch]):
    """An iterator over batches that are made ahead of time; close it, or use `with`."""

    def __init__(
        self,
        batch_at: Callable[[int, int], Batch],
        steps: range,
        *,
        num_threads: int | None,
        num_workers: int = 0,
    ):
        """Makes ``batch_at(step, num_threads)`` for each step.

        Args:
          batch_at: a pure function of the step, which may use `num_threads` threads; workers get a
            pickled copy.
          steps: consecutive.
          num_threads: that make the images of batches ahead, in every worker; 0 makes each batch
            when it is asked for, None takes one for each core that this process may use.
          num_workers: processes that make batches ahead, in turn; 0: none.
        """
        import grain  # here, as it takes long, and a program that only lists its flags needs none

        if num_threads is None:
            num_threads = available_cores(num_workers)
        make_batch = functools.partial(_at, batch_at, num_threads)
        batches = grain.MapDataset.range(steps.start, steps.stop).map(make_batch)
        # Grain's threads only wait for those that make the images, which all batches share.
        ahead = _AHEAD if num_threads else 0
        options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        stream = batches.to_iter_dataset(options)
        if num_workers:
            if not flags.FLAGS.is_parsed():  # outside absl's apps; Grain reads its own flags
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
        except RuntimeError as error:  # Grain's; it says no more than the exit code
            ended = re.search(r"[Ww]orker process was terminated.*exit code (-?\d+)", str(error))
            if ended is None:
                raise
            raise WorkerError(int(ended[1]), self._num_workers) from error

    def close(self) -> None:
        """Stops the threads and workers; what they hold is dropped. Closing twice is fine."""
        self._iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _end_with_parent(index: int, count: int) -> None:
    """Ends this worker when the main process dies, even by SIGKILL; else it would wait for ever."""

    parent = multiprocessing.parent_process()
    if parent is None:  # this is the main process
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _signals_kept_from_workers() -> Iterator[None]:
    """Threads and processes that start here never see SIGINT or SIGTERM.

    Ctrl-C and Slurm send them to all processes of a job, and without its workers the main process
    could not finish its step. It ends them itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def available_cores(num_workers: int = 0) -> int:
    """How many cores each of `num_workers` processes may use; at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    return max(1, min(16, cores // max(1, num_workers)))


def _at(batch_at: Callable[[int, int], Batch], num_threads: int, step: int) -> Batch:
    return batch_at(step, num_threads)
