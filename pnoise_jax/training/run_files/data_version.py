"""Records, next to a run's config, the version and the classes of the data set that it used.

The config contains only the data set's name. Another version, or another data set of that name in a
different directory, may use the same labels for other classes. A run must not be resumed with such
data, nor evaluated on them unless the classes can be matched by name.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax import data, writing
from pnoise_jax.data import class_names
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training.experiment import Experiment

_UNNOTED = "1.0.0"  # the version that runs older than these notes have used


def describe(experiment: Experiment) -> dict[str, Any]:
    """The note on a run's data: its version and classes, the number of training examples, etc."""
    dataset, names = experiment.test_data, experiment.test_data.class_names
    return {
        "name": dataset.name,
        "version": dataset.version,
        "num_classes": dataset.num_classes,
        "class_names": None if names is None else list(names),
        "train_examples": len(experiment.train_data),
        "content": experiment.train_data.content,
        **_mean_image(experiment),
        **experiment.task.describe_data(),
    }


def _mean_image(experiment: Experiment) -> dict[str, str]:
    """The digest of the mean image, as the config contains only its path; {} without one."""
    mean = experiment.mean
    return {"mean_image": mean.digest} if isinstance(mean, data.MeanImage) else {}


def note(
    path: Path, config: ml_collections.ConfigDict, described: dict[str, Any] | None = None
) -> None:
    """Writes the note on the data in use.

    Args:
      path: a work directory.
      config: the run's config.
      described: the note from `describe`; without it, only the version of an embedded data set is
        noted.
    """
    version = data.embedded_version(config.data.name)
    file = RunDirectory(path).data
    if version is None and described is None:
        file.unlink(missing_ok=True)
    else:
        named = {"name": config.data.name, "version": version}
        writing.replace_file(file, json.dumps(named if described is None else described) + "\n")


def read(path: Path) -> dict[str, Any]:
    """The note in a work directory; {} if there is none.

    Raises:
      ValueError: the note cannot be read.
    """
    file = RunDirectory(path).data
    try:
        noted = json.loads(file.read_text())
        names = noted.get("class_names")
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if names is not None and not (names and is_list):
            raise TypeError(f"class_names={names!r}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}), so the classes of the run are unknown: restore it "
            "from a copy, or delete it"
        ) from None
    return noted


def check(
    path: Path,
    stored: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    described: dict[str, Any] | None = None,
) -> None:
    """Checks that the run in ``path`` used the data that ``config`` would use.

    Args:
      path: a work directory.
      stored: the config there.
      config: the new config; if it names another data set, nothing is compared.
      described: the note on the new config's data, if the run is to be resumed.

    Raises:
      ValueError: the run used another version of an embedded data set; or, with `described`, its
        data had other classes, another number of examples or other content than the data of this
        name now.
    """
    if stored.data.name != config.data.name:
        return
    noted, now = read(path), data.embedded_version(config.data.name)
    then = noted.get("version", _UNNOTED)
    if now is not None and then != now:
        raise ValueError(
            f"--workdir={str(path)!r} has used data.name={config.data.name!r} in version {then}, "
            f"but this program has version {now}, whose classes may differ: choose another "
            "directory, or delete this one"
        )
    if described is not None:
        _require_same(path, noted, described)


def _require_same(path: Path, noted: dict[str, Any], described: dict[str, Any]) -> None:
    """Raises ValueError unless a resumed run would use the same classes and examples."""
    named = f"data.name={described['name']!r}"
    theirs, ours = noted.get("class_names"), described["class_names"]
    fix = "set data.data_dir to the data that the run has used, or choose another directory"
    if theirs is not None and ours is not None and not class_names.are_same(theirs, ours):
        raise ValueError(
            f"--workdir={str(path)!r} has used {named} with other classes, or in another order "
            f"({class_names.describe_order(theirs, ours)}): {fix}"
        )
    if noted:
        _require_same_source(path, noted.get("source"), described.get("source"), fix)
    then, now = noted.get("train_examples"), described["train_examples"]
    if then is not None and then != now:
        raise ValueError(
            f"--workdir={str(path)!r} has trained on {then} examples of {named}, but there are "
            f"{now} now: {fix}"
        )
    if _differ(noted, described, "mean_image"):
        raise ValueError(
            f"--workdir={str(path)!r} has subtracted another mean image than the one in the file "
            "of data.mean_image now: restore that file, or choose another directory"
        )
    if have_other_content(noted, described):
        raise ValueError(
            f"--workdir={str(path)!r} has trained on other files or arrays of {named} than there "
            f"are now, or they were prepared again: {fix}"
        )


def _require_same_source(
    path: Path, theirs: dict[str, Any] | None, ours: dict[str, Any] | None, fix: str
) -> None:
    """Raises ValueError unless a run with a source data set would use the same source again."""
    named, without = f"--workdir={str(path)!r} has learned from", {"content": None}
    if (theirs or {}) | without != (ours or {}) | without:
        raise ValueError(
            f"{named} {_in_words(theirs)}, but now the source is {_in_words(ours)}: {fix}"
        )
    if theirs and ours and have_other_content(theirs, ours):
        raise ValueError(
            f"{named} other files of the source {ours['name']!r} than there are now, or they were "
            f"prepared again: {fix}"
        )


