"""Undoes the changes that tasks make to a model, if a plain model can compute the same."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from pnoise_jax.weights.formats.array_file import ArrayFile, Read

_KERNEL, _BIAS = "params/head/kernel", "params/head/bias"
_SCALE, _DENSE = "params/head/norm/scale", "params/head/dense/kernel"
_MEAN, _VARIANCE = "batch_stats/head/norm/mean", "batch_stats/head/norm/var"
_EPSILON = 1e-5  # of the batch norm in CDTrans' head


def as_plain_model(file: ArrayFile, task: str | None) -> ArrayFile:
    """Converts the arrays of a run to the arrays of its plain model, as far as possible.

    Args:
      file: the arrays of the run.
      task: the name of its task; None if it is unknown.

    Returns:
      For CDTrans, the batch norm is folded into the last dense layer, which computes the same
      logits. SSRT's head, which no dense layer can replace, and a denoising run's decoder are left
      out. Other files are returned as they are.

    Raises:
      ValueError: the run's task is TVT, whose attention no plain model can compute.
    """
    change = None if task is None else _CHANGES.get(task)
    return file if change is None else change(file)


def explain_no_head(task: str | None) -> str:
    """Why `as_plain_model` returns no head for runs of this task; "" if it returns one."""
    return _NO_HEAD.get(task or "", "")


_NO_HEAD = {
    "ssrt": "whose head has extra layers that no model of timm has",
    "denoising": "which has a decoder instead of a head: it reconstructs images and has no classes",
}


def _refuse_gate(file: ArrayFile) -> ArrayFile:
    gate = next((name for name in file.shapes if "/key_gate/" in name), None)
    if gate is None:
        return file
    raise ValueError(
        "is a run of TVT, whose last block weights its attention by a discriminator "
        f"({gate.partition('/key_gate/')[0]}/key_gate) that plain models do not have: evaluate and "
        "audit the run itself with --workdir; or use the weights of a run of another task, such as "
        "source_only or dann"
    )


def _without_decoder(file: ArrayFile) -> ArrayFile:
    shapes = {n: shape for n, shape in file.shapes.items() if not n.startswith("params/decoder/")}
    title = f"{file.title}, without the decoder"
    return dataclasses.replace(file, shapes=shapes, class_names=None, title=title)


def _without_head(file: ArrayFile) -> ArrayFile:
    shapes = {name: shape for name, shape in file.shapes.items() if not _is_of_head(name)}
    return dataclasses.replace(file, shapes=shapes, class_names=None)


def _is_of_head(name: str) -> bool:
    return name.startswith(("params/head/", "batch_stats/head/"))


def _fold_norm(file: ArrayFile) -> ArrayFile:
    """Rewrites ((x - mean) / sqrt(var + epsilon) * scale) @ dense as x @ kernel + bias."""
    parts = _SCALE, _DENSE, _MEAN, _VARIANCE
    if not all(name in file.shapes for name in parts):
        return file
    shapes = {name: shape for name, shape in file.shapes.items() if not _is_of_head(name)}
    shapes |= {_KERNEL: file.shapes[_DENSE], _BIAS: file.shapes[_DENSE][-1:]}

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        with file.open() as read:

            def read_folded(name: str) -> np.ndarray:
                if name not in (_KERNEL, _BIAS):
                    return read(name)
                scale, dense, mean, variance = (read(part).astype(np.float64) for part in parts)
                kernel = (scale / np.sqrt(variance + _EPSILON))[:, None] * dense
                return (kernel if name == _KERNEL else -mean @ kernel).astype(np.float32)

            yield read_folded

    dtypes = dict.fromkeys(shapes, "float32") | {
        k: x for k, x in file.dtypes.items() if k in shapes
    }
    return dataclasses.replace(
        file, shapes=dict(sorted(shapes.items())), open=opened, dtypes=dtypes
    )


_CHANGES: dict[str, Callable[[ArrayFile], ArrayFile]] = {
    "tvt": _refuse_gate,
    "ssrt": _without_head,
    "denoising": _without_decoder,
    "cdtrans": _fold_norm,
}
