"""Matrix products split over devices: placements, exchanges, and that runs stay the same."""

import collections
import itertools
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from pnoise_jax import evaluation, parallel, training
from pnoise_jax.runs import Checkpoints
from pnoise_jax.studies.ahead_of_time.exchanges import noises
from pnoise_jax.training.experiment import build
from pnoise_jax.training.step.program import advance, create_program
from tests.training.runs import small_config

# Its kernels are just large enough for fsdp to split them, too.
TWO_BLOCKS = {"model.dim": 128, "model.depth": 2, "model.num_heads": 4}
SPLIT = parallel.MatmulSplit(
    by_head=("attn/qkv",),
    columns=("mlp/fc1",),
    rows=("attn/proj", "mlp/fc2"),
    between=("attn", "mlp"),
    sizes={"num_heads": 4, "mlp_dim": 512},
)


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("params/block_1/attn/qkv/kernel", (128, 384), ("model",)),
        ("params/block_1/attn/qkv/bias", (384,), ()),
        ("params/block_1/attn/proj/kernel", (128, 128), ("model",)),
        ("params/block_1/mlp/fc1/kernel", (128, 512), ("fsdp", "model")),
        ("opt_state/0/mu/block_1/mlp/fc1/kernel", (128, 512), ("fsdp", "model")),
        ("params/block_1/mlp/fc1/bias", (512,), ("model",)),
        ("params/block_1/mlp/fc2/kernel", (512, 128), ("model", "fsdp")),
        ("params/block_1/mlp/fc2/bias", (128,), ()),
        ("params/block_1/mlp/fc2/kernel", (511, 129), ()),  # nothing divides
        ("params/block_1/mlp/fc1/kernel", (), ()),  # of an optimiser that keeps one number
        ("params/block_1/othermlp/fc1/kernel", (128, 512), (None, "fsdp")),
        ("params/head/kernel", (128, 512), (None, "fsdp")),
    ],
)
def test_where_arrays_are_placed(path, shape, expected):
    mesh = parallel.training_mesh(2, 2)
    (place,) = parallel.place({path: np.empty(shape)}, mesh, SPLIT).values()
    assert place.spec == PartitionSpec(*expected)


def test_devices_that_share_products_are_neighbours():
    mesh = parallel.training_mesh(2, 2)
    assert mesh.axis_names == ("data", "fsdp", "model")
    numbers = np.vectorize(lambda device: device.id)(mesh.devices)
    assert numbers.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert parallel.split_batch(mesh).spec == PartitionSpec(("data", "fsdp"))


