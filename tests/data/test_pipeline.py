"""The streams of batches: which examples they have, on each host and after resuming."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from pnoise_jax.data import (
    Dataset,
    batch_iterator,
    decode,
    eval_batches,
    evaluation_order,
    train_batches,
)

SIZE, BATCH = 101, 8  # no batch boundary falls on the end of an epoch


@pytest.fixture(scope="module")
def dataset():
    """Example i is recognised by its image (i in every pixel); its label is i % 10."""
    images = np.broadcast_to(np.arange(SIZE, dtype=np.uint8)[:, None, None, None], (SIZE, 2, 3, 1))
    labels = np.arange(SIZE, dtype=np.int32) % 10
    return Dataset("synthetic", "train", 10, (2, 3, 1), labels, images)


def train(dataset, *, stop=30, start=0, seed=0, **options):
    options = {"batch_size": BATCH, "num_threads": 0, **options}
    with train_batches(dataset, seed=seed, start_step=start, num_steps=stop, **options) as iterator:
        return list(iterator)


def ids(batches):
    return np.concatenate([batch["image"][..., 0, 0, 0].ravel() for batch in batches]).tolist()


def assert_same(actual, expected):
    assert len(actual) == len(expected) > 0
    for a, b in zip(actual, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


def jitter(image, generator):
    return image + generator.integers(0, 256, image.shape, np.uint8)


def join(hosts, axis=0):
    """The global batches, from a list of every host's batches."""
    return [
        {key: np.concatenate([batch[key] for batch in batches], axis) for key in batches[0]}
        for batches in zip(*hosts, strict=True)
    ]


# Training


def test_training_batches_have_the_documented_shapes_and_types(dataset):
    for batch in train(dataset, stop=3):
        assert batch["image"].shape == (BATCH, 2, 3, 1)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].shape == (BATCH,)
        assert batch["label"].dtype == np.int32
        np.testing.assert_array_equal(batch["label"], batch["image"][:, 0, 0, 0] % 10)


def test_every_epoch_has_each_example_once_in_an_order_of_its_own(dataset):
    row = ids(train(dataset, stop=SIZE))  # SIZE steps of BATCH examples: BATCH epochs
    epochs = [tuple(row[i : i + SIZE]) for i in range(0, len(row), SIZE)]
    assert len(epochs) == BATCH == len(set(epochs))
    for epoch in epochs:
        assert sorted(epoch) == list(range(SIZE))
        assert list(epoch) != sorted(epoch)


def test_the_seed_decides_the_stream(dataset):
    assert_same(train(dataset, seed=5), train(dataset, seed=5))
    streams = {tuple(ids(train(dataset, seed=seed))) for seed in range(10)}
    assert len(streams) == 10
    # Nor is one seed's epoch another seed's next epoch.
    epochs = {stream[i : i + SIZE] for stream in streams for i in (0, SIZE)}
    assert len(epochs) == 20


def test_training_does_not_follow_the_evaluations_order(dataset):
    order = evaluation_order(dataset.labels, "shuffled", seed=0)
    assert ids(train(dataset))[:SIZE] != order.tolist()


@pytest.mark.parametrize("transform", [decode, jitter])
@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_the_number_of_threads_changes_nothing(dataset, num_threads, transform):
    expected = train(dataset, transform=transform)
    assert_same(train(dataset, transform=transform, num_threads=num_threads), expected)


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("process_count", [2, 4])
def test_hosts_together_see_the_batches_of_one_host(dataset, process_count, micro_batches):
    options = {"transform": jitter, "micro_batches": micro_batches}
    hosts = [
        train(dataset, process_index=i, process_count=process_count, **options)
        for i in range(process_count)
    ]
    axis = 0 if micro_batches == 1 else 1
    assert hosts[0][0]["label"].shape[axis] == BATCH // micro_batches // process_count
    assert_same(join(hosts, axis), train(dataset, **options))


