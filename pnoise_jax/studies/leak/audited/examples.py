"""Examples as NumPy arrays, from arrays of any framework or from a loader."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pnoise_jax.studies.leak.audited.frameworks import describe, is_array, like, to_numpy

_INPUTS = ("image", "images", "pixel_values", "input", "inputs", "features", "x")
_LABELS = ("label", "labels", "target", "targets", "y")

_SHUFFLES = (
    "A second pass over the loader began with a different batch: it shuffles, or it augments at "
    "random. The order as given is that of the first pass."
)
_READ_ONCE = (
    "The examples can be read only once, so it is not known whether they always have this order."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Examples that were read.

    Attributes:
      inputs: (n, ...).
      labels: (n,), in their original type; None if there are none.
      note: a sentence about the order of the examples, if another reading might return another
        order; otherwise None.
      wrap: converts a NumPy batch to the type of the inputs, such as a tensor of their framework.
      label_sets: all correct labels of each example, if batches are dicts with a "label_set";
        otherwise None.
      sizes: the sizes of a loader's batches; none for arrays.
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    note: str | None
    wrap: Callable[[np.ndarray], Any]
    label_sets: Sequence[np.ndarray] | None = None
    sizes: tuple[int, ...] = ()

    @property
    def batch_size(self) -> int | None:
        """The size of a loader's batches, of which the last may be smaller; None if they differ."""
        *sizes, last = self.sizes or (0,)
        return sizes[0] if len(set(sizes)) == 1 and last <= sizes[0] else None

    @property
    def note_on_sizes(self) -> str | None:
        """A sentence if a loader's batches differ in size, as those of an audit cannot."""
        if len(self.sizes) < 2 or self.batch_size is not None:
            return None
        return (
            f"The loader's batches have {min(self.sizes)} to {max(self.sizes)} examples. The audit "
            "makes its own batches, all of one size, from the same order."
        )

    def copied(self) -> "Examples":
        """Returns the same examples in arrays of their own."""
        labels, sets = self.labels, self.label_sets
        return dataclasses.replace(
            self,
            inputs=self.inputs.copy(),
            labels=None if labels is None else labels.copy(),
            label_sets=None if sets is None else [row.copy() for row in sets],
        )


def read_examples(examples: Any) -> Examples:
    """Reads all examples of a data set, in its order.

    Args:
      examples: ``(inputs, labels)``, arrays or tensors of any framework; inputs alone; or a loader,
        which is any iterable of batches, such as a PyTorch `DataLoader`, a `tf.data.Dataset` or a
        list. A batch is ``(inputs, labels)``, inputs alone, or a dict such as
        ``{"image": …, "label": …}``.

    Raises:
      TypeError: examples of another type, which the error names.
      ValueError: no examples, inputs of several shapes, or labels that are not (n,).
    """
    batches = list(read_batches(examples))
    if not batches:
        raise ValueError(f"examples: the loader, {describe(examples)}, returned no batches")
    for number, batch in enumerate(batches):
        if batch.inputs.shape[1:] != batches[0].inputs.shape[1:]:
            raise ValueError(
                f"examples: one input is of shape {batches[0].inputs.shape[1:]} in batch 0 and "
                f"{batch.inputs.shape[1:]} in batch {number}; resize or pad them to one shape"
            )
    labels = [batch.labels for batch in batches if batch.labels is not None]
    if labels and len(labels) < len(batches):
        raise ValueError("examples: some batches have labels and others do not")
    sets = [row for batch in batches if batch.label_sets is not None for row in batch.label_sets]
    return Examples(
        inputs=np.concatenate([batch.inputs for batch in batches]),
        labels=np.concatenate(labels) if labels else None,
        label_sets=sets or None,
        note=_note_on_order(examples, batches[0]) if is_loader(examples) else None,
        wrap=batches[0].wrap,
        sizes=tuple(len(batch.inputs) for batch in batches) if is_loader(examples) else (),
    )


def read_batches(examples: Any) -> Iterator[Examples]:
    """Reads what `read_examples` accepts, batch by batch; arrays are one batch.

    Raises:
      TypeError, ValueError: a batch cannot be read; the error has its number.
    """
    if not is_loader(examples):
        yield read_batch(examples)
        return
    for number, batch in enumerate(examples):
        # Some loaders write each batch into the arrays of the one before.
        yield read_batch(batch, f"examples, batch {number}").copied()


