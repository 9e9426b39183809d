"""Runs on another version of a data set are refused wherever they would be resumed or reused."""

import json

import pytest

from pnoise_jax import parallel, training
from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.training import run_config
from pnoise_jax.training.restore import NOT_OF_WEIGHTS, restore

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


def test_the_results_of_a_sweep_on_an_older_version_are_refused(tmp_path):
    base = config_on("glyphs/200")
    sweep_results.claim(tmp_path, base)
    (tmp_path / "results.csv").write_text("")
    sweep_results.claim(tmp_path, base)
    (tmp_path / "data.json").unlink()
    with pytest.raises(ValueError, match=REFUSED):
        sweep_results.claim(tmp_path, base)
