"""Examples in many forms are read in their order, and what cannot be read is named."""

import numpy as np
import pytest

from pnoise_jax.studies.leak.audited.examples import read_examples

INPUTS = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
LABELS = np.array([3, 1, 2, 0, 1, 1, 2])
PAIRS = [(INPUTS[:3], LABELS[:3]), (INPUTS[3:6], LABELS[3:6]), (INPUTS[6:], LABELS[6:])]


class Loader:
    """A loader of batches; with a generator it shuffles each time, as PyTorch's does."""

    def __init__(self, pairs, generator=None):
        self._pairs, self._generator = pairs, generator

    def __iter__(self):
        numbers = np.arange(len(self._pairs))
        if self._generator is not None:
            self._generator.shuffle(numbers)
        return (self._pairs[number] for number in numbers)


class Sequence:
    """Batches by number, as Keras's `PyDataset` has."""

    def __len__(self):
        return len(PAIRS)

    def __getitem__(self, number):
        return PAIRS[number]


def as_dicts(inputs, labels):
    return [{inputs: x, labels: y, "name": ["a"] * len(x)} for x, y in PAIRS]


@pytest.mark.parametrize(
    "examples",
    [
        (INPUTS, LABELS),
        (INPUTS.tolist(), LABELS.tolist()),
        (list(INPUTS), list(LABELS)),
        (INPUTS, LABELS[:, None]),
        {"image": INPUTS, "label": LABELS},
        PAIRS,
        tuple(PAIRS),
        [list(pair) for pair in PAIRS],
        as_dicts("pixel_values", "labels"),
        as_dicts("x", "y"),
        Loader(PAIRS),
        Sequence(),
    ],
)
def test_arrays_and_loaders_are_read(examples):
    read = read_examples(examples)
    np.testing.assert_array_equal(read.inputs, INPUTS)
    np.testing.assert_array_equal(read.labels, LABELS)
    assert read.labels.dtype == LABELS.dtype
    assert read.note is None


@pytest.mark.parametrize("kind", ["pairs", "dicts"])
def test_a_loader_may_write_each_batch_into_the_arrays_of_the_one_before(kind):
    def loader():
        inputs, labels = np.empty_like(INPUTS[:3]), np.empty_like(LABELS[:3])
        for start in (0, 3):
            inputs[:], labels[:] = INPUTS[start : start + 3], LABELS[start : start + 3]
            batch = {"image": inputs, "label": labels, "label_set": labels[:, None]}
            yield batch if kind == "dicts" else (inputs, labels)

    read = read_examples(loader())
    np.testing.assert_array_equal(read.inputs, INPUTS[:6])
    np.testing.assert_array_equal(read.labels, LABELS[:6])
    if kind == "dicts":
        np.testing.assert_array_equal(np.stack(read.label_sets)[:, 0], LABELS[:6])


def test_examples_without_labels_and_with_other_labels():
    for examples in (INPUTS, [(x,) for x, _ in PAIRS], {"image": INPUTS}, (INPUTS, None)):
        read = read_examples(examples)
        np.testing.assert_array_equal(read.inputs, INPUTS)
        assert read.labels is None
    words = ["cat", "dog", "a long name"]
    read = read_examples([(INPUTS[:1], words[:1]), (INPUTS[1:3], words[1:])])
    assert read.labels.tolist() == words
    missing = np.full_like(INPUTS, np.nan)
    assert read_examples(Loader([(missing, LABELS / 2)])).note is None


def test_a_loader_that_shuffles_is_noted():
    shuffling = Loader([(np.full((2, 1), i), [i, i]) for i in range(60)], np.random.default_rng(0))
    read = read_examples(shuffling)
    assert "began with a different batch: it shuffles" in read.note
    assert sorted(read.labels) == sorted(read.inputs[:, 0]) == np.repeat(range(60), 2).tolist()
    by_label = Loader([(np.ones((2, 1)), [i, i]) for i in range(60)], np.random.default_rng(0))
    assert "it shuffles" in read_examples(by_label).note


def test_an_iterator_is_read_and_noted():
    shared = iter(PAIRS)

    class ReadOnce:
        def __iter__(self):
            return shared

    for examples in (iter(PAIRS), (pair for pair in PAIRS), map(tuple, PAIRS), ReadOnce()):
        read = read_examples(examples)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert "can be read only once" in read.note


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([], ValueError, "returned no batches"),
        (None, TypeError, r"got NoneType; give \(inputs, labels\), or a loader"),
        (
            [INPUTS, LABELS],
            TypeError,
            r"list of length 2 \(\(7, 2, 3\), \(7,\)\), which could be inputs",
        ),
        (
            zip(INPUTS, LABELS, strict=True),
            ValueError,
            r"\(2, 3\) and the single label 3; .* batches",
        ),
        ((INPUTS, LABELS[:5]), ValueError, r"\(7, 2, 3\) and labels of shape \(5,\)"),
        ((INPUTS, np.eye(7)), ValueError, r"labels of shape \(7, 7\); .* labels.argmax\(1\)"),
        (
            [*PAIRS, (INPUTS[:, 1:], LABELS)],
            ValueError,
            r"\(2, 3\) in batch 0 and \(1, 3\) in batch 3",
        ),
        ([PAIRS[0], (INPUTS,)], ValueError, "some batches have labels and others do not"),
        (([INPUTS[0], INPUTS[0, 1:]], [1, 2]), ValueError, r"the shapes \(1, 3\) and \(2, 3\)"),
        (
            [(INPUTS, LABELS, LABELS)],
            TypeError,
            r"batch 0: got tuple of length 3 .*; expected \(inp",
        ),
        ([(object(), LABELS)], TypeError, "batch 0: cannot make an array of object"),
        ([*PAIRS, "files"], TypeError, "batch 3: got str"),
        (
            {"input_ids": LABELS, "attention_mask": LABELS},
            TypeError,
            r"dict of length 2 \('input_ids': \(7,\), .*; expected one entry of image,",
        ),
        ({"image": INPUTS, "label": LABELS, "target": LABELS}, TypeError, "at most one of label,"),
    ],
)
def test_what_cannot_be_read_is_named(examples, error, message):
    with pytest.raises(error, match=message):
        read_examples(examples)
