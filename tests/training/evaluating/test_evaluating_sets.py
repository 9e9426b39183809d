"""Evaluating a run on several ImageNet test sets, from archives in the official layouts."""

import itertools
import json

import numpy as np
import pytest
from scipy import special

from pnoise_jax import data, evaluation, parallel, studies, training
from pnoise_jax.data import imagenet_sets
from pnoise_jax.data.prepare import prepare
from pnoise_jax.data.prepare.builders import imagenet
from pnoise_jax.data.prepare.builders.imagenet_tests import corrupted, real
from pnoise_jax.evaluation import corruption_error
from pnoise_jax.training import reports
from pnoise_jax.training.evaluating import evaluating_sets
from pnoise_jax.training.evaluating.evaluating import create_main_console
from tests.data import archives
from tests.data.prepare.builders.test_imagenet_tests import make_real
from tests.training.runs import small_config

SNOW = "imagenet2012_corrupted/snow_2"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """One set of each kind; the 1000 validation images and their corrupted versions are tiny."""
    root = tmp_path_factory.mktemp("sets")
    manual_dir = root / "manual"
    manual_dir.mkdir()
    labels = [*range(1000)]
    archives.make_imagenet_class_set(manual_dir, "imagenet_a", per_class=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet, "validation_labels", lambda: labels)
        patch.setattr(real, "_NUM_IMAGES", len(labels))
        patch.setattr(corrupted, "CORRUPTED_SIDE", 8)
        make_real(manual_dir, labels)
        archives.make_imagenet_c(
            manual_dir, archive="weather", corruption="snow", severity=2, labels=labels, size=(8, 8)
        )
        for name in ("imagenet_a", "imagenet2012_real", SNOW):
            prepare(name, manual_dir=manual_dir, data_dir=root)
    return root


def config_on(data_dir, **changes):
    sets = {
        "data.name": "imagenet_a",
        "data.train_split": "test",
        "data.test_split": "test[:100]",
        "data.train_transform": "resize_square",
        "data.test_transform": "resize_square",
        "data.mean": (0.5,),
        "data.std": (0.5,),
        "data.cache": False,
        "batch_size": 80,
        "duration": "8 steps",
        "checkpoint.every": "8 steps",
        "optimizer.learning_rate": 0.01,
        "noise.preset": "optimal_all_tokens",
    }
    return small_config(data_dir, **sets | changes)


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """A run with 1000 classes; an image's colour shows its class modulo 50."""
    workdir = tmp_path_factory.mktemp("run")
    training.train(config_on(data_dir), workdir)
    return workdir


@pytest.fixture(scope="module")
def table(run, data_dir, tmp_path_factory):
    sets = ["imagenet_a", "imagenet2012_real", SNOW]
    config = config_on(data_dir, **{"evaluation.classes": "of_data_set"})
    return training.evaluate_sets(config, run, sets)


def test_each_set_gets_its_own_split_and_classes(table):
    sets = {each["name"]: each for each in table["sets"]}
    counted = {name: (each["classes"], each["rows"][0]["n"]) for name, each in sets.items()}
    assert counted["imagenet_a"] == (200, 400)
    assert counted["imagenet2012_real"] == (1000, 998)
    assert counted[SNOW] == (1000, 1000)
    assert "200 of the model's 1000 logits count" in sets["imagenet_a"]["scoring"][0]
    assert "2 images without a label are left out" in sets["imagenet2012_real"]["scoring"][0]
    assert any("any label of its image" in line for line in sets["imagenet2012_real"]["scoring"])
    assert {len(each["rows"]) for each in sets.values()} == {3}  # clean, and noisy in two orders


def test_the_numbers_equal_those_computed_by_hand(table, run, data_dir):
    """ImageNet-A over its 200 classes, and ReaL with the label sets of real.json."""
    restored = training.restore(run, mesh=parallel.data_mesh())
    experiment = restored.experiment
    pixels = {"mean": experiment.mean, "std": experiment.std}

    def logits_on(name):
        read = data.load(name, split=imagenet_sets.split_of(name), data_dir=data_dir)
        shrink = data.create_transform(
            "resize_square", size=(8, 8), mean=(0.5,), std=(0.5,), train=False, field="x"
        )
        images = np.stack([read.image(i, shrink) for i in range(len(read))])
        return read, evaluation.batch_logits(
            experiment.model, restored.variables, images, noise=False, **pixels
        )

    top1 = {each["name"]: each["rows"][0]["top1"] for each in table["sets"]}
    read, logits = logits_on("imagenet_a")
    kept = np.unique(read.labels)
    right = kept[logits[:, kept].argmax(axis=1)] == read.labels
    assert top1["imagenet_a"] == pytest.approx(100 * right.mean())
    nll = special.logsumexp(logits[:, kept], axis=1) - logits[np.arange(400), read.labels]
    assert table["sets"][0]["rows"][0]["nll"] == pytest.approx(nll.mean(), rel=1e-4)
    read, logits = logits_on("imagenet2012_real")
    right = [p in {*s[s >= 0]} for p, s in zip(logits.argmax(1), read.label_sets, strict=True)]
    assert top1["imagenet2012_real"] == pytest.approx(100 * np.mean(right))


