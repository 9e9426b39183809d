"""The tasks: their batches, their noise, their gate, what they refuse, and whole runs."""

import io
import json
import math
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from rich.console import Console
from scipy import special

from pnoise_jax import data, parallel, training
from pnoise_jax.adaptation import discriminators
from pnoise_jax.adaptation.paired_batches import PairedBatches
from pnoise_jax.models.parts.attention import Attention
from pnoise_jax.runs import RunDirectory, stored_arrays
from pnoise_jax.training.loop import console
from pnoise_jax.training.step.random_streams import RandomStreams
from pnoise_jax.training.task import StepContext
from tests.adaptation import domains

TASKS = ("dann", "tvt", "ssrt", "cdtrans")
NOISE = {"noise.preset": "optimal_all_tokens", "noise.train": True}
SOURCE, TARGET = (f"{domains.__name__}:{name}" for name in ("source", "target"))


def run_steps(config, mesh=None, steps=2):
    """State and metrics after some steps."""
    experiment = training.build(config)
    program = training.create_program(experiment, mesh or parallel.data_mesh())
    state = program.create(jax.random.key(0))
    with experiment.task.open_batches() as batches:
        for _ in range(steps):
            batch = parallel.to_devices(next(batches), program.batches)
            state, metrics = program.step(state, batch, *program.constants(experiment))
    return jax.device_get((state, metrics))


def test_a_batch_has_only_labels_of_the_source():
    task = training.build(domains.config()).task
    with task.open_batches() as batches:
        batch = next(batches)
    assert set(batch) == {"image", "label", "target_image"}
    assert batch["image"].shape == batch["target_image"].shape == (16, 8, 8, 1)


SLOW_DANN = pytest.param("dann", marks=pytest.mark.slow)  # its terms are TVT's, too


@pytest.mark.parametrize("name", [SLOW_DANN, "tvt"])
def test_no_label_of_the_target_reaches_a_step(name):
    """Other labels of the target's training split change no bit."""
    changes = {"task.information_weight": 0.1}
    right = run_steps(domains.config(name, **changes))
    wrong = run_steps(
        domains.config(name, **changes | {"data.name": f"{domains.__name__}:mislabelled"})
    )
    chex.assert_trees_all_equal(right, wrong)


def test_both_domains_are_sampled_without_bias():
    """Every example of each is seen equally often in whole epochs; pairs change."""
    config = domains.config(duration="30 steps")  # 480 examples: 4 epochs of 120
    config.data.train_split = "train[:80]"  # and 6 of 80
    seen = {"image": [], "target_image": []}
    with training.build(config).task.open_batches() as batches:
        for batch in batches:
            for name in seen:
                seen[name] += [image.tobytes() for image in batch[name]]
    counts = {name: np.unique(images, return_counts=True)[1] for name, images in seen.items()}
    assert (counts["image"] == 4).all()
    assert len(counts["image"]) == 120
    assert (counts["target_image"] == 6).all()
    assert len(counts["target_image"]) == 80
    pairs = list(zip(seen["image"], seen["target_image"], strict=True))
    assert len(set(pairs)) > 400


def test_the_stream_resumes_from_any_step():
    task = training.build(domains.config()).task
    with task.open_batches() as whole, task.open_batches(3) as rest:
        for _ in range(3):
            next(whole)
        for ours, theirs in zip(whole, rest, strict=True):
            chex.assert_trees_all_equal(ours, theirs)


@pytest.mark.long
@pytest.mark.parametrize("name", [SLOW_DANN, "tvt"])
def test_eight_devices_equal_one(name):
    config = domains.config(name, **NOISE)
    one = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    few, many = run_steps(config, one), run_steps(config)
    chex.assert_trees_all_close((few[0].params, few[1]), (many[0].params, many[1]), atol=5e-5)


