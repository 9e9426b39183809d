"""A custom task: another loss, parameters and arrays in addition to the model's, other measures."""

import dataclasses
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from pnoise_jax import evaluation, parallel, training, weights
from pnoise_jax.evaluation import Measure
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training.step.mixup import Mixing
from pnoise_jax.training.step.random_streams import RandomStreams
from pnoise_jax.training.task import Task
from pnoise_jax.training.task_registry import TASKS, create_task
from tests.training.runs import small_config

HEAD = nn.Dense(4)  # on the model's logits: predicts by how many quarters an image was turned


def turn(images, quarters):
    """Turns each of the images (batch, side, side, channels) by its number of quarters."""
    turned = jnp.stack([jnp.rot90(images, k, axes=(1, 2)) for k in range(4)])
    return turned[quarters, jnp.arange(len(images))]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Rotation(Task):
    """Predicts by how many quarters an image was turned (https://arxiv.org/abs/1803.07728)."""

    weight: float = 1.0

    step_measures = (Measure("turned", "rotations", 1, "percent"),)
    row_measures = (Measure("turned", "rotations", 1, "percent"),)

    def init(self, key, images):
        variables = super().init(key, images)
        head = HEAD.init(jax.random.fold_in(key, 1), jnp.zeros((1, self.model.num_classes)))
        params = {**variables["params"], "task": head["params"]}
        return {**variables, "params": params, "seen": {"examples": jnp.int32(0)}}

    def loss(self, params, state, batch, context):
        quarters = jax.random.randint(context.keys["turn"], batch["label"].shape, 0, 4)
        images = turn(self.normalise(batch["image"]), quarters)
        logits, state = self.apply(params, state, images, context)
        logits = HEAD.apply({"params": params["task"]}, logits)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, quarters).mean()
        turned = 100 * (logits.argmax(-1) == quarters).mean(dtype=jnp.float32)
        examples = state["seen"]["examples"] + len(quarters)
        return self.weight * loss, (state | {"seen": {"examples": examples}}, {"turned": turned})

    def evaluate(self, variables, mesh, protocols, *, report=None):
        assert set(variables["params"]) == set(self.setup.variables["params"])
        rows = super().evaluate(variables, mesh, protocols, report=report)
        return [{**dataclasses.asdict(p), "turned": row["top1"], "n": row["n"]}
                for p, row in zip(protocols, rows, strict=True)]  # fmt: skip


@pytest.fixture(autouse=True)
def registered():
    training.register_task("rotation")(Rotation)
    yield
    TASKS._things.pop("rotation")


def rotation_config(data_dir, **changes):
    config = small_config(data_dir, **{"noise.preset": None} | changes)
    config.task = training.task_config("rotation", weight=0.5)
    return config


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("rotation")
    training.register_task("rotation")(Rotation)
    config = rotation_config(data_dir, accumulate=2, ema_decay=0.9)
    config.evaluation.every = "6 steps"
    training.train(config, path)
    TASKS._things.pop("rotation")
    return path


def test_the_loop_trains_reports_and_saves_any_task(run):
    lines = [json.loads(line) for line in RunDirectory(run).metrics.read_text().splitlines()]
    assert {"loss", "turned", "grad_norm", "learning_rate"} <= lines[0].keys()
    assert "top1" not in lines[0]
    assert [line["step"] for line in lines if "clean/turned" in line] == [6]
    report = json.loads(RunDirectory(run).evaluation.read_text())
    assert report["units"] == {"turned": "percent", "n": "examples"}
    assert [row["noise"] for row in report["rows"]] == [False]


def test_a_resumed_run_keeps_the_arrays_of_its_task(run, data_dir, tmp_path):
    config = training.read_config(run)
    assert config.task.to_dict() == {"name": "rotation", "weight": 0.5}
    experiment = training.build(config)
    program = training.create_program(experiment, parallel.data_mesh())
    whole = training.fit(experiment, run, program)
    assert int(whole.task["seen"]["examples"]) == 12 * 16
    assert set(whole.params["task"]) == {"kernel", "bias"}
    assert "task" not in whole.variables()["params"]

    half = rotation_config(data_dir, accumulate=2, ema_decay=0.9)
    half.evaluation.every, half.duration = "6 steps", "6 steps"
    training.train(half, tmp_path)
    stored = RunDirectory(tmp_path).config
    stored.write_text(stored.read_text().replace('"duration": "6 steps"', '"duration": "12 steps"'))
    half.duration = "12 steps"
    experiment = training.build(half)
    program = training.create_program(experiment, parallel.data_mesh())
    resumed = training.fit(experiment, tmp_path, program)
    assert int(resumed.step) == 12
    assert int(resumed.task["seen"]["examples"]) == 12 * 16


def test_weights_of_a_run_do_not_include_those_of_the_task(run):
    model = training.build(training.read_config(run)).model
    read = weights.load(run, model)
    assert "task" not in read["params"]


