"""Loading by name: sub-splits, errors, and preparation by many processes and after kills."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from pnoise_jax.data import list_datasets, load, train_batches
from pnoise_jax.data.image.images import ImageError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    load("digits", split="train", data_dir=directory)
    return directory


def run_script(script, *arguments):
    """Runs a Python script in its own process and returns what it printed, from JSON."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def assert_whole(data_dir):
    train = load("digits", split="train", data_dir=data_dir, cache=True)
    test = load("digits", split="test", data_dir=data_dir, cache=True)
    assert (len(train), len(test)) == (797, 1000)
    assert len(train.images) == 797
    assert len(test.images) == 1000


# Reading


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    ("split", "positions"),
    [
        ("train[:300]", range(300)),
        ("train[790:]", range(790, 797)),
        ("train[-5:]", range(792, 797)),
        ("train[:10%]", range(80)),
        ("train[5:8]+train[:2]", [5, 6, 7, 0, 1]),
    ],
)
def test_sub_splits_are_parts_of_the_split(data_dir, split, positions, cache):
    whole = load("digits", split="train", data_dir=data_dir)
    part = load("digits", split=split, data_dir=data_dir, cache=cache)
    assert len(part) == len(positions)
    np.testing.assert_array_equal(part.labels, whole.labels[list(positions)])
    for example, i in zip(part, positions, strict=True):
        np.testing.assert_array_equal(example["image"], whole[i]["image"])
        assert example["label"] == whole[i]["label"]


@pytest.mark.parametrize("cache", [False, True])
def test_examples_beyond_the_end_are_an_index_error(data_dir, cache):
    dataset = load("digits", split="train[:3]", data_dir=data_dir, cache=cache)
    np.testing.assert_array_equal(dataset[-1]["image"], dataset[2]["image"])
    with pytest.raises(IndexError):
        dataset[3]


def test_cached_examples_cannot_be_changed(data_dir):
    dataset = load("digits", split="train[:3]", data_dir=data_dir, cache=True)
    with pytest.raises(ValueError, match="read-only"):
        dataset[0]["image"][:] = 0
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 0


def test_threads_can_share_a_data_set_that_is_not_cached(data_dir):
    def batches(cache, num_threads):
        dataset = load("digits", split="train", data_dir=data_dir, cache=cache)
        options = {"batch_size": 16, "seed": 0, "start_step": 0, "num_steps": 60}
        with train_batches(dataset, num_threads=num_threads, **options) as iterator:
            return [(batch["image"].tobytes(), batch["label"].tobytes()) for batch in iterator]

    assert batches(cache=False, num_threads=8) == batches(cache=True, num_threads=0)


def test_labels_are_read_from_the_records_where_there_is_no_labels_file(tmp_path):
    expected = load("digits", split="test", data_dir=tmp_path).labels
    files = list(tmp_path.glob("digits/*/labels-*.npy"))
    assert len(files) == 2
    for file in files:
        file.unlink()
    labels = load("digits", split="test", data_dir=tmp_path).labels
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


def test_loading_a_prepared_data_set_writes_nothing(data_dir):
    def snapshot():
        return {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}

    before = snapshot()
    load("digits", split="train+test", data_dir=data_dir, cache=True)
    assert snapshot() == before


def test_the_default_directory_is_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "variable"))
    load("digits", split="train")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    load("digits", split="train")
    prepared = {path.parent.name for path in tmp_path.glob("*/digits")}
    assert prepared == {"variable", "tensorflow_datasets"}


def test_preparation_leaves_stdout_and_the_directory_clean(tmp_path, capfd):
    load("digits", split="train", data_dir=tmp_path)
    assert capfd.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


# Errors


def test_an_unknown_name_suggests_similar_ones(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"data\.name='digit' .*mean 'digits' or 'font_digits'\? Choose one of: digit",
    ):
        load("digit", split="train", data_dir=tmp_path)
    assert "digits" in list_datasets()


@pytest.mark.parametrize("name", ["digits:1.0.0", "imagenet_v2/topimages:3.*.*"])
def test_a_version_in_the_name_is_refused(data_dir, name):
    with pytest.raises(ValueError, match=r"the newest version in data.data_dir is read.*set data"):
        load(name, split="test", data_dir=data_dir)


@pytest.mark.parametrize(
    "split", ["tran", "train[:5000]", "train[:0]", "train[800:]", "train[abc]", "test+tran", ""]
)
def test_an_unreadable_split_names_those_that_exist(data_dir, split):
    with pytest.raises(ValueError, match=r"data\.train_split") as error:
        load("digits", split=split, data_dir=data_dir)
    assert f"split={split!r}" in str(error.value)
    assert "train (797 examples), test (1000 examples)" in str(error.value)


def test_a_directory_without_its_parent_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.data_dir=.*'.*typo' does not exist"):
        load("digits", split="train", data_dir=tmp_path / "typo" / "tfds")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_a_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError, match=r"data\.data_dir='.*file' is a file"):
        load("digits", split="train", data_dir=file)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is read-only for everybody")
