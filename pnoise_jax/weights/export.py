"""Weights of a run as a safetensors file in timm's names, which timm loads with strict=True."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from pnoise_jax import models
from pnoise_jax.models.registry import MODELS
from pnoise_jax.weights import (
    descriptions,
    errors,
    preprocessing,
    runs,
    timm_models,
    torch_names,
)
from pnoise_jax.weights.arrays import ArrayFile, Shape
from pnoise_jax.weights.guessing import guess_channels
from pnoise_jax.weights.namings import NAMINGS


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
      path: of the file.
      title: whose weights they are, such as "EMA weights of step 12".
      arrays: how many.
      metadata: what the file says of itself.
      reference: timm's name of the model and its arguments; None where timm has none.
    """

    path: Path
    title: str
    arrays: int
    metadata: dict[str, str]
    reference: tuple[str, dict[str, Any]] | None


def export(workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> Exported:
    """Writes the weights of a run, the average where it kept one, for timm.

    The data set and the devices of the run need not be there.

    Args:
      workdir: of the run; of it the newest checkpoint, or a checkpoint itself.
      out: the file, which must not exist; by default model.safetensors in the work directory, of a
        checkpoint too.

    Raises:
      FileExistsError, FileNotFoundError: the file is there, or the run or its directory are not.
      OSError: the run cannot be read, or the file not be written.
      ValueError: the checkpoint or the config is damaged, or the model is in none of timm's names.
    """
    workdir = Path(workdir).expanduser().absolute()
    file, config = _open(workdir)
    if out is None:
        is_checkpoint = (workdir / "state").is_dir()  # below checkpoints/ of the work directory
        out = (workdir.parents[1] if is_checkpoint else workdir) / "model.safetensors"
    out = Path(out).expanduser().absolute()
    _require_new(out)
    _require_names_in_timm(workdir, config, file)
    try:
        model = _create_model(config, file)
        name, channels = config["model"]["name"], guess_channels(file.shapes)
        reference = timm_models.timm_reference(name, model, channels=channels)
        metadata = _metadata(config, model, file, reference)
        if file.class_names is not None:
            metadata[descriptions.CLASS_NAMES] = json.dumps(file.class_names)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"--workdir={str(workdir)!r}: its config.json is not that of its checkpoint "
            f"({reason}); restore it from a copy"
        ) from None
    try:
        with file.open() as read:
            tensors = timm_state({path: read(path) for path in file.shapes})
    except OSError as error:
        raise errors.unreadable(f"--workdir={str(workdir)!r}", error) from None
    _write(out, tensors, metadata)
    return Exported(out, file.title, len(tensors), metadata, reference)


def _require_names_in_timm(workdir: Path, config: Mapping[str, Any], file: ArrayFile) -> None:
    """Raises ValueError of a model that timm does not know: one of the user's own, say."""
    named, name = f"--workdir={str(workdir)!r}", config["model"].get("name")
    own = isinstance(name, str) and name not in models.list_models()
    if own or MODELS.origin(str(name)) is not None:
        raise ValueError(
            f"{named} is a run of {name!r}, a model of your own, which timm does not have, "
            "whatever its arrays are called: config.weights takes the directory itself, as does "
            "pnoise_jax.weights.load"
        )
    try:
        timm_layout(file.shapes)
    except ValueError as error:
        raise ValueError(f"{named}: {error}") from None


def _require_new(out: Path) -> None:
    if os.path.lexists(out):
        raise FileExistsError(f"--out={str(out)!r} exists: name another file, or remove it")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out={str(out)!r}: {out.parent} is no directory; make it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out={str(out)!r}: {out.parent} cannot be written; choose another")


def _open(workdir: Path) -> tuple[ArrayFile, dict[str, Any]]:
    """The arrays of the run and its config."""
    named = f"--workdir={str(workdir)!r}"
    if not workdir.is_dir():
        what = "it is a file" if workdir.exists() else "there is no such directory"
        raise FileNotFoundError(f"{named} holds no run: {what}")
    with errors.begin_with(named, workdir):
        file = runs.open_run(workdir)
    config = runs.read_config(workdir)
    if not config:
        raise ValueError(
            f"{named} has a checkpoint but no readable config.json, so it is not known of which "
            "model; restore it from a copy"
        )
    return file, config


