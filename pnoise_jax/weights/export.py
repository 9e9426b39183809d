"""Writes a run's weights as safetensors with timm's names, which timm loads with strict=True."""

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

from pnoise_jax import models, writing
from pnoise_jax.models import MODELS
from pnoise_jax.weights import errors, preprocessing
from pnoise_jax.weights.formats import model_info, run_weights, task_parts
from pnoise_jax.weights.formats.array_file import ArrayFile
from pnoise_jax.weights.infer_model import infer_channels
from pnoise_jax.weights.names.timm_layout import timm_layout, timm_state
from pnoise_jax.weights.names.timm_models import timm_reference

_OTHER_FORMATS = (".pth", ".pt", ".bin", ".ckpt", ".npz", ".npy", ".h5", ".msgpack", ".onnx")


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
      path: the path of the file.
      title: which weights they are, such as "EMA weights of step 12".
      arrays: the number of arrays.
      metadata: the metadata of the file.
      reference: timm's name of the model and its arguments; None if timm has no such model.
      mean_image: the mean image that the run subtracts, which timm's metadata cannot express; None
        if the run subtracts a mean per channel.
    """

    path: Path
    title: str
    arrays: int
    metadata: dict[str, str]
    reference: tuple[str, dict[str, Any]] | None
    mean_image: str | None = None


def export(workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> Exported:
    """Writes the weights of a run for timm: the moving average, if the run kept one.

    The data set and the devices of the run are not needed.

    Args:
      workdir: the work directory of the run, whose newest checkpoint is used; or a checkpoint in
        it.
      out: the file to write, which must not exist; by default model.safetensors in the work
        directory.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError: there is no run, or `out` is in a directory that does not exist.
      OSError: the run cannot be read, or the file cannot be written.
      ValueError: the checkpoint or the config is damaged, timm has no names for the model, or the
        run's task has changed the model.
    """
    writing.require_local(workdir, named=f"--workdir={str(workdir)!r}")
    workdir = Path(workdir).expanduser().absolute()
    file, config = _open(workdir)
    _require_head(workdir)
    out = _default_out(workdir) if out is None else Path(out).expanduser().absolute()
    _require_new(out)
    _require_names_in_timm(workdir, config, file)
    try:
        reference, metadata = _describe(config, file)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"--workdir={str(workdir)!r}: its config.json does not match its checkpoint "
            f"({reason}); restore it from a copy"
        ) from error
    try:
        with file.open() as read:
            tensors = timm_state({path: read(path) for path in file.shapes})
    except OSError as error:
        raise errors.unreadable_error(f"--workdir={str(workdir)!r}", error) from error
    _write(out, tensors, metadata)
    mean_image = config["data"].get("mean_image")
    return Exported(out, file.title, len(tensors), metadata, reference, mean_image)


def _default_out(workdir: Path) -> Path:
    is_checkpoint = (workdir / "state").is_dir()  # below checkpoints/ of the work directory
    return (workdir.parents[1] if is_checkpoint else workdir) / "model.safetensors"


def _describe(
    config: Mapping[str, Any], file: ArrayFile
) -> tuple[tuple[str, dict[str, Any]] | None, dict[str, str]]:
    """timm's name and arguments of the model, and the metadata of the file.

    Raises:
      KeyError, TypeError, ValueError: the config does not describe the arrays of the file.
    """
    model = _create_model(config, file)
    channels = infer_channels(file.shapes)
    if channels is None:
        raise ValueError("it has no first convolution to show the channels of images")
    reference = timm_reference(config["model"]["name"], model, channels=channels)
    metadata = _metadata(config, model, file, reference)
    if file.class_names is not None:
        metadata[model_info.CLASS_NAMES] = json.dumps(file.class_names)
    return reference, metadata


def _require_names_in_timm(workdir: Path, config: Mapping[str, Any], file: ArrayFile) -> None:
    """Raises ValueError for a model that timm does not have, such as a user-defined one."""
    field, name = f"--workdir={str(workdir)!r}", config["model"].get("name")
    is_unknown = isinstance(name, str) and name not in models.list_models()
    if is_unknown or MODELS.origin(str(name)) is not None:
        raise ValueError(
            f"{field} is a run of {name!r}, your own model, which timm does not have, whatever its "
            "arrays are called: pass the directory itself as config.weights or to "
            "pnoise_jax.weights.load"
        )
    try:
        timm_layout(file.shapes)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _require_head(workdir: Path) -> None:
    """Raises ValueError for a run whose head no model of timm could have."""
    if why := task_parts.explain_no_head(task := run_weights.task_name(workdir)):
        raise ValueError(
            f"--workdir={str(workdir)!r} is a run of {task}, {why}: evaluate the run itself with "
            "--workdir; or train a plain head on its blocks with config.weights and "
            "weights_head='fresh', and export that run"
        )


def _require_new(out: Path) -> None:
    if out.suffix in _OTHER_FORMATS:
        raise ValueError(
            f"--out={str(out)!r}: the format is safetensors, and programs detect it by the suffix: "
            f"name the file {out.with_suffix('.safetensors').name}"
        )
    if os.path.lexists(out):
        raise FileExistsError(f"--out={str(out)!r} exists: name another file, or remove it")
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"--out={str(out)!r}: {out.parent} is not a directory; create it first"
        )
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out={str(out)!r}: {out.parent} is not writable; choose another")


def _open(workdir: Path) -> tuple[ArrayFile, dict[str, Any]]:
    """The arrays of the run and its config."""
    field = f"--workdir={str(workdir)!r}"
    if not workdir.is_dir():
        what = "it is a file" if workdir.exists() else "there is no such directory"
        raise FileNotFoundError(f"{field} contains no run: {what}")
    with errors.naming_path(field, workdir):
        file = run_weights.open_run(workdir)
    config = run_weights.read_config(workdir)
    if not config:
        raise ValueError(
            f"{field} has a checkpoint but no readable config.json, so its model is unknown; "
            "restore it from a copy"
        )
    return file, config


def _create_model(config: Mapping[str, Any], file: ArrayFile) -> nn.Module:
    """The model of the config, which must have the arrays of the file.

    Raises:
      KeyError, TypeError, ValueError: it has other arrays, or the config describes no model.
    """
    options = dict(config["model"])
    (classes,) = file.shapes["params/head/bias"]
    model = models.create_model(options.pop("name"), num_classes=classes, **options)
    sides = model.image_shape or (64, 64)
    images = jax.ShapeDtypeStruct((1, *sides, infer_channels(file.shapes)), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    flat: Mapping[str, Any] = dict(traverse_util.flatten_dict(variables, sep="/"))
    ours = {path: x.shape for path, x in flat.items()}
    if differences := sorted(ours.items() ^ file.shapes.items()):
        path, _ = differences[0]
        raise ValueError(
            f"{path} is {ours.get(path, 'none')} in the config and "
            f"{file.shapes.get(path, 'none')} in the checkpoint"
        )
    return model


def _metadata(
    config: Mapping[str, Any],
    model: nn.Module,
    file: ArrayFile,
    reference: tuple[str, dict[str, Any]] | None,
) -> dict[str, str]:
    """The metadata of the file: strings, some of them JSON."""
    size = model.image_shape
    images = preprocessing.to_timm(config["data"], size=size)
    images["num_classes"] = model.num_classes
    if size is not None:
        images["input_size"] = [infer_channels(file.shapes), *size]
    name, arguments = reference or ("", {})
    return {
        "format": "pt",  # as in safetensors that PyTorch writes
        "timm.model": name,
        "timm.arguments": json.dumps(arguments),
        "num_classes": str(model.num_classes),
        model_info.PREPROCESSING: json.dumps(images),
        "source": file.title,
        model_info.OPTIONS: json.dumps(config["model"]),
        "pnoise_jax.version": importlib.metadata.version("pnoise_jax"),
    }


def _write(out: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes the file completely or not at all."""
    try:
        with writing.creating(out) as temporary:
            save_file(tensors, temporary, metadata=metadata)
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)  # safetensors makes it readable only by the owner
    except FileExistsError:
        _require_new(out)
        raise
    except Exception as error:  # safetensors has no OSError of its own
        raise OSError(
            f"--out={str(out)!r} cannot be written ({error}): choose a writable directory with "
            "enough free space"
        ) from error
