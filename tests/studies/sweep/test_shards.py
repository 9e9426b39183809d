"""Shards of a sweep: who does what, separate files, and one summary of all."""

import csv
import io
import shutil

import jax
import pytest
from jax.sharding import AxisType
from rich.console import Console

from pnoise_jax import parallel
from pnoise_jax.runs import lock
from pnoise_jax.studies.sweep import product, run_sweep, shards
from pnoise_jax.studies.sweep.shards import Shard
from tests.training.runs import small_config

# Three trainings with noise, and one without that four cells share.
CELLS = [
    *product({"noise.train": (True,), "noise.strength": (0.2, 0.3, 0.4)}),
    *product({"noise.train": (False,), "noise.strength": (0.1, 0.2, 0.3, 0.4)}),
]

MALFORMED = ("1", "", "1/", "/4", "a/b", "0/4/", "-1/4", "1.0/4", " 1/4", "1/4\n", "1:4", "0x1/4")
MALFORMED += ("¹/4", "1/٤", "0/9999999999")


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(parallel, "data_mesh", lambda: mesh)


@pytest.fixture
def base(data_dir):
    return small_config(data_dir, steps=2, **{"noise.preset": "paper_vit"})


def sweep(base, workdir, shard=None, cells=CELLS):
    """What a sweep prints, and the groups that it returns."""
    text = io.StringIO()
    shard = None if shard is None else Shard.parse(shard)
    groups = run_sweep(
        base, cells, workdir, shard=shard, together="never", console=Console(file=text, width=200)
    )
    return text.getvalue(), groups


def rows(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def sharded(data_dir, tmp_path_factory):
    """A work directory in which shard 0 of 2 has finished, and what it printed."""
    workdir = tmp_path_factory.mktemp("sharded")
    with pytest.MonkeyPatch.context() as patch:
        mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
        patch.setattr(parallel, "data_mesh", lambda: mesh)
        base = small_config(data_dir, steps=2, **{"noise.preset": "paper_vit"})
        printed, groups = sweep(base, workdir, "0/2")
    assert groups == []
    return workdir, printed


@pytest.fixture
def workdir(sharded, tmp_path):
    return shutil.copytree(sharded[0], tmp_path / "copy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4/4", "shards are numbered from 0, so give a number from 0 to 3, such as --shard=3/4"),
        ("1/1", "from 0 to 0, such as --shard=0/1"),
        ("0/0", "means 0 shards: give at least one"),
        *((text, "is not of the form INDEX/COUNT") for text in MALFORMED),
    ],
)
def test_an_invalid_shard_is_refused(text, message):
    with pytest.raises(ValueError, match="--shard=") as error:
        Shard.parse(text)
    assert repr(text) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_share_everything_once(count):
    items = list(range(7))
    parts = [Shard.parse(f"{index}/{count}").share(items) for index in range(count)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_does_every_nth_training_and_leaves_the_summary_to_others(sharded):
    workdir, printed = sharded
    assert "shard 0/2: 2 of the sweep's 7 cells" in printed
    assert "shard 0/2 has finished its part; 5 of the 7 cells are still missing" in printed
    done = rows(workdir / "shards" / "0-of-2.csv")
    assert [row["noise.strength"] for row in done] == ["0.2", "0.4"]
    assert {row["noise.train"] for row in done} == {"True"}
    assert not (workdir / "results.csv").exists()
    assert not (workdir / "summary.csv").exists()


def test_the_last_shard_writes_the_summary_of_one_sweep(base, workdir):
    printed, groups = sweep(base, workdir, "1/2")
    assert len(groups) == 7
    assert f"wrote {workdir / 'summary.csv'}" in printed
    assert len(rows(workdir / "summary.csv")) == 7
    assert len(rows(workdir / "shards" / "1-of-2.csv")) == 5  # only its own
    assert len(rows(workdir / "results.csv")) == 7
    assert len(list((workdir / "runs").iterdir())) == 4  # no training was done twice
    before = {name: (workdir / name).read_bytes() for name in ("results.csv", "summary.csv")}

    printed, again = sweep(base, workdir)
    assert "7 cells, 7 of them already finished; remaining: 0 trainings" in printed
    assert again == groups
    assert {name: (workdir / name).read_bytes() for name in before} == before
    assert not list((workdir / "shards").glob("*.csv"))
    printed, _ = sweep(base, workdir, "0/2")
    assert "2 cells, 2 of them already finished; remaining: 0 trainings" in printed
    assert "wrote" in printed


def test_a_whole_sweep_trains_what_shards_have_left(base, workdir):
    """One of the jobs was lost."""
    printed, groups = sweep(base, workdir)
    assert "7 cells, 2 of them already finished; remaining: 2 trainings" in printed
    assert len(groups) == 7
    assert len(rows(workdir / "results.csv")) == 7


def test_a_shard_resumes_also_with_another_count(base, workdir):
    printed, _ = sweep(base, workdir, "0/2")
    assert "2 cells, 2 of them already finished; remaining: 0 trainings" in printed
    printed, _ = sweep(base, workdir, "0/4")  # one that the first of two has done
    assert "1 cells, 1 of them already finished; remaining: 0 trainings" in printed
    printed, _ = sweep(base, workdir, "8/9")
    assert "shard 8/9: 0 of the sweep's 7 cells" in printed


def test_another_base_is_refused_if_shards_have_results(base, workdir):
    base.batch_size = 24
    for shard in (None, "1/2"):
        with pytest.raises(ValueError, match=r"another base config .* or move shards/ away"):
            sweep(base, workdir, shard)


def test_another_base_is_refused_while_shards_have_no_results_yet(base, tmp_path):
    from pnoise_jax.studies.sweep import results

    with shards.lock_for_shard(tmp_path, lambda others: results.claim(tmp_path, base)):
        base.batch_size = 24
        with pytest.raises(ValueError, match="results of another base config"):
            sweep(base, tmp_path, "1/2")
        with pytest.raises(OSError, match="in use: shards of a sweep are at work there"):
            sweep(base, tmp_path)
    told = []
    with shards.lock_for_shard(tmp_path, told.append), shards.lock_for_shard(tmp_path, told.append):
        assert told == [False, True]


def test_a_shard_is_refused_while_a_whole_sweep_is_at_work(base, tmp_path):
    with (
        shards.lock_all(tmp_path),
        pytest.raises(OSError, match="in use: another process is training there"),
    ):
        sweep(base, tmp_path, "0/2")
    with lock(tmp_path):  # the lock was released
        pass


def test_a_merge_that_was_killed_loses_no_row(base, workdir):
    """After results.csv was written, before the shards' files were deleted."""
    from pnoise_jax.studies.sweep.results import Results

    fields = ["noise.train", "noise.strength"]
    Results(workdir, base, fields).write()
    (workdir / "shards" / "1-of-2.csv").write_text((workdir / "results.csv").read_text())
    merged = Results(workdir, base, fields)
    merged.merge_shards()
    assert [row["noise.strength"] for row in rows(workdir / "results.csv")] == ["0.2", "0.4"]
    assert not shards.files(workdir)