def _create_model(config: Mapping[str, Any], file: ArrayFile) -> nn.Module:
    """The model of the config, which must have the arrays of the file.

    Raises:
      KeyError, TypeError, ValueError: it has others, or the config is none.
    """
    options = dict(config["model"])
    (classes,) = file.shapes["params/head/bias"]
    model = models.create_model(options.pop("name"), num_classes=classes, **options)
    sides = model.image_shape or (64, 64)
    images = jax.ShapeDtypeStruct((1, *sides, guess_channels(file.shapes)), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    ours = {k: x.shape for k, x in traverse_util.flatten_dict(variables, sep="/").items()}
    if other := sorted(ours.items() ^ file.shapes.items()):
        path, _ = other[0]
        raise ValueError(
            f"{path} is {ours.get(path, 'none')} by the config and {file.shapes.get(path, 'none')} "
            "in the checkpoint"
        )
    return model


def timm_state(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's arrays as timm's state dict: its names, PyTorch's layouts.

    Args:
      arrays: by our paths, such as "params/head/bias"; all of a model.

    Raises:
      ValueError: they are of none of timm's families.
    """
    layout = timm_layout({path: x.shape for path, x in arrays.items()})
    tensors = {
        name: np.ascontiguousarray(np.transpose(arrays[path], axes))
        for path, (name, axes) in layout.items()
    }
    # A batch norm of PyTorch's counts its batches; it has no use of the number.
    norms = [name for name in tensors if name.endswith("running_mean")]
    counters = (name.replace("running_mean", "num_batches_tracked") for name in norms)
    return tensors | {name: np.array(0, np.int64) for name in counters}


def timm_layout(shapes: Mapping[str, Shape]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """timm's names of arrays by our paths, and the order of our axes there.

    They are those by which the reader of the family finds exactly these arrays again.

    Raises:
      ValueError: they are of none of timm's families.
    """
    for naming in NAMINGS:
        if naming.renaming is None:
            continue
        layout = {
            path: torch_names.exported(path, len(shape), naming.renaming)
            for path, shape in shapes.items()
        }
        theirs = {
            name: tuple(shapes[path][axis] for axis in axes)
            for path, (name, axes) in layout.items()
        }
        if naming.recognises(theirs):
            found = {path: entry.shape for path, entry in naming.entries(theirs).items()}
            if found == dict(shapes):
                return layout
    raise ValueError(
        f"these {len(shapes)} arrays are of none of the families that have names in timm: "
        f"{', '.join(naming.title for naming in NAMINGS if naming.renaming)}"
    )


def _metadata(
    config: Mapping[str, Any],
    model: nn.Module,
    file: ArrayFile,
    reference: tuple[str, dict[str, Any]] | None,
) -> dict[str, str]:
    """What the file says of itself: texts, some of them JSON."""
    size = model.image_shape
    seen = preprocessing.to_timm(config["data"]) | {"num_classes": model.num_classes}
    if size is not None:
        seen["input_size"] = [guess_channels(file.shapes), *size]
    name, arguments = reference or ("", {})
    return {
        "format": "pt",  # as safetensors of PyTorch say
        "timm.model": name,
        "timm.arguments": json.dumps(arguments),
        "num_classes": str(model.num_classes),
        preprocessing.METADATA: json.dumps(seen),
        "source": file.title,
        "pnoise_jax.model": json.dumps(config["model"]),
        "pnoise_jax.version": importlib.metadata.version("pnoise_jax"),
    }


def _move_to_new(temporary: Path, out: Path) -> None:
    """Moves a file where none may have appeared by now."""
    try:
        os.link(temporary, out)
    except OSError:  # it appeared, or the file system has no links
        _require_new(out)
        os.replace(temporary, out)


def _write(out: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes the file, at once or not at all."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata=metadata)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # safetensors makes it the owner's alone
        _move_to_new(temporary, out)
    except FileExistsError:
        raise
    except Exception as error:  # safetensors has no OSError of its own
        raise OSError(
            f"--out={str(out)!r} cannot be written ({error}): choose a place that is writable and "
            "not full"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
