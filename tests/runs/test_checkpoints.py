"""Checkpoints: real Orbax directories with real damage."""

import contextlib
import pathlib
import random
import re
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pnoise_jax import runs
from pnoise_jax.runs import Checkpoints, OtherStateError

MESH = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
EVERYWHERE = NamedSharding(MESH, P())


def state_of(step):
    key = jax.random.key(step)
    return {
        "step": jnp.int32(step),
        "params": {"kernel": jax.random.normal(key, (512, 256)), "bias": jnp.arange(32.0) * step},
        "half": jax.random.normal(key, (16,), jnp.bfloat16),
        "flag": jnp.array([True, False]),
        "none": None,
    }


def like(sharding=EVERYWHERE):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_of(0)
    )


@pytest.fixture
def saved(tmp_path):
    """A directory with the checkpoints of steps 10, 20 and 30."""
    with contextlib.closing(Checkpoints(tmp_path, keep=3)) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, jax.device_put(state_of(step), EVERYWHERE))
    return tmp_path / "checkpoints"


def restore(directory, tree=None, report=print):
    with contextlib.closing(Checkpoints(directory.parent, keep=3, report=report)) as checkpoints:
        return checkpoints.restore(like() if tree is None else tree)


def largest_file(directory: pathlib.Path) -> pathlib.Path:
    files = list(directory.rglob("ocdbt.process_0/d/*"))  # the arrays' bytes
    return max(files, key=lambda path: path.stat().st_size)


def test_the_newest_checkpoint_is_restored_bitwise_on_other_devices_too(saved):
    for sharding in (EVERYWHERE, jax.sharding.SingleDeviceSharding(jax.devices()[3])):
        state, step = restore(saved, like(sharding))
        assert step == 30
        chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(state_of(30)))


@pytest.mark.parametrize("name", ["[a-z]+", "run?", "*", "[!x]{0}", "**"])
def test_names_of_directories_are_not_treated_as_patterns(tmp_path, name):
    """What such a pattern would match is not read."""
    for each, step in (("runs", 20), ("a", 10), (name, 30)):
        directory = tmp_path / each
        directory.mkdir()
        with contextlib.closing(Checkpoints(directory, keep=3)) as checkpoints:
            checkpoints.save(step, jax.device_put(state_of(step), EVERYWHERE))
    state, step = restore(tmp_path / name / "checkpoints")
    assert step == 30
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(state_of(30)))


def test_the_oldest_checkpoints_are_deleted(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        assert checkpoints.newest() is None
        assert checkpoints.restore(like()) is None
        for step in (1, 2, 3):
            checkpoints.save(step, state_of(step))
        checkpoints.wait()
        assert checkpoints.newest() == 3
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == [
        "2",
        "3",
    ]


def test_flipped_bytes_are_detected_and_the_previous_checkpoint_is_used(saved):
    file = largest_file(saved / "30" / "state")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(255 - b for b in content[middle : middle + 8])
    file.write_bytes(content)
    reports = []
    state, step = restore(saved, report=reports.append)
    assert step == 20
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(state_of(20)))
    assert reports[0].startswith(
        "the checkpoint of step 30 is broken: params/kernel does not match"
    )
    assert reports[1].startswith("moved the checkpoint of step 30 to")
    assert (saved.parent / "unreadable" / "30").is_dir()  # moved, not deleted


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("d/*", r"its file state/d/\w+ is missing"),
        ("manifest.ocdbt", "its file state/manifest.ocdbt is missing"),
        (
            "ocdbt.process_0/d/*",
            r"shard \d.0 of kernel cannot be read: a file in state/ is missing or damaged",
        ),
    ],
)
def test_a_missing_shard_is_named_and_the_previous_checkpoint_is_used(tmp_path, pattern, message):
    """For arrays that are split over devices, as `fsdp` does."""
    split = {"kernel": NamedSharding(MESH, P("data"))}
    tree = {"kernel": jax.random.normal(jax.random.key(0), (512, 256))}
    with contextlib.closing(Checkpoints(tmp_path, keep=3)) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, jax.device_put(tree, split))
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, split
    )
    state = tmp_path / "checkpoints" / "20" / "state"
    file = max(state.glob(pattern), key=lambda path: path.stat().st_size)
    file.unlink()
    reports = []
    _, step = restore(tmp_path / "checkpoints", abstract, report=reports.append)
    assert step == 10
    assert re.fullmatch(f"the checkpoint of step 20 is broken: {message}", reports[0])
    shutil.rmtree(tmp_path / "checkpoints" / "10")
    shutil.move(tmp_path / "unreadable" / "20", tmp_path / "checkpoints" / "20")
    with pytest.raises(OSError, match=rf"step 20: {message}\); restore the directory from a copy"):
        restore(tmp_path / "checkpoints", abstract)


