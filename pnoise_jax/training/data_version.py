"""Which data set a run has used: its version and classes, noted beside its config.

The config names the data set alone. Another version of it, or what stands under its name in another
directory, may have other classes under the same labels, so that a run must not go on with it, nor
be evaluated on it unless the classes are found by their names.
"""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax import data, writing
from pnoise_jax.data import class_names
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training.experiment import Experiment

_UNNOTED = "1.0.0"  # what runs have used that are older than these notes


def describe(experiment: Experiment) -> dict[str, Any]:
    """What is noted of a run's data: its classes, and how many examples it trains on."""
    dataset, names = experiment.test_data, experiment.test_data.class_names
    return {
        "name": dataset.name,
        "version": dataset.version,
        "num_classes": dataset.num_classes,
        "class_names": None if names is None else list(names),
        "train_examples": len(experiment.train_data),
        "content": experiment.train_data.content,
        **experiment.task.describe_data(),
    }


def note(
    path: Path, config: ml_collections.ConfigDict, described: dict[str, Any] | None = None
) -> None:
    """Writes down the data in use.

    Args:
      path: a work directory.
      config: of the run.
      described: as `describe` gives it; without it only the version of an embedded data set is.
    """
    version = data.embedded_version(config.data.name)
    file = RunDirectory(path).data
    if version is None and described is None:
        file.unlink(missing_ok=True)
    else:
        named = {"name": config.data.name, "version": version}
        writing.replace_file(file, json.dumps(named if described is None else described) + "\n")


def read(path: Path) -> dict[str, Any]:
    """What was noted in a work directory; {} where nothing was.

    Raises:
      ValueError: it cannot be read.
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
            f"{file} cannot be read ({error}), so it is not known which classes the run has: "
            "restore it from a copy, or delete it"
        ) from None
    return noted


def check(
    path: Path,
    stored: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    described: dict[str, Any] | None = None,
) -> None:
    """Checks that what was done in ``path`` used the data that ``config`` would use.

    Args:
      path: a work directory.
      stored: its config.
      config: the one asked for; with another data set there is nothing to compare.
      described: what the data of the one asked for is, where it is to be gone on with.

    Raises:
      ValueError: it used another version of an embedded data set; or its data had other classes,
        or another number of examples, than what goes by this name now.
    """
    if stored.data.name != config.data.name:
        return
    noted, now = read(path), data.embedded_version(config.data.name)
    then = noted.get("version", _UNNOTED)
    if now is not None and then != now:
        raise ValueError(
            f"--workdir={str(path)!r} has used data.name={config.data.name!r} in version {then}, "
            f"and this program has version {now}, whose classes may be others: choose another "
            "directory, or delete this one"
        )
    if described is not None:
        _require_same(path, noted, described)


def _require_same(path: Path, noted: dict[str, Any], described: dict[str, Any]) -> None:
    """What goes on, goes on with the same classes and the same examples."""
    named = f"data.name={described['name']!r}"
    theirs, ours = noted.get("class_names"), described["class_names"]
    fix = "set data.data_dir to the data it has used, or choose another directory"
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
            f"--workdir={str(path)!r} has trained on {then} examples of {named}, and there are "
            f"{now} now: {fix}"
        )
    if _have_other_content(noted, described):
        raise ValueError(
            f"--workdir={str(path)!r} has trained on other files or arrays of {named} than there "
            f"are now, or they were prepared anew: {fix}"
        )


def _require_same_source(
    path: Path, theirs: dict[str, Any] | None, ours: dict[str, Any] | None, fix: str
) -> None:
    """Of a run that learns from another data set as well."""
    named, without = f"--workdir={str(path)!r} has learned from", {"content": None}
    if (theirs or {}) | without != (ours or {}) | without:
        raise ValueError(
            f"{named} the source {_in_words(theirs)}, and it is {_in_words(ours)} now: {fix}"
        )
    if theirs and ours and _have_other_content(theirs, ours):
        raise ValueError(
            f"{named} other files of the source {ours['name']!r} than there are now, or they were "
            f"prepared anew: {fix}"
        )


def _have_other_content(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether two notes tell contents apart; older notes have none."""
    then, now = theirs.get("content"), ours.get("content")
    return then is not None and now is not None and then != now


def _in_words(source: dict[str, Any] | None) -> str:
    if source is None:
        return "of no other data set"
    return (
        f"{source['name']!r} (version {source['version']}, {source['train_examples']} examples, "
        f"{len(source['class_names'])} classes)"
    )


