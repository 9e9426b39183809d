"""pnoise regularisers as a user runs it: a tiny study of two arms and one on top."""

import csv
import json
import runpy

import pytest

from pnoise_jax.studies.regularisers import Seeds, compare_regularisers
from tests.launch import command

pytestmark = pytest.mark.long

CONFIG = """
from pnoise_jax.studies import product
from pnoise_jax.studies.regularisers import Arm, Setting
from pnoise_jax.training import default_config, model_config

def get_config():
    config = default_config()
    config.duration, config.batch_size, config.log_every = "3 steps", 16, "3 steps"
    config.model = model_config(
        "vit_ti_16", image_size=8, patch_size=4, dim=8, depth=1, num_heads=1
    )
    config.data.cache = True
    config.writers = ()
    return config

def settings():
    return {
        "small": Setting(train="train[:40]", held_out="train[700:]", test="test[:200]"),
        "other": Setting(train="train[:20]", held_out="train[700:]", test="test[:200]"),
    }

def arms():
    noise = {
        "noise.name": ("linear_transform",),
        "noise.quality": ("cyclic_shift",),
        "noise.train": (True,),
        "noise.strength": (0.1, 0.3),
    }
    return {
        "none": Arm(product({"optimizer.learning_rate": (1e-3, 3e-3)})),
        "shifts": Arm(
            product({"data.train_transform": ("none|random_shift(1)", "none|random_shift(2)")}),
            views=2,
        ),
        "none + noise": Arm(
            product(noise | {"mixup.labels_follow_noise": (True,)}), on_top_of="none"
        ),
    }

def contrasts():
    return [("none + noise", "none")]
"""


def compare(config, workdir, data_dir, *more):
    return command.run(
        "regularisers",
        f"--config={config}",
        f"--workdir={workdir}",
        f"--data_dir={data_dir}",
        "--settings=small",
        "--tuning_seeds=5",
        "--test_seeds=0,1",
        *more,
    )


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(CONFIG)
    return file


@pytest.mark.slow
def test_a_study_tunes_tests_and_resumes(config, data_dir, tmp_path, capsys):
    workdir = tmp_path / "study"
    code, output, errors = compare(config, workdir, data_dir)
    assert code == 0, errors
    content = json.loads((workdir / "regularisers.json").read_text())
    (setting,) = content["settings"].values()
    arms = setting["arms"]
    assert list(arms) == ["none", "shifts", "none + noise"]
    for arm in arms.values():
        scores = [tried["held_out_top1"] for tried in arm["tuning"]]
        assert len(scores) == 2
        assert arm["fields"] == arm["tuning"][scores.index(max(scores))]["fields"]
        assert len(arm["top1"]) == 2
    assert arms["none"]["fields"].items() <= arms["none + noise"]["fields"].items()
    assert len(arms["shifts"]["top1_views"]) == 2
    assert "top1_views" not in arms["none"]
    (contrast,) = content["contrasts"]
    changes = [
        a - b for a, b in zip(arms["none + noise"]["top1"], arms["none"]["top1"], strict=True)
    ]
    assert contrast["value"] == pytest.approx(sum(changes) / 2)
    assert "over_none" in arms["shifts"]
    assert "over_none" not in arms["none + noise"]  # that is a contrast
    assert set(setting["floors"]) == {"1-NN", "SVM"}
    table = (workdir / "regularisers.md").read_text()
    assert "| small | none + noise − none |" in table
    assert table.splitlines()[-1] in output
    with (workdir / "regularisers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1"] * 3
    for stage, count in (("tuning", 4), ("tuning_on_top", 2), ("test", 8)):
        with (workdir / "small" / stage / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count
        assert {row["shuffled_top1"] for row in rows} == {""}  # nothing is evaluated with noise
    assert (workdir / "regularisers.png").stat().st_size > 0

    for other in ({"seeds": Seeds((5,), (0, 2))}, {"contrasts": []}):
        with pytest.raises(ValueError, match="contains another comparison"):
            resume(config, workdir, data_dir, **other)
    (workdir / "study.json").unlink()  # as if from an earlier version
    with pytest.raises(ValueError, match=r"small / test / seeds: \[0, 1\] there, \[0, 2\] now"):
        resume(config, workdir, data_dir, seeds=Seeds((5,), (0, 2)))
    assert not (workdir / "study.json").exists()
    for file in ("setting.json", "test/results.csv"):  # as if it had been killed earlier
        (workdir / "small" / file).unlink()
    code, output, errors = compare(config, workdir, data_dir)
    assert code == 0, errors
    assert output.count("remaining: 0 trainings") == 2
    assert (workdir / "study.json").exists()
    assert (
        json.loads((workdir / "regularisers.json").read_text())["settings"] == content["settings"]
    )


def resume(config, workdir, data_dir, **other):
    """Resumes like the command, but in this process: starting another takes seconds."""
    defined = runpy.run_path(str(config))
    base = defined["get_config"]()
    base.data.data_dir = str(data_dir)
    parts = {name: defined[name]() for name in ("arms", "settings", "contrasts")}
    options = parts | {"seeds": Seeds(tuning=(5,), test=(0, 1))} | other
    compare_regularisers(base, workdir, names=["small"], **options)


def test_an_unknown_setting_is_named(config, tmp_path):
    defined = runpy.run_path(str(config))
    parts = {name: defined[name]() for name in ("arms", "settings", "contrasts")}
    with pytest.raises(ValueError, match=r"--settings=smal: 'smal' is unknown.*mean 'small'"):
        compare_regularisers(defined["get_config"](), tmp_path / "study", names=["smal"], **parts)
    assert not (tmp_path / "study").exists()


def test_flags_that_settings_or_arms_override_are_told(config, data_dir, tmp_path):
    flags = ("--config.data.train_split=train", "--config.optimizer.learning_rate=0.1")
    _, output, _ = compare(config, tmp_path / "study", data_dir, *flags, "--settings=smal")
    assert "settings() sets data.train_split for small, other, so --config.data.train_sp" in output
    assert "arms() sets optimizer.learning_rate for none, so --config.optimizer.lear" in output
    code, _, errors = compare(config, tmp_path / "study", data_dir, "--config.seed=3")
    assert code == 64
    assert "--config.seed: a study trains with several seeds: give them in --tuning_seeds" in errors