@pytest.mark.parametrize("place", ["x/../run", 'a "b" c'])
def test_damage_is_described_for_unusual_paths(tmp_path, place):
    """TensorStore normalises and quotes them in errors."""
    (tmp_path / "x").mkdir()
    run = tmp_path / place
    run.mkdir()
    split = {"kernel": NamedSharding(MESH, P("data"))}
    tree = {"kernel": jax.random.normal(jax.random.key(0), (512, 256))}
    with contextlib.closing(Checkpoints(run, keep=3)) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, jax.device_put(tree, split))
    state = run / "checkpoints" / "20" / "state"
    max(state.glob("ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size).unlink()
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, split
    )
    reports = []
    _, step = restore(run / "checkpoints", abstract, report=reports.append)
    assert step == 10
    assert reports[0].startswith("the checkpoint of step 20 is broken: ")


def test_a_backslash_is_refused(tmp_path):
    """TensorStore would write the arrays to another directory without an error."""
    with pytest.raises(ValueError, match=r"has a backslash.*rename it"):
        runs.make_writable(tmp_path / "a\\b")
    assert not any(tmp_path.iterdir())


def test_a_failed_commit_does_not_block_later_saves(tmp_path, monkeypatch):
    """Orbax lists its step, and would silently skip every save up to it."""
    state = jax.device_put(state_of(10), EVERYWHERE)
    with contextlib.closing(Checkpoints(tmp_path, keep=3)) as checkpoints:
        with monkeypatch.context() as patched:

            async def fail(src, dst):
                raise OSError(f"cannot rename {src}")

            patched.setattr("orbax.checkpoint._src.path.async_path.rename", fail)
            checkpoints.save(30, state)
            with pytest.raises(OSError, match="cannot write the checkpoint of step 30"):
                checkpoints.wait()
        assert checkpoints.newest() is None
        for step in (10, 30):  # an earlier step, and the same one
            checkpoints.save(step, jax.device_put(state_of(step), EVERYWHERE))
            checkpoints.wait()
            assert checkpoints.newest() == step
        restored, step = checkpoints.restore(like())
    assert step == 30
    chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(state_of(30)))


@pytest.mark.parametrize("damage", ["empty", "half", "no metadata", "truncated"])
def test_a_half_written_checkpoint_is_skipped_and_can_be_written_again(saved, damage):
    shutil.copytree(saved / "30", saved / "40")
    if damage == "empty":
        shutil.rmtree(saved / "40")
        (saved / "40").mkdir()
    elif damage == "half":
        shutil.rmtree(saved / "40" / "state" / "ocdbt.process_0")
    elif damage == "no metadata":
        shutil.rmtree(saved / "40" / "arrays")
    else:
        file = largest_file(saved / "40" / "state")
        file.write_bytes(file.read_bytes()[:100])
    with contextlib.closing(Checkpoints(saved.parent, keep=3)) as checkpoints:
        _, step = checkpoints.restore(like())
        assert step == 30
        checkpoints.save(40, state_of(40))
        checkpoints.wait()
        state, step = checkpoints.restore(like())
    assert step == 40
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(state_of(40)))


def test_a_copy_under_another_number_is_named_and_skipped(saved):
    """Also if it has the highest number."""
    shutil.rmtree(saved / "30")
    shutil.copytree(saved / "10", saved / "30")
    shutil.copytree(saved / "20", saved / "400")
    reports = []
    state, step = restore(saved, report=reports.append)
    assert (step, int(state["step"])) == (20, 20)
    assert reports[:2] == [
        f"the checkpoint of step {there} is broken: it contains the state of step {inside}: it "
        "is a copy under another number"
        for there, inside in ((400, 20), (30, 10))
    ]
    assert sorted(p.name for p in saved.iterdir() if p.name.isdigit()) == ["10", "20"]


def test_pending_metrics_are_restored_and_verified(saved):
    pending = [{"loss": 0.1, "top1": 33.3}, {"loss": 1 / 3, "top1": 50.0}]
    with contextlib.closing(Checkpoints(saved.parent, keep=9)) as checkpoints:
        checkpoints.save(40, state_of(40), pending)
        checkpoints.wait()
        assert checkpoints.pending(40) == pending
        assert checkpoints.pending(30) == []
        assert checkpoints.restore(like())[1] == 40
    file = saved / "40" / "arrays" / "metadata"
    file.write_text(file.read_text().replace("33.3", "33.4"))
    reports = []
    assert restore(saved, report=reports.append)[1] == 30
    assert "its pending metrics do not match the checksum that was saved" in reports[0]