def test_sets_that_contain_training_images_are_noted(run, data_dir, capsys):
    table = training.evaluate_sets(config_on(data_dir), run, ["imagenet2012_real", "imagenet_a"])
    (note,) = table["sets"][1]["notes"]
    assert note.startswith("note: 400 of the 400 test examples are training examples")
    assert note in " ".join(capsys.readouterr().out.split())


def test_corruptions_are_summarised_by_protocol(capsys):
    noisy = evaluation.Protocol(noise=True, order="shuffled", batch_size=10).row()
    clean = evaluation.Protocol(noise=False, order="shuffled", batch_size=10).row()
    measured = [
        {
            "name": name,
            "version": "1.0.0",
            "classes": 1000,
            "rows": [
                clean | {"top1": 80.0 - severity, "top5": 90.0, "n": 9},
                noisy | {"top1": 40.0, "top5": 90.0, "n": 9},
            ],
        }
        for name in evaluating_sets.expand(["imagenet2012_corrupted"])
        for _, severity in [imagenet_sets.corruption_of(name)]
    ]
    summaries = {
        name: evaluating_sets._corrupted(measured, name) for name in ("clean", "noisy, shuffled")
    }
    assert summaries["clean"]["mean_error"] == pytest.approx(23)
    assert summaries["noisy, shuffled"]["mean_error"] == pytest.approx(60)
    by_hand = [100 * 23 / error for error in corruption_error.ALEXNET_ERRORS.values()]
    assert summaries["clean"]["mce"] == pytest.approx(np.mean(by_hand))
    content = {
        "model": "x",
        "step": 8,
        "mixes_batch": True,
        "sets": measured,
        "corrupted": summaries,
    }
    evaluating_sets.print_table(create_main_console(), content)
    printed = " ".join(capsys.readouterr().out.split())
    assert "ImageNet-C, clean: mean error of the 15 corruptions 23.00 %; mCE" in printed
    assert "not the published files" not in printed
    measured[3]["version"] = "3.1.0"
    del measured[-1]
    partial = evaluating_sets._corrupted(measured, "clean")
    assert "mce" not in partial
    assert len(partial["errors"]) == 14
    evaluating_sets.print_table(create_main_console(), content | {"corrupted": {"clean": partial}})
    printed = capsys.readouterr().out
    assert "no mean and no mCE" in printed
    assert "not the published files" in printed


def test_stored_measurements_are_reused_and_equal_those_of_evaluate(
    table, run, data_dir, monkeypatch, capsys
):
    config = config_on(data_dir, **{"evaluation.classes": "of_data_set"})
    monkeypatch.setattr(
        evaluating_sets, "measure", lambda *arguments: pytest.fail("it was measured before")
    )
    again = training.evaluate_sets(config, run, ["imagenet_a"])
    assert again["sets"][0]["rows"] == table["sets"][0]["rows"]
    assert "measured before" in capsys.readouterr().out
    single = evaluating_sets.config_for(config, "imagenet_a")
    rows = training.evaluate(single, run)
    assert "the same measurement as before, with the same numbers" in capsys.readouterr().out
    assert rows == table["sets"][0]["rows"]
    (file,) = (run / "evaluations").glob("*imagenet_a*classes_of_data_set*")
    assert json.loads(file.read_text())["scoring"]


