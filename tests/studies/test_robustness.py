"""Robustness curves: the study from training to files, signs of masked gradients, bad input."""

import csv
import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import noise, training
from pnoise_jax.studies import robustness
from pnoise_jax.studies.robustness import (
    CurveSettings,
    Measured,
    arms,
    masking,
    report,
    summarise,
    verdict,
)
from tests.training.runs import small_config

pytestmark = pytest.mark.long

OPTIMAL_Q = noise.LinearTransform(noise.Optimal())
ARMS = {
    "plain": {},
    "noisy": {"noise.name": "gaussian", "noise.std": 0.1, "noise.point": "image"},
    "fgsm": {"task.attack": "fgsm", "task.attack_epsilon": 0.05},
}
RESIZED = {f"data.{split}_transform": "resize_square" for split in ("train", "test")}
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
    with pytest.raises(ValueError, match=r"with another config \(batch_size: 16 there, 8 now"):
        robustness.run_curves(config, workdir, two, seeds=(0,), settings=SETTINGS)
    run = workdir / "runs" / "plain-seed_0"
    with pytest.raises(ValueError, match=r"contains a run of pnoise train"):
        robustness.run_curves(study_config(data_dir), run, two, settings=SETTINGS)


@pytest.mark.parametrize(
    ("seeds", "message"), [((0, 0, 0), r"seeds=\(0, 0, 0\): 0 appears twice"), ((), "is empty")]
)
def test_seeds_that_would_count_wrongly_are_refused(data_dir, tmp_path, seeds, message):
    with pytest.raises(ValueError, match=message):
        robustness.run_curves(study_config(data_dir), tmp_path / "study", ARMS, seeds=seeds)
    assert not (tmp_path / "study").exists()


def test_an_existing_run_is_measured_and_not_changed(study, tmp_path):
    workdir, _, content = study
    run = workdir / "runs" / "noisy-seed_0"
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
    got = robustness.run_curves_of(run, None, tmp_path / "out", settings=SETTINGS)
    assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before
    assert got["seeds"] == [0]
    assert "over examples, not over other seeds" in got["sentences"][0]
    assert "PGD takes 2 steps from" in got["sentences"][0]
    assert {p["arm"] for p in got["points"]} == {"noisy-seed_0"}
    assert len(got["points"]) == len(content["points"]) // 2
    config = training.read_config(run)
    config.evaluation.views = 2
    seen = robustness.run_curves_of(run, config, tmp_path / "views", settings=SETTINGS)
    assert not any("evaluation.views" in sentence for sentence in got["sentences"])
    assert any("not used here: noisy-seed_0 (2)" in sentence for sentence in seen["sentences"])
    assert seen["points"] == got["points"]
    again = robustness.run_curves_of(run, None, tmp_path / "out", settings=SETTINGS)
    assert again["points"] == got["points"]
    with pytest.raises(FileExistsError, match=r"--out='.*' contains another report .*overwritten"):
        robustness.run_curves_of(run, config, tmp_path / "out", settings=SETTINGS)
    with pytest.raises(FileNotFoundError):
        robustness.run_curves_of(tmp_path, None, tmp_path / "none", settings=SETTINGS)


def test_noise_at_inference_is_off_and_the_report_says_so(data_dir, tmp_path):
    config = study_config(data_dir)
    config.task = training.task_config("classification")
    config.noise.preset = "optimal_all_tokens"
    config.noise.inference = True
    training.train(config, tmp_path / "run")
    settings = CurveSettings(dict.fromkeys(robustness.STRENGTHS, (0.1,)), pgd_steps=1)
    got = robustness.run_curves_of(tmp_path / "run", None, tmp_path / "out", settings=settings)
    (sentence,) = [s for s in got["sentences"] if "the noise that acts at inference is off" in s]
    assert sentence.startswith("run: ")
    assert "gradients reach across them" in sentence
    assert "random" not in sentence  # the optimal Q draws nothing
    assert "PGD takes 1 step from" in got["sentences"][0]


