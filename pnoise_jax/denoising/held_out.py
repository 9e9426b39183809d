"""Checks that weights never learned held-out classes, nor training the test images."""

from collections.abc import Sequence
from pathlib import Path

from pnoise_jax import data, training, weights
from pnoise_jax.data import class_names
from pnoise_jax.runs import stored_arrays
from pnoise_jax.training import data_version


def require_unseen_by_weights(source: str, held_out: Sequence[str]) -> None:
    """Raises ValueError unless the weights come from a run that also held out these classes.

    A path that does not exist passes: starting from it fails anyway, and a resumed run was checked
    when it started. If that run itself started from weights, they were checked in the same way.

    Args:
      source: the value of `config.weights`.
      held_out: the names of the classes, or their labels as strings if they have no names.
    """
    path = Path(source).expanduser()
    if not path.exists() and not weights.is_remote(source):
        return
    checkpoint = stored_arrays.find_checkpoint(path) if path.is_dir() else None
    if checkpoint is None:
        said, theirs = "their training data are unknown", ()
    else:
        theirs = _held_out_by(checkpoint.parent.parent)
        said = f"that run held out {', '.join(map(repr, theirs)) or 'no class'}"
    missing = [
        name for name in held_out if not any(class_names.are_same([name], [x]) for x in theirs)
    ]
    if missing:
        raise ValueError(
            f"weights={source!r} with task.held_out_classes: the weights may have learned from the "
            f"held-out {', '.join(map(repr, missing))} ({said}); start from a run of "
            f"task.name='denoising' with task.held_out_classes={tuple(held_out)!r}, or leave "
            "weights out"
        )


def _held_out_by(run: Path) -> tuple[str, ...]:
    """Returns the names of the classes that a run held out; () if it is of another task."""
    task = training.read_config(run).task
    if task.name != "denoising" or not task.held_out_classes:
        return ()
    noted = data_version.read(run)
    names, number = noted.get("class_names"), noted.get("num_classes")
    if number is None:  # an older run, which recorded only its config
        return tuple(map(str, task.held_out_classes))
    labels = class_names.find_labels(
        task.held_out_classes, names, number=number, field="held_out_classes"
    )
    return tuple(str(label) if names is None else names[label] for label in labels)


def require_unseen_images(test: data.Dataset, learned: data.Dataset) -> None:
    """Raises ValueError if any images to be scored are in the training split.

    Args:
      test: the images to be scored.
      learned: the training split.
    """
    if shared := data.count_shared(test, learned):
        raise ValueError(
            f"data.test_split={test.split!r} of {test.name} shares {shared} images with the "
            f"training split {learned.split!r}: images that training has seen are not new normal "
            "examples; give a data.test_split without them"
        )
