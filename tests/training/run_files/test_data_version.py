"""Runs on another version of a data set are refused wherever they would be resumed or reused."""

import json

import numpy as np
import pytest

from pnoise_jax import data, parallel, training
from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.training import data_version, run_config
from pnoise_jax.training.evaluating.restore import NOT_OF_WEIGHTS, restore
from tests.training.runs import small_config

REFUSED = r"has used data.name='glyphs/200' in version 1\.0\.0, but this program has version 2"


def config_on(name):
    config = training.default_config()
    config.data.name = name
    return config


@pytest.fixture
def run(tmp_path):
    """A work directory with a checkpoint, on the current version of the glyphs."""
    run_config.claim(tmp_path, config_on("glyphs/200"))
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    return tmp_path


def test_a_run_on_the_same_version_resumes(run):
    note = json.loads((run / "data.json").read_text())
    assert note == {"name": "glyphs/200", "version": "2.0.0"}
    run_config.claim(run, config_on("glyphs/200"))
    run_config.check(run, config_on("digits"), but=NOT_OF_WEIGHTS)  # evaluated on other data


@pytest.mark.parametrize("noted", [True, False])
def test_a_run_on_an_older_version_is_refused(run, noted):
    if noted:
        (run / "data.json").write_text('{"name": "glyphs/200", "version": "1.0.0"}')
    else:  # the run is older than such notes
        (run / "data.json").unlink()
    with pytest.raises(ValueError, match=REFUSED):
        run_config.claim(run, config_on("glyphs/200"))
    with pytest.raises(ValueError, match=REFUSED):
        run_config.check(run, config_on("glyphs/200"), but=NOT_OF_WEIGHTS)
    with pytest.raises(ValueError, match=REFUSED):
        restore(run, mesh=parallel.data_mesh())


def test_an_older_run_on_a_data_set_that_never_changed_resumes(tmp_path):
    run_config.claim(tmp_path, config_on("digits"))
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    (tmp_path / "data.json").unlink()
    run_config.claim(tmp_path, config_on("digits"))


def test_external_data_sets_have_no_note(tmp_path):
    run_config.claim(tmp_path, config_on("glyphs/200"))
    run_config.claim(tmp_path, config_on("imagenet2012"))  # nothing was trained yet
    assert not (tmp_path / "data.json").exists()


def coloured():
    shown = np.full((20, 8, 8, 3), 255, np.uint8)
    return data.InMemory({split: (shown, np.arange(20) % 4) for split in ("train", "test")})


def test_a_run_keeps_its_mean_image(tmp_path):
    """The config contains only the path of the file."""

    def experiment_with(red):
        means = np.array([90.0, 110.0, red])
        np.save(tmp_path / "mean.npy", np.tile(means[:, None, None], (1, 8, 8)))
        return training.build(config)

    changes = {"data.mean_image": str(tmp_path / "mean.npy"), "data.std": (1.0,)}
    config = small_config(tmp_path, batch_size=8, **changes)
    config.data.name, config.noise.preset = f"{__name__}:coloured", None
    config.data.train_split, config.data.test_split = "train", "test"
    run = tmp_path / "run"
    described = data_version.describe(experiment_with(130.0))
    run_config.claim(run, config, described)
    (run / "checkpoints" / "10").mkdir(parents=True)
    run_config.claim(run, config, described)
    same, other = experiment_with(130.0), experiment_with(131.0)
    assert data_version.describe_changes(same, config, run) == ()
    (said,) = data_version.describe_changes(other, config, run)
    assert "mean.npy' is another mean image than the run was trained with" in said
    with pytest.raises(ValueError, match=r"has subtracted another mean image than .*data.mean_im"):
        run_config.claim(run, config, data_version.describe(other))


def test_the_results_of_a_sweep_on_an_older_version_are_refused(tmp_path):
    base = config_on("glyphs/200")
    sweep_results.claim(tmp_path, base)
    (tmp_path / "results.csv").write_text("")
    sweep_results.claim(tmp_path, base)
    (tmp_path / "data.json").unlink()
    with pytest.raises(ValueError, match=REFUSED):
        sweep_results.claim(tmp_path, base)
