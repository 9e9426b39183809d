"""Classes of two sources compared by their names, wherever both know them."""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pnoise_jax.registry import did_you_mean

Names = Sequence[str] | None

_WNID = re.compile(r"n[0-9]{8}")  # a synset of WordNet, as ImageNet names its classes
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


class DifferentClassesError(ValueError):
    """Classes of other names."""


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """How our classes are found among theirs.

    Attributes:
      kind: "same": the same names in the same order. "mapped": theirs has all our names, but under
        other numbers. "unknown": one of the two has no names, or names of another kind.
      order: (ours,), the number of each of our classes among theirs.
    """

    kind: Literal["same", "mapped", "unknown"]
    order: np.ndarray


def are_numbers(names: Names) -> bool:
    """Whether names are the labels themselves, 0, 1, …, as TFDS gives them to unnamed classes."""
    return names is not None and all(name == str(i) for i, name in enumerate(names))


def misnumbered(names: Names) -> int | None:
    """The first label that contradicts its name, where names are the numbers 0, 1, … in disorder.

    So they are where somebody has sorted the folders 0 to 999 of ImageNet-V2 as strings: label 2
    is then class 10.
    """
    if names is None or are_numbers(names):
        return None
    if sorted(names) != sorted(map(str, range(len(names)))):
        return None
    return next(label for label, name in enumerate(names) if name != str(label))


def match_classes(theirs: Names, ours: Names, *, whose: str, number: int) -> Match:
    """Finds our classes among theirs by name.

    Numbers 0, 1, … are no names, unless the other side has numbers, too. Synsets (n01440764) and
    words are names of two kinds, and say nothing about each other. A name that several classes
    have, as "crane" of ImageNet, tells only that a class has not changed its number.

    Args:
      theirs: names by label, such as a run's; None where they are not known.
      ours: names by label.
      whose: in messages, "the run in …" and "data.name=…", joined by "and".
      number: of our classes.

    Raises:
      DifferentClassesError: ours has names that theirs lacks; the error lists them. Or several
        classes have one name, under other numbers. Or one has the numbers 0, 1, … for names, in
        another order, and the other has none, or names of another kind.
    """
    unknown = Match("unknown", np.arange(number))
    _refuse_misnumbered(theirs, ours, whose)
    if theirs is None or ours is None:
        return unknown
    theirs, ours = _normal(theirs), _normal(ours)
    if theirs == ours:
        return Match("same", np.arange(number))
    if (are_numbers(theirs) or are_numbers(ours)) and not _all(NUMBER, [*theirs, *ours]):
        return unknown
    if _are_two_kinds(theirs, ours):
        return unknown
    label_of = {name: label for label, name in enumerate(theirs)}
    missing = [name for name in ours if name not in label_of]
    if missing:
        raise DifferentClassesError(
            f"{whose} have other classes: {_listed(missing)} of the latter "
            f"{'is' if len(missing) == 1 else 'are'} not among the {len(theirs)} of the former "
            f"({_listed(theirs)})"
        )
    order = np.array([label_of[name] for name in ours])
    for names in (theirs, ours):
        for label in _repeated(names):
            name = names[label]
            if name in ours and not _agree(theirs, ours, label):
                raise DifferentClassesError(
                    f"{whose} have several classes called {name!r}, which cannot be told apart, as "
                    "not all have the same number in both: give each class a name of its own"
                )
            if name in ours:
                order[label] = label
    return Match("mapped", order)


def find_labels(
    classes: Sequence[int | str], names: Names, *, number: int, field: str
) -> tuple[int, ...]:
    """The labels of classes, ascending and each once.

    Args:
      classes: each by its name, a text, or by its label, a number.
      names: of all classes; None where they are not known.
      number: of all classes.
      field: the config's, for errors.

    Raises:
      ValueError: it is no list, or there is no such class.
    """
    if isinstance(classes, str | int) or not isinstance(classes, Sequence):
        raise ValueError(
            f"{field}={classes!r}: give a list of classes, such as ({classes!r},); or () for none"
        )
    known = None if names is None else list(_normal(names))
    return tuple(sorted({_find_label(each, known, number, field) for each in classes}))


def _find_label(given: int | str, names: list[str] | None, number: int, field: str) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        if 0 <= given < number:
            return given
        raise ValueError(f"{field}: there is no class {given}; labels are 0 to {number - 1}")
    if not isinstance(given, str):
        raise ValueError(f"{field}: {given!r} is neither the name of a class nor its label")
    if names is None:
        raise ValueError(
            f"{field}: the data set does not name its classes, so {given!r} is not known; give "
            f"labels, numbers from 0 to {number - 1}"
        )
    (name,) = _normal([given])
    if name not in names:
        raise ValueError(f"{field}: there is no class {given!r}{did_you_mean(given, names)}")
    if names.count(name) > 1:
        raise ValueError(f"{field}: several classes are called {given!r}; give a label, a number")
    return names.index(name)


def describe_order(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """The first class that has another number: "'10' is class 2 there and 10 here"."""
    theirs, ours = _normal(theirs), _normal(ours)
    different = ((i, x) for i, x in enumerate(theirs) if list(ours[i : i + 1]) != [x])
    there, name = next(different, ("none", ours[-1]))  # none of theirs: ours are more
    here = ours.index(name) if name in ours else "none"
    return f"{name!r} is class {there} there and {here} here"


def are_same(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether names are the same in the same order, in whatever Unicode form."""
    return _normal(theirs) == _normal(ours)


def _refuse_misnumbered(theirs: Names, ours: Names, whose: str) -> None:
    """Raises DifferentClassesError where labels would be compared that contradict their names."""
    for names, others in ((theirs, ours), (ours, theirs)):
        label = misnumbered(names)
        if label is None or (others is not None and _all(NUMBER, others)):
            continue
        assert names is not None, "None is not misnumbered"
        raise DifferentClassesError(
            f"{whose} cannot be compared by number: on one side label {label} is the class called "
            f"{names[label]!r}, as where folders 0, 1, 2, … are sorted as strings, and the other "
            "side does not name its classes so. Prepare the data set again, in the order of the "
            "numbers (imagenet_v2 is: python -m launch.prepare --dataset imagenet_v2/…)"
        )


def _agree(theirs: Sequence[str], ours: Sequence[str], label: int) -> bool:
    """Whether a number stands for one name in both."""
    return list(theirs[label : label + 1]) == list(ours[label : label + 1])


def _repeated(names: Sequence[str]) -> list[int]:
    """The numbers of classes whose names others have, too."""
    count = collections.Counter(names)
    return [label for label, name in enumerate(names) if count[name] > 1]


def _normal(names: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in names]


def _are_two_kinds(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether one has synsets, and the other none."""
    return any(
        _all(_WNID, some) and not any(map(_WNID.fullmatch, others))
        for some, others in ((theirs, ours), (ours, theirs))
    )


def _all(pattern: re.Pattern[str], names: Sequence[str]) -> bool:
    return all(map(pattern.fullmatch, names))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name) for name in names[:5]) + more
