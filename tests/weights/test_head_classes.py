"""The classes of a file's head and of the data: the note if names cannot be compared."""

import types

import pytest

from pnoise_jax.weights.adapt.head import HeadClasses

NAMES, NUMBERS = ("ant", "bee", "cat"), ("0", "1", "2")


@pytest.mark.parametrize(
    ("file", "model", "said"),
    [
        (NAMES, NUMBERS, "the file has names for its classes, and the data has none"),
        (NAMES, None, "the file has names for its classes, and the data has none"),
        (None, NAMES, "the file has none of the data's class names"),
        (NUMBERS, NAMES, "the file and the data name their classes differently"),
        (NAMES, NAMES, ""),
        (None, NUMBERS, ""),
        (None, None, ""),
    ],
)
def test_a_note_says_why_classes_are_compared_by_number(file, model, said):
    classes = HeadClasses(types.SimpleNamespace(class_names=file, path="weights"), model)
    order, note = classes.order(3)
    assert order is None
    assert note == (f", compared by number: {said}" if said else "")