@pytest.mark.parametrize("path", ["/proc/tfds", "/proc/self"])
def test_a_directory_that_cannot_be_written(path):
    with pytest.raises(OSError, match=rf"data\.data_dir='{path}' cannot be written .*another"):
        load("digits", split="train", data_dir=path)


def test_an_empty_path_is_not_the_working_directory(tmp_path, monkeypatch):
    """As from `--config.data.data_dir=$DATA` if DATA is not set."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data\.data_dir='' is empty: give a directory, or leave"):
        load("digits", split="train", data_dir="")
    assert not list(tmp_path.iterdir())


def test_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data\.data_dir='s3://bucket/tfds' is a URL"):
        load("digits", split="train", data_dir="s3://bucket/tfds")
    assert not list(tmp_path.iterdir())


def test_something_else_in_the_data_sets_place(tmp_path):
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    with pytest.raises(OSError, match=r"1\.0\.0 is not a prepared data set.*Delete it"):
        load("digits", split="train", data_dir=tmp_path)


def test_an_image_is_named_once_and_advice_is_for_damage_only(data_dir):
    dataset = load("digits", split="test", data_dir=data_dir)

    def fail(error):
        def transform(image, generator):
            raise error

        return dataset.transformed(transform, (8, 8, 1))

    with pytest.raises(OSError, match="cannot be read") as error:
        fail(ImageError("cut off"))[3]
    assert str(error.value) == (
        "image 3 of digits's split 'test' cannot be read (cut off): prepare the data set again, or "
        "copy it again"
    )
    with pytest.raises(ValueError, match="1 channels") as error:
        fail(ValueError("the image has 1 channels"))[3]
    assert "prepare" not in str(error.value)
    assert str(error.value).startswith("image 3 of digits's split 'test': ")


# Preparation by several processes, and by ones that die

TOGETHER = """
    import json, os, pathlib, random, sys
    import multiprocessing
    import sklearn.datasets  # imported once, before the forks
    from pnoise_jax.data import datasets

    directory, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    target = directory / "digits" / "1.0.0"
    barrier = multiprocessing.get_context("fork").Barrier(count)
    rename, renames = os.rename, []

    def rename_together(source, destination):
        if pathlib.Path(destination) == target:
            barrier.wait(timeout=30)  # nobody publishes before everybody is ready to
        rename(source, destination)

    def prepare():
        random.seed(0)  # as programs do: the same "random" names in every process
        os.rename = rename_together
        dataset = datasets.load("digits", split="train+test", data_dir=directory, cache=True)
        assert len(dataset.images) == 1797

    children = []
    for _ in range(count):
        child = os.fork()
        if not child:
            try:
                prepare()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        children.append(child)
    print(json.dumps([os.waitpid(child, 0)[1] for child in children]))
"""

KILLED = """
    import json, os, pathlib, signal, sys, time
    from pnoise_jax.data import datasets
    from pnoise_jax.data.builtin import digits, embedded
    import sklearn.datasets  # imported once, before the forks

    directory = pathlib.Path(sys.argv[1])

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def while_generating():
        encode, seen = digits.encode_counts, []
        digits.encode_counts = lambda x: die() if len(seen) == 900 else seen.append(0) or encode(x)

    def while_saving_labels():
        embedded.PreparedDirectory.recorded_labels = die

    def before_renaming():
        rename, target = os.rename, directory / "before_renaming" / "digits" / "1.0.0"
        os.rename = lambda a, b: die() if pathlib.Path(b) == target else rename(a, b)

    def after_renaming():
        embedded.shutil.rmtree = die

    def fork(name, arrange):
        child = os.fork()
        if not child:
            arrange()
            datasets.load("digits", split="train", data_dir=directory / name)
            os._exit(0)
        return child

    moments = [while_generating, while_saving_labels, before_renaming, after_renaming]
    report = {}
    for moment in moments:
        child = fork(moment.__name__, moment)
        report[moment.__name__] = os.waitpid(child, 0)[1]
    for i in range(6):
        child = fork(f"timed{i}", lambda: None)
        time.sleep(0.06 * i)
        os.kill(child, signal.SIGKILL)
        report[f"timed{i}"] = os.waitpid(child, 0)[1]
    print(json.dumps(report))
"""


def test_processes_that_prepare_at_the_same_time(tmp_path):
    assert run_script(TOGETHER, tmp_path, 3) == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]
    assert_whole(tmp_path)


@pytest.mark.long
def test_a_kill_at_any_moment_leaves_a_whole_data_set_or_none(tmp_path):
    statuses = run_script(KILLED, tmp_path)
    moments = [name for name in statuses if not name.startswith("timed")]
    assert [statuses[name] for name in moments] == [9, 9, 9, 9]  # killed, where they should be
    published = {name for name in statuses if (tmp_path / name / "digits" / "1.0.0").exists()}
    assert published & set(moments) == {"after_renaming"}
    for name in moments:
        assert list((tmp_path / name).glob("incomplete.digits.*")), "killed too early"
    for name in statuses:
        assert_whole_after(tmp_path / name)


def assert_whole_after(directory):
    directory.mkdir(exist_ok=True)  # a very early kill leaves nothing
    assert_whole(directory)