def damaged(content: bytes, how: str, rnd: random.Random) -> bytes | None:
    """A file's content after damage; None if the file is deleted."""
    if how == "deleted":
        return None
    if how == "flipped":
        place = rnd.randrange(len(content))
        flipped = content[place] ^ (1 << rnd.randrange(8))
        return content[:place] + bytes([flipped]) + content[place + 1 :]
    return {"cut": content[: len(content) // 2], "zeros": bytes(len(content)), "empty": b""}[how]


WAYS = ("cut", "zeros", "empty", "deleted", "flipped", "flipped", "flipped")


def pick(saved, part):
    """Pairs of files of the newest checkpoint and ways to damage them: a sample, or all."""
    files = sorted(p.relative_to(saved) for p in (saved / "30").rglob("*") if p.is_file())
    pairs = [(file, how) for file in files for how in WAYS if (saved / file).stat().st_size]
    return random.Random(1).sample(pairs, 12) if part == "some" else pairs


@pytest.mark.parametrize("part", ["some", pytest.param("all", marks=pytest.mark.slow)])
def test_after_any_damage_a_saved_state_is_restored_bitwise(saved, tmp_path, part):
    """Damage to some files does not matter to Orbax: then that checkpoint is restored."""
    rnd, tries = random.Random(5), pick(saved, part)
    assert len(tries) >= (12 if part == "some" else 80)
    whole = {step: jax.device_get(state_of(step)) for step in (20, 30)}
    for number, (file, how) in enumerate(tries):
        copy = tmp_path / f"{number}" / "checkpoints"
        shutil.copytree(saved, copy)
        content = damaged((copy / file).read_bytes(), how, rnd)
        (copy / file).unlink()
        if content is not None:
            (copy / file).write_bytes(content)
        reports = []
        state, step = restore(copy, report=reports.append)
        chex.assert_trees_all_equal(jax.device_get(state), whole[step])
        assert (step == 20) == any("step 30 is broken" in line for line in reports), (file, how)
        shutil.rmtree(copy.parent)


def test_if_all_are_damaged_nothing_is_moved_and_all_are_named(saved):
    for step in (10, 20, 30):
        shutil.rmtree(saved / f"{step}" / "state")
    with pytest.raises(OSError, match=r"none of the checkpoints.*step 30.*step 20.*step 10"):
        restore(saved)
    assert {p.name for p in saved.iterdir()} >= {"10", "20", "30"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tree: tree | {"half": tree["flag"]},
            r"half is bfloat16 \(16,\) there and bool \(2,\) here",
        ),
        (lambda tree: tree | {"more": tree["step"]}, r"more is missing there and int32 \(\) here"),
        (lambda tree: tree | {"flag": None}, r"flag is bool \(2,\) there and missing here"),
    ],
)
def test_a_different_state_is_named_and_nothing_is_moved(saved, change, message):
    """Not damage: a setting differs. Older checkpoints are not tried, even if one fits."""
    with contextlib.closing(Checkpoints(saved.parent, keep=4)) as checkpoints:
        checkpoints.save(5, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), change(like())))
    reports = []
    with pytest.raises(
        OtherStateError, match=rf"^the checkpoint of step 30 .*{message}.*JAX_ENABLE_X64"
    ):
        restore(saved, change(like()), report=reports.append)
    assert reports == []
    assert {p.name for p in saved.iterdir()} >= {"5", "10", "20", "30"}
    assert not (saved.parent / "unreadable").exists()


@pytest.mark.parametrize("change", [("float32", "float16"), ("512", "511"), ('"half"', '"hall"')])
def test_a_damaged_description_is_detected(saved, change):
    """Our own, which Orbax does not verify."""
    file = saved / "30" / "arrays" / "metadata"
    file.write_text(file.read_text().replace(*change))
    reports = []
    _, step = restore(saved, report=reports.append)
    assert step == 20
    assert reports[0].startswith("the checkpoint of step 30 is broken: ")
    assert (saved.parent / "unreadable" / "30").is_dir()


def test_a_full_disk_is_reported_and_what_is_there_stays(saved):
    """A child process that cannot write files of more than 64 KiB tries to save 16 MB.

    Orbax lists a step as soon as its save starts, and does not take it back. Once there is room
    again, the same process can save it.
    """
    script = f"""
import resource, signal
import jax
from pnoise_jax.runs import Checkpoints, OtherStateError, RunDirectory
checkpoints = Checkpoints({str(saved.parent)!r}, keep=3)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limit))
try:
    checkpoints.save(40, {{"x": jax.random.normal(jax.random.key(0), (2048, 2048))}})
    checkpoints.wait()
except OSError as error:
    print("reported:", error)
print("newest:", checkpoints.newest(), "count:", checkpoints.count())
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
checkpoints.save(40, {{"x": jax.numpy.ones((2048, 2048))}})
checkpoints.wait()
print("then newest:", checkpoints.newest())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert "reported: cannot write" in done.stdout, done.stderr[-2000:]
    assert "last whole checkpoint: that of step 30" in done.stdout
    assert "newest: 30 count: 3" in done.stdout
    assert "then newest: 40" in done.stdout, done.stderr[-2000:]
    saved_later = {"x": jax.ShapeDtypeStruct((2048, 2048), jnp.float32, sharding=EVERYWHERE)}
    assert restore(saved, saved_later)[1] == 40
