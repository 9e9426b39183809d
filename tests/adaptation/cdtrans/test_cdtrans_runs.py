"""Whole runs of CDTrans: what they report, that they resume exactly, and what they refuse."""

import dataclasses
import io
import json
import shutil

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from rich.console import Console

from pnoise_jax import parallel, training
from pnoise_jax.adaptation.cdtrans import pseudo_labels
from pnoise_jax.adaptation.cdtrans.pair_batches import PairOrder
from pnoise_jax.data.in_memory import DATASETS
from pnoise_jax.runs import RunDirectory
from pnoise_jax.training import run_config
from tests.adaptation import stripes

pytestmark = pytest.mark.long

MESH = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])


def config(options=None, **changes):
    """Pairs are made before steps 5 and 9 of 12, counted from 0."""
    durations = {"source_duration": "5 steps", "pair_every": "4 steps"}
    options = {"source": "tiny_source"} | durations | (options or {})
    task = training.task_config("cdtrans", **options)
    more = {"checkpoint.every": "1 steps", "checkpoint.keep": 12, "log_every": "1 steps"}
    noisy = {"noise.preset": "paper_vit", "noise.strength": 0.2}
    return stripes.adaptation_config(task, model={"depth": 1}, **noisy | more | changes)


@pytest.fixture(autouse=True)
def registered():
    stripes.register()
    yield
    for name in stripes.domains():
        DATASETS._things.pop(name, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run: its experiment, program, directory, last state, and what was printed."""
    stripes.register()
    path = tmp_path_factory.mktemp("cdtrans") / "run"
    return (*fit(config(), path), path)


def fit(settings, path, program=None):
    experiment = training.build(settings)
    program = program or training.create_program(experiment, MESH)
    text = io.StringIO()
    path.mkdir(exist_ok=True)
    run_config.claim(path, settings)
    state = training.fit(experiment, path, program, Console(file=text, width=200))
    return experiment, program, jax.device_get(state), text.getvalue()


def test_the_run_learns_the_source_and_then_pairs(trained):
    _, _, state, text, path = trained
    lines = [json.loads(line) for line in RunDirectory(path).metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    for line in lines:
        assert (line["pseudo_loss"] > 0) == (line["pairs"] > 0) == (line["step"] > 5)
        assert line["learning_rate"] > 0
    made = [line for line in text.splitlines() if " pairs, with " in line]
    assert [line.split(":")[0] for line in made] == ["step 5", "step 9"]
    assert int(state.task["pairs"]["count"]) == lines[-1]["pairs"] == int(made[1].split()[2])
    assert int(state.task["pairs"]["classes"]) == lines[-1]["pseudo_classes"] > 1


def pairs_by_hand(experiment, state):
    """The pairs for the weights of a state, without noise and from all images at once."""
    task = experiment.task
    model = task.model.clone(injection=None)

    def features(dataset):
        images = np.stack([dataset[i]["image"] for i in range(len(dataset))])
        variables = {"params": state.params, "batch_stats": state.batch_stats}

        def run(variables, images):
            images = task.normalise(images)
            return model.apply(variables, images, end="features", method="forward")

        x = jax.jit(run)(variables, images)
        norm, scale = state.batch_stats["head"]["norm"], state.params["head"]["norm"]["scale"]
        x = np.asarray((x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * scale)
        logits = x @ state.params["head"]["dense"]["kernel"]
        return x, np.asarray(jax.nn.softmax(logits))

    source, target = task.source_data, task.setup.train_data
    target_features, probabilities = features(target)
    labels = pseudo_labels.pseudo_labels(target_features, probabilities)
    pairs = pseudo_labels.find_pairs(features(source)[0], target_features, source.labels, labels)
    return pairs, labels


def restored(trained, step, tmp_path):
    """A copy of the run that ends with the checkpoint of a step."""
    path = trained[-1]
    shutil.copytree(path, tmp_path / "copy")
    for later in range(step + 1, 13):
        shutil.rmtree(RunDirectory(tmp_path / "copy").checkpoint(later))
    return tmp_path / "copy"


@pytest.mark.parametrize("step", [3, 5, 7, 9])
def test_a_run_resumes_bit_for_bit(trained, tmp_path, step):
    _, program, expected, *_ = trained
    copy = restored(trained, step, tmp_path)
    once = config(**{"checkpoint.every": "12 steps"})
    _, _, state, text = fit(once, copy, program)
    chex.assert_trees_all_equal(state, expected)
    assert f"resuming from the checkpoint of step {step}" in text
    assert text.count(" pairs, with ") == (2 if step <= 5 else 1)


def test_pairs_are_made_from_the_weights_at_their_step(trained, tmp_path):
    experiment, program, *_ = trained
    copy = restored(trained, 5, tmp_path)
    checkpoints = training.loop.loop.Checkpoints(copy, keep=12)
    before, _ = checkpoints.restore(program.like)
    checkpoints.close()
    before = jax.device_get(before)
    assert int(before.task["pairs"]["count"]) == 0
    pairs, labels = pairs_by_hand(experiment, before)
    variables = {"params": before.params, "batch_stats": before.batch_stats}
    made = experiment.task.prepare(variables, before.task, 5, mesh=MESH, report=print)["pairs"]
    count = int(made["count"])
    assert np.stack([made["source"], made["target"]], 1)[:count].tolist() == pairs.tolist()
    assert made["pseudo_label"].tolist() == labels.tolist()
    assert not made["source"][count:].any()
    # The stream contains these pairs and their labels, in whole epochs.
    task = experiment.task
    known = set()
    for s, t in pairs:
        images = task.source_data[s]["image"], task.setup.train_data[t]["image"]
        known.add((*(x.tobytes() for x in images), int(task.source_data.labels[s]), labels[t]))
    with task.open_period(5, {"pairs": made}) as batches:
        batch = next(batches)
    names = ("image", "target_image", "label", "pseudo_label")
    seen = zip(*(batch[name] for name in names), strict=True)
    seen = [(a.tobytes(), b.tobytes(), int(c), int(d)) for a, b, c, d in seen]
    assert len(set(seen)) == min(8, count)
    assert set(seen) <= known


def test_no_bit_depends_on_the_labels_of_the_target(trained, tmp_path):
    _, _, expected, text, _ = trained
    stripes.register(permuted=True)
    once = config(**{"checkpoint.every": "12 steps"})
    experiment, _, state, other = fit(once, tmp_path / "permuted")
    plain = stripes.domains()["tiny_target"]().read("train", where="")[1]
    assert experiment.train_data.labels.tolist() != plain.tolist()
    chex.assert_trees_all_equal(state, expected)
    pick = lambda t: [line for line in t.splitlines() if " pairs, with " in line]  # noqa: E731
    assert pick(text) == pick(other)


def test_one_device_equals_eight(trained):
    experiment, _, state, *_ = trained

    def run_step(mesh):
        program = training.create_program(experiment, mesh)
        task = experiment.task
        with task.open_period(6, state.task) as batches:
            batch = parallel.to_devices(next(batches), program.batches)
        before = jax.device_put(state, parallel.replicated(mesh))
        return jax.device_get(program.step(before, batch, *program.constants(experiment)))

    one_device = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    (few, few_metrics), (many, many_metrics) = run_step(one_device), run_step(parallel.data_mesh())
    chex.assert_trees_all_close((few.params, few_metrics), (many.params, many_metrics), atol=2e-5)


def test_an_epoch_of_pairs_drops_an_incomplete_batch():
    order = PairOrder(np.arange(100, 111), batch_size=4, first=3, seed=0)
    positions = np.arange(12, 12 + 24)
    epochs = order(positions).reshape(3, 8)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 8
        assert set(epoch.tolist()) <= set(range(100, 111))
    assert epochs[0].tolist() != epochs[1].tolist()
    assert order(positions[5:9]).tolist() == epochs.ravel()[5:9].tolist()
    other = PairOrder(np.arange(11), batch_size=4, first=3, seed=0)
    assert (order(positions) - other(positions) == 100).all()  # the same for both sides of a pair


def test_few_pairs_are_repeated_to_fill_a_batch():
    order = PairOrder(np.arange(3), batch_size=4, first=0, seed=0)
    numbers = order(np.arange(12)).tolist()
    assert all(sorted(numbers[i : i + 3]) == [0, 1, 2] for i in range(0, 12, 3))


def collapsed(experiment, favourite):
    """Variables whose logits are largest for one class, whatever the image."""
    variables = jax.device_get(jax.jit(experiment.initial_state)(jax.random.key(0)))
    params = jax.tree.map(np.array, variables.params)
    params["head"]["dense"]["kernel"][:] = 0
    stats = jax.tree.map(np.array, variables.batch_stats)
    stats["head"]["norm"]["mean"][:] = -100.0  # so that the normalised features are positive
    params["head"]["dense"]["kernel"][:, favourite] = 1
    return {"params": params, "batch_stats": stats}, variables.task


def test_collapsed_pseudo_labels_are_reported(trained):
    experiment = trained[0]
    variables, state = collapsed(experiment, 2)
    reports = []
    made = experiment.task.prepare(variables, state, 5, mesh=MESH, report=reports.append)
    assert int(made["pairs"]["classes"]) == 1
    assert reports[1].startswith(
        "warning: at step 5 the pseudo labels have collapsed: every target image is of class '2'. "
        "Raise task.source_duration"
    )
    made = dataclasses.replace(experiment.task, same_label=False).prepare(
        variables, state, 5, mesh=MESH, report=reports.append
    )
    assert int(made["pairs"]["count"]) >= 48


def test_a_run_without_pairs_ends_with_its_reason(trained, monkeypatch):
    experiment = trained[0]
    variables, state = collapsed(experiment, 2)
    monkeypatch.setattr(pseudo_labels, "find_pairs", lambda *_, **__: np.zeros((0, 2), np.int32))
    with pytest.raises(ValueError, match=r"at step 5 no pair is left: .*task.same_label=False"):
        experiment.task.prepare(variables, state, 5, mesh=MESH, report=print)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": ""}, "source='' names no data set"),
        ({"pseudo_weight": -1.0}, "pseudo_weight=-1.0: give a number of at least 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"task: {message}"):
        training.build(config(options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_duration": "long"}, "task.source_duration='long': give a number of steps"),
        ({"pair_every": "0 steps"}, "task.pair_every='0 steps' is less than one step"),
        (
            {"source_duration": "12 steps"},
            "is 12 steps and the run has 12: no step with pairs is left",
        ),
        (
            {"pair_every": "0.01 epochs"},
            "task.pair_every='0.01 epochs' is less than one step",
        ),
    ],
)
def test_durations_that_do_not_fit_the_run_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        training.build(config(options)).task.check()


def test_a_run_cut_short_by_steps_has_both_stages():
    task = training.build(config(steps=6)).task
    assert list(task.preparations) == [2, 4]
    assert list(training.build(config()).task.preparations) == [5, 9]


def test_runs_together_and_heads_of_files_are_refused(trained, tmp_path):
    experiment, program, *_ = trained
    with pytest.raises(ValueError, match="the batches of CdTrans depend on the weights"):
        training.fit_together([experiment], [tmp_path], program, size=1)
    fine = training.build(config(weights="nowhere.npz"))
    with pytest.raises(ValueError, match="weights_head='keep': the task has its own head"):
        fine.match_weights()


def test_preparations_may_change_no_shape(trained, monkeypatch):
    experiment, _, state, *_ = trained
    kind = type(experiment.task)
    monkeypatch.setattr(kind, "prepare", lambda *_, **__: {"pairs": {"count": np.int32(1)}})
    with pytest.raises(ValueError, match=r"CdTrans.prepare was given .* but returned"):
        training.loop.periods.prepare_period(experiment.task, state, 5, mesh=MESH, report=print)
