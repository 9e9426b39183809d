"""Evaluations that average over several draws of the noise, in separate rows."""

import json
import math

import jax
import numpy as np
import pytest

from pnoise_jax import evaluation, noise, parallel, training
from pnoise_jax.robustness import AveragedModel
from tests.training.runs import small_config


def gaussian_config(data_dir, **changes):
    config = small_config(data_dir, duration="2 steps", **{"data.test_split": "test[:40]"})
    config.noise.preset = None
    config.noise.name, config.noise.std = "gaussian", 3.0
    config.update_from_flattened_dict(changes)
    return config


def test_averaged_rows_are_added_after_the_standard_rows(data_dir, tmp_path):
    config = gaussian_config(data_dir)
    plain = training.train(config, tmp_path)
    config.evaluation.draws = 4
    rows = training.evaluate(config, tmp_path)
    assert rows[:3] == plain
    assert [(row["order"], row["draws"]) for row in rows[3:]] == [
        ("shuffled", 4),
        ("class_sorted", 4),
    ]
    # What an example draws depends only on its index.
    assert rows[3]["nll"] == pytest.approx(rows[4]["nll"], rel=1e-5)
    assert rows[3]["nll"] != rows[1]["nll"]
    (file,) = (tmp_path / "evaluations").glob("*draws_4*.json")
    assert json.loads(file.read_text())["rows"] == rows
    assert evaluation.Protocol.of_row(rows[3]).name == "noisy, shuffled, mean of 4 draws"
    assert evaluation.Protocol.of_row(rows[1]).name == "noisy, shuffled"


def test_averaged_rows_use_mean_probabilities(data_dir):
    config = gaussian_config(data_dir, **{"evaluation.draws": 3, "data.test_split": "test[:8]"})
    config.evaluation.batch_size = 8
    experiment = training.build(config)
    state = jax.jit(experiment.initial_state)(jax.random.key(0))
    protocol, _ = experiment.task.averaged_protocols
    head = jax.random.normal(jax.random.key(1), state.params["head"]["kernel"].shape)
    params = {**state.params, "head": {**state.params["head"], "kernel": head}}
    (row,) = experiment.task.evaluate({"params": params}, parallel.data_mesh(), [protocol])

    images, labels = experiment.test_data.images[:8], experiment.test_data.labels[:8]
    key = jax.random.fold_in(jax.random.key(config.evaluation.seed), 0)
    model = experiment.model.clone(injection=noise.switch_for_evaluation(experiment.injections))
    probabilities = [
        jax.nn.softmax(
            model.apply(
                {"params": params},
                evaluation.normalise(images, (0.5,), (0.5,)),
                rngs={"noise": jax.random.fold_in(key, draw)},
            )
        )
        for draw in range(3)
    ]
    expected = -np.log(np.mean(probabilities, axis=0)[np.arange(8), labels])
    assert row["nll"] == pytest.approx(expected.mean(), rel=1e-4)
    assert not np.allclose(probabilities[0], probabilities[1], atol=1e-3)


def test_noise_on_weights_has_separate_rows(data_dir):
    config = gaussian_config(data_dir, **{"evaluation.draws": 5})
    config.noise.name, config.noise.std = "none", None
    config.task = training.task_config("robust_classification", weight_noise_std=0.3)
    experiment = training.build(config)
    task = experiment.task
    single, several = task.averaged_protocols
    assert [p.name for p in (single, several)] == [
        "noisy weights",
        "noisy weights, mean of 5 draws",
    ]
    state = jax.jit(experiment.initial_state)(jax.random.key(0))
    mesh, variables = parallel.data_mesh(), state.variables()
    clean, *rows = task.evaluate(variables, mesh, (*experiment.protocols, single, several))
    assert clean["n"] == 40
    assert "weight_noise" not in clean
    assert [row.get("draws", 1) for row in rows] == [1, 5]
    assert all(row["weight_noise"] for row in rows)
    averaged = AveragedModel(task.model, task.weight_noise, 5, config.evaluation.seed)
    expected = evaluation.predict(
        averaged,
        variables,
        experiment.test_data,
        experiment.protocols[0],
        mesh=mesh,
        mean=(0.5,),
        std=(0.5,),
    )
    assert rows[1]["nll"] == expected.summary()["nll"]
    assert not math.isclose(rows[0]["nll"], clean["nll"], rel_tol=1e-4)
    with pytest.raises(ValueError, match="noisy weights: the task applies its noise on weights"):
        evaluation.evaluate(
            task.model,
            variables,
            experiment.test_data,
            [single],
            mesh=mesh,
            mean=(0.5,),
            std=(0.5,),
        )


def test_several_draws_without_random_noise_are_refused(data_dir):
    with pytest.raises(ValueError, match=r"evaluation\.draws=2, but an evaluation draws nothing"):
        training.build(
            small_config(data_dir, **{"evaluation.draws": 2})
        )  # the optimal Q draws nothing
    with pytest.raises(ValueError, match=r"evaluation\.draws=0: give a whole number from 1"):
        training.build(small_config(data_dir, **{"evaluation.draws": 0}))
    with pytest.raises(ValueError, match=r"draws=2: a clean evaluation draws nothing"):
        evaluation.Protocol(False, "shuffled", 10, draws=2)
    with pytest.raises(ValueError, match=r"draws=0: give a whole number"):
        evaluation.Protocol(True, "shuffled", 10, draws=0)
