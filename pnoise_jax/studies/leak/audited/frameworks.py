"""Models and arrays of any framework, for use with NumPy; no framework is imported."""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

_SCORES = ("predict_proba", "decision_function", "predict")
_MODULE = ("eval", "training", "parameters", "forward")


def as_numpy(outputs: Any) -> np.ndarray:
    """Converts the outputs of a model in any framework to a NumPy array on the host.

    Args:
      outputs: an array or a tensor of any framework, on any device; nested lists of numbers; a list
        of one vector or number for each example; a dict, a tuple or a list with a single array; or
        a dict or an object with an array called ``logits``.

    Returns:
      The array. Floats that NumPy itself does not have, such as bfloat16, become float32.

    Raises:
      TypeError: several arrays to choose from, or something that is not an array of numbers.
    """
    chosen = outputs
    if isinstance(outputs, Mapping):
        chosen = outputs["logits"] if "logits" in outputs else _only(outputs, outputs.values())
    elif hasattr(outputs, "logits"):
        chosen = outputs.logits
    elif isinstance(outputs, tuple | list):
        per_example = isinstance(outputs, list) and _axes(outputs) <= 1
        chosen = outputs if per_example or not _axes(outputs) else _only(outputs, outputs)
    array = to_numpy(chosen)
    if not jnp.issubdtype(array.dtype, np.number) and array.dtype != bool:
        raise TypeError(f"expected an array of numbers; got {describe(outputs)}")
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def to_numpy(values: Any) -> np.ndarray:
    """Converts an array or a tensor of any framework, or a list of them or of numbers, to NumPy.

    Raises:
      ValueError: a list of arrays of several shapes.
    """
    if hasattr(values, "detach"):  # PyTorch, whose `numpy` refuses bfloat16
        short = values.is_floating_point() and values.element_size() < 4
        return (values.float() if short else values).numpy(force=True)
    if scipy.sparse.issparse(values):
        return values.toarray()
    if isinstance(values, tuple | list) and any(is_array(item) for item in values):
        items = [to_numpy(item) for item in values]
        shapes = sorted({item.shape for item in items})
        if len(shapes) > 1:
            raise ValueError(f"a list of arrays of the shapes {shapes[0]} and {shapes[1]}")
        return np.stack(items)
    return np.asarray(values)


def like(example: Any) -> Callable[[np.ndarray], Any]:
    """Returns a function that converts a NumPy array to the framework and dtype of ``example``.

    A PyTorch tensor also keeps its device. The function is the identity if ``example`` is a NumPy
    array, a list, or of an unknown framework.
    """
    if hasattr(example, "detach"):
        torch = sys.modules["torch"]  # a tensor exists, so it is imported
        return functools.partial(torch.tensor, dtype=example.dtype, device=example.device)
    if isinstance(example, jax.Array):
        return functools.partial(jnp.asarray, dtype=example.dtype)
    if type(example).__module__.startswith("tensorflow."):
        tensorflow = sys.modules["tensorflow"]
        return functools.partial(tensorflow.constant, dtype=example.dtype)
    if hasattr(example, "iloc") and hasattr(example, "columns"):  # a pandas table
        types, columns = example.dtypes, example.columns
        return lambda array: type(example)(array, columns=columns).astype(types)
    return type(example) if scipy.sparse.issparse(example) else lambda array: array