def test_an_evaluation_finds_the_task_of_a_run(run, tmp_path):
    rows = training.evaluate(None, run, out=tmp_path)
    protocol = {"noise", "order", "batch_size", "draws", "weight_noise"}
    assert [set(row) for row in rows] == [protocol | {"turned", "n"}]


def test_one_device_equals_eight(data_dir):
    def first_step(mesh):
        experiment = training.build(rotation_config(data_dir))
        program = training.create_program(experiment, mesh)
        state = program.create(jax.random.key(0))
        with experiment.task.open_batches() as batches:
            batch = parallel.to_devices(next(iter(batches)), program.batches)
        return jax.device_get(program.step(state, batch, *program.constants(experiment)))

    one_device = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    (few, few_metrics), (many, many_metrics) = (
        first_step(one_device),
        first_step(parallel.data_mesh()),
    )
    chex.assert_trees_all_close((few.params, few_metrics), (many.params, many_metrics), atol=2e-5)


def test_by_default_the_hooks_leave_the_state_alone():
    task, state = Task(model=nn.Dense(1)), object()
    assert task.after_init(state) is state
    assert task.after_update(state, None) is state


class WithoutLoss(Task):
    """Defines no loss."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class WithoutDefault(Rotation):
    """Has an option without a default."""

    needed: float


class NotADataclass(Rotation):
    """Declares a field, which Python ignores."""

    more: float = 1.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            WithoutLoss,
            "WithoutLoss has no loss: define it; see training.Task for what a task needs",
        ),
        (WithoutDefault, "WithoutDefault.needed has no default: give it one"),
        (NotADataclass, "NotADataclass declares fields but is not a dataclass: decorate it with"),
        (dict, "dict is not a task: make it a subclass of training.Task"),
        (3, "3 is not a task"),
    ],
)
def test_an_invalid_task_is_named_when_it_is_registered(kind, message):
    with pytest.raises(ValueError, match=message):
        training.register_task("lacking")(kind)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "rotations"}, "unknown task 'rotations'; did you mean 'rotation'"),
        ({"name": "no_module:Task"}, "task 'no_module:Task' cannot be imported .*No module named"),
        (
            {"name": "rotation", "wait": 1.0},
            "task.wait: unknown option .*; did you mean",
        ),
        ({"name": "classification", "weight": 1.0}, "task.weight: the task .* has no options"),
    ],
)
def test_a_bad_task_section_is_refused_by_name(data_dir, section, message):
    config = small_config(data_dir)
    config.task = section
    with pytest.raises(ValueError, match=message):
        training.build(config)


def test_a_name_is_registered_only_once():
    with pytest.raises(ValueError, match="task 'classification' is already registered"):
        training.register_task("classification")(Rotation)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss, state: loss, "Bad.loss returned .*: return loss, "),
        (lambda loss, state: (loss, ({}, {})), r"collections \['batch_stats'\] but returned \[\]"),
        (
            lambda loss, state: (loss, (state, {"loss": loss})),
            "metric 'loss', a reserved name",
        ),
        (lambda loss, state: (jnp.ones(3), (state, {})), r"loss of shape \(3,\): return a scalar"),
        (lambda loss, state: (loss, (state, {"a": jnp.ones(2)})), r"a of shape \(2,\)"),
    ],
)
def test_an_invalid_result_of_a_loss_is_named(data_dir, returned, message):
    class Bad(Task):
        def loss(self, params, state, batch, context):
            logits, state = self.apply(params, state, self.normalise(batch["image"]), context)
            return returned(logits.mean(), state)

    experiment = training.build(small_config(data_dir))
    step = training.make_train_step(Bad.from_setup(experiment), experiment.optimizer)
    state = experiment.abstract_state(parallel.data_mesh())
    batch = {
        "image": jax.ShapeDtypeStruct((16, 8, 8, 1), np.uint8),
        "label": jax.ShapeDtypeStruct((16,), np.int32),
    }
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(step, state, batch, jax.random.key(0))


def test_streams_have_their_own_keys():
    streams = RandomStreams(jax.random.key(0))
    names = ["noise", "dropout", "mixup", "turn", "discriminator", "perturbation"]
    drawn = [int(jax.random.bits(streams[name])) for name in names]
    assert len(set(drawn)) == len(names)
    assert drawn == [int(jax.random.bits(RandomStreams(jax.random.key(0))[name])) for name in names]


def test_classification_is_the_default(data_dir):
    task = create_task(training.build(small_config(data_dir)))
    assert isinstance(task, training.Classification)
    assert task.row_measures is evaluation.CLASSIFICATION_MEASURES
    assert (task.label_smoothing, task.mixing) == (0.0, None)


def test_classification_smooths_and_mixes_as_the_config_says(data_dir):
    changes = {"label_smoothing": 0.1, "mixup.alpha": 0.8, "mixup.probability": 0.5}
    task = create_task(training.build(small_config(data_dir, **changes)))
    assert task.label_smoothing == 0.1
    assert task.mixing == Mixing(alpha=0.8, probability=0.5)