@pytest.mark.parametrize("micro_batches", [2, 4, 8])
def test_micro_batches_are_contiguous_parts_of_the_batch(dataset, micro_batches):
    expected = train(dataset, transform=jitter)
    actual = train(dataset, transform=jitter, micro_batches=micro_batches)
    lead = (micro_batches, BATCH // micro_batches)
    assert actual[0]["image"].shape == (*lead, 2, 3, 1)
    assert actual[0]["label"].shape == lead
    flat = [{key: x.reshape(BATCH, *x.shape[2:]) for key, x in b.items()} for b in actual]
    assert_same(flat, expected)


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("start", [1, 12, 13, 29])
def test_resuming_gives_the_rest_of_the_stream(dataset, start, num_threads):
    options = {"transform": jitter, "num_threads": num_threads}
    assert_same(train(dataset, start=start, **options), train(dataset, **options)[start:])


def test_a_finished_run_has_no_batches_left(dataset):
    assert train(dataset, start=30, stop=30) == []


def test_a_far_step_is_reached_at_once(dataset):
    step = 10**12
    (batch,) = train(dataset, start=step, stop=step + 1, transform=jitter)
    assert batch["label"].shape == (BATCH,)


def test_augmentation_differs_by_position_and_seed(dataset):
    def noise(seed):
        plain = train(dataset, seed=seed, stop=SIZE)
        noisy = train(dataset, seed=seed, stop=SIZE, transform=jitter)
        differences = [b["image"] - a["image"] for a, b in zip(plain, noisy, strict=True)]
        return {image.tobytes() for image in np.concatenate(differences)}

    count = SIZE * BATCH  # all of them different: also the same example in another epoch
    assert len(noise(0) | noise(1)) == 2 * count


def test_few_batches_are_made_ahead_by_any_number_of_threads(dataset):
    """Large ones fill the memory; the threads share each batch, the first one, too."""
    made, threads = [], set()

    def note(image, generator):
        time.sleep(0.001)
        made.append(0)
        threads.add(threading.get_ident())
        return image

    with train_batches(
        dataset,
        batch_size=64,
        seed=0,
        start_step=0,
        num_steps=50,
        num_threads=16,
        transform=note,
    ) as iterator:
        next(iterator)
        assert len(threads) >= 4
        deadline = time.monotonic() + 20
        while len(made) < 3 * 64 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(made) == 3 * 64  # the one that was taken, and two


@pytest.mark.parametrize(
    ("cores", "num_workers", "expected"),
    [(2, 0, 2), (64, 0, 16), (64, 4, 16), (64, 8, 8), (4, 8, 1)],
)
def test_workers_divide_the_cores(monkeypatch, cores, num_workers, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert batch_iterator.available_cores(num_workers) == expected


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_error_in_the_augmentation_reaches_the_loop(dataset, num_threads):
    def fail(example, generator):
        raise RuntimeError("broken augmentation")

    with pytest.raises(RuntimeError, match="broken augmentation"):
        train(dataset, transform=fail, num_threads=num_threads)


# Evaluation


def evaluate(dataset, indices, **options):
    options = {"batch_size": BATCH, "num_threads": 0, **options}
    with eval_batches(dataset, indices=indices, **options) as iterator:
        return list(iterator)


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 8, 50, 101, 128])
@pytest.mark.parametrize("order", ["shuffled", "class_sorted"])
def test_evaluation_sees_each_example_once_in_order(dataset, order, batch_size, num_threads):
    indices = evaluation_order(dataset.labels, order, seed=0)
    batches = evaluate(dataset, indices, batch_size=batch_size, num_threads=num_threads)
    assert len(batches) == -(-SIZE // batch_size)
    assert all(batch["image"].shape == (batch_size, 2, 3, 1) for batch in batches)
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    assert {key: x.dtype for key, x in whole.items()} == {
        "image": np.uint8,
        "label": np.int32,
        "mask": np.bool_,
        "index": np.int32,
    }
    np.testing.assert_array_equal(whole["mask"], np.arange(len(whole["mask"])) < SIZE)
    np.testing.assert_array_equal(whole["index"][:SIZE], indices)
    np.testing.assert_array_equal(whole["image"][:SIZE, 0, 0, 0], indices)
    np.testing.assert_array_equal(whole["label"][:SIZE], dataset.labels[indices])
    assert (whole["index"][SIZE:] == -1).all()
    assert not whole["image"][SIZE:].any()
    assert not whole["label"][SIZE:].any()


@pytest.mark.parametrize("count", [8, 9, 12, 101])
@pytest.mark.parametrize("process_count", [2, 4])
def test_hosts_together_evaluate_the_batches_of_one_host(dataset, process_count, count):
    hosts = [
        evaluate(dataset, np.arange(count), process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    # Also a host whose part of the last batch is all padding sees that batch.
    assert {len(batches) for batches in hosts} == {-(-count // BATCH)}
    assert_same(join(hosts), evaluate(dataset, np.arange(count)))


def test_an_evaluation_of_nothing_has_no_batches(dataset):
    assert evaluate(dataset, np.array([], np.int32)) == []


@pytest.mark.parametrize("indices", [[0, SIZE], [-2, 0]])
def test_indices_beyond_the_data_set(dataset, indices):
    with pytest.raises(ValueError, match=r"indices must be -1 or in 0\.\.100"):
        evaluate(dataset, indices)


def test_shuffled_is_a_permutation_fixed_by_the_seed(dataset):
    order = evaluation_order(dataset.labels, "shuffled", seed=3)
    np.testing.assert_array_equal(order, evaluation_order(dataset.labels, "shuffled", seed=3))
    assert sorted(order) == list(range(SIZE))
    assert (order != evaluation_order(dataset.labels, "shuffled", seed=4)).any()
    assert (np.diff(dataset.labels[order]) < 0).any()


def test_class_sorted_keeps_the_data_sets_order_within_a_class():
    labels = np.array([2, 0, 1, 0, 2, 1, 0])
    for seed in range(3):
        order = evaluation_order(labels, "class_sorted", seed=seed)
        assert order.tolist() == [1, 3, 6, 2, 5, 0, 4]


def test_an_unknown_order_names_those_that_exist():
    with pytest.raises(ValueError, match=r"order='class-sorted'.*mean 'class_sorted'.*shuffled, "):
        evaluation_order(np.zeros(3), "class-sorted", seed=0)


# Both


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 102}, r"batch_size=102 is larger than synthetic's .* 101 examples"),
        ({"batch_size": 0}, r"batch_size=0 must be at least 1"),
        ({"micro_batches": 3}, r"batch_size=8 must be a multiple .* 3 \* 1 = 3"),
        ({"micro_batches": 0}, r"micro_batches=0 must be at least 1"),
        ({"micro_batches": 4, "process_count": 4}, r"batch_size=8 must be a multiple .* = 16"),
        ({"process_count": 2, "process_index": 2}, r"process_index=2 must be in 0\.\.1"),
        ({"seed": -1}, r"seed=-1 must be at least 0"),
        ({"start": -1}, r"start_step=-1 must be at least 0"),
        ({"start": 31}, r"start_step=31 is beyond num_steps=30"),
        ({"num_threads": -1}, r"num_threads=-1 must be at least 0"),
    ],
)
def test_training_options_are_checked_by_name(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        train(dataset, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"evaluation\.batch_size=0 must be at least 1"),
        ({"process_count": 3}, r"evaluation\.batch_size=8 must be a multiple .* = 3"),
        ({"process_count": 2, "process_index": -1}, r"process_index=-1 must be in 0\.\.1"),
        ({"num_threads": -1}, r"num_threads=-1 must be at least 0"),
    ],
)
def test_evaluation_options_are_checked_by_name(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(dataset, np.arange(SIZE), **options)


def test_a_closed_iterator_gives_nothing_more(dataset):
    iterator = train_batches(dataset, batch_size=BATCH, seed=0, start_step=0, num_steps=30)
    next(iterator)
    iterator.close()
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


@pytest.mark.parametrize("ending", ["iterator.close()", "pass", "sys.exit(0)"])
def test_a_program_that_stops_in_the_middle_ends_quietly(ending):
    script = f"""
        import sys, time
        import numpy as np
        from pnoise_jax.data import Dataset, train_batches

        images = np.zeros((100, 8, 8, 1), np.uint8)
        dataset = Dataset("synthetic", "train", 10, (8, 8, 1), np.zeros(100, np.int32), images)
        slow = lambda image, generator: time.sleep(0.005) or image
        iterator = train_batches(
            dataset, batch_size=10, seed=0, start_step=0, num_steps=10**9, transform=slow
        )
        next(iterator)
        {ending}
    """
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.long
def test_worker_processes_make_the_same_batches(dataset):
    options = {"transform": jitter, "micro_batches": 2}
    expected = train(dataset, stop=7, **options)
    assert_same(train(dataset, stop=7, num_workers=2, num_threads=1, **options), expected)
    assert_same(train(dataset, start=4, stop=7, num_workers=2, **options), expected[4:])


def test_images_of_different_sizes_need_a_transform():
    class Images(list):
        pass

    images = Images(np.zeros((side, side, 1), np.uint8) for side in range(1, 17))
    dataset = Dataset("synthetic", "train", 10, None, np.zeros(16, np.int32), images)
    with pytest.raises(ValueError, match=r"differ in size: resize them to one size"):
        evaluate(dataset, np.arange(8))
    with pytest.raises(ValueError, match=r"the shapes .* and .* data\.train_transform"):
        train(dataset, stop=1)

    def first_pixel(image, generator):
        return image[:1, :1]

    assert train(dataset, stop=1, transform=first_pixel)[0]["image"].shape == (BATCH, 1, 1, 1)
    same = dataset.transformed(first_pixel, (1, 1, 1))
    assert evaluate(same, np.arange(8))[0]["image"].shape == (BATCH, 1, 1, 1)