@pytest.mark.slow
def test_devices_that_share_matrix_products_equal_one():
    """TVT weighs the attention of the class token by factors for each head."""
    config = domains.config("tvt", **NOISE)
    few = run_steps(config, parallel.make_mesh(jax.devices()[:1]))
    config.tensor_parallel = 2
    many = run_steps(config, parallel.training_mesh(1, 2))
    chex.assert_trees_all_close((few[0].params, few[1]), (many[0].params, many[1]), atol=5e-5)


def test_noise_mixes_the_images_of_one_domain():
    """The terms of one domain in TVT's loss do not depend on the other's images."""
    task = training.build(domains.config("tvt", **NOISE, **{"model.depth": 1})).task
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    params = jax.jit(lambda key: task.init(key, images))(jax.random.key(0))["params"]
    kernel = jax.random.normal(jax.random.key(2), params["head"]["kernel"].shape)
    params = {**params, "head": {**params["head"], "kernel": kernel}}  # almost 0 at first
    with task.open_batches() as batches:
        batch = next(batches)
    context = StepContext(jnp.int32(0), RandomStreams(jax.random.key(1)))

    @jax.jit
    def terms(batch):
        _, (_, metrics) = task.loss(params, {"batch_stats": {}}, batch, context)
        return metrics["class_loss"], metrics["information"]

    plain = terms(batch)
    source = terms(batch | {"image": batch["image"][::-1] // 2})
    target = terms(batch | {"target_image": batch["target_image"][::-1] // 2})
    assert (source[0] != plain[0], source[1] == plain[1]) == (True, True)
    assert (target[0] == plain[0], target[1] != plain[1]) == (True, True)


@pytest.mark.parametrize("prefix", [1, 3])
def test_the_gate_weights_the_class_tokens_attention_by_the_entropy_of_a_discriminator(prefix):
    """One attention layer against NumPy; further prefix tokens are registers."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 5, 8)).astype(np.float32)

    def make(*, train, name):
        return discriminators.TransferGate(prefix_tokens=prefix, train=train, name=name)

    attention = Attention(num_heads=2, key_gate=make)
    variables = jax.jit(attention.init)(jax.random.key(0), x)
    got = jax.jit(attention.apply)(variables, x)

    params = jax.tree.map(np.asarray, variables["params"])
    qkv = x @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    query, key, value = np.moveaxis(qkv.reshape(2, 5, 3, 2, 4), 2, 0)
    weights = special.softmax(np.einsum("bthd,bshd->bhts", query, key) / 2, axis=-1)
    hidden = key[:, prefix:]
    for layer in ("hidden_1", "hidden_2"):
        dense = params["key_gate"]["discriminator"][layer]
        hidden = np.maximum(hidden @ dense["kernel"] + dense["bias"], 0)
    out = params["key_gate"]["discriminator"]["out"]
    p = special.expit((hidden @ out["kernel"] + out["bias"])[..., 0])  # (batch, patches, heads)
    entropy = (special.entr(p) + special.entr(1 - p)) / np.log(2)
    weights[:, :, 0, prefix:] *= entropy.transpose(0, 2, 1)
    mixed = np.einsum("bhts,bshd->bthd", weights, value).reshape(2, 5, 8)
    expected = mixed @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def gradient_of_discriminator(detach):
    """The largest of the source's cross-entropy in the discriminator of patches."""
    changes = {"task.domain_weight": 0.0, "task.patch_weight": 0.0, "task.information_weight": 0.0}
    experiment = training.build(domains.config("tvt", **changes, **{"task.detach": detach}))
    task = experiment.task
    state = jax.jit(experiment.initial_state)(jax.random.key(0))
    with task.open_batches() as batches:
        batch = next(batches)
    context = StepContext(jnp.int32(3), RandomStreams(jax.random.key(1)))

    def loss(params):
        return task.loss(params, {"batch_stats": {}}, batch, context)[0]

    gradient = jax.jit(jax.grad(loss))(state.params)["block_2"]["attn"]["key_gate"]
    return max(float(abs(leaf).max()) for leaf in jax.tree.leaves(gradient))


@pytest.mark.long
def test_detached_the_classification_does_not_train_the_discriminator():
    assert gradient_of_discriminator(True) == 0
    assert gradient_of_discriminator(False) > 0


@pytest.mark.long
def test_a_run_is_saved_evaluated_and_resumed_bitwise(tmp_path):
    config = domains.config("tvt", **{"noise.preset": "optimal_all_tokens"})
    rows = training.train(config, tmp_path / "whole")
    assert [(row["noise"], row["n"]) for row in rows] == [(False, 40), (True, 40), (True, 40)]
    assert {"top1", "per_class_mean", "nll"} <= rows[0].keys()
    stored = json.loads(RunDirectory(tmp_path / "whole").data.read_text())
    assert stored["source"]["train_examples"] == 120

    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(RunDirectory(tmp_path / "again").checkpoint(6))
    assert training.train(config, tmp_path / "again") == rows
    arrays = [
        stored_arrays.description_file(RunDirectory(tmp_path / name).checkpoint(6)).read_text()
        for name in ("whole", "again")
    ]
    assert arrays[0] == arrays[1]  # including checksums


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.source": ""}, "source='' names no data set: set it to the labelled"),
        ({"task.domain_weight": -1.0}, "domain_weight=-1.0: give a number of at least 0"),
        ({"model.pooling": "mean"}, "model.pooling='mean': TVT weights the class token's"),
        ({"model.class_token": False, "model.pooling": "mean"}, "not a transformer with a class"),
        ({"model.distilled": True}, "not a transformer with a class token"),
        (
            {"model.class_token": False, "model.register_tokens": 1, "model.pooling": "mean"},
            "not a transformer with a class token",
        ),
        ({"data.name": f"{domains.__name__}:other_classes"}, "different classes.*'bottom right'"),
        (
            {"task.source": f"{domains.__name__}:other_classes"},
            r"data\.name='.*' and task\.source='.*' have different classes: 'middle' of the latter",
        ),
        (
            {"task.source": f"{domains.__name__}:fewer_classes"},
            r"have 4 and 3 classes; the source lacks bottom right",
        ),
        (
            {"task.source": f"{domains.__name__}:five_without_names"},
            r"have 4 and 5 classes: give two domains with the same classes",
        ),
        (
            {"task.source": f"{domains.__name__}:coloured"},
            "have 3 channels and those of .* have 1: give",
        ),
        (
            {"task.source": f"{domains.__name__}:empty"},
            r"task\.source='.*empty.*at least one image",
        ),
        ({"data.name": f"{domains.__name__}:empty"}, r"data\.name='.*empty.*at least one image"),
        ({"task.source": "digts"}, r"task\.source='digts' with .*did you mean 'digits'"),
        (
            {"task.source_split": "trian"},
            r"task\.source_split='trian' is loaded like .*: Unknown split",
        ),
        (
            {"task.source_split": "train[:0]"},
            r"task\.source_split='train\[:0\]' is loaded .* part of it is empty",
        ),
        ({"data.train_split": "train[:0]"}, r"split='train\[:0\]' .* part of it is empty"),
        (
            {"task.source": TARGET},
            r"task\.source_split='train' and data\.train_split='train' of the target share 120",
        ),
        (
            {"task.source": TARGET, "task.source_split": "test"},
            r"task\.source_split='test' and data\.test_split='test' of the target share 40 images",
        ),
        ({"task.source": TARGET, "task.source_split": "train[:50]"}, "share 50 images, whose"),
        (
            {"task.source": TARGET, "task.source_split": "train[60:]+train[:60]"},
            "share 120 images, whose labels no method may learn",
        ),
        (
            {
                "task.source": TARGET,
                "task.source_split": "train[:50]",
                "data.train_split": "train[40:]",
            },
            r"data\.train_split='train\[40:\]' of the target share 10 images",
        ),
        (
            {
                "task.source": TARGET,
                "task.source_split": "test[:30]",
                "data.test_split": "test[20:]",
            },
            r"'test\[:30\]' and data\.test_split='test\[20:\]' of the target share 10 images",
        ),
        (
            {"task.source": TARGET, "task.source_split": "train[:50]+test[-25%:]"},
            r"data\.test_split='test' of the target share 10 images, whose labels no method",
        ),
        ({"task.source": TARGET, "task.source_split": "all"}, "share 40 images"),
        ({"task.hidden_dim": 0}, "hidden_dim=0: give a number of at least 1"),
        (
            {"task.discriminator_dropout": 1.0},
            r"discriminator_dropout=1.0: give a rate in \[0, 1\)",
        ),
        ({"mixup.alpha": 0.2}, r"mixup\.alpha=0\.2: the task 'tvt' does not use it; set"),
        ({"mixup.labels_follow_noise": True}, "labels_follow_noise=True: the task 'tvt' does not"),
        ({"task.source_split": "train[:10]"}, "larger than task.source_split='train.:10.'"),
        ({"task.weight": 1.0}, "task.weight: unknown option of 'tvt'"),
    ],
)
def test_what_a_task_refuses(changes, message, tmp_path):
    config = domains.config("tvt")
    for field, value in changes.items():
        section, _, key = field.partition(".")
        with config[section].unlocked():
            config[section][key] = value
    with pytest.raises(ValueError, match=message):
        training.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("source_split", "train_split", "test_split"),
    [
        ("test[:50%]", "train", "test[50%:]"),
        ("test", "train", "train[80:]"),
        ("train[:50]", "train[50:]", "test"),
    ],
)
def test_one_data_set_may_hold_both_domains(source_split, train_split, test_split):
    config = domains.config(**{"task.source": TARGET, "task.source_split": source_split})
    config.data.train_split, config.data.test_split = train_split, test_split
    training.build(config).task.check()


def test_a_data_set_by_another_spelling_is_the_same(data_dir):
    config = domains.config(**{"task.source": "digits/", "task.source_split": "test[:50]"})
    config.data.name, config.data.data_dir = "digits", str(data_dir)
    config.data.test_split = "test[:60]"
    with pytest.raises(ValueError, match=r"task\.source='digits/' .* share 50 images"):
        training.build(config).task.check()


@pytest.mark.parametrize("cache", [True, False])
def test_a_copy_of_a_prepared_data_set_is_the_same(data_dir, cache, monkeypatch):
    """The target's images in memory, under another name than the prepared files."""
    digits = data.load("digits", split="test[:60]", data_dir=data_dir, cache=True)
    arrays = np.stack([digits[i]["image"] for i in range(50)]), digits.labels[:50]
    copied = data.InMemory({"train": arrays, "test": arrays}, class_names=digits.class_names)
    monkeypatch.setattr(domains, f"copied_{cache}", lambda: copied, raising=False)
    config = domains.config(**{"task.source": f"{domains.__name__}:copied_{cache}"})
    config.data.name, config.data.data_dir, config.data.cache = "digits", str(data_dir), cache
    with pytest.raises(ValueError, match="share 50 images, whose labels no method may learn"):
        training.build(config).task.check()


@pytest.mark.parametrize("transform", ["none", "resize_square"])
def test_images_in_memory_are_the_same_under_another_name(transform):
    config = domains.config(**{"task.source": f"{domains.__name__}:part_of_target"})
    config.data.test_transform = transform
    with pytest.raises(ValueError, match=r"part_of_target' .* share 10 images, whose labels no"):
        training.build(config).task.check()


@pytest.mark.parametrize(
    ("target", "source", "reason"),
    [
        (
            "target",
            "without_names",
            "the classes of {source} have numbers, and those of {target} have n",
        ),
        (
            "target",
            "numbers",
            "the classes of {source} have numbers, and those of {target} have names",
        ),
        (
            "numbers",
            "source",
            "the classes of {target} have numbers, and those of {source} have names",
        ),
        ("target", "synsets", "{target} and {source} name their classes differently"),
        ("target", "source", None),
        ("renumbered", "source", None),
        ("numbers", "without_names", None),
    ],
)
def test_a_header_says_when_classes_are_compared_by_number(target, source, reason):
    named = {
        "target": f"data.name='{domains.__name__}:{target}'",
        "source": f"task.source='{domains.__name__}:{source}'",
    }
    config = domains.config(**{"task.source": f"{domains.__name__}:{source}"})
    config.data.name = f"{domains.__name__}:{target}"
    printed = header(config)
    assert ("labels are compared by number alone" in printed) == (reason is not None)
    if reason is not None:
        assert f"note: {reason.format(**named)}" in printed


def test_a_header_names_classes_of_which_the_source_has_no_image():
    config = domains.config(batch_size=2, **{"task.source_split": "train[:3]"})
    start = f"note: task.source='{SOURCE}' with task.source_split="
    rest = "'train[:3]' has no image of 1 of the 4 classes (bottom right), so nothing is"
    assert f"{start}{rest}" in header(config)
    config.task.source_split = "train[:4]"
    assert "has no image" not in header(config)
    config.data.name = f"{domains.__name__}:renumbered"  # numbered as in the target
    config.task.source_split = "train[:2]"
    assert "has no image of 2 of the 4 classes (bottom right, bottom left)" in header(config)


def test_a_header_counts_many_absent_classes():
    config = domains.config(**{"task.source": f"{domains.__name__}:many_classes"})
    config.data.name = config.task.source
    config.task.source_split, config.data.train_split = "train[:30]", "train[30:]"
    absent = "30 of the 40 classes (class 10, class 11, class 12, class 13, class 14 and 25 more)"
    assert f"has no image of {absent}" in header(config)


def header(config):
    """What a run prints before it trains, in one line."""
    text = io.StringIO()
    console.print_header(Console(file=text, width=500), training.build(config), None)
    return " ".join(text.getvalue().split())


def test_the_sources_classes_are_found_in_any_form_of_unicode():
    config = domains.config(**{"task.source": f"{domains.__name__}:decomposed_renumbered"})
    config.data.name = f"{domains.__name__}:composed"
    task = training.build(config).task
    task.check()
    assert task.source_data.class_names == domains.composed().class_names
    assert task.source_data.labels[:4].tolist() == [3, 2, 1, 0]


def test_every_weight_of_every_task_is_at_least_zero():
    tried = set()
    for name in TASKS:
        config = training.task_config(name)
        for field in [field for field in config if field.endswith("_weight")]:
            for value in (-0.5, math.nan, math.inf):
                options = {"source": SOURCE, field: value}
                if name == "cdtrans":
                    options |= {"source_duration": "2 steps", "pair_every": "2 steps"}
                made = domains.config()
                made.task = training.task_config(name, **options)
                with pytest.raises(ValueError, match=f"task: {field}={value}: give a number of at"):
                    training.build(made)
            tried.add((name, field))
    assert len(tried) == 2 + 3 + 3 + 3


def test_other_arrays_of_a_target_loader_are_dropped():
    """A loader that hands over labels by mistake shows them to no step."""

    class Carrying:
        def __next__(self):
            return {"image": np.ones(1), "label": np.ones(1), "target_label": np.ones(1)}

    batch = next(PairedBatches(SourceAlone(), Carrying()))
    assert set(batch) == {"image", "label", "target_image"}
    assert batch["label"] == batch["image"] == 0
    assert batch["target_image"] == 1


class SourceAlone:
    def __next__(self):
        return {"image": np.zeros(1), "label": np.zeros(1)}


def test_a_resnet_has_no_transferable_attention():
    config = domains.config("dann")
    config.model = training.model_config("resnet18", stage_sizes=(1,), width=8, stem="small")
    training.build(config)
    config.task = training.task_config("tvt", source=SOURCE)
    with pytest.raises(ValueError, match="ResNet is not a transformer with a class token"):
        training.build(config)


def test_classes_are_matched_by_name():
    config = domains.config(**{"data.name": f"{domains.__name__}:renumbered"})
    task = training.build(config).task
    assert task.source_data.class_names == domains.NAMES[::-1]
    plain = training.build(domains.config()).task.source_data
    np.testing.assert_array_equal(task.source_data.labels, 3 - plain.labels)


@pytest.mark.slow
def test_a_run_does_not_resume_with_another_source(tmp_path):
    config = domains.config()
    training.train(config, tmp_path)
    config.task.source = f"{domains.__name__}:renumbered"
    with pytest.raises(ValueError, match=r"another config \(task\.source: "):
        training.train(config, tmp_path)
    config.task.source = SOURCE
    config.data.name = f"{domains.__name__}:renumbered"
    with pytest.raises(ValueError, match=r"another config \(data\.name: "):
        training.train(config, tmp_path)
    config.data.name = TARGET
    file = RunDirectory(tmp_path).data
    file.write_text(
        file.read_text().replace(
            '"train_examples": 120, "class_names"', '"train_examples": 99, "class_names"'
        )
    )
    with pytest.raises(
        ValueError, match=r"has learned from .* 99 examples.*but now .* 120 examples"
    ):
        training.train(config, tmp_path)


@pytest.mark.slow  # 300 steps
def test_reversal_keeps_the_discriminator_from_winning():
    """Without it the discriminator tells the domains apart; with it, much less."""

    def accuracy(reverse):
        changes = {
            "task.reverse": reverse,
            "task.hidden_dim": 16,
            "task.discriminator_dropout": 0.0,
            "duration": "150 steps",
            "optimizer.learning_rate": 5e-3,
        }
        _, metrics = run_steps(domains.config(**changes), steps=150)
        return float(metrics["domain_accuracy"])

    assert accuracy(False) > 90
    assert accuracy(True) < 80


def test_the_gate_is_off_in_the_plain_model():
    """It lacks only the gate's parameters."""
    experiment = training.build(domains.config("tvt"))
    images = jnp.zeros((1, 8, 8, 1))
    plain = jax.eval_shape(experiment.plain_model.init, jax.random.key(0), images)["params"]
    whole = experiment.variables["params"]
    extra = set(whole["block_2"]["attn"]) - set(plain["block_2"]["attn"])
    assert extra == {"key_gate"}
    assert experiment.plain_model.key_gate is None


def test_a_mean_image_is_subtracted_in_training_and_evaluation(tmp_path):
    """As TVT does, on images with three channels of the mean image's size."""
    means = np.random.default_rng(0).uniform(90, 130, (3, 8, 8))
    np.save(tmp_path / "mean.npy", means)
    changes = {"data.mean_image": str(tmp_path / "mean.npy"), "data.std": (1.0,)}
    config = domains.config(**changes, **{"data.name": f"{domains.__name__}:coloured"})
    config.task.source = f"{domains.__name__}:coloured"
    experiment = training.build(config)
    images = experiment.test_data.images[:2]
    got = experiment.task.normalise(jnp.asarray(images))
    expected = images / 255 - means[::-1].transpose(1, 2, 0) / 255
    np.testing.assert_allclose(got, expected, atol=1e-6)
    variables = jax.jit(experiment.plain_model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    protocols = experiment.protocols[:1]
    rows = experiment.task.evaluate(variables, parallel.data_mesh(), protocols)
    assert rows[0]["n"] == 40
    config.data.std = (0.5,)
    with pytest.raises(ValueError, match=r"data\.std=\[0\.5\]: pixels are not divided by"):
        training.build(config)
