"""Warns if a model was trained on some of the examples that it is evaluated on."""

import contextlib
from pathlib import Path

import ml_collections

from pnoise_jax import data, weights
from pnoise_jax.runs import stored_arrays
from pnoise_jax.training.experiment import Experiment
from pnoise_jax.training.run_files import data_version, run_config


def describe_overlap(
    experiment: Experiment, stored: ml_collections.ConfigDict, path: Path
) -> tuple[str, ...]:
    """Warnings if the run, or one that it started from, has learned from test examples.

    The images of another data set, or of another directory, are compared only if there are few (see
    `data.count_shared`) and the training images can still be read. If the data have changed since
    the training, it is unknown which examples of a split the run has learned from.

    Args:
      experiment: the experiment to evaluate.
      stored: the config of the run.
      path: the work directory of the run.
    """
    if experiment.task.describe_data().get("source") is not None:
        return ()  # the run learns from the target's images without their labels
    overlap = _describe(experiment, stored, path)
    return (*overlap, *describe_overlap_of_weights(experiment, stored.weights))


def describe_overlap_of_weights(experiment: Experiment, source: str | None) -> tuple[str, ...]:
    """As `describe_overlap`, for weights of a run on this machine; () for any other weights.

    Args:
      experiment: the experiment to evaluate.
      source: the value of `config.weights`.
    """
    notes: list[str] = []
    seen: set[Path] = set()
    while (run := _run_of(source)) is not None and run not in seen:
        seen.add(run)
        try:
            stored = run_config.read_config(run)
            whose = f" of the run in {run}, from which the weights come"
            notes += _describe(experiment, stored, run, whose=whose)
        except (ValueError, OSError):  # its config or data are gone, so nothing is known
            break
        source = stored.weights
    return tuple(notes)


def _run_of(source: str | None) -> Path | None:
    """The work directory of the run whose weights these are; None if they are from elsewhere."""
    if source is None or weights.is_remote(source):
        return None
    path = Path(source).expanduser()
    checkpoint = stored_arrays.find_checkpoint(path) if path.is_dir() else None
    return None if checkpoint is None else checkpoint.parent.parent


def _describe(
    experiment: Experiment, stored: ml_collections.ConfigDict, path: Path, *, whose: str = ""
) -> tuple[str, ...]:
    learned = _load_trained(experiment, stored, path)
    if learned is None:
        return ()
    tested, trained = experiment.config.data, stored.data
    scored = experiment.load(split=tested.test_split, cache=False)  # as stored, like the other
    shared = data.count_shared(scored, learned)
    if not shared:
        return _describe_unknown(scored, learned, path, whose)
    named = f"data.name={trained.name!r}, " if tested.name != trained.name else ""
    return (
        f"note: {shared} of the {len(experiment.test_data)} test examples are training examples"
        f"{whose}, or copies of some ({named}data.train_split={trained.train_split!r}, "
        f"data.test_split={tested.test_split!r}), so the accuracy says little about new examples",
    )


def _describe_unknown(
    scored: data.Dataset, learned: data.Dataset, path: Path, whose: str
) -> tuple[str, ...]:
    """A warning if both are parts of one split, which has changed since the run was trained."""
    is_one = scored.name == learned.name and {x for x, _ in scored.parts} & {
        x for x, _ in learned.parts
    }
    noted = data_version.read(path)
    if not is_one or not data_version.have_other_content(noted, {"content": learned.content}):
        return ()
    return (
        f"note: the files or arrays of data.name={scored.name!r} have changed since the training"
        f"{whose}, so some examples of data.test_split={scored.split!r} may be training examples: "
        "the accuracy may say little about new examples",
    )


def _load_trained(
    experiment: Experiment, stored: ml_collections.ConfigDict, path: Path
) -> data.Dataset | None:
    """The examples that the run was trained on; None if they cannot be compared."""
    tested, trained = experiment.config.data, stored.data
    if tested.name != trained.name or tested.data_dir != trained.data_dir:
        count = data_version.read(path).get("train_examples")
        if count is not None and data.can_compare_images(count + len(experiment.test_data)):
            with contextlib.suppress(ValueError, OSError):  # gone, or on another machine
                return data.load(
                    trained.name,
                    split=trained.train_split,
                    data_dir=trained.data_dir,
                    cache=False,
                )
    if tested.name != trained.name:
        return None
    parts = data.load_parts(tested.name, split=trained.train_split, data_dir=tested.data_dir)
    if not data.can_compare_images(len(parts) + len(experiment.test_data)):
        return parts  # enough to compare positions, and a training split may be huge
    return experiment.load(split=trained.train_split, cache=False)
