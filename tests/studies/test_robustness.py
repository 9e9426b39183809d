"""Robustness curves: the study from training to files, signs of masked gradients, bad input."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from pnoise_jax import training
from pnoise_jax.studies import robustness
from pnoise_jax.studies.robustness import CurveSettings, Measured, arms, masking, summarise
from tests.training.runs import small_config

ARMS = {
    "plain": {},
    "noisy": {"noise.name": "gaussian", "noise.std": 0.1, "noise.point": "image"},
    "fgsm": {"task.attack": "fgsm", "task.attack_epsilon": 0.05},
}
SETTINGS = CurveSettings(
    {
        "gaussian": (0.1, 0.3),
        "salt_and_pepper": (0.1,),
        "fgsm": (0.05, 0.2),
        "pgd": (0.2,),
    },
    pgd_steps=2,
)


def study_config(data_dir):
    config = small_config(data_dir)
    config.noise.preset = None
    config.data.test_split = "test[:64]"
    config.task = training.task_config("robust_classification")
    return config


@pytest.fixture(scope="module")
def study(data_dir, tmp_path_factory):
    """Two arms, one seed."""
    workdir = tmp_path_factory.mktemp("study")
    two = {name: ARMS[name] for name in ("plain", "noisy")}
    content = robustness.run_curves(
        study_config(data_dir), workdir, two, seeds=(0,), settings=SETTINGS
    )
    return workdir, two, content


def test_it_trains_measures_and_writes(study):
    workdir, _, content = study
    stored = json.loads((workdir / "robustness.json").read_text())
    assert stored == json.loads(json.dumps(content))  # tuples are lists there
    assert (workdir / "robustness.svg").read_bytes().startswith(b"<?xml")
    assert (workdir / "robustness.png").read_bytes().startswith(b"\x89PNG")
    with (workdir / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (3 + 2 + 3 + 2)
    assert {row["seeds"] for row in rows} == {"1"}
    assert content["trained"] == {"plain": {}, "noisy": {"gaussian": 0.1}}
    beyond = [(p["arm"], p["kind"], p["strength"]) for p in content["points"] if p["beyond"]]
    assert beyond == [("noisy", "gaussian", 0.3)]
    clean = [p["accuracy"] for p in content["points"] if p["strength"] == 0 and p["arm"] == "plain"]
    report = json.loads((workdir / "runs" / "plain-seed_0" / "evaluation.json").read_text())
    assert clean == pytest.approx([report["rows"][0]["top1"]] * 4)


def test_the_same_call_measures_nothing_again(study, data_dir, monkeypatch):
    workdir, two, content = study
    monkeypatch.setattr(training, "train", None)
    monkeypatch.setattr(training, "restore", None)
    again = robustness.run_curves(
        study_config(data_dir), workdir, two, seeds=(0,), settings=SETTINGS
    )
    assert again == content


def test_another_config_is_refused(study, data_dir):
    workdir, two, _ = study
    config = study_config(data_dir)
    config.batch_size = 8
    with pytest.raises(ValueError, match=r"study of another config \(batch_size: 16 there, 8 now"):
        robustness.run_curves(config, workdir, two, seeds=(0,), settings=SETTINGS)
    run = workdir / "runs" / "plain-seed_0"
    with pytest.raises(ValueError, match=r"holds a run of launch\.train"):
        robustness.run_curves(study_config(data_dir), run, two, settings=SETTINGS)


def test_a_run_that_is_there_is_measured_and_left_as_it_is(study, tmp_path):
    workdir, _, content = study
    run = workdir / "runs" / "noisy-seed_0"
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
    got = robustness.run_curves_of(run, None, tmp_path / "out", settings=SETTINGS)
    assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before
    assert got["seeds"] == [0]
    assert "over examples, not over other seeds" in got["sentences"][0]
    assert {p["arm"] for p in got["points"]} == {"noisy-seed_0"}
    assert len(got["points"]) == len(content["points"]) // 2
    with pytest.raises(FileNotFoundError):
        robustness.run_curves_of(tmp_path, None, tmp_path / "none", settings=SETTINGS)


def test_noise_at_inference_is_off_and_said_to_be(data_dir, tmp_path):
    config = study_config(data_dir)
    config.task = training.task_config("classification")
    config.noise.preset = "optimal_all_tokens"
    config.noise.inference = True
    training.train(config, tmp_path / "run")
    settings = CurveSettings(dict.fromkeys(robustness.STRENGTHS, (0.1,)), pgd_steps=1)
    got = robustness.run_curves_of(tmp_path / "run", None, tmp_path / "out", settings=settings)
    assert any("the noise that acts at inference is off here" in s for s in got["sentences"])


def test_only_classification_has_curves(data_dir, tmp_path):
    config = study_config(data_dir)
    config.task = training.task_config("source_only", source="digits", source_split="train[:50]")
    experiment = training.build(config)
    with pytest.raises(ValueError, match=r"task\.name='source_only': robustness curves are of"):
        arms.require_classification(experiment)
    with pytest.raises(ValueError, match=r"plain: task\.name='source_only'"):
        robustness.run_curves(config, tmp_path, {"plain": {}}, settings=SETTINGS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, r"arms\(\) returns none"),
        ({"a": {"task.atack": "fgsm"}}, r"a: task\.atack: unknown field.*attack"),
        ({"a": {"task.attack": "pgd", "task.attack_steps": 0}}, "a: task: attack_steps=0"),
        ({"a": {"task.attack": "fgsm", "task.attack_epsilon": 8.0}}, r"attack_epsilon=8\.0"),
        ({"a": {"noise.name": "gaussian", "noise.std": -1.0}}, r"a: noise\.std=-1\.0"),
        ({"a": {"noise.name": "gaussian", "noise.std": float("nan")}}, r"a: noise\.std=nan"),
        ({"a b": {}, "a_b": {}}, "would share a directory"),
    ],
)
def test_bad_arms_are_named_before_any_training(data_dir, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        robustness.run_curves(study_config(data_dir), tmp_path, changed, settings=SETTINGS)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strengths": {"pgd": ()}}, r"strengths\.pgd=\(\): give at least one"),
        ({"strengths": {"pgd": (0,)}}, r"strengths\.pgd=\(0,\): give one above 0"),
        ({"strengths": {"cw": (0.1,)}}, "strengths: 'cw' is unknown"),
        ({"strengths": {"fgsm": (0.2, 0.1)}}, r"strengths\.fgsm=.*ascending"),
        ({"pgd_steps": 0}, "pgd_steps=0: give a whole number"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CurveSettings(**settings)


def measured(fgsm, pgd, *, zeros=0.0, survivors=0.0, seed=0):
    """Of 100 images, so many percent right, by strength."""
    correct = {
        "gaussian": rights([90, 80, 70]),
        "salt_and_pepper": rights([90, 80]),
        "fgsm": rights(fgsm),
        "pgd": rights(pgd),
    }
    return Measured("arm", seed, correct, *(rights([share])[0] for share in (zeros, survivors)))


def rights(percent):
    return np.arange(100) < np.asarray(percent)[:, None]


@pytest.mark.parametrize(
    ("run", "signs"),
    [
        (measured([90, 50, 10], [90, 5]), []),
        (measured([90, 30, 40], [90, 5]), ["30.0 % at epsilon 0.05 and 40.0 % at 0.2"]),
        (measured([90, 50, 10], [90, 91]), ["PGD leaves 91.0 % and FGSM 10.0 %"]),
        (measured([90, 50, 10], [90, 12]), ["PGD leaves 12.0 % and FGSM 10.0 %"]),
        (measured([90, 50, 10], [90, 11]), []),  # by chance
        (measured([90, 50, 10], [90, 5], survivors=20), ["at will leaves 20.0 %"]),
        (measured([90, 50, 10], [90, 5], zeros=30), ["30.0 % of the images have a gradient of"]),
        (measured([90, 90, 90], [90, 90], zeros=100, survivors=90), ["at will", "gradient of"]),
    ],
)
def test_signs_that_an_attack_failed(run, signs):
    got = masking.find_signs([run], SETTINGS)
    assert len(got) == len(signs)
    for sentence, part in zip(got, signs, strict=True):
        assert part in sentence
        assert sentence.startswith("arm, seed 0: ")


def test_arms_are_compared_with_the_first_by_seed_and_example():
    def runs(arm, right):
        return [
            dataclasses.replace(measured([90, right, 10], [90, 5], seed=n), arm=arm)
            for n in range(3)
        ]

    points = summarise(runs("plain", 50) + runs("fgsm", 80), SETTINGS, {"fgsm": {"fgsm": 0.05}})
    gains = {(p.arm, p.kind, p.strength): p for p in points}
    assert gains["plain", "fgsm", 0.05].gain is None
    better = gains["fgsm", "fgsm", 0.05]
    assert better.gain == pytest.approx(30)
    assert 15 < better.gain_low < better.gain_high < 45
    assert better.p_value < 0.001
    same = gains["fgsm", "pgd", 0.2]
    assert (same.gain, same.p_value) == (0, 1)
    assert not better.beyond
    assert gains["fgsm", "fgsm", 0.2].beyond
    assert len({gains["fgsm", kind, 0.0].p_value for kind in robustness.STRENGTHS}) == 1


def test_fewer_than_three_seeds_claim_nothing_of_others():
    two = [measured([90, 50, 10], [90, 5], seed=n) for n in (0, 1)]
    points = summarise(two, SETTINGS, {})
    assert all(p.gain is None for p in points)
    assert points[0].low < points[0].accuracy == 90 < points[0].high
