"""Checks, before anything is compiled, that several hosts were started with the same run.

Hosts with different learning rates would train on, each with different values of what should be the
same array, and write checkpoints that cannot be read. Hosts with different numbers of steps would
wait for each other forever.
"""

import hashlib
import importlib.metadata
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import pnoise_jax
from pnoise_jax import data, parallel, runs
from pnoise_jax.training.configuration.config import OF_HOST
from pnoise_jax.training.configuration.fields import flatten
from pnoise_jax.training.experiment import Experiment

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
_PACKAGES += ("opencv-python-headless", "simplejpeg")  # for the same pixels
_SETTINGS = ("default_matmul_precision", "default_prng_impl", "random_seed_offset")
_SETTINGS += ("threefry_partitionable", "use_shardy_partitioner")
_SETTINGS += ("disable_jit", "optimization_level", "exec_time_optimization_effort")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
_VARIABLES += ("JAX_DISABLE_MOST_OPTIMIZATIONS",)
_EXAMPLES = 8  # the number of images of a split to compare
_LARGEST_MODULE = 10_000_000  # bytes


def require_same_run(experiment: Experiment, *, task: str) -> None:
    """Raises DisagreementError unless all hosts would do the same; all hosts must call it.

    A single host always passes.

    Args:
      experiment: the run on this host.
      task: "train", or "evaluate", which does not use the training split.

    Raises:
      DisagreementError: the hosts differ; names what differs, and on which host.
    """
    if not parallel.are_several():
        return
    facts = {"task": task} | _config(experiment)
    if task == "train":
        facts |= {"steps in all": str(experiment.total_steps)}
        facts |= _split("training split", experiment.train_data, experiment.train_data.images)
    facts |= _split("test split", experiment.test_data, experiment.test_data.stored_images)
    facts |= {"shapes of the parameters": _digest(str(experiment.variables))}
    facts |= _software()
    parallel.require_agreement(facts, where_known=dict(_loaded_modules()))


def require_shared_workdir(workdir: str | os.PathLike, *, make: bool) -> None:
    """Raises DisagreementError unless all hosts see the same work directory; all must call it.

    Args:
      workdir: the value of the flag.
      make: create the directory. Otherwise, one that exists on no host passes here, and a later
        check reports it.

    Raises:
      DisagreementError: some host does not see what host 0 writes there.
      OSError: the directory is not writable.
    """
    if not parallel.are_several():
        return
    path = runs.RunDirectory.at(workdir).path
    if not make and not parallel.on_any_host(path.is_dir()):
        return
    parallel.on_all_hosts(lambda: runs.make_writable(workdir, may_be_in_bucket=True))
    parallel.require_shared_directory(path, flag="workdir")


def _config(experiment: Experiment) -> dict[str, str]:
    # More than may not change when a run is resumed, since all hosts evaluate and save at the same
    # steps. The path of weights may differ between hosts: their content is compared.
    fields = {
        field: repr(value)
        for field, value in flatten(experiment.config)
        if not field.startswith(OF_HOST) and field != "weights"
    }
    return fields | {"weights": "none" if experiment.config.weights is None else "some"}


def _split(which: str, dataset: data.Dataset, images) -> dict[str, str]:
    places = np.linspace(0, len(dataset) - 1, min(_EXAMPLES, len(dataset)), dtype=int)
    parts = [images[int(i)] for i in places]
    sets = dataset.labels[:0] if dataset.label_sets is None else dataset.label_sets
    return {
        f"{which}, examples": str(len(dataset)),
        f"{which}, classes": str(dataset.num_classes),
        f"{which}, digest of the class names": _digest(repr(dataset.class_names)),
        f"{which}, digest of the labels": _digest(dataset.labels.tobytes(), sets.tobytes()),
        f"{which}, digest of {len(parts)} images": _digest(
            *(part if isinstance(part, bytes) else np.asarray(part).tobytes() for part in parts)
        ),
    }


def _software() -> dict[str, str]:
    """Versions, settings that affect results, devices, and digests of this package's code."""
    kind = jax.local_devices()[0].device_kind
    facts = {f"{name} version": _version(name) for name in ("pnoise-jax", *_PACKAGES)}
    facts |= {
        f"jax_{name}": str(getattr(jax.config, f"jax_{name}", "unknown")) for name in _SETTINGS
    }
    for name in _VARIABLES:
        words = os.environ.get(name, "").split()
        facts[name] = repr(" ".join(w for w in words if not w.startswith("--xla_dump")))
    facts["devices of the host"] = f"{jax.local_device_count()} x {kind}"
    root = Path(pnoise_jax.__file__).parent
    for file in sorted(root.rglob("*.py")):
        facts[f"code of pnoise_jax/{file.relative_to(root)}"] = _digest(file.read_bytes())
    return facts


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _loaded_modules() -> Iterator[tuple[str, str]]:
    """Digests of imported modules outside installed packages, such as a user's models.

    They may be loaded on some hosts only, for example by a debugger.
    """
    paths = sysconfig.get_paths()
    installed = tuple({paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        known = name == "__mp_main__" or name.partition(".")[0] == "pnoise_jax"
        if not file or known or file.startswith(installed) or not os.path.isfile(file):
            continue
        if os.path.getsize(file) <= _LARGEST_MODULE:
            yield f"code of module {name}", _digest(Path(file).read_bytes())


def _digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
    return total.hexdigest()[:12]
