"""What the order of a test set reveals, against counting by hand."""

import numpy as np
import pytest

from pnoise_jax.studies.adaptation.neighbours import (
    known_orders,
    neighbours,
    read_list,
    sorted_labels,
)


def test_small_batches_are_counted_as_by_hand():
    counts = neighbours(np.array([0, 0, 0, 1, 1, 1, 1]), name="seven", batch_sizes=(2, 3))
    # (0 0) (0 1) (1 1) (1): the last image has no mates, and its batch is of one class.
    assert counts.pure[2] == 3 / 4
    assert counts.same[2] == pytest.approx((1 + 1 + 0 + 0 + 1 + 1) / 6)
    assert counts.pure[3] == 1
    assert counts.same[3] == 1
    assert counts.shuffled == pytest.approx((3 * 2 + 4 * 3) / (7 * 6))
    assert counts.following == 5 / 7
    assert (counts.n, counts.classes) == (7, 2)


def test_the_share_of_a_random_order_is_the_mean_over_orders():
    labels = sorted_labels([3, 5, 8])
    generator = np.random.default_rng(0)
    shares = [
        neighbours(generator.permutation(labels), name="random", batch_sizes=(4,)).same[4]
        for _ in range(3000)
    ]
    expected = neighbours(labels, name="sorted", batch_sizes=(4,)).shuffled
    assert np.mean(shares) == pytest.approx(expected, abs=4 * np.std(shares) / 3000**0.5)


@pytest.mark.parametrize(
    ("name", "size", "pure", "same", "shuffled"),
    [
        ("VisDA-2017 validation, listed", 16, 100, 100, 10),
        ("VisDA-2017 validation, listed", 64, 99, 100, 10),
        ("ImageNet validation, sorted", 10, 100, 100, 0),
        ("ImageNet-V2, sorted", 10, 100, 100, 0),
    ],
)
def test_the_public_lists_reveal_what_is_documented(name, size, pure, same, shuffled):
    counts = neighbours(known_orders()[name], name=name)
    assert round(100 * counts.pure[size]) == pure
    assert round(100 * counts.same[size]) == same
    assert round(100 * counts.shuffled) == shuffled


def test_only_the_first_image_of_a_class_follows_another_class():
    counts = neighbours(known_orders()["ImageNet validation, sorted"], name="ImageNet")
    assert counts.following == pytest.approx(1 - 1 / 50)


def test_a_published_list_is_read_in_its_order(tmp_path):
    file = tmp_path / "Art.txt"
    file.write_text("./data/Art/Alarm Clock/1.jpg 3\n\nArt/Bed/2.jpg 0\nArt/Bed/3.jpg 0\n")
    assert read_list(file).tolist() == [3, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Art/Bed/1.jpg 0\nArt/Bed/2.jpg\n", "line 2: 'Art/Bed/2.jpg' does not end with a space"),
        ("Art/Bed/1.jpg -1\n", "line 1: .* does not end with a space and a label"),
        ("7\n", "line 1: '7' does not end with a space"),
        ("\n", "lists no images"),
        ("a/1.jpg 999999\na/2.jpg 1000000\n", "line 2: label 1000000 is not below 1,000,000"),
        (f"a/1.jpg {'9' * 5000}\n", "line 1: label 9{20} is not below 1,000,000"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path, text, message):
    file = tmp_path / "Art.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_list(file)


@pytest.mark.parametrize(
    ("labels", "sizes", "message"),
    [([], (2,), "has no labels"), ([1], (0,), "0 is below 1; give sizes of at least 1")],
)
def test_no_labels_and_bad_sizes_are_refused(labels, sizes, message):
    with pytest.raises(ValueError, match=message):
        neighbours(np.array(labels, np.int64), name="none", batch_sizes=sizes)


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(
        OSError, match=r"Art\.txt cannot be read \(No such file or directory\): give"
    ):
        read_list(tmp_path / "Art.txt")


def test_a_single_image_has_no_mates():
    counts = neighbours(np.array([1]), name="one", batch_sizes=(2,))
    assert counts.same[2] is None
    assert counts.shuffled is None