def test_other_images_with_the_same_labels_are_another_measurement(table, run, data_dir, tmp_path):
    prepare("imagenet_a", manual_dir=data_dir / "manual", data_dir=tmp_path, short_side=4)
    ours, other = (
        evaluating_sets.config_for(
            config_on(path, **{"evaluation.classes": "of_data_set"}), "imagenet_a"
        )
        for path in (data_dir, tmp_path)
    )
    restored = training.restore(run, ours, mesh=parallel.data_mesh())
    elsewhere = evaluating_sets._on(restored, other, run)
    labels = (each.experiment.test_data.labels for each in (restored, elsewhere))
    np.testing.assert_array_equal(*labels)
    arrays = reports.digest_arrays(restored.variables)
    assert reports.find(run, restored, arrays)["rows"] == table["sets"][0]["rows"]
    assert reports.find(run, elsewhere, arrays) is None


def test_sets_without_a_mean_have_rows(capsys):
    row = evaluation.Protocol(noise=False, order="stored", batch_size=10).row()
    row |= {"top1": 80.0, "top5": 90.0, "n": 9}
    measured = [
        {
            "name": f"imagenet2012_corrupted/{kind}_3",
            "version": "1.0.0",
            "classes": 9,
            "rows": [row],
        }
        for kind in imagenet_sets.BENCHMARK
    ]
    assert evaluating_sets._corrupted(measured, "clean") == {}
    content = {"model": "x", "step": 8, "mixes_batch": False, "sets": measured, "corrupted": {}}
    evaluating_sets.print_table(create_main_console(), content)
    printed = capsys.readouterr().out
    assert "fog_3" in printed
    assert printed.count("80.00") == 15


def test_all_classes_are_another_measurement_and_the_line_says_so(table, run, data_dir, capsys):
    config = evaluating_sets.config_for(config_on(data_dir), "imagenet_a")
    rows = training.evaluate(config, run)
    printed = " ".join(capsys.readouterr().out.split())
    assert "all 1000 logits count, and imagenet_a has 200 of the classes" in printed
    assert "all 1000 classes" in printed
    # The same logits, with 800 more in the denominator.
    assert rows[0]["nll"] > table["sets"][0]["rows"][0]["nll"] + 0.5


def test_sets_that_are_not_prepared_are_named_before_anything_is_done(run, data_dir):
    with pytest.raises(FileNotFoundError, match="75 of 76 data sets are not prepared"):
        training.evaluate_sets(config_on(data_dir), run, ["imagenet2012_corrupted", "imagenet2012"])


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["imagenet_v2"], "did you mean 'imagenet_v2/"),
        (["imagenet_a", "imagenet_a"], "appears twice"),
        (["imagenet2012_corrupted", SNOW], "appears twice"),
        ([], "there are none"),
        (["digits"], "is unknown"),
    ],
)
def test_invalid_lists_of_sets_are_refused(sets, message):
    with pytest.raises(ValueError, match=message):
        evaluating_sets.expand(sets)
    assert len(evaluating_sets.expand(["imagenet2012_corrupted"])) == 75


@pytest.mark.slow
def test_an_audit_says_which_logits_count_and_sorts_by_label(run, data_dir):
    settings = studies.AuditSettings(
        batch_sizes=(2,), mixed_batches=True, orders=20, purity_steps=0, resamples=100
    )
    config = config_on(data_dir, **{"evaluation.classes": "of_data_set"})
    config.data.test_split = "test[:90%]"
    audit = studies.audit_runs(config, run, settings=settings)
    assert audit.content["num_classes"] == 200
    assert any("200 of the model's 1000 logits count" in note for note in audit.content["notes"])
    assert any("by a hash" in note for note in audit.content["notes"])
    (cell,) = audit.measured.cells
    labels, batches = audit.measured.labels, cell.class_sorted.batches
    of_batch = [labels[batches == number] for number in range(180)]
    assert all(one.max() <= other.min() for one, other in itertools.pairwise(of_batch))
    assert len(np.unique(labels)) > 150
    assert audit.rows[0]["n"] == 360


def test_other_tasks_have_no_logits_to_choose(data_dir):
    config = config_on(data_dir, **{"evaluation.classes": "of_data_set"})
    config.task = training.task_config("denoising")
    config.noise.preset = None
    with pytest.raises(ValueError, match="classifies nothing; set evaluation"):
        training.build(config)


def test_resizing_or_cropping_imagenet_c_is_mentioned(data_dir):
    config = evaluating_sets.config_for(config_on(data_dir), SNOW)
    (size,) = training.build(config).describe_scoring()
    assert "224 x 224 pixels, but this model gets them resized" in size
    config.data.test_transform = "square_crop(0.875)"
    assert "crops them again" in training.build(config).describe_scoring()[-1]