@pytest.mark.parametrize(
    ("injections", "random", "mixed"),
    [
        ([noise.Injection(OPTIMAL_Q, inference=True)], False, ", and gradients reach across them."),
        ([noise.Injection(OPTIMAL_Q, inference=True, stop_gradient=True)], False, "of the batch."),
        ([noise.Injection(OPTIMAL_Q, layer="random", inference=True)], True, "gradients reach"),
        ([noise.Injection(noise.Gaussian(std=0.1), inference=True)], True, None),
        ([noise.Injection(noise.Erase(0.1), inference=True)], False, None),
        (
            [
                noise.Injection(noise.Gaussian(std=0.1), inference=True),
                noise.Injection(OPTIMAL_Q, inference=True),
            ],
            True,
            "gradients reach",
        ),
    ],
)
def test_the_report_says_what_noise_at_inference_would_change(injections, random, mixed):
    experiments: Any = {"arm": SimpleNamespace(injections=injections)}
    (sentence,) = report._sentences_on_noise(experiments)
    assert sentence.startswith("arm: the noise that acts at inference is off here.")
    assert ("many draws" in sentence) == random
    assert ("It mixes examples" in sentence) == (mixed is not None)
    assert (mixed or "") in sentence


def test_noise_that_does_not_act_at_inference_is_not_mentioned():
    injections = [
        noise.Injection(OPTIMAL_Q),
        noise.Injection(noise.Gaussian(std=0.0), inference=True),
    ]
    experiments: Any = {"arm": SimpleNamespace(injections=injections)}
    assert report._sentences_on_noise(experiments) == []


