"""Classes compared by name."""

import unicodedata

import numpy as np
import pytest

from pnoise_jax.data import class_names
from pnoise_jax.data.class_names import (
    DifferentClassesError,
    are_numbers,
    describe_order,
    match_classes,
)

DIGITS = [str(i) for i in range(12)]
BY_CODE_POINTS = sorted(DIGITS)


def match(theirs, ours):
    return match_classes(theirs, ours, whose="one and the other", number=len(ours or theirs or []))


@pytest.mark.parametrize(
    ("theirs", "ours", "kind", "order"),
    [
        (["cat", "dog"], ["cat", "dog"], "same", [0, 1]),
        (("cat", "dog"), ["dog", "cat"], "mapped", [1, 0]),
        (["cat", "dog", "owl"], ["owl", "cat"], "mapped", [2, 0]),
        (["caf\u00e9", "b"], [unicodedata.normalize("NFD", "café"), "b"], "same", [0, 1]),
        (BY_CODE_POINTS, DIGITS, "mapped", [BY_CODE_POINTS.index(x) for x in DIGITS]),
        (DIGITS, DIGITS, "same", list(range(12))),
        # One of the two has no names.
        (None, ["cat", "dog"], "unknown", [0, 1]),
        (["cat", "dog"], None, "unknown", [0, 1]),
        (["0", "1"], ["dog", "cat"], "unknown", [0, 1]),
        (["dog", "cat"], ["0", "1"], "unknown", [0, 1]),
        # Words and synsets cannot be compared.
        (["n01440764", "n01443537"], ["goldfish", "tench"], "unknown", [0, 1]),
        (["n01443537", "n01440764"], ["n01440764", "n01443537"], "mapped", [1, 0]),
        # Two classes of one name are told apart by numbers that have not changed.
        (
            ["crane", "owl", "crane", "cat"],
            ["crane", "cat", "crane", "owl"],
            "mapped",
            [0, 3, 2, 1],
        ),
        (["crane", "owl", "crane", "cat"], ["cat", "owl"], "mapped", [3, 1]),
    ],
)
def test_matching(theirs, ours, kind, order):
    matched = match(theirs, ours)
    assert matched.kind == kind
    np.testing.assert_array_equal(matched.order, order)


@pytest.mark.parametrize("others", [None, [f"n{i:08d}" for i in range(12)], ["a"] * 12])
def test_numbers_that_were_sorted_as_strings_are_not_compared_by_number(others):
    """As torchvision's ImageFolder sorts those of ImageNet-V2."""
    for theirs, ours in ((others, BY_CODE_POINTS), (BY_CODE_POINTS, others)):
        with pytest.raises(DifferentClassesError, match="label 2 is the class called '10'"):
            match(theirs, ours)
    assert match(others, DIGITS).kind == "unknown"
    assert match(BY_CODE_POINTS, BY_CODE_POINTS).kind == "same"


@pytest.mark.parametrize(
    ("theirs", "ours", "missing"),
    [
        (["cat", "dog"], ["cat", "fox"], "'fox' of the latter is not among the 2"),
        (["cat", "dog"], ["Cat", "dog"], "'Cat' of the latter is not"),
        (["a", "b"], ["c", "d"], "'c', 'd' of the latter are not"),
        (["0", "1"], ["3", "4"], "'3', '4' of the latter are not"),
        (["n01443537", "n01440764"], ["n01440764", "other"], "'other' of the latter is not among"),
        (["cat", "cat"], ["cat", "dog"], "'dog' of the latter is not among the 2"),
        (["n01440764", "n01443537"], ["n01440764", "tench"], "'tench' of the latter is not"),
        (["a", "b"], ["a", "\x1b[2J"], r"'\x1b[2J' of the latter is not"),
    ],
)
def test_other_classes_are_listed(theirs, ours, missing):
    with pytest.raises(DifferentClassesError) as error:
        match(theirs, ours)
    assert str(error.value).startswith("one and the other have different classes: ")
    assert missing in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["crane", "crane", "owl"], ["owl", "crane", "crane"]),
        (["crane", "crane", "owl"], ["owl", "crane"]),
        (["crane", "cat", "owl"], ["crane", "crane", "owl"]),
    ],
)
def test_classes_of_one_name_that_have_moved_are_refused(theirs, ours):
    with pytest.raises(DifferentClassesError, match="one and the other have several classes calle"):
        match(theirs, ours)


def test_many_other_classes_are_counted():
    with pytest.raises(DifferentClassesError, match=r"'a0', 'a1', 'a2', 'a3', 'a4' and 15 more of"):
        match([f"b{i}" for i in range(20)], [f"a{i}" for i in range(20)])


def test_numbers_in_order_are_not_names():
    assert are_numbers(DIGITS)
    assert not are_numbers(BY_CODE_POINTS)
    assert not are_numbers(None)


def test_the_first_difference_is_described():
    assert describe_order(BY_CODE_POINTS, DIGITS) == "'10' is class 2 there and 10 here"
    assert describe_order(["a", "b"], ["a", "b", "c"]) == "'c' is class none there and 2 here"
    assert describe_order(["a", "b", "c"], ["a", "b"]) == "'c' is class 2 there and none here"
    assert describe_order(["a", "b"], ["a", "c"]) == "'b' is class 1 there and none here"
    assert describe_order(["a", "b"], ["b"]) == "'a' is class 0 there and none here"


NAMED = ("zwei", "eins", "café", "eins")


def test_classes_are_found_by_name_or_label():
    def find(*classes, names=NAMED):
        return class_names.find_labels(classes, names, number=4, field="held_out")

    assert find("zwei", 3, "zwei", 0) == (0, 3)
    assert find() == ()
    assert find("cafe\N{COMBINING ACUTE ACCENT}") == (2,)
    assert find(1, names=None) == (1,)
    assert find("1", names=("0", "2", "1", "3")) == (2,)  # the name, whatever its label


@pytest.mark.parametrize(
    ("classes", "names", "message"),
    [
        (("drei",), NAMED, "held_out: there is no class 'drei'"),
        (("zwie",), NAMED, "did you mean 'zwei'"),
        (("eins",), NAMED, "several classes are called 'eins'; give the label"),
        (("1",), None, "does not name its classes, so '1' is unknown; give labels"),
        ((4,), NAMED, "there is no class 4; labels are 0 to 3"),
        ((None,), NAMED, "None is neither the name"),
        ("zwei", NAMED, r"held_out='zwei': give a list of classes, such as \('zwei',\)"),
        (3, NAMED, "held_out=3: give a list"),
        (None, NAMED, "held_out=None: give a list"),
    ],
)
def test_classes_that_do_not_exist_are_named(classes, names, message):
    with pytest.raises(ValueError, match=message):
        class_names.find_labels(classes, names, number=4, field="held_out")
