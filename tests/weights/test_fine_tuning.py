"""Runs that start from weights: what they load and freeze, and resuming without the file."""

import contextlib
import json
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from jax.sharding import AxisType

from pnoise_jax import parallel, training, weights
from pnoise_jax.runs import Checkpoints
from pnoise_jax.training import run_config
from pnoise_jax.training.loop import console
from pnoise_jax.training.loop.together import open_together, start_together
from pnoise_jax.training.step.program import advance
from pnoise_jax.weights.formats import run_weights
from pnoise_jax.weights.formats.detect import open_file
from tests.training.runs import small_config
from tests.weights import sources

pytestmark = pytest.mark.long

MESH = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])

# Most features of training, at once.
EVERYTHING = {
    "model.remat": True,
    "model.dropout": 0.1,
    "dtype": "bfloat16",
    "accumulate": 2,
    "ema_decay": 0.9,
    "noise.preset": "paper_vit",
    "optimizer.clip_norm": 1.0,
    "optimizer.layer_decay": 0.5,
    "optimizer.head_learning_rate_multiplier": 2.0,
    "optimizer.freeze": ("patch_embed/.*|cls_token", "block_1/attn/.*"),
}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A ViT for images of 16 pixels."""
    file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    sources.save_random_vit(file, dim=16, depth=1, patch_size=4, grid=4)
    return file


def config_of(data_dir, file, **changes):
    return small_config(data_dir, **EVERYTHING | {"weights": str(file)} | changes)


def final_state(config, directory):
    like = training.build(config).abstract_state(parallel.data_mesh())
    with contextlib.closing(Checkpoints(directory, keep=3)) as checkpoints:
        return jax.device_get(checkpoints.restore(like)[0])


@pytest.fixture(scope="module")
def straight(data_dir, weights_file, tmp_path_factory):
    """12 steps without a break."""
    directory = tmp_path_factory.mktemp("straight")
    config = config_of(data_dir, weights_file)
    return config, directory, training.train(config, directory)


def test_what_is_frozen_stays_and_the_rest_moves(straight, weights_file):
    config, directory, rows = straight
    state = final_state(config, directory)
    file = dict(training.build(config).match_weights().read())
    patterns = ("params/patch_embed/", "params/cls_token", "params/block_1/attn/")
    for path, x in jax.tree.leaves_with_path({"params": state.params}):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert (x == file[name]).all() == name.startswith(patterns), name
        assert np.abs(x - file[name]).max() < 0.05, name  # 12 small steps from the file's
    moments = {x.shape for x in jax.tree.leaves(state.opt_state)}
    assert (4, 4, 1, 16) not in moments  # none for the patches' kernel
    assert (1, 5, 16) in moments  # but for the positions
    assert {row["n"] for row in rows} == {200}


@pytest.mark.parametrize("moved", [False, True])
def test_resuming_is_bitwise_the_same_and_needs_no_weights(straight, data_dir, tmp_path, moved):
    config, directory, rows = straight
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    if not moved:
        shutil.rmtree(tmp_path / "checkpoints" / "12")
    there = config_of(data_dir, "/somewhere/else/vit.safetensors")
    assert training.train(there, tmp_path) == rows
    chex.assert_trees_all_equal(final_state(config, tmp_path), final_state(config, directory))
    assert training.evaluate(None, tmp_path) == rows


def test_other_weights_are_another_run(straight, data_dir, weights_file, tmp_path):
    """Compared by content, if the path exists."""
    _, directory, _ = straight
    run_config.check(directory, config_of(data_dir, shutil.copy(weights_file, tmp_path / "copy")))
    sources.save_random_vit(tmp_path / weights_file.name, dim=16, depth=1, patch_size=4, grid=5)
    with pytest.raises(ValueError, match=rf"weights: '{weights_file}' there, '{tmp_path}/vit"):
        run_config.check(directory, config_of(data_dir, tmp_path / weights_file.name))
    moved = shutil.copytree(directory, tmp_path / "run")
    note = json.loads((moved / "weights.json").read_text())
    (moved / "weights.json").write_text(json.dumps(note | {"fingerprint": "another"}))
    with pytest.raises(ValueError, match=f"'{weights_file} with other content' there"):
        run_config.check(moved, config_of(data_dir, weights_file))
    (moved / "weights.json").unlink()  # then the path decides
    run_config.check(moved, config_of(data_dir, weights_file))
    with pytest.raises(ValueError, match="weights: "):
        run_config.check(moved, config_of(data_dir, tmp_path / "copy"))
    for path in ("/somewhere/resnet.safetensors", None):
        with pytest.raises(ValueError, match=rf"weights: '{weights_file}' there, .* now"):
            training.train(config_of(data_dir, path or "other"), directory)


def test_what_does_not_fit_is_found_before_anything_is_written(data_dir, weights_file, tmp_path):
    for changes, message in [
        ({"weights": "/none"}, "weights='/none' does not exist"),
        (
            {"model.depth": 2},
            r"(?s)(?=.*with .*depth=1).*12 missing: params/block_2/attn/proj/bias \(16,\), ",
        ),
        (
            {"optimizer.freeze": ("blocks_1/.*",)},
            r"'blocks_1/\.\*' matches none of the 20 parameters, which include block_1/",
        ),
        ({"optimizer.freeze": (".*",)}, "leaves no parameter to train"),
    ]:
        config = config_of(data_dir, weights_file, **changes)
        with pytest.raises((ValueError, OSError), match=message):
            training.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def start(config):
    """The experiment, its program, and its state before the first step."""
    experiment = training.build(config)
    program = training.create_program(experiment, MESH)
    return experiment, program, program.create(jax.random.key(0))


def test_a_run_can_start_from_the_average_of_another(straight, data_dir):
    config, directory, _ = straight
    averaged = final_state(config, directory).ema["params"]
    experiment, _, state = start(config_of(data_dir, directory))
    chex.assert_trees_all_equal(state.params, averaged)
    chex.assert_trees_all_equal(state.ema["params"], averaged)
    described = console.describe_fine_tuning(experiment, experiment.match_weights())
    assert described == [
        f"weights: 20 of 20 arrays from {directory} (EMA weights of step 12); "
        "head kept (10 classes)",
        "the weights expect mean (0.5,), std (0.5,), test_transform none (the run's config)",
        "frozen: 7 of 20 parameter arrays, 1376 of 3850 numbers",
    ]
    older = directory / "checkpoints" / "8"
    *_, before = start(config_of(data_dir, older, weights_head="fresh"))
    assert (np.asarray(before.params["head"]["kernel"]) != averaged["head"]["kernel"]).any()
    with pytest.raises(ValueError, match=r"has num_heads=2, the model 4: set model\.num_h"):
        training.build(config_of(data_dir, older, **{"model.num_heads": 4})).match_weights()


def test_a_damaged_checkpoint_is_refused(straight, data_dir, tmp_path, monkeypatch):
    """Damage is found during reading, which is group by group to save memory."""
    _, directory, _ = straight
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    arrays = tmp_path / "checkpoints" / "12" / "arrays" / "metadata"
    stored = json.loads(arrays.read_text())
    stored["ema/params/pos_embed"][2] ^= 1
    arrays.write_text(json.dumps(stored))
    config = config_of(data_dir, tmp_path)
    damaged = r"checkpoints/12 is damaged \(its arrays do not match the checksums that were saved\)"
    with pytest.raises(ValueError, match=damaged):
        start(config)
    monkeypatch.setattr(run_weights, "_AT_ONCE", 1000)  # bytes
    reading = training.build(config).match_weights().read()
    before = [next(reading) for _ in range(19)]  # the damaged one has the last name
    assert len(dict(before)) == 19
    with pytest.raises(ValueError, match=damaged):
        next(reading)
    stored["ema/params/head/bias"][0] = "float31"
    arrays.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"is not a checkpoint of this package \(.*float31"):
        training.build(config).match_weights()


def test_a_run_is_its_newest_checkpoint_from_any_directory(straight, monkeypatch):
    _, directory, _ = straight
    checkpoints = directory / "checkpoints"
    assert weights.fingerprint(directory) == weights.fingerprint(checkpoints / "12")
    assert weights.fingerprint(directory) != weights.fingerprint(checkpoints / "8")
    monkeypatch.chdir(directory.parent)
    with open_file(Path(directory.name)).open() as read:
        assert read("params/head/bias").shape == (10,)


def test_runs_train_together(data_dir, weights_file):
    """They start alike but for fresh heads, and frozen arrays stay."""
    plain = {"accumulate": 1, "model.remat": False, "dtype": "float32", "model.dropout": 0.0}
    changes = plain | {"ema_decay": None, "weights_head": "fresh"}
    configs = [config_of(data_dir, weights_file, **changes, seed=seed) for seed in (0, 1)]
    experiments = [training.build(config) for config in configs]
    program = training.create_program(experiments[0], MESH, any_strength=True, together=True)
    states, constants = start_together(experiments, program)
    before = jax.device_get(states.params)
    with open_together(experiments) as batches:
        states, _ = next(advance(program, states, batches, constants))
    for params in (before, jax.device_get(states.params)):
        attention, head = params["block_1"]["attn"]["qkv"]["kernel"], params["head"]["kernel"]
        np.testing.assert_array_equal(attention[0], before["block_1"]["attn"]["qkv"]["kernel"][1])
        assert (head[0] != head[1]).any()
    mlp = [params["block_1"]["mlp"]["fc1"]["kernel"] for params in (before, states.params)]
    assert (mlp[0][0] == mlp[0][1]).all()
    assert (mlp[0] != mlp[1]).any(axis=(1, 2)).all()


def test_frozen_batch_norms_keep_their_statistics(data_dir, tmp_path):
    """Another run can start from those."""
    config = small_config(data_dir, **{"noise.preset": "paper_resnet", "noise.train": False})
    config.model = training.model_config("resnet18", stage_sizes=(1,), width=8, stem="small")
    config.optimizer.update(name="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    config.optimizer.freeze = ("(?!head|stage1_block1/bn2).*",)
    experiment, program, state = start(config)
    (said,) = console.describe_fine_tuning(experiment, None)
    assert "batch norms whose scale is frozen keep their statistics" in said
    before = jax.device_get(state)
    with experiment.task.open_batches() as batches:
        after, metrics = next(advance(program, state, batches, program.constants(experiment)))
    chex.assert_trees_all_equal(after.params["bn1"], before.params["bn1"])
    chex.assert_trees_all_equal(after.batch_stats["bn1"], before.batch_stats["bn1"])
    trained = [each.batch_stats["stage1_block1"]["bn2"]["mean"] for each in (before, after)]
    assert (trained[0] != trained[1]).all()
    change = jax.tree.map(jnp.subtract, after.params, before.params)  # minus the gradient
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(change)), rel=1e-4)

    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(1, after)
    config.weights = str(tmp_path)
    read = traverse_util.unflatten_dict(
        dict(training.build(config).match_weights().read()), sep="/"
    )
    chex.assert_trees_all_equal(read, {"params": after.params, "batch_stats": after.batch_stats})


def test_what_is_frozen_costs_no_gradient(data_dir):
    """The program does not contain it."""

    def flops(*freeze):
        changes = {"accumulate": 2, "model.depth": 4, "optimizer.freeze": freeze}
        experiment = training.build(small_config(data_dir, **changes))
        program = training.create_program(experiment, parallel.data_mesh())
        batch = {
            "image": jax.ShapeDtypeStruct((2, 8, 8, 8, 1), jnp.uint8),
            "label": jax.ShapeDtypeStruct((2, 8), jnp.int32),
        }
        key = jax.eval_shape(lambda: jax.random.key(0))
        return program.step.lower(program.like, batch, key).cost_analysis()["flops"]

    whole = flops()
    assert flops("(?!head|block_4).*") < 0.7 * whole
    assert 0.8 * whole < flops("block_4/.*") < whole  # the gradient goes through