def is_loader(examples: Any) -> bool:
    """Whether ``examples`` are batches to iterate over, not arrays."""
    if is_array(examples) or isinstance(examples, Mapping) or _is_plain(examples):
        return False
    if isinstance(examples, list) and examples and all(is_array(item) for item in examples):
        raise TypeError(
            f"examples: got {describe(examples)}, which could be inputs and labels, batches, or "
            "single inputs; give a tuple (inputs, labels), a list of such tuples, or np.stack(…)"
        )
    if isinstance(examples, tuple) and len(examples) == 2:
        inputs, labels = examples
        if (is_array(inputs) or isinstance(inputs, list)) and (
            labels is None or _is_column(labels)
        ):
            return False
    if not isinstance(examples, Iterable) and not hasattr(examples, "__getitem__"):
        raise TypeError(
            f"examples: got {describe(examples)}; give (inputs, labels), or a loader of such "
            "batches"
        )
    return True


def read_batch(batch: Any, where: str = "examples") -> Examples:
    """Reads one batch: ``(inputs, labels)``, a dict of them, or inputs alone.

    Args:
      batch: a batch, as described for `read_examples`.
      where: what errors call it.

    Raises:
      TypeError, ValueError: as `read_examples`.
    """
    inputs, labels = _split(batch, where)
    arrays = []
    for values in (inputs, labels):
        array = None if values is None else to_numpy(values)
        if array is not None and array.dtype == object and not hasattr(values, "iloc"):
            raise TypeError(f"{where}: cannot make an array of {describe(values)}")
        arrays.append(array)
    inputs_array, labels_array = arrays
    if labels_array is not None and labels_array.ndim == 2 and labels_array.shape[1] == 1:
        labels_array = labels_array[:, 0]
    _check_shapes(inputs_array, labels_array, where)
    sets = batch.get("label_set") if isinstance(batch, Mapping) else None
    return Examples(
        inputs_array,
        labels_array,
        note=None,
        wrap=like(inputs),
        label_sets=None if sets is None else list(to_numpy(sets)),
    )


def _split(batch: Any, where: str) -> tuple[Any, Any]:
    if isinstance(batch, Mapping):
        inputs = [batch[key] for key in _INPUTS if key in batch]
        labels = [batch[key] for key in _LABELS if key in batch]
        if len(inputs) == 1 and len(labels) < 2:
            return inputs[0], labels[0] if labels else None
        raise TypeError(
            f"{where}: got {describe(batch)}; expected one entry of {', '.join(_INPUTS)} and at "
            f"most one of {', '.join(_LABELS)}. If a model has several inputs, give the numbers of "
            "the examples as inputs, and a function that looks them up"
        )
    if is_array(batch) or _is_plain(batch):
        return batch, None
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        return batch[0], batch[1] if len(batch) == 2 else None
    raise TypeError(f"{where}: got {describe(batch)}; expected (inputs, labels)")


def _check_shapes(inputs: np.ndarray, labels: np.ndarray | None, where: str) -> None:
    if labels is None:
        if inputs.ndim == 0:
            raise ValueError(f"{where}: inputs of shape (); expected a batch, (n, ...)")
        return
    if labels.ndim == 0:
        raise ValueError(
            f"{where}: inputs of shape {inputs.shape} and the single label {labels}; give a loader "
            "of batches, such as a DataLoader of this data set"
        )
    if labels.ndim > 1:
        raise ValueError(
            f"{where}: labels of shape {labels.shape}; give one for each example, (n,). For "
            "one-hot labels that is labels.argmax(1); if several are correct, use label_sets="
        )
    if inputs.shape[:1] != labels.shape:
        raise ValueError(
            f"{where}: inputs of shape {inputs.shape} and labels of shape {labels.shape}; expected "
            "inputs (n, ...) and labels (n,)"
        )


def _note_on_order(loader: Any, first: Examples) -> str | None:
    if iter(loader) is loader:
        return _READ_ONCE
    batch = next(iter(loader), None)
    if batch is None:
        return _READ_ONCE
    second = read_batch(batch, "examples, batch 0 of a second pass")
    alike = _equal(first.inputs, second.inputs) and _equal(first.labels, second.labels)
    return None if alike else _SHUFFLES


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _is_column(value: Any) -> bool:
    """Whether it can be labels: an array, or a list of numbers, strings or scalar arrays."""
    if not isinstance(value, list):
        return is_array(value)
    return not any(isinstance(item, tuple | Mapping) or _axes(item) for item in value)


def _axes(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if is_array(value) else ()


def _is_plain(value: Any) -> bool:
    """Whether it is a list of numbers or strings, possibly nested."""
    nested = isinstance(value, list)
    while isinstance(value, list) and value:
        value = value[0]
    return nested and isinstance(value, int | float | complex | str | np.generic)
