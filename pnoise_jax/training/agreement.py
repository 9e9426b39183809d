"""What several hosts must have been started with alike, compared before anything is compiled.

Hosts that differ in a learning rate would train on, each with its own parameters under the name of
the same array, into checkpoints that nobody can read; hosts that differ in the number of steps
would wait for each other for ever.
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
from pnoise_jax.training.config import OF_HOST
from pnoise_jax.training.experiment import Experiment
from pnoise_jax.training.fields import flatten

# Of a config; narrower than what may change when a run goes on, as all hosts evaluate and save at
# the same steps. Weights may have another path on each host: what is read is compared.
MAY_DIFFER = (*OF_HOST, "weights")

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
_PACKAGES += ("opencv-python-headless", "simplejpeg")  # the same pixels
_SETTINGS = ("default_matmul_precision", "default_prng_impl", "random_seed_offset")
_SETTINGS += ("threefry_partitionable", "use_shardy_partitioner")
_SETTINGS += ("disable_jit", "optimization_level", "exec_time_optimization_effort")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
_VARIABLES += ("JAX_DISABLE_MOST_OPTIMIZATIONS",)
_EXAMPLES = 8  # of a split, whose images are compared
_LARGEST_MODULE = 10_000_000  # bytes


def require_same_run(experiment: Experiment, *, task: str) -> None:
    """Returns where all hosts would do the same; all of them must call it. One alone always may.

    Args:
      experiment: what this host was asked for.
      task: "train", or "evaluate", which does not touch the training split.

    Raises:
      DisagreementError: names what differs, and on which host.
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
    """Returns where all hosts see the same work directory; all of them must call it.

    Args:
      workdir: as the flag gives it.
      make: make the directory; else one that is on no host is for others to complain about.

    Raises:
      DisagreementError: some host does not see what host 0 writes there.
      OSError: it cannot be written.
    """
    if not parallel.are_several():
        return
    path = runs.RunDirectory.at(workdir).path
    if not make and not parallel.on_any_host(path.is_dir()):
        return
    parallel.on_all_hosts(lambda: runs.make_writable(workdir, may_be_in_bucket=True))
    parallel.require_shared_directory(path, flag="workdir")


def _config(experiment: Experiment) -> dict[str, str]:
    fields = {
        field: repr(value)
        for field, value in flatten(experiment.config)
        if not field.startswith(MAY_DIFFER) or field.startswith("weights_")
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
    """Versions, settings that change numbers, devices, and the code of this package."""
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
    """Digests of what else was imported and is not an installed package, such as one's own models.

    A debugger, say, may have loaded a module on one host alone.
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
