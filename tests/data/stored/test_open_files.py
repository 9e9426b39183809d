"""Files of records under a limit of open files, and without a cost that grows with their size."""

import errno
import gc
import os
import pickle
import resource
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from pnoise_jax.data import notice
from pnoise_jax.data.stored import open_files, records
from tests.data import tfrecords

pytestmark = pytest.mark.long


def write(path, contents, file_format="array_record"):
    if file_format == "tfrecord":
        tfrecords.write(path, contents)
        return
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for content in contents:
        writer.write(content)
    writer.close()


def info_of(paths, number):
    """TFDS's info on a split with `number` records in each file."""
    parts = [
        SimpleNamespace(filename=str(path), skip=0, take=number, examples_in_shard=number)
        for path in paths
    ]
    return SimpleNamespace(file_instructions=parts)


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """By format: 40 files of 3 records, each record its own number."""
    directory = tmp_path_factory.mktemp("forty")
    infos = {}
    for file_format in ("array_record", "tfrecord"):
        paths = [directory / f"{i:02d}.{file_format}" for i in range(40)]
        for i, path in enumerate(paths):
            write(path, [b"%d" % (3 * i + j) for j in range(3)], file_format)
        infos[file_format] = info_of(paths, 3)
    return infos


def open_now():
    return len(os.listdir("/proc/self/fd"))


def open_forty(forty, file_format):
    return records.open_records(forty[file_format], file_format, records.find_bounds)


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="counts files in /proc")
formats = pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])


@needs_proc
@formats
def test_no_more_files_are_open_than_may_be(forty, file_format, monkeypatch, capsys):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (32, 32))
    notice.tell_once.cache_clear()
    gc.collect()
    before = open_now()
    whole = open_forty(forty, file_format)
    assert "40 files of records, but only 8 can stay open" in capsys.readouterr().err
    for order in (range(120), range(119, -1, -1), np.random.default_rng(0).permutation(120)):
        for i in order:
            assert whole[int(i)] == b"%d" % i
            assert open_now() <= before + 8
    assert open_now() == before + 8
    del whole
    gc.collect()
    assert open_now() == before  # they are closed when nobody reads the data set any more


@formats
def test_threads_share_few_files(forty, file_format, monkeypatch):
    """None is closed while another thread reads from it."""
    monkeypatch.setattr(open_files, "capacity", lambda: 2)
    whole, wrong = open_forty(forty, file_format), []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 120, 400).tolist():
            if whole[i] != b"%d" % i:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.fixture
def exhaust():
    """Opens files until the system refuses, which it does after five."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = []

    def open_others():
        if not others:
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_now() + 5, limits[1]))
        try:
            while True:
                others.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017, it ends the loop

    yield open_others
    for descriptor in others:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@needs_proc
@formats
def test_files_make_room_for_each_other_when_the_system_refuses(forty, file_format, exhaust):
    """As if another part opened many; if it does not help, the error says so."""
    whole, other = open_forty(forty, file_format), open_forty(forty, file_format)
    for i in range(60):  # 20 files
        assert whole[i] == b"%d" % i
    exhaust()
    assert [whole[i] for i in range(60, 120)] == [b"%d" % i for i in range(60, 120)]
    del whole
    gc.collect()
    exhaust()
    with pytest.raises(OSError, match=r"this process may have \d+ files open.*\(ulimit -n\)"):
        other[0]


@formats
def test_a_copy_for_another_process(forty, file_format):
    whole = open_forty(forty, file_format)
    assert whole[3] == b"3"
    copy = pickle.loads(pickle.dumps(whole))
    del whole
    gc.collect()
    assert [copy[i] for i in range(120)] == [b"%d" % i for i in range(120)]
    assert copy.block(4, 23) == [b"%d" % i for i in range(4, 23)]
    with pytest.raises(IndexError):
        copy[120]


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (100, 4096, (4096, 4096)),
        (100, resource.RLIM_INFINITY, None),
        (5000, 6000, ()),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, ()),
        (256, 256, ()),
    ],
)
def test_the_limit_is_raised_for_many_files(monkeypatch, soft, hard, raised):
    """All 1024 of ImageNet stay open then, and 1024 is what many systems allow."""
    calls = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: calls.append(limits))
    open_files.allow(1024)
    if raised is None:
        ((raised_to, _),) = calls
        assert raised_to >= 1024 + 256
    else:
        assert calls == ([raised] if raised else [])


@pytest.mark.parametrize(("soft", "kept"), [(16, 4), (256, 64), (1024, 768), (4096, 3840)])
def test_how_many_stay_open(monkeypatch, soft, kept):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    assert open_files.capacity() == kept


SCRIPT = """
    import sys
    from pnoise_jax import data

    if __name__ == "__main__":
        dataset = data.load("digits", split="train", data_dir=sys.argv[1])
        options = {"batch_size": 100, "seed": 0, "start_step": 0, "num_steps": 4}
        for workers in (0, 1):
            with data.train_batches(dataset, num_workers=workers, **options) as batches:
                print(sum(len(batch["label"]) for batch in batches))
"""


@pytest.mark.slow
def test_one_file_of_records_under_a_small_limit(tmp_path):
    """ulimit -n 256, with data workers too."""
    script = tmp_path / "script.py"  # workers import it
    script.write_text(textwrap.dedent(SCRIPT))
    command = f"ulimit -n 256; exec {sys.executable} {script} {tmp_path}"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=100, env=environment
    )
    assert done.stdout.split() == ["400"] * 2, done.stderr


def test_a_record_of_a_large_file_costs_no_more_than_one_of_a_small_file(tmp_path):
    """array_record's own `read([row])` takes 30 times as long in the larger one."""
    times = []
    for number in (1000, 200_000):
        path = tmp_path / f"{number}.array_record"
        write(path, (b"%150d" % i for i in range(number)))
        whole = records.open_records(info_of([path], number), "array_record", records.find_bounds)
        rows = np.random.default_rng(0).integers(0, number, 500).tolist()
        assert whole[rows[0]] == b"%150d" % rows[0]
        least = float("inf")
        for _ in range(3):
            start = time.process_time()
            for row in rows:
                whole[row]
            least = min(least, time.process_time() - start)
        times.append(least)
    assert times[1] < 6 * times[0]


def test_progress_is_reported_after_every_tenth(capsys, monkeypatch):
    monkeypatch.setattr(notice, "MANY", 10)
    assert list(notice.told(iter([[1] * 5, [2] * 5]), "reading", 10)) == [[1] * 5, [2] * 5]
    assert capsys.readouterr().err == "reading: 10 records\nreading: 50 %\nreading: 100 %\n"