def describe_overlap(
    experiment: Experiment, stored: ml_collections.ConfigDict, path: Path
) -> tuple[str, ...]:
    """A sentence if test examples are among those that a run has trained on.

    Another data set, or one of the same name in another directory, is compared only if both are
    small (see `data.count_shared`) and the training images can still be read.

    Args:
      experiment: what is evaluated.
      stored: the config of the run.
      path: the work directory of the run.
    """
    if experiment.task.describe_data().get("source") is not None:
        return ()  # it learns from the images of the target without their labels
    learned = _load_trained(experiment, stored, path)
    if learned is None:
        return ()
    tested, trained = experiment.config.data, stored.data
    scored = experiment.load(split=tested.test_split, cache=False)  # as stored, like the other
    shared = data.count_shared(scored, learned)
    if not shared:
        return ()
    named = f"data.name={trained.name!r}, " if tested.name != trained.name else ""
    return (
        f"note: {shared} of the {len(experiment.test_data)} test examples are training examples, "
        f"or copies of some ({named}data.train_split={trained.train_split!r}, data.test_split="
        f"{tested.test_split!r}), so the accuracy says little about others",
    )


def _load_trained(
    experiment: Experiment, stored: ml_collections.ConfigDict, path: Path
) -> data.Dataset | None:
    """The examples that a run has trained on; None if they cannot be compared with others."""
    tested, trained = experiment.config.data, stored.data
    if tested.name != trained.name or tested.data_dir != trained.data_dir:
        count = read(path).get("train_examples")
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
    return experiment.load(split=trained.train_split, cache=False)


def describe_changes(
    config: ml_collections.ConfigDict, stored: ml_collections.ConfigDict
) -> tuple[str, ...]:
    """Sentences where images are prepared for an evaluation as they were not in training."""
    sentences = []
    for field in ("mean", "std", "mean_image", "test_transform"):
        ours, theirs = config.data.get(field), stored.data.get(field)
        if _plain(ours) != _plain(theirs):
            sentences.append(
                f"note: data.{field}={ours!r}, and the run was trained with {theirs!r}: its "
                "accuracy may differ for this reason alone"
            )
    return tuple(sentences)


def _plain(value: Any) -> Any:
    """A number as a tuple of one, so that both ways to write a mean are the same."""
    return (float(value),) if isinstance(value, int | float) else value


def unnoted(path: Path, described: dict[str, Any]) -> tuple[str, ...]:
    """A sentence where a run that goes on has not noted which classes it began with."""
    if read(path).get("class_names") is not None:
        return ()
    return _unknown(None, described["class_names"], f"data.name={described['name']!r}")


def require_same(path: Path, experiment: Experiment) -> None:
    """Checks that a run which is trained now would have the classes of one that stands there.

    Args:
      path: of the one that stands there.
      experiment: the other, of the same config but for the seed.

    Raises:
      ValueError: its classes are others, or numbered otherwise, or its examples more or fewer.
    """
    _require_same(path, read(path), describe(experiment))


def match_run(experiment: Experiment, path: Path) -> tuple[Experiment, tuple[str, ...]]:
    """An experiment whose test labels are the numbers that a run has given to the classes.

    Args:
      experiment: what is to be evaluated; its training split plays no part.
      path: the work directory of the run.

    Returns:
      The experiment, and a sentence for the user where classes were not simply the same.

    Raises:
      ValueError: it has classes that the run does not know: lists them.
    """
    dataset, theirs = experiment.test_data, read(path).get("class_names")
    named = f"data.name={dataset.name!r}"
    whose = f"The run in {path} and {named}"
    if theirs is not None and len(theirs) != dataset.num_classes:
        raise ValueError(
            f"{whose} have {len(theirs)} and {dataset.num_classes} classes: evaluate the run on "
            "data of its own classes"
        )
    try:
        found = class_names.match_classes(
            theirs, dataset.class_names, whose=whose, number=dataset.num_classes
        )
    except class_names.DifferentClassesError as error:
        raise ValueError(
            f"{error}: a label would mean one class to the run and another in the data. Evaluate "
            "it on data of its classes, or set data.data_dir to where these stand"
        ) from None
    if found.kind == "same":
        return experiment, ()
    if found.kind == "unknown" or theirs is None or dataset.class_names is None:
        return experiment, _unknown(theirs, dataset.class_names, named)
    sentence = (
        f"note: {named} has the run's classes in another order "
        f"({class_names.describe_order(theirs, dataset.class_names)}): labels are matched by name"
    )
    relabelled = dataset.relabelled(found.order, theirs)
    return dataclasses.replace(experiment, test_data=relabelled), (sentence,)


def _unknown(theirs: class_names.Names, ours: class_names.Names, named: str) -> tuple[str, ...]:
    if theirs is None:
        if ours is None or class_names.are_numbers(ours):
            return ()  # there is nothing to compare with
        reason = "the run has not noted the names of its classes"
    elif ours is None or class_names.are_numbers(ours):
        reason = f"the classes of {named} have numbers, and the run's names"
    elif class_names.are_numbers(theirs):
        reason = f"the run's classes have numbers, and those of {named} names"
    else:
        reason = f"the run and {named} name their classes in different ways"
    return (f"note: {reason}, so labels are compared by number alone",)
