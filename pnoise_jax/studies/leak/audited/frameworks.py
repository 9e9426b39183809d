"""Models and arrays of any framework as functions of NumPy arrays; no framework is imported."""

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
    """What a model of any framework returns, as a NumPy array on the host.

    Args:
      outputs: an array or a tensor of any framework, on any device; numbers in lists; a list of
        one vector or number for each example; a dict, a tuple or an object that holds one array, or
        an array called ``logits``.

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
    """An array or a tensor of any framework, or a list of them or of numbers, as a NumPy array.

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
    """The function that makes of a NumPy array what ``example`` is: its framework, dtype, device.

    It is the identity where ``example`` is a NumPy array, a list, or of a framework that is not
    known here.
    """
    if hasattr(example, "detach"):
        torch = sys.modules["torch"]  # whoever has a tensor has imported it
        return functools.partial(torch.tensor, dtype=example.dtype, device=example.device)
    if isinstance(example, jax.Array):
        return functools.partial(jnp.asarray, dtype=example.dtype)
    if type(example).__module__.startswith("tensorflow."):
        tensorflow = sys.modules["tensorflow"]
        return functools.partial(tensorflow.constant, dtype=example.dtype)
    if hasattr(example, "iloc") and hasattr(example, "columns"):  # a table of pandas
        types, columns = example.dtypes, example.columns
        return lambda array: type(example)(array, columns=columns).astype(types)
    return type(example) if scipy.sparse.issparse(example) else lambda array: array


def as_batch_function(
    model: Any, wrap: Callable[[np.ndarray], Any] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A model of any framework as a function of a batch: (b, ...) to (b, ...), both NumPy.

    Args:
      model: one of
        - a callable of a batch, a Keras model among them: called as it is;
        - a `torch.nn.Module`: called without gradients, on its own device and, for inputs that are
          floats, with the dtype of its parameters. Its mode, training or evaluation, stays as it
          is. Its buffers, such as running statistics, are put back after each call, unless what a
          call leaves in them changes the outputs of the next: then they are part of what is tested;
        - a fitted estimator of scikit-learn: its `predict_proba`, `decision_function` or `predict`,
          the first that it has. A classifier gives one column for each of its classes.
      wrap: what turns a NumPy batch into what a callable or an estimator takes, as `like` returns
        it; None gives it the NumPy batch.

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
    """Whether it is an array or a tensor of some framework, or a table."""
    return hasattr(value, "__array__") or scipy.sparse.issparse(value)


def describe(value: Any) -> str:
    """What it is, for an error: its type and what it holds."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, Mapping):
        held = [f"{key!r}: {_shape(item)}" for key, item in value.items()]
    elif isinstance(value, tuple | list):
        held = [_shape(item) for item in value[:4]] + ["…"] * (len(value) > 4)
    else:
        return f"{kind} of shape {_shape(value)}" if is_array(value) else kind
    return f"{kind} of length {len(value)} ({', '.join(held)})"


class _Module:
    """A PyTorch module as a function of a batch, (b, ...) to (b, ...), both NumPy."""

    def __init__(self, module: Any):
        self._module = module
        self._remembers = False  # whether its outputs were seen to depend on earlier calls

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
        """Whether the buffers as a call has left them change outputs; they are left like that."""
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
    """The buffers of a PyTorch module at one moment, also those that are replaced or grow later."""

    def __init__(self, module: Any):
        self._kept = [
            (part, name, buffer, buffer.clone())
            for part in module.modules()
            for name, buffer in part.named_buffers(recurse=False)
        ]

    def differ(self) -> bool:
        """Whether any has changed since."""
        equal = sys.modules["torch"].equal
        return any(
            part._buffers.get(name) is not buffer or not equal(buffer, content)
            for part, name, buffer, content in self._kept
        )

    def restore(self) -> None:
        """Puts all back, with their contents."""
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
    return np.stack([np.zeros_like(scores), scores], axis=1)  # of two classes: the second's


def _only(outputs: Any, items: Any) -> Any:
    items = list(items)
    if len(items) != 1:
        raise TypeError(
            f"cannot tell the outputs in {describe(outputs)}; return one array, or a dict or an "
            "object with `logits`"
        )
    return items[0]


def _axes(values: tuple | list) -> int:
    """The most axes that an array among them has; 0 without arrays."""
    return max((len(item.shape) for item in values if is_array(item)), default=0)


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if is_array(value) else type(value).__name__
