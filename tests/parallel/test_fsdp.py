"""Parameters split over devices: where they are placed, and that runs stay the same."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from pnoise_jax import parallel, training
from pnoise_jax.runs import Checkpoints
from pnoise_jax.training.experiment import build
from pnoise_jax.training.step.program import create_program
from tests.training.runs import small_config

WIDE = {"model.dim": 128}  # its MLP's kernels are just large enough to be split


@pytest.mark.parametrize(
    ("shape", "fsdp", "expected"),
    [
        ((512, 256), 4, PartitionSpec("fsdp")),
        ((256, 512), 4, PartitionSpec(None, "fsdp")),
        ((512, 512), 4, PartitionSpec(None, "fsdp")),  # the last of equal axes
        ((16, 16, 3, 768), 8, PartitionSpec(None, None, None, "fsdp")),
        ((1001, 1024), 2, PartitionSpec(None, "fsdp")),
        ((1001, 999), 2, PartitionSpec()),  # 2 divides neither
        ((255, 256), 2, PartitionSpec()),  # too small
        ((65536,), 8, PartitionSpec("fsdp")),
        ((), 8, PartitionSpec()),
        ((512, 256), 1, PartitionSpec()),
    ],
)
def test_the_largest_axis_that_divides_is_split(shape, fsdp, expected):
    mesh = parallel.training_mesh(fsdp)
    assert parallel.place(jax.ShapeDtypeStruct(shape, jnp.float32), mesh).spec == expected


def test_devices_that_share_parameters_are_neighbours():
    devices = parallel.training_mesh(4).devices
    assert [[device.id for device in group] for group in devices] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fsdp": 3}, "fsdp=3 does not divide the 8 devices: choose one of 1, 2, 4, 8"),
        ({"fsdp": 16}, "fsdp=16 does not divide the 8 devices"),
        ({"fsdp": 0}, "fsdp=0: give a whole number of at least 1"),
        ({"fsdp": 2}, r"fsdp=2 would split no parameter: .* the largest is \(16, 64\); set fsdp=1"),
    ],
)
def test_bad_settings_are_refused(changes, message, data_dir, tmp_path):
    with pytest.raises(ValueError, match=message):
        training.train(small_config(data_dir, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_runs_in_one_program_are_refused(data_dir):
    experiment = build(small_config(data_dir, fsdp=2, **WIDE))
    with pytest.raises(ValueError, match="fsdp=2: here every device holds all parameters"):
        create_program(experiment, parallel.data_mesh(), together=True)


CHANGES = {
    "noise.train": True,
    "accumulate": 2,
    "ema_decay": 0.9,
    "batch_size": 32,
    "duration": "4 steps",
    "log_every": "1 steps",
    "checkpoint.every": "2 steps",
    **WIDE,
}


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """The same run twice: each device has all parameters, or an eighth of them."""
    paths = {}
    for fsdp in (1, 8):
        paths[fsdp] = tmp_path_factory.mktemp("fsdp") / f"{fsdp}"
        training.train(small_config(data_dir, fsdp=fsdp, **CHANGES), paths[fsdp])
    return paths


def losses(path):
    return [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_splitting_parameters_does_not_change_a_run(runs):
    assert losses(runs[8]) == pytest.approx(losses(runs[1]), rel=1e-5)
    reports = [json.loads((run / "evaluation.json").read_text())["rows"] for run in runs.values()]
    for ours, theirs in zip(*reports, strict=True):
        assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-4)


def test_every_device_holds_its_share_of_what_is_split(runs, data_dir):
    config = small_config(data_dir, fsdp=8, **WIDE)
    program = create_program(build(config), parallel.training_mesh(8))
    state = program.create(jax.random.key(0))
    kernel = state.params["block_1"]["mlp"]["fc1"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (128, 64)
    # AdamW keeps two moments of it, placed alike.
    shares = [
        x.addressable_shards[0].data.shape
        for x in jax.tree.leaves(state.opt_state)
        if x.shape == kernel.shape
    ]
    assert shares == [(128, 64)] * 2
    assert state.params["block_1"]["mlp"]["fc1"]["bias"].sharding.is_fully_replicated


@pytest.mark.parametrize(("saved", "restored"), [(8, 1), (1, 8), (8, 2)])
def test_a_checkpoint_fits_every_mesh(runs, saved, restored):
    config = training.restore(runs[saved], mesh=parallel.data_mesh()).experiment.config
    like = build(config).abstract_state(parallel.training_mesh(restored))
    checkpoints = Checkpoints(runs[saved], keep=3)
    state, step = checkpoints.restore(like)
    checkpoints.close()
    assert step == 4
    assert jax.tree.all(jax.tree.map(lambda x, to: x.sharding == to.sharding, state, like))


@pytest.mark.long
def test_the_mesh_may_change_when_a_run_resumes(runs, data_dir, tmp_path):
    """The second half in groups of two, after a first half in one of eight."""
    run = tmp_path / "run"
    shutil.copytree(runs[8], run)
    shutil.rmtree(run / "checkpoints" / "4")
    training.train(small_config(data_dir, **CHANGES | {"fsdp": 2}), run)
    assert losses(run) == pytest.approx(losses(runs[1]), rel=1e-5)


def test_weights_start_a_run_on_a_split_mesh(runs, data_dir):
    experiment = build(small_config(data_dir, weights=str(runs[1]), fsdp=8, **WIDE))
    state = create_program(experiment, parallel.training_mesh(8)).create(jax.random.key(0))
    expected = training.restore(runs[1], mesh=parallel.data_mesh()).variables["params"]
    chex.assert_trees_all_equal(jax.device_get(state.params), jax.device_get(expected))
    assert not state.params["block_1"]["mlp"]["fc1"]["kernel"].sharding.is_fully_replicated


def test_what_is_exchanged_does_not_grow_with_the_batch(data_dir):
    """Parameters are gathered; activations would be if modules' results were not kept split."""

    def sent(batch_size):
        config = small_config(data_dir, fsdp=8, batch_size=batch_size, **WIDE)
        config.data.train_split = "train"
        program = create_program(build(config), parallel.training_mesh(8))
        batch = {
            "image": jax.ShapeDtypeStruct((batch_size, 8, 8, 1), jnp.uint8),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }
        key = jax.eval_shape(lambda: jax.random.key(0))
        text = program.step.lower(program.like, batch, key).compile().as_text()
        return sum(each.sent for each in parallel.find_collectives(text, 8))

    assert sent(512) == pytest.approx(sent(64), rel=0.05)