def test_only_classification_has_curves(data_dir, tmp_path):
    config = study_config(data_dir)
    config.task = training.task_config("source_only", source="digits", source_split="train[:50]")
    experiment = training.build(config)
    with pytest.raises(ValueError, match=r"task\.name='source_only': robustness curves need"):
        arms.require_classification(experiment)
    with pytest.raises(ValueError, match=r"plain: task\.name='source_only'"):
        robustness.run_curves(config, tmp_path, {"plain": {}}, settings=SETTINGS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, r"arms\(\) returns no arm"),
        ({"a": {"task.atack": "fgsm"}}, r"a: task\.atack: unknown field.*attack"),
        ({"a": {"task.attack": "pgd", "task.attack_steps": 0}}, "a: task: attack_steps=0"),
        ({"a": {"task.attack": "fgsm", "task.attack_epsilon": 8.0}}, r"attack_epsilon=8\.0"),
        ({"a": {"noise.name": "gaussian", "noise.std": -1.0}}, r"a: noise\.std=-1\.0"),
        ({"a": {"noise.name": "gaussian", "noise.std": float("nan")}}, r"a: noise\.std=nan"),
        ({"a b": {}, "a_b": {}}, "would share a directory"),
        ({"a": {}, "b": {"seed": 3}}, "b: seed=3: the study sets the seeds"),
        ({"a": {}, "b": {"data.test_split": "test[64:128]"}}, r"b: data\.test_split is 'test\[64"),
        ({"a": {}, "b": {"data.test_split": "test[:32]"}}, "give all of them the same test data"),
        (
            {"a": {}, "b": {"evaluation.classes": "of_data_set"}},
            r"b: evaluation\.classes is 'of_data_set', but 'all' in a",
        ),
        (
            {"a": {}, "b": {"model.image_size": 16, **RESIZED}},
            r"b: data\.test_transform is 'resize_square', but 'none' in a",
        ),
    ],
)
def test_bad_arms_are_named_before_any_training(data_dir, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        robustness.run_curves(study_config(data_dir), tmp_path, changed, settings=SETTINGS)
    assert not any(tmp_path.iterdir())


def test_the_strength_of_training_is_the_largest(data_dir):
    config = study_config(data_dir)
    halves = {"name": "gaussian", "std": 0.3, "point": "image"}
    config.noise.others.first = training.noise_config(
        **halves, schedule="linear 0 to 2 over 1 epochs"
    )
    config.noise.others.second = training.noise_config(**{**halves, "std": 0.8})
    for name, probability in (("third", 0.2), ("fourth", 0.1)):
        config.noise.others[name] = training.noise_config(
            name="salt_and_pepper", probability=probability, point="image"
        )
    config.task = training.task_config(
        "robust_classification",
        attack="fgsm",
        attack_epsilon=0.1,
        attack_schedule="cosine 0.5 to 0.25 over 1 epochs",
    )
    expected = {"gaussian": 1.0, "salt_and_pepper": 0.2, "fgsm": 0.05}
    assert arms.trained_strengths(training.build(config)) == pytest.approx(expected)


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


def measured(fgsm, pgd, *, zeros=0.0, survivors=0.0, chance=10.0, seed=0, **by_loss):
    """Which of 100 images are right, from percentages by strength.

    Args:
      fgsm, pgd: after both losses.
      zeros, survivors, chance: without a gradient, after the whole range, of random pixels.
      seed: of the run.
      by_loss: such as pgd_cross_entropy or pgd_blind, if they differ.
    """
    attacks = {}
    for kind, worst in (("fgsm", fgsm), ("pgd", pgd)):
        curves = {"cross_entropy": worst, "margin": worst, "blind": [90] * len(worst)}
        attacks[kind] = {k: rights(by_loss.get(f"{kind}_{k}", v)) for k, v in curves.items()}
    noise = {"gaussian": rights([90, 80, 70]), "salt_and_pepper": rights([90, 80])}
    shares = (rights([share])[0] for share in (zeros, survivors, chance))
    return Measured("arm", seed, noise, attacks, *shares)


def rights(percent):
    return np.arange(100) < np.asarray(percent)[:, None]


NO_STRONGER = ["FGSM is no stronger than random", "PGD is no stronger than random"]


@pytest.mark.parametrize(
    ("run", "signs"),
    [
        (measured([90, 50, 10], [90, 5]), []),
        (measured([90, 30, 40], [90, 5]), ["30.0 % at epsilon 0.05 and 40.0 % at 0.2"]),
        (measured([90, 50, 10], [90, 80]), ["PGD of epsilon 0.2 leaves 80.0 % and FGSM of 0.2"]),
        (measured([90, 50, 10], [90, 12]), ["leaves 12.0 % and FGSM of 0.2 leaves 10.0 %"]),
        (measured([90, 50, 10], [90, 11]), []),  # by chance
        (measured([90, 50, 10], [90, 5], survivors=20), ["at will leaves 20.0 %"]),
        (measured([90, 50, 10], [90, 5], survivors=1, chance=1), ["random pixels leave 1 %"]),
        (measured([90, 50, 10], [90, 5], survivors=1, chance=10), []),
        (measured([90, 50, 10], [90, 5], zeros=30), ["30.0 % of the images have a gradient of"]),
        (measured([90, 90, 90], [90, 90]), NO_STRONGER),
        (measured([90, 50, 5], [90, 5], fgsm_blind=[90, 51, 6]), NO_STRONGER[:1]),
        (measured([90, 50, 10], [90, 5], pgd_cross_entropy=[90, 24]), ["5.0 % if it increases"]),
        (measured([90, 50, 10], [90, 5], pgd_margin=[90, 24]), []),  # the worst of both counts
        (
            measured([90, 90, 90], [90, 90], zeros=100, survivors=90),
            [*NO_STRONGER, "at will", "gradient of"],
        ),
    ],
)
def test_signs_that_an_attack_failed(run, signs):
    got = masking.find_signs([run], SETTINGS)
    assert len(got) == len(signs)
    for sentence, part in zip(got, signs, strict=True):
        assert part in sentence
        assert sentence.startswith("arm, seed 0: ")


def strengths_of(fgsm, pgd):
    return CurveSettings({**SETTINGS.strengths, "fgsm": fgsm, "pgd": pgd}, pgd_steps=2)


def test_fgsm_is_compared_with_every_pgd_of_at_least_its_epsilon():
    run = measured([90, 20, 10], [90, 40])
    assert "PGD of epsilon 0.3" in masking.find_signs([run], strengths_of((0.1, 0.2), (0.3,)))[0]
    smaller = strengths_of((0.1, 0.2), (0.05,))
    assert masking.find_signs([run], smaller) == []
    (text,) = verdict.verdicts([run], smaller)
    assert "FGSM of 0.1, 0.2 was not compared with PGD" in text
    assert "PGD left" not in text
    (text,) = verdict.verdicts([measured([90, 40, 10], [90, 20])], strengths_of((0.1, 0.2), (0.1,)))
    assert "PGD left no more than FGSM" in text
    assert "FGSM of 0.2 was not compared" in text


def test_without_a_sign_the_report_says_what_was_measured():
    runs = [measured([90, 50, 10], [90, 5], seed=n, survivors=n) for n in (0, 1)]
    (text,) = verdict.verdicts(runs, SETTINGS)
    for part in (
        "no sign of masked gradients",
        "under FGSM the accuracy fell from 90.0 % to 10.0 % at epsilon 0.2",
        "under PGD the accuracy fell from 90.0 % to 5.0 % at epsilon 0.2",
        "random changes of the same size leave 90.0 %",
        "at will left 0.5 % (images of random pixels: 10 %)",
        "0 % of the images have no gradient",
    ):
        assert part in text


def test_an_accuracy_that_does_not_fall_is_undecided():
    texts = verdict.verdicts([measured([90, 89, 89], [90, 90])], SETTINGS)
    assert len(texts) == 2
    assert "arm: undecided under FGSM" in texts[0]
    assert texts[0].endswith("a larger epsilon would tell")
    assert "(90.0 % to 90.0 %)" in texts[1]
    assert texts[1].endswith("a larger epsilon or more steps than 2 would tell")
    one_of_two = [measured([90, 50, 10], [90, share], seed=share) for share in (5, 90)]
    (text,) = verdict.verdicts(one_of_two, SETTINGS)
    assert "undecided under PGD: the accuracy of at least one seed did not fall" in text


class Nearest(nn.Module):
    """Predicts the nearest of 200 images."""

    injection: Any = None

    @nn.compact
    def __call__(self, x, train=False, **call):
        images, scale = (self.get_variable("params", name) for name in ("images", "scale"))
        return scale * (2 * self.seen(x.reshape(len(x), -1)) @ images.T - (images**2).sum(axis=1))

    def seen(self, flat):
        return flat


class Quantised(Nearest):
    """Rounds pixels; its gradients are not 0, but those of a fast, small wave."""

    def seen(self, flat):
        wave = 1e-3 * jnp.sin(1e4 * flat + jnp.arange(flat.shape[1]) ** 2)
        return jnp.round(2 * flat) / 2 + wave - jax.lax.stop_gradient(wave)


LARGE = CurveSettings({**SETTINGS.strengths, "fgsm": (0.3, 0.6), "pgd": (0.3, 0.6)}, pgd_steps=10)


def measure_nearest(digits, model, scale=1.0):
    """Measures it on its 200 images, one of each class."""
    levels = np.random.default_rng(0).integers(0, 3, (200, 64)).astype(np.float32) / 2
    images = np.round(255 * levels).astype(np.uint8).reshape(200, 8, 8, 1)
    images_of_200 = dataclasses.replace(
        digits, labels=np.arange(200, dtype=np.int32), images=images
    )
    run = SimpleNamespace(
        experiment=SimpleNamespace(
            task=training.Classification(model=model, mean=(0.0,), std=(1.0,)),
            test_data=images_of_200,
            evaluated_data=images_of_200,
            config=SimpleNamespace(seed=0),
        ),
        variables={"params": {"images": levels, "scale": np.float32(scale)}},
    )
    return robustness.measure(run, LARGE, arm="arm", report=lambda _: None)


def test_a_model_whose_gradients_lead_nowhere_gets_signs(digits):
    """With 200 classes chance is below the limit of survivors, and a random start hid it."""
    run = measure_nearest(digits, Quantised())
    signs = masking.find_signs([run], LARGE)
    assert any("PGD is no stronger than random changes" in sign for sign in signs)
    assert any("FGSM is no stronger than random changes" in sign for sign in signs)
    assert not any("no sign" in text for text in verdict.verdicts([run], LARGE))


def test_the_scale_of_logits_is_no_protection(digits):
    plain = measure_nearest(digits, Nearest())
    assert plain.accuracy("pgd")[-1] < 5
    assert masking.find_signs([plain], LARGE) == []
    assert "fell from 100.0 % to 0.0 %" in verdict.verdicts([plain], LARGE)[0]
    for scale in (30.0, 1000.0):
        run = measure_nearest(digits, Nearest(), scale)
        for kind in ("fgsm", "pgd"):
            np.testing.assert_allclose(run.accuracy(kind), plain.accuracy(kind), atol=1)
        signs = masking.find_signs([run], LARGE)
        assert any("% if it increases cross-entropy and" in sign for sign in signs)


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
