"""Streams of batches: a pure function of (seed, step), for any number of threads, workers, hosts.

The *global* batch of a step is defined first; each host then takes a contiguous part of it.
Concatenating the batches of all hosts therefore gives the batch of a single host, in the same
order.
"""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pnoise_jax.data.batch_iterator import Batch, BatchIterator
from pnoise_jax.data.dataset import Dataset, decode
from pnoise_jax.data.image.transforms import Transform

# Independent random streams derived from one seed.
_SHUFFLE, _AUGMENT = 0, 1


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
    num_threads: int | None = None,
    num_workers: int = 0,
    transform: Transform = decode,
    index_at: Callable[[np.ndarray], np.ndarray] | None = None,
) -> BatchIterator:
    """This host's part of the training batches of steps start_step, ..., num_steps - 1.

    All epochs form one sequence of examples. Each epoch is shuffled differently and contains every
    example once. Step s takes the positions [s * batch_size, (s + 1) * batch_size) of the sequence,
    so a batch may span two epochs, and no batch is smaller than the others. To resume at a step,
    pass it as `start_step`. If start_step == num_steps, there are no batches.

    Args:
      dataset: n examples.
      batch_size: the number of examples of a step, over all micro-batches and hosts.
      seed: the seed of the orders and of the augmentation, >= 0.
      start_step: the first step, from 0.
      num_steps: the steps of the whole run, counted from step 0.
      micro_batches: the number of parts of a batch, for gradient accumulation. Micro-batch j is the
        j-th contiguous part of the global batch; each host takes its part of every micro-batch.
      process_index: the index of this host, from 0.
      process_count: the number of hosts.
      num_threads: threads that prepare images ahead of time. 0: prepare each batch on demand.
        None: one thread per core, at most 16.
      num_workers: processes that prepare batches ahead of time, each with `num_threads` threads.
      transform: ``transform(image, generator)`` returns the uint8 array to put in the batch; all
        must have the same shape. The generator depends only on the seed and on the position of the
        example in the sequence. The transform must not change its input in place.
      index_at: maps positions in the sequence (b,) to examples (b,), instead of the order by
        epochs; a pure function, and picklable if there are workers.

    Returns:
      An iterator of {"image": uint8 (b, height, width, channels), "label": int32 (b,)} with
      b = batch_size / process_count; if micro_batches > 1, the arrays have the shape
      (micro_batches, b / micro_batches, ...).

    Raises:
      ValueError: the batch cannot be divided evenly or is larger than the data set, or a number is
        out of range.
    """
    size = len(dataset)
    _check_shares("batch_size", batch_size, micro_batches, process_index, process_count)
    if batch_size > size:
        raise ValueError(
            f"batch_size={batch_size} is larger than {dataset.name}'s split {dataset.split!r} "
            f"with {size} examples. Lower batch_size, or set a larger data.train_split."
        )
    _check_at_least(0, seed=seed, start_step=start_step, num_workers=num_workers)
    _check_at_least(0, num_threads=num_threads or 0)
    if start_step > num_steps:
        raise ValueError(
            f"start_step={start_step} is beyond num_steps={num_steps}, the steps of the whole run. "
            "Raise num_steps to continue."
        )

    index_at = _WholeEpochs(seed, size) if index_at is None else index_at
    source = _TrainBatches(
        dataset, transform, index_at, batch_size, seed, micro_batches, process_index, process_count
    )
    return BatchIterator(
        source, range(start_step, num_steps), num_threads=num_threads, num_workers=num_workers
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainBatches:
    """This host's part of the training batch of a step; see `train_batches`."""

    dataset: Dataset
    transform: Transform
    index_at: Callable[[np.ndarray], np.ndarray]
    batch_size: int
    seed: int
    micro_batches: int
    process_index: int
    process_count: int

    def __call__(self, step: int, num_threads: int) -> Batch:
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        local = _local_part(positions, self.micro_batches, self.process_index, self.process_count)
        indices = self.index_at(local.ravel()).tolist()
        positions = local.ravel().tolist()

        def image_at(row: int) -> np.ndarray:
            generator = _generator(self.seed, _AUGMENT, positions[row])
            return self.dataset.image(indices[row], self.transform, generator)

        images = _gather(image_at, len(indices), num_threads)
        batch = {"image": images, "label": self.dataset.labels[indices]}
        if self.micro_batches == 1:
            return batch
        return {key: x.reshape(*local.shape, *x.shape[1:]) for key, x in batch.items()}


@dataclasses.dataclass(frozen=True)
class _WholeEpochs:
    """Maps positions to examples: epoch after epoch, each shuffled differently."""

    seed: int
    size: int

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        epochs, offsets = np.divmod(positions, self.size)
        orders = {
            epoch: _epoch_order(self.seed, epoch, self.size) for epoch in set(epochs.tolist())
        }
        return np.array([orders[e][o] for e, o in zip(epochs.tolist(), offsets, strict=True)])


@functools.lru_cache(maxsize=4)  # a batch spans at most two epochs; threads may lag by one
def _epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    return _generator(seed, _SHUFFLE, epoch).permutation(size)


def eval_batches(
    dataset: Dataset,
    *,
    indices: np.ndarray,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
) -> BatchIterator:
    """This host's part of the batches that visit `indices` in order, each exactly once.

    The last batch is padded with black images of label 0, mask False and index -1. All batches
    have the same shape, and all hosts get the same number of batches.

    Args:
      dataset: n examples.
      indices: (m,) integers in 0..n-1, e.g. from `evaluation_order`. -1 is padding; the padding of
        the last batch is added automatically.
      batch_size: the number of examples of a batch, over all hosts.
      process_index: the index of this host, from 0.
      process_count: the number of hosts.
      num_threads: threads that prepare images ahead of time. 0: prepare each batch on demand.
        None: one thread per core, at most 16.

    Returns:
      An iterator of {"image": uint8 (b, height, width, channels), "label": int32 (b,),
      "mask": bool (b,), "index": int32 (b,)} with b = batch_size / process_count. If images can
      have several labels, also "label_set", int32 (b, k), as in `Dataset.targets`.

    Raises:
      ValueError: the batch cannot be divided evenly, an index is out of range, or the images differ
        in size.
    """
    _check_shares("evaluation.batch_size", batch_size, 1, process_index, process_count)
    _check_at_least(0, num_threads=num_threads or 0)
    indices = np.asarray(indices, np.int32)
    if indices.size and not -1 <= indices.min() <= indices.max() < len(dataset):
        raise ValueError(
            f"indices must be -1 or in 0..{len(dataset) - 1}, the examples of {dataset.name}'s "
            f"split {dataset.split!r}; they range from {indices.min()} to {indices.max()}."
        )
    num_batches = -(-len(indices) // batch_size)
    padded = np.full(num_batches * batch_size, -1, np.int32)
    padded[: len(indices)] = indices
    if dataset.image_shape is None:
        raise ValueError(
            f"the images of {dataset.name}'s split {dataset.split!r} differ in size: resize them "
            "to one size with Dataset.transformed"
        )
    padding = np.zeros(dataset.image_shape, np.uint8)

    def batch_at(step: int, num_threads: int) -> Batch:
        rows = padded[step * batch_size : (step + 1) * batch_size]
        index = _local_part(rows, 1, process_index, process_count)[0]

        def image_at(row: int) -> np.ndarray:
            return dataset.image(int(index[row]), decode) if index[row] >= 0 else padding

        return {
            "image": _gather(image_at, len(index), num_threads),
            **dataset.targets(index),
            "mask": index >= 0,
            "index": index,
        }

    return BatchIterator(batch_at, range(num_batches), num_threads=num_threads)


def _generator(seed: int, *stream: int) -> np.random.Generator:
    # Not default_rng((seed, *stream)): it ignores trailing zeros, so the order of the first epoch
    # would equal the order of the evaluation.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _local_part(
    rows: np.ndarray, micro_batches: int, process_index: int, process_count: int
) -> np.ndarray:
    """The rows (micro_batches, b) that belong to one host, out of the rows (batch_size,)."""
    return rows.reshape(micro_batches, process_count, -1)[:, process_index]


def _gather(image_at: Callable[[int], np.ndarray], number: int, num_threads: int) -> np.ndarray:
    """Images 0..number-1 in one array; each is copied at once, while it is in the CPU's cache."""
    first = image_at(0)
    batch = np.empty((number, *first.shape), first.dtype)
    batch[0] = first

    def fill(rows: range) -> None:
        for row in rows:
            image = image_at(row)
            if image.shape != first.shape:
                raise ValueError(
                    f"images of a batch have the shapes {first.shape} and {image.shape}: set "
                    "data.train_transform to a transform that gives them the same shape, such as "
                    "'none'"
                )
            batch[row] = image

    # Several parts per thread, as some images take longer; one part per image would cost overhead.
    length = max(8, -(-number // (4 * num_threads))) if num_threads > 1 else number
    parts = [range(row, min(row + length, number)) for row in range(1, number, length)]
    if num_threads == 0:
        list(map(fill, parts))
    else:
        list(_threads(num_threads).map(fill, parts))
    return batch


@functools.cache
def _threads(number: int) -> ThreadPoolExecutor:
    """A pool of threads shared by all streams of this process; it lives as long as the process."""
    return ThreadPoolExecutor(number, thread_name_prefix="images")


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
