"""Ended early by a kill, a full disk or bad images: finished parts stay, the rest follows."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from tensorflow_datasets.core.utils import shard_utils

from pnoise_jax import data
from pnoise_jax.data import prepare as preparation
from pnoise_jax.data.prepare.writing import job
from pnoise_jax.data.prepare.writing import shards as shards_module
from tests.data import archives

SHARD = 1 << 13  # bytes at least: instead of TFDS's 64 MiB, so that there are many

# What pnoise prepare does, with small shards; `slow` seconds for each image.
SCRIPT = """
import resource, sys, time
from tensorflow_datasets.core.utils import shard_utils
shard_utils.ShardConfig.min_shard_size = {shard}
from pnoise_jax.data import prepare
from pnoise_jax.data.prepare.writing import job

treat = job.treat
def slowly(*arguments, **options):
    time.sleep({slow})
    return treat(*arguments, **options)
job.treat = slowly
if {limit}:  # bytes of a file
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    prepare.prepare("folder/pets", manual_dir=sys.argv[1], data_dir=sys.argv[2], short_side={side})
except (OSError, ValueError) as error:
    sys.exit(str(error))
"""


def start(manual_dir, data_dir, *, slow=0.0, side=None, limit=0):
    script = SCRIPT.format(shard=SHARD, slow=slow, side=side, limit=limit)
    return subprocess.Popen(
        [sys.executable, "-c", script, manual_dir, data_dir],
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[3],
    )


def prepare(manual_dir, data_dir, **options):
    """The same, in this process; with `small_shards`."""
    return preparation.prepare("folder/pets", manual_dir=manual_dir, data_dir=data_dir, **options)


def run(manual_dir, data_dir, **options):
    """Runs the script in its own process; returns its exit code and message."""
    process = start(manual_dir, data_dir, **options)
    _, errors = process.communicate(timeout=100)
    return process.returncode, errors


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", SHARD)


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
    """300 images, some 700 KiB: 32 shards."""
    directory = tmp_path_factory.mktemp("manual")
    archives.make_folder(directory, per_class=100, splits=(), size=(64, 96))
    return directory


@pytest.fixture(scope="module")
def straight(manual_dir, tmp_path_factory):
    """The files that an undisturbed preparation writes."""
    directory = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_utils.ShardConfig, "min_shard_size", SHARD)
        prepare(manual_dir, directory)
    return contents(directory)


def contents(data_dir):
    """Every file, by its path."""
    files = (path for path in pathlib.Path(data_dir).rglob("*") if path.is_file())
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in files}


def same(ours, theirs):
    """Whether files are the same, but for the `short_side` of their preparation."""
    names = {name for name in ours if not name.endswith("preparation.json")}
    assert ours.keys() == theirs.keys()
    return all(ours[name] == theirs[name] for name in names)


def shards(data_dir):
    """The finished files of records, with what changes if they are written again."""
    paths = pathlib.Path(data_dir).glob("incomplete.*/1.0.0/folder-*")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def published(data_dir):
    paths = pathlib.Path(data_dir).glob("folder/pets/1.0.0/folder-*")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.usefixtures("small_shards")
def test_killed_again_and_again(manual_dir, straight, tmp_path):
    """Byte for byte what an undisturbed run writes, and nothing is written twice."""
    assert sum("array_record" in name for name in straight) == 32
    before = {}
    for _ in range(2):
        process = start(manual_dir, tmp_path, slow=0.01)
        deadline = time.monotonic() + 60
        while len(shards(tmp_path)) < len(before) + 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after = shards(tmp_path)
        assert before.items() <= after.items()
        assert not published(tmp_path)
        before = after
    prepare(manual_dir, tmp_path)
    assert before.items() <= published(tmp_path).items()
    assert contents(tmp_path) == straight


class Killed(BaseException):
    """Ends a run where it is raised."""


def test_killed_between_a_note_and_its_shard(tmp_path, monkeypatch):
    """A shard of that name from an earlier run with other settings is not used."""
    archives.make_folder(tmp_path / "manual", splits=(), size=(64, 96))

    def kill(*arguments, **options):
        raise Killed

    def kill_after(*arguments):
        write_note(*arguments)
        raise Killed

    write_note = shards_module.replace_file
    for module, name, end, options in (
        (job.publish, "write_metadata", kill, {"short_side": 16}),
        (shards_module, "replace_file", kill_after, {}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, end)
            with pytest.raises(Killed):
                prepare(tmp_path / "manual", tmp_path / "data", **options)
    prepared = prepare(tmp_path / "manual", tmp_path / "data")
    prepare(tmp_path / "manual", tmp_path / "straight")
    assert not prepared.changes
    assert contents(tmp_path / "data") == contents(tmp_path / "straight")


def test_everything_is_on_the_disk_before_it_is_published(tmp_path, monkeypatch):
    """If a rename survives a power failure, the content must, too."""
    archives.make_folder(tmp_path / "manual")
    synced, fsync, rename = [], os.fsync, os.rename

    def note(descriptor):
        synced.append(os.stat(descriptor).st_ino)
        fsync(descriptor)

    def check(source, target):
        for path in (pathlib.Path(source), *pathlib.Path(source).iterdir()):
            assert path.stat().st_ino in synced, path
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", check)
    path = prepare(tmp_path / "manual", tmp_path / "data").path
    assert path.parent.stat().st_ino in synced


@pytest.mark.usefixtures("small_shards")
def test_full_disk(manual_dir, straight, tmp_path):
    """A real one, of half the size that is needed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(OSError, match=r"MiB free, but .* MiB must still be written"):
            prepare(manual_dir, disk / "data")
        assert not shards(disk / "data")
        # An unknown size (short_side): it is only noticed when the disk is full.
        code, errors = run(manual_dir, disk / "data", side=5000)
        assert code == 1
        finished = shards(disk / "data")
        assert 5 < len(finished) < 32
        assert "No space left on device" in errors
        assert "Make room" in errors
        assert f"{len(finished)} of 32 files of records are finished and stay in" in errors
        assert not list(disk.rglob("part.*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        prepare(manual_dir, disk / "data", short_side=5000)
        assert finished.items() <= published(disk / "data").items()
        assert same(contents(disk / "data"), straight)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.usefixtures("small_shards")
def test_files_that_must_not_grow(manual_dir, straight, tmp_path):
    """As a quota does, without a separate disk: no shard is left half-written."""
    code, errors = run(manual_dir, tmp_path, limit=8_000)
    assert code == 1
    assert "File too large" in errors
    assert "0 of 32 files of records are finished" in errors
    assert not shards(tmp_path)
    prepare(manual_dir, tmp_path)
    assert contents(tmp_path) == straight


def test_killed_at_the_very_end(manual_dir, straight, tmp_path):
    """Its remains are deleted, even if the original files are gone."""
    prepare(manual_dir, tmp_path)
    left = tmp_path / "incomplete.folder.pets" / "notes"
    left.mkdir(parents=True)
    (left / "folder-train.json").touch()
    assert not prepare("/nowhere", tmp_path).is_new
    assert os.listdir(tmp_path) == ["folder"]


def test_two_at_once(manual_dir, straight, tmp_path):
    """The second one is refused; a third one, later, has nothing left to do."""
    first = start(manual_dir, tmp_path, slow=0.01)
    deadline = time.monotonic() + 60
    while not shards(tmp_path):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    with pytest.raises(OSError, match="another process is preparing in"):
        prepare(manual_dir, tmp_path)
    assert first.wait(60) == 0
    first.stderr.close()
    prepared = prepare(manual_dir, tmp_path)
    assert not prepared.is_new
    assert prepared.splits == {"train": 300}
    assert contents(tmp_path) == straight


@pytest.mark.usefixtures("small_shards")
def test_a_bad_image_is_replaced(tmp_path):
    """Only the shard that it is in is written afterwards."""
    manual, out = tmp_path / "manual", tmp_path / "out"
    bad = {"cat/50.jpg": b"broken", "dog/3.jpg": archives.image(1, 3)[:500]}
    archives.make_folder(manual, per_class=100, splits=(), size=(64, 96), changes=bad)
    with pytest.raises(ValueError, match="2 images cannot be used"):
        prepare(manual, out)
    finished = shards(out)
    assert len(finished) == 30
    (manual / "cat/50.jpg").write_bytes(archives.image(0, 50, size=(64, 96)))
    (manual / "dog/3.jpg").write_bytes(archives.image(1, 3, size=(64, 96)))
    prepare(manual, out)
    assert finished.items() <= published(out).items()
    assert len(published(out)) == 32


@pytest.mark.usefixtures("small_shards")
def test_other_settings_or_sources_begin_anew(manual_dir, straight, tmp_path):
    """Nothing of another preparation gets into this one."""

    def interrupted(**options):
        process = start(manual_dir, tmp_path, slow=0.01, **options)
        while len(shards(tmp_path)) < 5:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.kill()
        process.communicate()

    interrupted(side=32)
    (tmp_path / "incomplete.folder.pets/1.0.0/folder-old.array_record-00000-of-00001").touch()
    prepare(manual_dir, tmp_path)
    assert contents(tmp_path) == straight


@pytest.mark.usefixtures("small_shards")
def test_a_changed_class_changes_every_shard(manual_dir, tmp_path):
    """Labels move when a class is added, though images stay the same."""
    names = ("ant", "cat", "dog", "owl")
    labels = []
    for j, classes in enumerate((names[1:], names)):
        manual = tmp_path / f"manual{j}"
        archives.make_folder(manual, per_class=30, splits=(), classes=classes)
        prepare(manual, tmp_path / f"{j}")
        dataset = data.load("folder/pets", split="train", data_dir=tmp_path / f"{j}")
        labels.append(set(dataset.labels))
    assert labels == [{0, 1, 2}, {0, 1, 2, 3}]


# What is there already


def test_a_preparation_with_other_settings_is_refused(manual_dir, tmp_path):
    prepared = prepare(manual_dir, tmp_path, short_side=20)
    assert prepared.changes == {"shrunk": 300}
    assert not prepare(manual_dir, tmp_path, short_side=20).is_new
    with pytest.raises(ValueError, match=r"with --short_side=20, .* without --short_side"):
        prepare(manual_dir, tmp_path)
    with pytest.raises(ValueError, match=r"with --short_side=20, .* with --short_side=21"):
        prepare(manual_dir, tmp_path, short_side=21)
    file = prepared.path / "preparation.json"
    written = file.read_text()
    for odd in ("", "[]", "{}", '{"format": 1, "short_side": "big"}'):
        file.write_text(odd)
        with pytest.raises(OSError, match=r"preparation\.json cannot be read as what"):
            prepare(manual_dir, tmp_path, short_side=20)
    file.write_text(written)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(ValueError, match=r"another version of this program \(format 99"):
        prepare(manual_dir, tmp_path, short_side=20)
    (prepared.path / "dataset_info.json").unlink()
    with pytest.raises(OSError, match="is not a prepared data set: delete it"):
        prepare(manual_dir, tmp_path, short_side=20)


@pytest.mark.parametrize("version", ["5.0.0", "5.1.0", "6.0.0"])
def test_what_tfds_has_prepared_is_used(tmp_path, version):
    """Whatever its version and format; manual_dir is not even looked at."""
    directory = tmp_path / "imagenet2012" / version
    directory.mkdir(parents=True)
    info = {"fileFormat": "tfrecord", "splits": [{"name": "train", "shardLengths": ["2", "3"]}]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    prepared = preparation.prepare("imagenet2012", manual_dir="/nowhere", data_dir=tmp_path)
    assert (prepared.path, prepared.splits, prepared.is_new) == (directory, {"train": 5}, False)
    with pytest.raises(ValueError, match="was prepared without --short_side"):
        preparation.prepare("imagenet2012", data_dir=tmp_path, short_side=320)


def test_impossible_directories_are_named(tmp_path, manual_dir):
    (tmp_path / "file").touch()
    for data_dir, message in (
        (tmp_path / "a" / "b", r"--data_dir=.*a/b': .* does not exist"),
        (tmp_path / "file", r"--data_dir=.* is a file"),
    ):
        with pytest.raises(OSError, match=message):
            prepare(manual_dir, data_dir)
    with pytest.raises(NotADirectoryError, match=r"--manual_dir=.* is a file"):
        prepare(tmp_path / "file", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"--manual_dir=.* does not exist"):
        prepare(tmp_path / "no", tmp_path)
    for unset in (None, ""):
        with pytest.raises(ValueError, match="--manual_dir is not set"):
            prepare(unset, tmp_path)
    with pytest.raises(ValueError, match="--data_dir='' is empty"):
        prepare(tmp_path, "")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is read-only for everybody")
@pytest.mark.parametrize("name", ["digits", "folder/pets"])
def test_data_dir_that_cannot_be_written(name, manual_dir):
    manual_dir = None if name == "digits" else manual_dir
    with pytest.raises(OSError, match="--data_dir='/proc/self' cannot be written"):
        preparation.prepare(name, manual_dir=manual_dir, data_dir="/proc/self")


def test_a_file_in_the_place_of_the_data_set(manual_dir, tmp_path, monkeypatch):
    """It is found before a long scan, not after it."""
    monkeypatch.setattr(preparation.preparation.folder, "plan", lambda *_, **__: 1 / 0)
    (tmp_path / "folder").touch()
    with pytest.raises(NotADirectoryError, match=r"/folder is a file, but .*pets/1\.0\.0 must be"):
        prepare(manual_dir, tmp_path)