def have_other_content(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether two notes show different contents; older notes do not include the content."""
    return _differ(theirs, ours, "content")


def _differ(theirs: dict[str, Any], ours: dict[str, Any], fact: str) -> bool:
    """Whether two notes both include a fact, and differ in it."""
    then, now = theirs.get(fact), ours.get(fact)
    return then is not None and now is not None and then != now


def _in_words(source: dict[str, Any] | None) -> str:
    if source is None:
        return "no other data set"
    return (
        f"{source['name']!r} (version {source['version']}, {source['train_examples']} examples, "
        f"{len(source['class_names'])} classes)"
    )


def describe_changes(
    experiment: Experiment, stored: ml_collections.ConfigDict, path: Path
) -> tuple[str, ...]:
    """Warnings if an evaluation prepares images differently from training.

    Args:
      experiment: the experiment to evaluate.
      stored: the config of the run.
      path: the work directory of the run.
    """
    sentences, config = [], experiment.config
    for field in ("mean", "std", "mean_image", "test_transform"):
        ours, theirs = config.data.get(field), stored.data.get(field)
        if _plain(ours) != _plain(theirs):
            sentences.append(
                f"note: data.{field}={ours!r}, but the run was trained with {theirs!r}: its "
                "accuracy may differ for this reason alone"
            )
    if _differ(read(path), _mean_image(experiment), "mean_image"):
        sentences.append(
            f"note: the file data.mean_image={config.data.mean_image!r} is another mean image than "
            "the run was trained with: its accuracy may differ for this reason alone"
        )
    return tuple(sentences)


def _plain(value: Any) -> Any:
    """A number as a tuple of one, so that both ways to write a mean compare equal."""
    return (float(value),) if isinstance(value, int | float) else value


def unnoted(path: Path, described: dict[str, Any]) -> tuple[str, ...]:
    """A note if a resumed run has not noted the classes that it started with."""
    if read(path).get("class_names") is not None:
        return ()
    return _unknown(None, described["class_names"], f"data.name={described['name']!r}")


def require_same(path: Path, experiment: Experiment) -> None:
    """Checks that a run trained now would use the same data as an existing run.

    Args:
      path: the work directory of the existing run.
      experiment: the new run, with the same config except for the seed.

    Raises:
      ValueError: the classes, their order, the number of examples or the content differ.
    """
    _require_same(path, read(path), describe(experiment))


def match_run(experiment: Experiment, path: Path) -> tuple[Experiment, tuple[str, ...]]:
    """Renumbers the test labels of an experiment to match the classes of a run.

    Args:
      experiment: the experiment to evaluate; its training split is not used.
      path: the work directory of the run.

    Returns:
      The experiment, and a sentence for the user if the classes were not identical.

    Raises:
      ValueError: the run and the test set have different classes; lists those that the run lacks.
    """
    dataset, theirs = experiment.test_data, read(path).get("class_names")
    named = f"data.name={dataset.name!r}"
    whose = f"The run in {path} and {named}"
    if theirs is not None and len(theirs) != dataset.num_classes:
        raise ValueError(
            f"{whose} have {len(theirs)} and {dataset.num_classes} classes: evaluate the run on "
            "data with its classes"
        )
    try:
        matched = class_names.match_classes(
            theirs, dataset.class_names, whose=whose, number=dataset.num_classes
        )
    except class_names.DifferentClassesError as error:
        raise ValueError(
            f"{error}: a label would mean one class to the run and another in the data. Evaluate "
            "the run on data with its classes, or set data.data_dir to the directory with such "
            "data"
        ) from None
    if matched.kind == "same":
        return experiment, ()
    if matched.kind == "unknown" or theirs is None or dataset.class_names is None:
        return experiment, _unknown(theirs, dataset.class_names, named)
    sentence = (
        f"note: {named} has the run's classes in another order "
        f"({class_names.describe_order(theirs, dataset.class_names)}): labels are matched by name"
    )
    relabelled = dataset.relabelled(matched.order, theirs)
    return dataclasses.replace(experiment, test_data=relabelled), (sentence,)


def _unknown(theirs: class_names.Names, ours: class_names.Names, named: str) -> tuple[str, ...]:
    if theirs is None:
        if ours is None or class_names.are_numbers(ours):
            return ()  # there is nothing to compare with
        reason = "the run has not noted the names of its classes"
    elif ours is None or class_names.are_numbers(ours):
        reason = f"the classes of {named} have numbers, but the run's have names"
    elif class_names.are_numbers(theirs):
        reason = f"the run's classes have numbers, but those of {named} have names"
    else:
        reason = f"the run and {named} name their classes in different ways"
    return (f"note: {reason}, so labels are compared by number alone",)
