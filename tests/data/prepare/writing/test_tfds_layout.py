"""Sizes and orders that are known before an image is read."""

import itertools
from pathlib import Path

import pytest

from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan
from pnoise_jax.data.prepare.sources.sources import Folder, Member
from pnoise_jax.data.prepare.writing import tfds_layout


def entry(key="a.jpg", label=0):
    return Entry(key, label, Member(key, 0))


@pytest.mark.parametrize("size", [0, 1, 100, 110, 116, 120, 127, 128, 16_370, 16_384, 2_100_000])
@pytest.mark.parametrize("label", [0, 127, 128, 999])
@pytest.mark.parametrize("key", ["a", "é" * 63, "x" * 200])
def test_size_of_a_record(size, label, key):
    plan = Plan("x", "1.0.0", (), [str(i) for i in range(1000)], "")
    record = tfds_layout.serializer(tfds_layout.features(plan))(entry(key, label), bytes(size))
    assert len(record) == tfds_layout.record_size(entry(key, label), size)


@pytest.mark.parametrize("labels", [(), (0,), (999,), (3, 127, 128), tuple(range(0, 1000, 7))])
def test_size_of_a_record_with_several_labels(labels):
    several = Entry("a.jpg", 128, Member("a.jpg", 0), label_set=labels)
    splits = (SplitPlan("x", Folder(Path()), [several]),)
    plan = Plan("x", "1.0.0", splits, [str(i) for i in range(1000)], "")
    record = tfds_layout.serializer(tfds_layout.features(plan))(several, bytes(100))
    assert len(record) == tfds_layout.record_size(several, 100)


def test_two_images_of_one_name_are_refused():
    entries = [entry("a.jpg"), entry("b.jpg"), entry("a.jpg", label=1)]
    with pytest.raises(ValueError, match=r"two images of split 'train' are called 'a\.jpg'"):
        tfds_layout.in_order(entries, "train")


def test_order_depends_on_the_split():
    entries = [entry(f"{i}") for i in range(20)]
    train, test = tfds_layout.in_order(entries, "train"), tfds_layout.in_order(entries, "test")
    assert train != test
    assert {e.key for e in train} == {e.key for e in test} == {e.key for e in entries}


@pytest.mark.parametrize(
    ("number", "size", "expected"),
    [
        *[(1, 10, 1), (50_000, 110_000, 64), (1_281_167, 110_000, 1024), (500, 1 << 20, 4)],
        *[(10_000, 150, 1), (10_001, 150, 2), (1_000_000, 150, 100)],
    ],
)
def test_number_of_shards(number, size, expected):
    """As TFDS documents, imagenet2012 has 1024 and 64 files. Files have few small records."""
    bounds = tfds_layout.shard_bounds([size] * number)
    assert len(bounds) == expected
    assert all(end - first <= 10_000 for first, end in bounds)
    assert (bounds[0][0], bounds[-1][1]) == (0, number)
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(bounds))