def as_batch_function(
    model: Any, wrap: Callable[[np.ndarray], Any] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a model of any framework as a function of a batch: (b, ...) to (b, ...), both NumPy.

    Args:
      model: one of
        - a callable of a batch, such as a Keras model, which is called directly;
        - a `torch.nn.Module`: it is called without gradients, on its own device and, if the inputs
          are floats, with the dtype of its parameters. Its mode, training or evaluation, does not
          change. Its buffers, such as running statistics, are restored after each call, unless the
          changes that a call makes to them change the outputs of the next call. Then they stay
          changed, because they are part of what is tested;
        - a fitted scikit-learn estimator: the first that it has of `predict_proba`,
          `decision_function` and `predict` is called. A classifier returns one column per class.
      wrap: converts a NumPy batch to the input of a callable or an estimator, as returned by
        `like`; None passes the NumPy batch.

    Raises:
      TypeError: ``model`` is none of these.
    """
    if all(hasattr(model, name) for name in _MODULE):
        return _Module(model)
    if callable(model):
        score = model
    elif any(hasattr(model, name) for name in _SCORES):
        score = functools.partial(_score, model)
    else:
        raise TypeError(
            f"apply: got {describe(model)}; give a callable of a batch, a PyTorch or Keras model, "
            f"or an estimator with one of {', '.join(_SCORES)}"
        )
    return lambda x: as_numpy(score(x if wrap is None else wrap(x)))


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array or a tensor of some framework, or a table."""
    return hasattr(value, "__array__") or scipy.sparse.issparse(value)


def describe(value: Any) -> str:
    """Describes a value for an error message: its type and its contents."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, Mapping):
        contents = [f"{key!r}: {_shape(item)}" for key, item in value.items()]
    elif isinstance(value, tuple | list):
        contents = [_shape(item) for item in value[:4]] + ["…"] * (len(value) > 4)
    else:
        return f"{kind} of shape {_shape(value)}" if is_array(value) else kind
    return f"{kind} of length {len(value)} ({', '.join(contents)})"


class _Module:
    """A PyTorch module as a function of a batch, (b, ...) to (b, ...), both NumPy."""

    def __init__(self, module: Any):
        self._module = module
        self._remembers = False  # whether its outputs are known to depend on earlier calls

    def __call__(self, x: np.ndarray) -> np.ndarray:
        torch, module = sys.modules["torch"], self._module
        parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
        batch = torch.tensor(x, device=None if parameter is None else parameter.device)
        if parameter is not None and batch.is_floating_point():
            batch = batch.to(parameter.dtype)
        if self._remembers:
            return self._outputs(batch)
        before = _Buffers(module)
        try:
            outputs = self._outputs(batch.clone())
            if before.differ():
                self._remembers = self._depends_on_buffers(batch, before)
            return outputs
        finally:
            if not self._remembers:
                before.restore()

    def _outputs(self, batch: Any) -> np.ndarray:
        with sys.modules["torch"].no_grad():
            return as_numpy(self._module(batch)).copy()

    def _depends_on_buffers(self, batch: Any, before: "_Buffers") -> bool:
        """Whether the buffers that a call left change the outputs; these buffers are kept."""
        torch = sys.modules["torch"]
        left = _Buffers(self._module)
        outputs = []
        for buffers in (before, left):
            buffers.restore()
            with torch.random.fork_rng():  # dropout draws the same in both
                torch.manual_seed(0)
                outputs.append(self._outputs(batch.clone()))
        left.restore()
        return not np.allclose(*outputs, rtol=1e-4, atol=1e-5, equal_nan=True)


class _Buffers:
    """A copy of a PyTorch module's buffers, to restore them even if they are replaced or grow."""

    def __init__(self, module: Any):
        self._kept = [
            (part, name, buffer, buffer.clone())
            for part in module.modules()
            for name, buffer in part.named_buffers(recurse=False)
        ]

    def differ(self) -> bool:
        """Whether any buffer has changed since."""
        equal = sys.modules["torch"].equal
        return any(
            part._buffers.get(name) is not buffer or not equal(buffer, content)
            for part, name, buffer, content in self._kept
        )

    def restore(self) -> None:
        """Restores all buffers and their contents."""
        for part, name, buffer, content in self._kept:
            buffer.copy_(content)
            part._buffers[name] = buffer


def _score(estimator: Any, x: Any) -> Any:
    name = next(name for name in _SCORES if hasattr(estimator, name))
    scores = getattr(estimator, name)(x)
    if getattr(scores, "ndim", 0) != 1 or not hasattr(estimator, "classes_"):
        return scores
    if name == "predict":
        return (scores[:, None] == estimator.classes_).astype(np.float32)
    return np.stack([np.zeros_like(scores), scores], axis=1)  # scores are those of the second class


def _only(outputs: Any, items: Any) -> Any:
    items = list(items)
    if len(items) != 1:
        raise TypeError(
            f"cannot tell which array is the output in {describe(outputs)}; return one array, or a "
            "dict or an object with `logits`"
        )
    return items[0]


def _axes(values: tuple | list) -> int:
    """The largest number of axes of the arrays among ``values``; 0 if there are none."""
    return max((len(item.shape) for item in values if is_array(item)), default=0)


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if is_array(value) else type(value).__name__
