"""Denoising: its loss and rows against NumPy, its noise, what it refuses, and whole runs."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import evaluation, parallel, studies, training, weights
from pnoise_jax.denoising.corruption import Corruption
from pnoise_jax.training import RandomStreams
from tests.training.runs import small_config

KEY = jax.random.key(0)


def denoising_config(data_dir, changes=(), **options):
    config = small_config(data_dir, **{"data.test_split": "test"})
    config.noise.preset = None
    config.noise.update({"name": "gaussian", "std": 0.3, "point": "image", "train": True})
    config.model.dim = 8
    config.task = training.task_config(
        "denoising", **{"decoder_width": 4, "decoder_depth": 1} | options
    )
    config.update_from_flattened_dict(dict(changes))
    return config


def build(*args, **options):
    return training.build(denoising_config(*args, **options))


@functools.cache
def initialised(data_dir):
    """A small experiment, and its state before the first step."""
    experiment = build(data_dir)
    return experiment, jax.jit(experiment.initial_state)(KEY)


@pytest.fixture(scope="module")
def batch(digits):
    return {"image": jnp.asarray(digits.images[:16]), "label": jnp.asarray(digits.labels[:16])}


def loss_of(task, state, batch):
    def loss(params, batch):
        context = training.StepContext(jnp.int32(0), RandomStreams(KEY))
        return task.loss(params, {"batch_stats": state.batch_stats}, batch, context)

    return jax.jit(loss)(state.params, batch)


def test_the_loss_is_the_mean_squared_error_of_clean_pixels(data_dir, batch):
    experiment, state = initialised(data_dir)
    loss, (_, metrics) = loss_of(experiment.task, state, batch)
    key = RandomStreams(KEY)["noise"]
    images = evaluation.normalise(batch["image"], (0.5,), (0.5,))
    decoded = jax.jit(functools.partial(experiment.model.apply, train=True))(
        {"params": state.params}, images, rngs={"noise": key}
    )
    expected = np.mean((np.asarray(decoded) - np.asarray(batch["image"]) / 255.0) ** 2)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["psnr"]) == pytest.approx(-10 * np.log10(expected), abs=1e-4)


def test_labels_make_no_difference(data_dir, batch):
    experiment, state = initialised(data_dir)
    other = {**batch, "label": (batch["label"] + 1) % 10}
    chex.assert_trees_all_equal(
        loss_of(experiment.task, state, batch), loss_of(experiment.task, state, other)
    )


def test_rows_are_errors_against_clean_pixels_and_include_the_inputs(data_dir, digits):
    experiment, state = initialised(data_dir)
    task, mesh = experiment.task, parallel.data_mesh()
    rows = task.evaluate(state.variables(), mesh, experiment.protocols)
    assert [row["n"] for row in rows] == [1000] * 3
    clean, noisy, in_class_order = rows
    assert noisy == {**in_class_order, "order": "shuffled"}  # drawn by example, whatever the order
    images = evaluation.normalise(digits.images, (0.5,), (0.5,))
    decoded = jax.jit(experiment.model.apply)({"params": state.params}, images)
    expected = np.mean((np.asarray(decoded) - digits.images / 255.0) ** 2)
    assert clean["mse"] == pytest.approx(expected, rel=1e-4)
    assert clean["psnr"] == pytest.approx(-10 * np.log10(expected), abs=1e-3)
    assert clean["input_mse"] == pytest.approx(0, abs=1e-12)
    # Half of a Gaussian at the black pixels, which are most, is clipped away.
    assert 0.3**2 / 2 < noisy["input_mse"] < 0.3**2
    assert rows == task.evaluate(state.variables(), mesh, experiment.protocols)


def test_the_corruption_is_the_input_of_the_model(data_dir, batch):
    """Without the noise in the latent."""
    latent = training.noise_config(name="gaussian", strength=0.1, train=True, layer=1)
    config = denoising_config(data_dir)
    config.noise.others.latent = latent
    model = training.build(config).model
    images = evaluation.normalise(batch["image"], (0.5,), (0.5,))
    seen = {}

    class Watching(type(model)):
        def run_embed(self, images, *, train):
            seen["images"] = images
            return super().run_embed(images, train=train)

    watching = Watching(**{f: getattr(model, f) for f in model.__dataclass_fields__
                           if f not in ("parent", "name")})  # fmt: skip
    variables = jax.eval_shape(watching.init, KEY, images)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)

    @jax.jit
    def run_both(key):
        watching.apply(variables, images, train=True, rngs={"noise": key})
        corrupted = Corruption.of(model).apply({}, images, train=True, rngs={"noise": key})
        return corrupted, seen.pop("images")

    corrupted, entering = run_both(jax.random.key(3))
    np.testing.assert_array_equal(corrupted, entering)
    assert not np.array_equal(corrupted, images)


def test_held_out_classes_are_not_trained_or_evaluated(data_dir):
    experiment = build(data_dir, held_out_classes=("8", 3))
    task = experiment.task
    assert task.held_out == (3, 8)
    with task.open_batches() as batches:
        seen = np.concatenate([batch["label"] for batch in batches])
    assert set(seen) == set(range(10)) - {3, 8}
    state = jax.jit(experiment.initial_state)(KEY)
    (row,) = task.evaluate(state.variables(), parallel.data_mesh(), experiment.protocols[:1])
    assert row["n"] == 800


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (("eight",), r"task: held_out_classes: there is no class 'eight'"),
        ((10,), r"held_out_classes: there is no class 10; labels are 0 to 9"),
        ((-1,), r"held_out_classes: there is no class -1"),
        ("8", r"held_out_classes='8': give a list of classes, such as \('8',\)"),
        (8, r"held_out_classes=8: give a list"),
        ((8.0,), r"held_out_classes: 8\.0 is neither"),
        ((True,), r"held_out_classes: True is neither"),
        (tuple(range(10)), r"held_out_classes=.* are all classes of digits: leave some"),
    ],
)
def test_bad_held_out_classes_are_named(data_dir, held_out, message):
    with pytest.raises(ValueError, match=message):
        build(data_dir, held_out_classes=held_out)


def test_draws_are_not_averaged_if_nothing_is_classified(data_dir):
    with pytest.raises(ValueError, match=r"draws=4 averages the probabilities.*'denoising'"):
        build(data_dir, {"evaluation.draws": 4})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise.name": "none", "noise.std": None, "noise.point": None, "noise.train": None},
         r"noise: denoising has nothing to remove.*\(there is none\); set, for example"),
        ({"noise.train": False}, r"no noise enters the image in training \(noise at 'image', "
         r"train=False\)"),
        ({"noise.point": "block_input"},
         r"no noise enters the image in training \(noise at 'block_input'"),
        ({"noise.std": 0.0}, r"noise: Gaussian\(.*\) does not change images"),
        ({"noise.strength": 0.0}, r"noise: Gaussian\(.*\) does not change images"),
        ({"noise.name": "salt_and_pepper", "noise.std": None, "noise.probability": 0.0},
         r"noise: SaltAndPepper\(.*\) does not change images"),
        ({"label_smoothing": 0.1}, r"label_smoothing=0\.1: the task 'denoising' does not use it; "
         r"set label_smoothing=0\.0"),
        ({"mixup.alpha": 0.2}, r"mixup\.alpha=0\.2: the task 'denoising' does not use it"),
        ({"mixup.labels_follow_noise": True}, r"the task 'denoising' does not use it; set mi"),
        ({"evaluation.views": 2}, r"evaluation\.views=2: shifted images cannot be averaged"),
        ({"batch_size": 184, "task.held_out_classes": (1,)},
         r"batch_size=184 is larger than .* without task\.held_out_classes=\(1,\), which has 180"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_at_the_start(data_dir, changes, message):
    task = build(data_dir, changes).task
    with pytest.raises(ValueError, match=message):
        task.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_width": 0}, r"decoder_width=0: give a whole number of at least 1"),
        ({"decoder_depth": -1}, r"decoder_depth=-1: give a whole number of at least 0"),
    ],
)
def test_bad_options_are_named(data_dir, options, message):
    with pytest.raises(ValueError, match=message):
        build(data_dir, **options)


def test_a_model_without_a_map_is_named(data_dir):
    config = denoising_config(data_dir)
    config.model = training.model_config("tests.models.test_own_model:Mlp")
    with pytest.raises(ValueError, match=r"model\.name=.* Mlp has no map .* Define run_map"):
        training.build(config)


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """A finished run of 6 steps, and its rows."""
    path = tmp_path_factory.mktemp("runs") / "run"
    rows = training.train(denoising_config(data_dir, {"duration": "6 steps"}), path)
    return path, rows


@pytest.mark.long
def test_a_run_is_evaluated_again_with_the_same_numbers(run):
    path, rows = run
    stored = json.loads((path / "evaluation.json").read_text())["rows"]
    assert training.evaluate(None, path) == rows == stored
    assert {"mse", "psnr", "input_mse"} <= rows[0].keys()


def test_a_run_that_was_stopped_ends_bitwise_the_same(run, data_dir, tmp_path):
    path, _ = run
    first = denoising_config(data_dir, {"duration": "6 steps", "checkpoint.every": "3 steps"})
    experiment = training.build(first)
    program = training.create_program(experiment, parallel.data_mesh())
    state = program.create(jax.random.key(0))
    with experiment.task.open_batches() as batches:
        for _, each in zip(range(3), batches, strict=False):
            each = parallel.to_devices(each, program.batches)
            state, _ = program.step(state, each, *program.constants(experiment))
    with experiment.task.open_batches(3) as batches:
        for each in batches:
            each = parallel.to_devices(each, program.batches)
            state, _ = program.step(state, each, *program.constants(experiment))
    whole = training.restore(path, mesh=parallel.data_mesh())
    chex.assert_trees_all_equal(state.variables()["params"], whole.variables["params"])


def test_weights_of_a_run_start_a_classifier(run, data_dir, tmp_path):
    path, _ = run
    config = small_config(data_dir, **{"noise.preset": None, "duration": "2 steps"})
    config.model.dim = 8
    config.weights, config.weights_head = str(path), "fresh"
    experiment = training.build(config)
    matched = experiment.match_weights()
    assert "without the decoder" in matched.describe()
    assert "head fresh (none in the file → 10 classes)" in matched.describe()
    ours = dict(matched.read())
    theirs = training.restore(path, mesh=parallel.data_mesh()).variables["params"]
    np.testing.assert_array_equal(ours["params/patch_embed/kernel"],
                                  theirs["patch_embed"]["kernel"])  # fmt: skip
    assert not [name for name in ours if "decoder" in name or "head" in name]
    assert training.train(config, tmp_path / "fine")[0]["n"] == 200

    config.weights_head = "keep"
    with pytest.raises(ValueError, match=r"no head, and the model is for 10: .*'fresh'"):
        training.build(config).match_weights()


def test_pretrained_weights_start_it_without_their_head(run, data_dir):
    config = denoising_config(data_dir, {"weights": str(run[0])})
    with pytest.raises(ValueError, match="weights_head='keep': the task has its own head"):
        training.build(config).match_weights()
    config.weights_head = "fresh"
    experiment = training.build(config)
    read = dict(experiment.match_weights().read())
    state = jax.eval_shape(experiment.initial_state, KEY, read)
    assert "head" not in state.params


def test_programs_that_need_logits_refuse_denoising(run, data_dir, tmp_path):
    path, _ = run
    config = training.read_config(path)
    with pytest.raises(ValueError, match=r"task\.name='denoising' classifies nothing, and an aud"):
        studies.audit_runs(config, path)
    with pytest.raises(ValueError, match="'denoising' classifies nothing, and a sweep compares"):
        studies.run_sweep(config, [{"seed": 1}], tmp_path / "sweep")
    with pytest.raises(ValueError, match="is a run of denoising, which has a decoder instead of"):
        weights.export(path)