def devices_of_hosts(*sizes):
    """Stand-ins for the devices of hosts, in an order that takes turns between hosts."""
    devices = [
        types.SimpleNamespace(process_index=host, id=100 * host + number)
        for host, size in enumerate(sizes)
        for number in range(size)
    ]
    return sorted(devices, key=lambda device: device.id % 100)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2, 2), "tensor_parallel=4 does not divide the 2 devices of a host.*one of 1, 2$"),
        ((6, 6), "tensor_parallel=4 does not divide the 6 devices of a host.*one of 1, 2, 3, 6$"),
        ((2, 6), "tensor_parallel=4 does not divide the 2 devices of a host.*one of 1, 2$"),
    ],
)
def test_devices_that_share_products_are_on_one_host(sizes, message):
    with pytest.raises(ValueError, match=message):
        parallel.make_mesh(devices_of_hosts(*sizes), 1, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensor_parallel": 3}, "tensor_parallel=3 does not divide the 8 devices: .* 1, 2, 4, 8"),
        ({"tensor_parallel": 16}, "tensor_parallel=16 does not divide the 8 devices"),
        ({"tensor_parallel": 0}, "tensor_parallel=0: give a whole number of at least 1"),
        ({"tensor_parallel": 2.5}, "tensor_parallel"),
        (
            {"tensor_parallel": 4, "fsdp": 4},
            "fsdp=4 does not divide the 2 groups of 4 devices: choose one of 1, 2",
        ),
        (
            {"tensor_parallel": 8, "model.num_heads": 4},
            "tensor_parallel=8 does not divide num_heads=4 of the model: choose one of 1, 2, 4",
        ),
        (
            {"tensor_parallel": 4, "model.num_heads": 4, "model.mlp_dim": 30},
            "tensor_parallel=4 does not divide mlp_dim=30 of the model: choose one of 1, 2",
        ),
        (
            {"tensor_parallel": 2, "batch_size": 18},
            "batch_size=18 is not divisible by 4 groups of 2 devices: use a multiple of 4",
        ),
        (
            {"tensor_parallel": 2, "reduce_dtype": "bfloat16"},
            "reduce_dtype='bfloat16' with tensor_parallel=2: .* leave reduce_dtype out",
        ),
    ],
)
def test_bad_settings_are_refused(changes, message, data_dir, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        training.train(small_config(data_dir, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("resnet18", {}),
        ("swin_t", {"image_size": 8, "patch_size": 2, "dim": 32}),
        ("convit_ti", {"image_size": 8, "patch_size": 4, "dim": 16, "num_heads": 4}),
    ],
)
def test_families_without_rules_are_refused(model, options, data_dir, tmp_path):
    config = small_config(data_dir, tensor_parallel=2)
    config.model = training.model_config(model, **options)
    with pytest.raises(ValueError, match=f"tensor_parallel=2: .*model.name='{model}' cannot be"):
        training.train(config, tmp_path / "run")


def train_steps(config, mesh, steps=3):
    """The state after some steps, and the metrics of each."""
    experiment = build(config)
    program = create_program(experiment, mesh)
    state, metrics = program.create(jax.random.key(0)), []
    with experiment.task.open_batches() as batches:
        first = itertools.islice(batches, steps)
        for new_state, each in advance(program, state, first, program.constants(experiment)):
            state = new_state
            metrics.append(jax.device_get(each))
    return state, metrics


def mesh_of(devices, fsdp=1, tensor_parallel=1):
    return parallel.make_mesh(jax.devices()[:devices], fsdp, tensor_parallel)


# Devices, parts of the parameters, and devices that share products.
MESHES = {"model": (2, 1, 2), "model x data": (4, 1, 2), "all": (8, 2, 2), "model of 4": (4, 1, 4)}
EVERYTHING = {
    **TWO_BLOCKS,
    "model.dropout": 0.2,
    "model.drop_path": 0.3,
    "model.remat": True,
    "ema_decay": 0.9,
    "optimizer.clip_norm": 0.1,
    "noise.train": True,
    "noise.name": "linear_transform",
    "noise.quality": "cyclic_shift",
    "noise.strength": 0.3,
    "noise.layer": "2",
}


def assert_same_run(config, mesh, one_device_run):
    expected_state, expected = one_device_run
    state, metrics = train_steps(config, mesh)
    for ours, theirs in zip(metrics, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    for path, ours in jax.tree.leaves_with_path(jax.device_get(state.ema)):
        theirs = dict(jax.tree.leaves_with_path(jax.device_get(expected_state.ema)))[path]
        np.testing.assert_allclose(ours, theirs, atol=2e-4, err_msg=str(path))


@pytest.fixture(scope="module")
def one_device_run(data_dir):
    return train_steps(small_config(data_dir, **EVERYTHING), mesh_of(1))


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        *("model", "all"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("model x data", "model of 4")),
    ],
)
def test_a_run_equals_that_of_one_device(name, one_device_run, data_dir):
    """With dropout, stochastic depth, noise over the batch, and recomputed activations."""
    devices, fsdp, shared = MESHES[name]
    config = small_config(data_dir, fsdp=fsdp, tensor_parallel=shared, **EVERYTHING)
    assert_same_run(config, mesh_of(devices, fsdp, shared), one_device_run)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "options", "section"),
    [
        pytest.param(
            "beit_b_16",
            {"dropout": 0.1},
            {"name": "gaussian", "std": 0.2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "deit_ti_16_distilled",
            {"attention_kernel": "auto"},
            {"name": "salt_and_pepper", "probability": 0.1, "extremes": "batch"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "vit_22b",
            {"dropout": 0.1, "remat": True},
            {"name": "erase", "strength": 0.2},
            marks=pytest.mark.slow,
        ),
        ("vit_ti_16", {"class_token": False, "pooling": "mean"}, {"preset": "optimal_all_tokens"}),
    ],
)
def test_other_models_and_noises(model, options, section, data_dir):
    config = small_config(data_dir, ema_decay=0.5)
    sizes = {"image_size": 8, "patch_size": 4, "dim": 32, "depth": 2, "num_heads": 4}
    config.model = training.model_config(model, **sizes | options)
    config.noise = training.noise_config(train=True, layer=2, **section)
    one_device_run = train_steps(config, mesh_of(1))
    config.tensor_parallel = 4
    assert_same_run(config, mesh_of(8, 1, 4), one_device_run)


def exchanges(config, mesh, program):
    """What a compiled step exchanges between devices that share products: {(kind, size): count}."""
    experiment = build(config)
    if program == "training":
        training_program = create_program(experiment, mesh)
        batch = {
            "image": jax.ShapeDtypeStruct((config.batch_size, 8, 8, 1), jnp.uint8),
            "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
        }
        key = jax.eval_shape(lambda: jax.random.key(0))
        lowered = training_program.step.lower(training_program.like, batch, key)
    else:
        traced, _ = evaluation.trace(
            experiment.model,
            experiment.abstract_state(mesh).variables(),
            experiment.protocols[0],
            images=(8, 8, 1),
            size=config.batch_size,
            mesh=mesh,
            mean=(0.5,),
            std=(0.5,),
        )
        lowered = traced.lower()
    counts = collections.Counter()
    for each in parallel.find_collectives(lowered.compile().as_text(), mesh.size):
        if all(group[0] // 2 == group[-1] // 2 for group in each.groups):
            counts[each.kind, each.size] += each.count
    return counts


@pytest.mark.parametrize(
    ("program", "passes", "of_all", "of_class"), [("training", 2, 5, 9), ("evaluation", 1, 2, 2)]
)
def test_branches_exchange_only_results(program, passes, of_all, of_class, data_dir):
    """Two blocks of two branches each, over two devices that have 80 tokens, 16 of them of classes.

    The last block's branches return only those 16, and its attention passes gradients to all. The
    gradients of its projection to queries, keys and values are exchanged for the class tokens,
    instead of its kernel.
    """
    changes = TWO_BLOCKS | {"model.dropout": 0.1, "model.drop_path": 0.1, "noise.train": True}
    config = small_config(data_dir, tensor_parallel=2, batch_size=64, **changes)
    config["evaluation"].batch_size = 16
    exchanged = exchanges(config, parallel.training_mesh(1, 2), program)
    examples = 64 // 4
    sums = {
        size: exchanged.pop((kind, size)) for kind, size in [*exchanged] if kind == "all-reduce"
    }
    whole = 4 * 128 * examples * 5
    results = whole * of_all + 4 * 128 * examples * of_class
    # XLA joins one sum of all tokens with sums of the class tokens.
    assert sums[whole] == of_all - (program == "training")
    assert 0 <= sum(size * count for size, count in sums.items()) - results < 64  # sums of squares
    # Rows of the first kernel to queries, keys and values, each device's half, for heads.
    assert exchanged.pop(("all-to-all", 4 * 128 * 3 * 128 // 2)) == passes
    assert all(size <= 4 * 3 * 128 for _, size in exchanged)  # biases


@pytest.mark.parametrize(("program", "passes"), [("training", 2), ("evaluation", 1)])
def test_attention_and_mlp_in_parallel(program, passes, data_dir):
    """ViT-22B's blocks sum the results of both branches, and its head that of an MLP."""
    sums, others = [], []
    for batch_size in (64, 128):
        config = small_config(data_dir, tensor_parallel=2, batch_size=batch_size)
        config.model = training.model_config(
            "vit_22b", image_size=8, patch_size=4, dim=128, depth=2, num_heads=4
        )
        config["evaluation"].batch_size = 16
        exchanged = exchanges(config, parallel.training_mesh(1, 2), program)
        others.append({key: count for key, count in exchanged.items() if key[0] != "all-reduce"})
        sums.append(sum(size * n for (kind, size), n in exchanged.items() if kind == "all-reduce"))
    examples = (128 - 64) // 4  # of a group
    assert sums[1] - sums[0] == 4 * 128 * examples * (2 * 2 * 4 + 1) * passes
    assert others[0] == others[1]  # of kernels and biases


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """The same run twice: each device computes whole products, or two devices share them."""
    paths = {}
    for shared in (1, 2):
        paths[shared] = tmp_path_factory.mktemp("shared") / f"{shared}"
        config = small_config(data_dir, tensor_parallel=shared, **CHANGES)
        training.train(config, paths[shared])
    return paths


CHANGES = {
    **TWO_BLOCKS,
    "noise.train": True,
    "accumulate": 2,
    "ema_decay": 0.9,
    "duration": "4 steps",
    "log_every": "1 steps",
    "checkpoint.every": "2 steps",
    "data.test_split": "test[:101]",
    "evaluation.batch_size": 8,
}


def losses(path):
    return [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def assert_same_report(run, expected):
    ours, theirs = (
        json.loads((d / "evaluation.json").read_text())["rows"] for d in (run, expected)
    )
    for row, expected_row in zip(ours, theirs, strict=True):
        assert row["n"] == expected_row["n"] == 101
        assert row["top1"] == expected_row["top1"]
        assert row["nll"] == pytest.approx(expected_row["nll"], rel=1e-4)


@pytest.mark.long
def test_training_and_evaluation_are_the_same(runs):
    assert losses(runs[2]) == pytest.approx(losses(runs[1]), rel=1e-5)
    assert_same_report(runs[2], runs[1])


@pytest.mark.long
@pytest.mark.parametrize(
    ("saved", "changes"), [pytest.param(2, {}, marks=pytest.mark.slow), (2, {"fsdp": 2}), (1, {})]
)
def test_the_mesh_may_change_when_a_run_resumes(saved, changes, runs, data_dir, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[saved], run)
    shutil.rmtree(run / "checkpoints" / "4")
    (run / "evaluation.json").unlink()
    config = small_config(data_dir, tensor_parallel=2 if saved == 1 else 4, **CHANGES | changes)
    training.train(config, run)
    assert losses(run) == pytest.approx(losses(runs[1]), rel=1e-5)
    assert_same_report(run, runs[1])


def test_every_device_holds_its_share(runs, data_dir):
    config = small_config(data_dir, tensor_parallel=4, **CHANGES)
    like = build(config).abstract_state(parallel.training_mesh(1, 4))
    checkpoints = Checkpoints(runs[2], keep=3)
    state, step = checkpoints.restore(like)
    checkpoints.close()
    assert step == 4
    shares = {
        str(path): x.addressable_shards[0].data.shape
        for path, x in jax.tree.leaves_with_path(state)
        if "fc1" in str(path) and "kernel" in str(path) and "block_1" in str(path)
    }
    assert len(shares) == 4  # the parameters, their moving average and AdamW's two moments
    assert set(shares.values()) == {(128, 128)}


def test_weights_start_a_run(runs, data_dir):
    config = small_config(data_dir, weights=str(runs[1]), tensor_parallel=4, **TWO_BLOCKS)
    state = create_program(build(config), parallel.training_mesh(1, 4)).create(jax.random.key(0))
    expected = training.restore(runs[1], mesh=parallel.data_mesh()).variables["params"]
    jax.tree.map(np.testing.assert_array_equal, state.params, jax.device_get(expected))
    assert state.params["block_1"]["mlp"]["fc2"]["kernel"].sharding.spec == PartitionSpec("model")


def test_evaluation_drops_groups_that_do_not_fit(runs, monkeypatch):
    """For a run that was trained on other devices than there are now."""
    config = training.restore(runs[2], mesh=parallel.data_mesh()).experiment.config
    config.tensor_parallel, config.fsdp = 3, 2
    assert training.evaluating.evaluating._mesh(config).axis_names == ("data", "fsdp")
    config.fsdp = 3
    assert training.evaluating.evaluating._mesh(config).axis_names == ("data",)


def test_several_runs_in_one_program_are_refused(data_dir):
    experiment = build(small_config(data_dir, tensor_parallel=2))
    with pytest.raises(ValueError, match="tensor_parallel=2: here every device holds all"):
        create_program(experiment, parallel.data_mesh(), together=True)


@pytest.mark.parametrize("fsdp", [1, 2])
@pytest.mark.parametrize("name", sorted(noises(16, 4)))
def test_noise_is_exact(name, fsdp):
    """Forward and backward, on examples that are whole on each of two devices."""
    mesh, kind = parallel.training_mesh(fsdp, 2), noises(16, 4)[name]
    x, g = jax.random.normal(jax.random.key(0), (2, 16, 5, 3))

    def both(x, g):
        noisy, backward = jax.vjp(lambda x: kind(jax.random.key(1), x), x)
        return noisy, *backward(g)

    expected = jax.jit(both)(x, g)
    split = parallel.split_batch(mesh)
    actual = jax.jit(both)(*jax.device_put((x, g), split))
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
