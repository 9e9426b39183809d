"""Runs that share a program, in turn or at the same time: each equals a separate run."""

import json
import shutil
import types

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from pnoise_jax import training
from pnoise_jax.training import run_config
from pnoise_jax.training.loop.window import Window
from tests.training.runs import small_config

pytestmark = pytest.mark.long

MESH = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])


def experiment(data_dir, **changes):
    return training.build(small_config(data_dir, **{"checkpoint.every": "12 steps"} | changes))


def noisy(data_dir, seed, strength, **more):
    changes = {"noise.preset": "paper_vit", "noise.strength": strength, "seed": seed}
    return experiment(data_dir, **changes | {"model.dropout": 0.1} | more)


def claim(directory, experiments):
    return [
        run_config.claim(directory / f"{number}", each.config)
        for number, each in enumerate(experiments)
    ]


def losses(path):
    return [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def separate(data_dir, tmp_path_factory):
    """Two separate runs with different seeds and strengths, and their final states."""
    experiments = [noisy(data_dir, 0, 0.2), noisy(data_dir, 1, 0.4)]
    directory = tmp_path_factory.mktemp("alone")
    states = []
    for each, path in zip(experiments, claim(directory, experiments), strict=True):
        program = training.create_program(each, MESH)
        assert not program.takes_strength
        states.append(jax.device_get(training.fit(each, path, program)))
    return experiments, directory, states


def test_a_shared_program_trains_each_run_as_its_own_program_does(separate, tmp_path):
    experiments, directory, expected = separate
    program = training.create_program(experiments[0], MESH, any_strength=True)
    paths = claim(tmp_path, experiments)
    for number, each in enumerate(experiments):
        state = training.fit(each, paths[number], program)
        chex.assert_trees_all_close(jax.device_get(state), expected[number], atol=1e-5, rtol=1e-4)
    assert program.step._cache_size() == 1
    assert losses(paths[1]) == pytest.approx(losses(directory / "1"), rel=1e-5)


def test_runs_trained_together_equal_separate_runs(separate, tmp_path):
    experiments, directory, expected = separate
    program = training.create_program(experiments[0], MESH, any_strength=True, together=True)
    paths = claim(tmp_path, experiments)
    states = training.fit_together(
        experiments, paths, program, size=3
    )  # one of the three places is padding
    for number, path in enumerate(paths):
        chex.assert_trees_all_close(
            jax.device_get(states[number]), expected[number], atol=1e-5, rtol=1e-4
        )
        assert losses(path) == pytest.approx(losses(directory / f"{number}"), rel=1e-5)
    assert training.fit(experiments[1], paths[1], program).step == 12  # finished: only restored


def test_deleting_a_directory_stops_only_its_own_run(separate, tmp_path, monkeypatch):
    experiments, _, expected = separate
    program = training.create_program(experiments[0], MESH, any_strength=True, together=True)
    paths = claim(tmp_path, experiments)
    add = Window.add

    def delete_and_add(window, metrics):
        shutil.rmtree(paths[0], ignore_errors=True)
        add(window, metrics)

    monkeypatch.setattr(Window, "add", delete_and_add)
    with pytest.raises(OSError, match=f"{paths[0]}.* was deleted or moved while this run"):
        training.fit_together(experiments, paths, program, size=2)
    monkeypatch.undo()
    assert not paths[0].exists()
    state = training.fit(experiments[1], paths[1], program)
    chex.assert_trees_all_close(jax.device_get(state), expected[1], atol=1e-5, rtol=1e-4)


def test_without_training_noise_a_shared_program_is_bitwise_the_same(data_dir, tmp_path):
    experiments = [experiment(data_dir, seed=seed) for seed in (3, 4)]
    program = training.create_program(experiments[0], MESH, any_strength=True)
    assert not program.takes_strength
    paths = claim(tmp_path, experiments)
    state = [
        training.fit(each, path, program) for each, path in zip(experiments, paths, strict=True)
    ]
    (path,) = claim(tmp_path / "alone", experiments[1:])
    separate = training.fit(experiments[1], path, training.create_program(experiments[1], MESH))
    chex.assert_trees_all_equal(separate, state[1])


def test_a_run_that_breaks_down_is_named_and_the_others_are_saved(data_dir, tmp_path):
    experiments = [noisy(data_dir, 0, 0.2), noisy(data_dir, 0, 3e38)]
    program = training.create_program(experiments[0], MESH, any_strength=True, together=True)
    paths = claim(tmp_path, experiments)
    sound, broken = training.fit_together(experiments, paths, program, size=2)
    assert int(sound.step) == 12
    assert isinstance(broken, training.NonFiniteLossError)
    assert broken.reason.startswith("the loss of step 1 is")
    assert (paths[0] / "checkpoints" / "12").is_dir()
    assert not (paths[1] / "checkpoints").exists()
    assert np.isfinite(losses(paths[0])).all()
    assert losses(paths[1]) == []  # NaN is not valid JSON


def test_a_full_disk_is_found_before_training(data_dir, tmp_path, monkeypatch):
    experiments = [noisy(data_dir, seed, 0.2) for seed in (0, 1)]
    program = training.create_program(experiments[0], MESH, any_strength=True, together=True)
    paths = claim(tmp_path, experiments)
    usage = types.SimpleNamespace(free=2 * program.state_bytes - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="MB left and the checkpoints need"):
        training.fit_together(experiments, paths, program, size=2)
    assert not (paths[0] / "metrics.jsonl").exists()


def test_accumulation_average_and_batch_statistics_together(data_dir, tmp_path):
    """All that a state can hold, on a ResNet; losses equal a separate run's."""
    changes = {
        "model": training.model_config("resnet18", stage_sizes=(1,), width=8, stem="small"),
        "accumulate": 2,
        "batch_size": 16,
        "ema_decay": 0.9,
        "steps": 3,
        "log_every": "1 step",
    }
    experiments = [noisy_resnet(data_dir, seed, changes) for seed in (0, 1)]
    paths = claim(tmp_path, experiments)
    program = training.create_program(experiments[0], MESH, any_strength=True, together=True)
    training.fit_together(experiments, paths, program, size=2)
    separate = training.create_program(experiments[1], MESH)
    training.fit(
        experiments[1], run_config.claim(tmp_path / "one", experiments[1].config), separate
    )
    assert losses(paths[1]) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def noisy_resnet(data_dir, seed, changes):
    config = small_config(data_dir, **{"noise.preset": "paper_resnet", "seed": seed})
    config.model = changes["model"]
    config.update({key: value for key, value in changes.items() if key != "model"})
    return training.build(config)
