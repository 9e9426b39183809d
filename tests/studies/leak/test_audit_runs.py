"""Which runs an audit finds in a work directory, and which it refuses."""

import pytest

from pnoise_jax import studies, training
from pnoise_jax.studies.leak.seed_runs import find_runs
from tests.training.runs import small_config


def keep_config(directory, config):
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(config.to_json_best_effort())


def test_runs_are_the_directory_itself_and_its_seeds(tmp_path, data_dir):
    assert find_runs(tmp_path) == {}
    for seed in (3, 11):
        keep_config(tmp_path / f"seed_{seed}", small_config(data_dir, seed=seed))
    (tmp_path / "seed_x").mkdir()
    assert find_runs(tmp_path) == {3: tmp_path / "seed_3", 11: tmp_path / "seed_11"}
    assert studies.read_run_config(tmp_path).seed in (3, 11)
    keep_config(tmp_path / "one", small_config(data_dir, seed=5))
    assert find_runs(tmp_path / "one") == {5: tmp_path / "one"}


def test_seeds_of_different_configs_are_refused(tmp_path, data_dir):
    keep_config(tmp_path / "seed_0", small_config(data_dir, seed=0))
    keep_config(tmp_path / "seed_1", small_config(data_dir, seed=1, label_smoothing=0.2))
    with pytest.raises(
        ValueError, match=r"different configs \(label_smoothing: 0\.0 in seed_0, 0\.2 in seed_1\)"
    ):
        studies.audit_runs(small_config(data_dir), tmp_path)
    assert not (tmp_path / "audit").exists()


def test_a_run_under_another_seeds_name_is_refused(tmp_path, data_dir):
    keep_config(tmp_path / "seed_0", small_config(data_dir, seed=4))
    with pytest.raises(ValueError, match=r"holds the run of seed 4: rename it to seed_4"):
        studies.audit_runs(small_config(data_dir), tmp_path)


def test_another_config_than_the_runs_is_refused(tmp_path, data_dir):
    keep_config(tmp_path / "seed_0", small_config(data_dir))
    (tmp_path / "seed_0" / "checkpoints").mkdir()
    with pytest.raises(
        ValueError, match=r"contains a run of another config \(batch_size: 16 there"
    ):
        studies.audit_runs(small_config(data_dir, batch_size=8), tmp_path)


def test_an_unreadable_config_is_named(tmp_path):
    (tmp_path / "seed_0").mkdir()
    (tmp_path / "seed_0" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"seed_0/config\.json is not valid JSON"):
        studies.audit_runs(training.default_config(), tmp_path)


PEPPER = {"noise.name": "salt_and_pepper", "noise.probability": 0.1}


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"seeds": [0, 0]}, {}, "give different whole numbers"),
        ({"seeds": []}, {}, "seeds is empty"),
        ({"presets": ["paper_vt"]}, {}, "did you mean 'paper_vit'"),
        ({"presets": ["published_vit"]}, {}, r"published_vit': this preset is retired.*paper_vit"),
        ({"presets": ["optimal_all_tokens"]}, {}, "comes twice"),
        ({"strengths": [0.2, 0.2]}, {}, "comes twice"),
        ({}, {"noise.layer": "9"}, "this model has no layer 9"),
        ({}, {"noise.axis": "views", "noise.group_size": 2}, r"noise\.axis='views'"),
        ({}, {"evaluation.views": 3}, "evaluation.views=3: an audit evaluates one view"),
        ({}, {"noise.preset": None}, "there is no noise to audit"),
        (
            {},
            {"noise.group_size": 3},
            r"noise\.group_size=3 does not divide the batch of 10",
        ),
        ({"strengths": [2.0]}, {**PEPPER}, r"strengths=2\.0 for SaltAndPepper.*probability=2\.0"),
        ({"settings": studies.AuditSettings(batch_sizes=(2000,))}, {}, "has only 200 examples"),
        ({"settings": studies.AuditSettings(interval="seeds")}, {}, "needs at least 2 seeds"),
    ],
)
def test_bad_input_is_named_before_training(options, changes, message, tmp_path, data_dir):
    with pytest.raises(ValueError, match=message):
        studies.audit_runs(small_config(data_dir, **changes), tmp_path, **options)
    assert not (tmp_path / "seed_0").exists()


def test_a_report_that_cannot_be_written_is_named_before_training(tmp_path, data_dir):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"--out=.*cannot be written"):
        studies.audit_runs(small_config(data_dir), tmp_path, out=tmp_path / "file" / "report")
    assert not (tmp_path / "seed_0").exists()
