"""Streams of batches: a pure function of (seed, step), for any number of threads and hosts.

The *global* batch of a step is defined first; a host then takes its contiguous part. So putting
the hosts' batches one after the other gives the batch of a single host, in the same order.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Self

import grain
import numpy as np

from pnoise_jax.data.datasets import Dataset

Batch = dict[str, np.ndarray]
Example = dict[str, Any]

# Independent random streams of one seed.
_SHUFFLE, _AUGMENT = 0, 1


class BatchIterator(Iterator[Batch]):
    """An iterator over batches that are made ahead of time in threads; close it, or use `with`."""

    def __init__(self, batches: grain.MapDataset, num_threads: int):
        # A thread makes a whole batch, so the buffer counts batches: a few are enough.
        self._iterator = iter(
            batches.to_iter_dataset(
                grain.ReadOptions(
                    num_threads=num_threads,
                    prefetch_buffer_size=num_threads + 2 if num_threads else 0,
                )
            )
        )

    def __next__(self) -> Batch:
        return next(self._iterator)

    def close(self) -> None:
        """Stops the threads; what they hold is dropped. Closing twice is fine."""
        self._iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    num_steps: int,
    micro_batches: int = 1,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    augment: Callable[[Example, np.random.Generator], Example] | None = None,
) -> BatchIterator:
    """This host's part of the training batches of steps start_step, ..., num_steps - 1.

    The examples of all epochs stand in one row, each epoch in an order of its own with every
    example once; step s takes the positions [s * batch_size, (s + 1) * batch_size) of that row.
    A batch may therefore span two epochs, and none is cut short. Resuming at a step is nothing
    but another `start_step`; with start_step == num_steps there are no batches.

    Args:
      dataset: n examples.
      batch_size: examples of a step, over all micro-batches and hosts.
      seed: of the orders and of the augmentation, >= 0.
      start_step: the first step, from 0.
      num_steps: the steps of the whole run, counted from step 0.
      micro_batches: parts of a batch, for gradient accumulation. Micro-batch j is the contiguous
        j-th part of the global batch, and every host takes its part of every micro-batch.
      process_index: this host, from 0.
      process_count: the number of hosts.
      num_threads: threads that make batches ahead; 0 makes each when it is asked for.
      augment: (example, generator) -> example; the generator depends on the seed and on the
        example's position in the row, on nothing else. It must not change its input in place.

    Returns:
      An iterator of {"image": uint8 (b, height, width, channels), "label": int32 (b,)} with
      b = batch_size / process_count; if micro_batches > 1, of (micro_batches, b / micro_batches,
      ...) arrays.

    Raises:
      ValueError: a batch that cannot be divided, or that is larger than the data set; a number
        out of its range.
    """
    size = len(dataset)
    _check_shares("batch_size", batch_size, micro_batches, process_index, process_count)
    if batch_size > size:
        raise ValueError(
            f"batch_size={batch_size} is larger than {dataset.name}'s split {dataset.split!r} "
            f"with {size} examples. Lower batch_size, or set a larger data.train_split."
        )
    _check_at_least(0, seed=seed, start_step=start_step, num_threads=num_threads)
    if start_step > num_steps:
        raise ValueError(
            f"start_step={start_step} is beyond num_steps={num_steps}, the steps of the whole run. "
            "Raise num_steps to go on."
        )

    @functools.lru_cache(maxsize=2)  # a batch spans two epochs at most
    def epoch_order(epoch: int) -> np.ndarray:
        return _generator(seed, _SHUFFLE, epoch).permutation(size)

    def example_at(position: int) -> Example:
        epoch, offset = divmod(position, size)
        example = dataset[epoch_order(epoch)[offset]]
        return augment(example, _generator(seed, _AUGMENT, position)) if augment else example

    def batch_at(step: int) -> Batch:
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        local = _local_part(positions, micro_batches, process_index, process_count)
        batch = _collate([example_at(position) for position in local.ravel().tolist()])
        if micro_batches == 1:
            return batch
        return {key: x.reshape(*local.shape, *x.shape[1:]) for key, x in batch.items()}

    return BatchIterator(grain.MapDataset.range(start_step, num_steps).map(batch_at), num_threads)


def eval_batches(
    dataset: Dataset,
    *,
    indices: np.ndarray,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
) -> BatchIterator:
    """This host's part of the batches that visit `indices` in order, each exactly once.

    The last batch is filled up with black images of label 0, marked by mask False and index -1.
    All batches have one shape, and all hosts see the same number of them.

    Args:
      dataset: n examples.
      indices: (m,) integers in 0..n-1, e.g. from `evaluation_order`; -1 is padding, which the end
        of the last batch gets by itself.
      batch_size: examples of a batch, over all hosts.
      process_index: this host, from 0.
      process_count: the number of hosts.
      num_threads: threads that make batches ahead; 0 makes each when it is asked for.

    Returns:
      An iterator of {"image": uint8 (b, height, width, channels), "label": int32 (b,),
      "mask": bool (b,), "index": int32 (b,)} with b = batch_size / process_count.

    Raises:
      ValueError: a batch that cannot be divided, an index out of range.
    """
    _check_shares("evaluation.batch_size", batch_size, 1, process_index, process_count)
    _check_at_least(0, num_threads=num_threads)
    indices = np.asarray(indices, np.int32)
    if indices.size and not -1 <= indices.min() <= indices.max() < len(dataset):
        raise ValueError(
            f"indices must be -1 or in 0..{len(dataset) - 1}, the examples of {dataset.name}'s "
            f"split {dataset.split!r}; they are in {indices.min()}..{indices.max()}."
        )
    num_batches = -(-len(indices) // batch_size)
    padded = np.full(num_batches * batch_size, -1, np.int32)
    padded[: len(indices)] = indices
    padding = {"image": np.zeros(dataset.image_shape, np.uint8), "label": 0}

    def batch_at(step: int) -> Batch:
        rows = padded[step * batch_size : (step + 1) * batch_size]
        index = _local_part(rows, 1, process_index, process_count)[0]
        batch = _collate([dataset[i] if i >= 0 else padding for i in index.tolist()])
        return {**batch, "mask": index >= 0, "index": index}

    return BatchIterator(grain.MapDataset.range(0, num_batches).map(batch_at), num_threads)


def _generator(seed: int, *stream: int) -> np.random.Generator:
    # Not default_rng((seed, *stream)): that ignores trailing zeros, so the first epoch's order
    # would be the evaluation's.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _local_part(
    rows: np.ndarray, micro_batches: int, process_index: int, process_count: int
) -> np.ndarray:
    """A host's rows (micro_batches, b) of the global batch's rows: (batch_size,)."""
    return rows.reshape(micro_batches, process_count, -1)[:, process_index]


def _collate(examples: list[Example]) -> Batch:
    return {
        "image": np.stack([example["image"] for example in examples]),
        "label": np.array([example["label"] for example in examples], np.int32),
    }


def _check_shares(
    field: str, batch_size: int, micro_batches: int, process_index: int, process_count: int
) -> None:
    _check_at_least(
        1, **{field: batch_size}, micro_batches=micro_batches, process_count=process_count
    )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index} must be in 0..{process_count - 1}.")
    if batch_size % (micro_batches * process_count):
        raise ValueError(
            f"{field}={batch_size} must be a multiple of micro_batches * process_count = "
            f"{micro_batches} * {process_count} = {micro_batches * process_count}."
        )


def _check_at_least(minimum: int, **values: int) -> None:
    for field, value in values.items():
        if value < minimum:
            raise ValueError(f"{field}={value} must be at least {minimum}.")
