"""A run stores its class names: data with another class order is handled correctly, or refused.

The data are three classes that a small model learns perfectly, prepared as "folder/x" in several
directories: in the usual order, in the opposite order, and with other classes.
"""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pnoise_jax import data, parallel, studies, training, weights
from pnoise_jax.data import prepare as preparation
from pnoise_jax.data.prepare.builders import folder
from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.training import data_version
from pnoise_jax.training.evaluating import overlap
from pnoise_jax.training.evaluating.restore import restore
from tests.data import archives
from tests.training.runs import small_config

NAMES = ("ant", "bee", "cow")
SETTINGS = studies.AuditSettings(batch_sizes=(10,), resamples=100, purity_steps=0)


def make(directory, *, classes=NAMES, backwards=False, seed=0):
    """Prepares a data set; an image's colour is the position of its class in `classes`."""
    for split in ("train", "test"):
        for label, name in enumerate(classes):
            for i in range(20):
                # Red, green or blue, plus noise.
                pixels = np.random.default_rng([seed, i, split == "test"]).integers(
                    0, 60, (8, 8, 3)
                )
                pixels[:, :, label % 3] += 180
                encoded = archives.encode(
                    archives.Image.fromarray(pixels.astype(np.uint8)), format="PNG"
                )
                path = directory / "images" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded)
    with pytest.MonkeyPatch.context() as patch:
        if backwards:
            patch.setattr(folder, "natural_order", lambda names: names[::-1])
        preparation.prepare(
            "folder/x", manual_dir=directory / "images", data_dir=directory / "data"
        )
    return directory / "data"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The data directories, by what is in them."""
    root = tmp_path_factory.mktemp("classes")
    return {
        "usual": make(root / "usual"),
        "backwards": make(root / "backwards", backwards=True),
        "others": make(root / "others", classes=("ant", "bee", "dog")),
        "fewer": make(root / "fewer", classes=("ant", "bee")),
        "numbers": make(root / "numbers", classes=("0", "1", "2")),
    }


def config_on(place, **changes):
    sets = {
        "data.name": "folder/x",
        "data.train_split": "train",
        "data.test_split": "test",
        "data.train_transform": "resize_square",
        "data.test_transform": "resize_square",
        "data.mean": (0.5,),
        "data.std": (0.5,),
        "data.cache": False,
        "batch_size": 16,
        "duration": "40 steps",
        "checkpoint.every": "40 steps",
        "noise.preset": None,
        "evaluation.batch_size": 20,
    }
    return small_config(place, **(sets | changes))


@pytest.fixture(scope="module")
def trained(places, tmp_path_factory):
    """A run on the usual data that classifies all of it correctly."""
    path = tmp_path_factory.mktemp("run") / "run"
    (clean,) = training.train(config_on(places["usual"]), path)
    assert clean["top1"] == 100
    return path


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_stores_its_data_set_and_class_names(run, places):
    assert json.loads((run / "data.json").read_text()) == {
        "name": "folder/x",
        "version": "1.0.0",
        "num_classes": 3,
        "class_names": list(NAMES),
        "train_examples": 60,
        "content": data.load("folder/x", split="train", data_dir=places["usual"]).content,
    }


def test_an_evaluation_matches_classes_by_name(run, places, capsys):
    backwards = data.load("folder/x", split="test", data_dir=places["backwards"])
    assert backwards.class_names == NAMES[::-1]
    (row,) = training.evaluate(config_on(places["backwards"]), run)
    assert row["top1"] == 100
    note = "note: data.name='folder/x' has the run's classes in another order ('ant' is class 0"
    assert note in " ".join(capsys.readouterr().out.split())
    (file,) = (run / "evaluations").iterdir()  # data with other files is another measurement
    assert json.loads(file.read_text())["notes"][0].startswith(note)
    (row,) = training.evaluate(config_on(places["usual"]), run)
    assert row["top1"] == 100
    assert json.loads((run / "evaluation.json").read_text())["notes"] == []


def test_an_audit_and_its_table_match_classes_by_name(run, places, tmp_path):
    noisy = {"noise.preset": "optimal_all_tokens", "noise.strength": 0.1}
    config = config_on(places["backwards"], **noisy)
    audit = studies.audit_runs(config, run, settings=SETTINGS, out=tmp_path / "audit")
    assert (audit.measured.clean[0].rank == 0).all()
    labels = data.load("folder/x", split="test", data_dir=places["backwards"]).labels
    np.testing.assert_array_equal(audit.measured.labels, 2 - labels)
    assert [c["name"] for c in audit.content["per_class"]] == list(NAMES)
    assert any("in another order" in note for note in audit.content["notes"])


def test_other_classes_are_refused_by_name(run, places):
    for call in (training.evaluate, studies.audit_runs):
        with pytest.raises(ValueError, match=r"'dog' of the latter is not among the 3.*'cow'"):
            call(config_on(places["others"]), run)
    with pytest.raises(
        ValueError, match=r"have 3 and 2 classes: evaluate the run on data with its"
    ):
        training.evaluate(config_on(places["fewer"]), run)
    assert not (run / "audit").exists()


@pytest.mark.parametrize("noted", [None, {"name": "folder/x", "version": None}])
def test_an_old_run_without_class_names_compares_labels_by_number(run, places, noted, capsys):
    (run / "data.json").unlink()
    if noted is not None:
        (run / "data.json").write_text(json.dumps(noted))
    (row,) = training.evaluate(config_on(places["backwards"]), run)
    assert row["top1"] < 50
    note = "note: the run has not noted the names of its classes, so labels are compared by number"
    assert note in " ".join(capsys.readouterr().out.split())
    training.train(config_on(places["usual"]), run)  # resuming works, too
    assert note in " ".join(capsys.readouterr().out.split())


def test_numeric_class_names_are_compared_by_number(run, places, capsys):
    (row,) = training.evaluate(config_on(places["numbers"]), run)
    assert row["top1"] == 100
    assert "have numbers, but the run's have names" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("noted", ["{", "[]", '{"class_names": [1]}', '{"class_names": "abc"}'])
def test_a_damaged_data_json_is_named(run, noted):
    (run / "data.json").write_text(noted)
    with pytest.raises(ValueError, match=r"data\.json cannot be read .*restore it from a copy"):
        restore(run, mesh=parallel.data_mesh())


def test_training_resumes_only_with_the_same_classes(run, places):
    with pytest.raises(
        ValueError, match=r"other classes, or in another order \('ant' is class 0 t"
    ):
        training.train(config_on(places["backwards"]), run)
    with pytest.raises(ValueError, match=r"'cow' is class 2 there and none here"):
        training.train(config_on(places["others"]), run)


def test_resuming_refuses_more_classes_but_not_other_unicode_forms(run, places):
    described = data_version.describe(training.build(config_on(places["usual"])))
    path = run / "data.json"
    path.write_text(json.dumps(described | {"class_names": ["ant", "bee"]}))
    with pytest.raises(ValueError, match=r"'cow' is class none there and 2 here"):
        data_version._require_same(run, data_version.read(run), described)
    path.write_text(json.dumps(described | {"class_names": ["ant", "bee", "cafe\u0301"]}))
    composed = described | {"class_names": ["ant", "bee", "caf\u00e9"]}
    data_version._require_same(run, data_version.read(run), composed)


def test_training_resumes_only_with_as_many_examples(run, places):
    config = config_on(places["usual"])
    described = data_version.describe(training.build(config)) | {"train_examples": 59}
    (run / "data.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"has trained on 59 examples.*there are 60 now"):
        training.train(config, run)


def test_training_resumes_only_with_the_same_files(run, places):
    config = config_on(places["usual"])
    described = data_version.describe(training.build(config)) | {"content": "another"}
    (run / "data.json").write_text(json.dumps(described))
    with pytest.raises(
        ValueError, match=r"has trained on other files or arrays of data.name='folder/x'"
    ):
        training.train(config, run)


def test_the_source_data_set_must_stay_the_same(tmp_path):
    source = {"name": "s", "version": "1", "train_examples": 3, "class_names": ["a"]}
    note = {"class_names": ["a"], "train_examples": 3, "name": "t"}

    def check(theirs, ours):
        data_version._require_same(tmp_path, note | {"source": theirs}, note | {"source": ours})

    check(source, source | {"content": "x"})  # from an older version
    check(source | {"content": "x"}, source | {"content": "x"})
    with pytest.raises(ValueError, match=r"learned from other files of the source 's' than there"):
        check(source | {"content": "y"}, source | {"content": "x"})
    with pytest.raises(
        ValueError, match=r"\(version 1, 3 .*\), but now the source is 's' \(version 2"
    ):
        check(source | {"content": "y"}, source | {"content": "x", "version": "2"})
    with pytest.raises(ValueError, match=r"but now the source is no other data set"):
        check(source, None)


def test_training_examples_in_the_test_split_are_counted(run, places, capsys):
    training.evaluate(config_on(places["usual"], **{"data.test_split": "test+train[:5]"}), run)
    output = " ".join(capsys.readouterr().out.split())
    assert "note: 5 of the 65 test examples are training examples, or copies of some (da" in output
    (report,) = (run / "evaluations").glob("*.json")
    assert "5 of the 65 test examples" in " ".join(json.loads(report.read_text())["notes"])


def test_training_images_in_another_data_set_are_counted(run, places, tmp_path, capsys):
    """Under another name or in another directory; not counted if the training data are gone."""
    images = tmp_path / "images"
    for split in ("train", "test"):  # the test split is what the run was trained on
        shutil.copytree(places["usual"].parent / "images" / "train", images / split)
    for name in ("folder/copies", "folder/x"):
        preparation.prepare(name, manual_dir=images, data_dir=tmp_path)
    for name, where in (("folder/copies", "data.name='folder/x', "), ("folder/x", "")):
        training.evaluate(config_on(tmp_path, **{"data.name": name}), run)
        output = " ".join(capsys.readouterr().out.split())
        examples = "60 of the 60 test examples are training examples, or copies of some"
        assert f"note: {examples} ({where}data.train_split='train', " in output
    moved = places["usual"].rename(tmp_path / "moved")
    try:
        training.evaluate(config_on(tmp_path, **{"data.name": "folder/copies"}), run)
    finally:
        moved.rename(places["usual"])
    assert "training examples" not in capsys.readouterr().out


def test_training_examples_of_the_run_that_weights_come_from_are_counted(run, places, tmp_path):
    on = {"data.test_split": "test[:7]+train[:5]"}
    experiment = training.build(config_on(places["usual"], weights=str(run), **on))
    found = experiment.match_weights(head="keep")
    imported = training.import_weights(experiment, found, mesh=parallel.data_mesh())
    said = f"note: 5 of the 12 test examples are training examples of the run in {run}, from which"
    assert said in " ".join(imported.notes)
    # A run that was trained on other examples, and itself started from these weights.
    stored = config_on(places["usual"], weights=str(run), **{"data.train_split": "test[7:]"})
    (only,) = overlap.describe_overlap(experiment, stored, tmp_path)
    assert only.startswith(said)
    stored.weights = str(run / "checkpoints")
    assert overlap.describe_overlap(experiment, stored, tmp_path) == (only,)
    (run / "config.json").unlink()  # then nothing is known about its data
    assert overlap.describe_overlap(experiment, stored, tmp_path) == ()


def test_training_examples_are_unknown_if_the_data_have_changed(run, places, tmp_path, capsys):
    """A run knows what it has learned from by position, and the positions have moved."""
    stored = json.loads((run / "config.json").read_text())
    stored["data"]["train_split"] = "train[:40]"
    (run / "config.json").write_text(json.dumps(stored))
    parts = {"data.train_split": "train[:40]", "data.test_split": "train[40:]"}
    training.evaluate(config_on(places["usual"], **parts), run)
    assert "note:" not in capsys.readouterr().out
    images = tmp_path / "images"
    shutil.copytree(places["usual"].parent / "images", images)
    for name in NAMES:  # the directory of the run gets other images
        (images / "train" / name / "0.png").unlink()
    before = places["usual"].rename(tmp_path / "before")
    try:
        preparation.prepare("folder/x", manual_dir=images, data_dir=places["usual"])
        training.evaluate(config_on(places["usual"], **parts), run)
        said = " ".join(capsys.readouterr().out.split())
        assert "data.name='folder/x' have changed since the training, so some examples" in said
        training.evaluate(config_on(places["usual"], **parts | {"data.test_split": "test"}), run)
        assert "have changed since" not in capsys.readouterr().out
    finally:
        shutil.rmtree(places["usual"])
        before.rename(places["usual"])


def test_a_mean_other_than_in_training_is_noted(run, places, capsys):
    training.evaluate(config_on(places["usual"], **{"data.mean": (0.1,)}), run)
    output = " ".join(capsys.readouterr().out.split())
    assert "note: data.mean=(0.1,), but the run was trained with (0.5,)" in output


def test_an_audit_trains_no_seed_with_another_class_order(run, places, tmp_path):
    seeds = tmp_path / "seeds"
    shutil.copytree(run, seeds / "seed_0")
    stored = json.loads((seeds / "seed_0" / "config.json").read_text())
    stored["data"]["data_dir"] = str(places["backwards"])  # as if the data had been prepared again
    (seeds / "seed_0" / "config.json").write_text(json.dumps(stored))
    config = config_on(places["backwards"], **{"noise.preset": "optimal_all_tokens"})
    with pytest.raises(ValueError, match="folder/x' with other classes, or in another order"):
        studies.audit_runs(config, seeds, seeds=[0, 1], settings=SETTINGS)
    assert not (seeds / "seed_1").exists()


def test_seeds_that_number_their_classes_differently_are_refused(run, places, tmp_path):
    seeds = tmp_path / "seeds"
    for seed, names in ((0, NAMES), (1, NAMES[::-1])):
        shutil.copytree(run, seeds / f"seed_{seed}")
        config = config_on(places["usual"], seed=seed)
        (seeds / f"seed_{seed}" / "config.json").write_text(config.to_json_best_effort())
        noted = {"name": "folder/x", "version": "1.0.0", "class_names": list(names)}
        (seeds / f"seed_{seed}" / "data.json").write_text(json.dumps(noted))
    with pytest.raises(
        ValueError, match=r"seed_0 and seed_1 in .* have numbered classes differently"
    ):
        studies.audit_runs(config_on(places["usual"]), seeds)


def test_a_sweep_resumes_only_with_the_same_classes(places, tmp_path):
    described = [
        data_version.describe(training.build(config_on(places[place])))
        for place in ("usual", "backwards")
    ]
    base = config_on(places["usual"])
    sweep_results.claim(tmp_path, base, described[0])
    (tmp_path / "results.csv").touch()
    sweep_results.claim(tmp_path, base, described[0])
    with pytest.raises(ValueError, match="other classes, or in another order"):
        sweep_results.claim(tmp_path, base, described[1])


# Weights


def logits_of(matched, experiment):
    """The logits of the test split from a model with these weights."""
    variables = {"batch_stats": {}, "params": {}}
    for path, array in matched.read():
        section = variables
        *parents, name = path.split("/")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = array
    images = np.stack([x["image"] for x in (experiment.test_data[i] for i in range(60))])
    return experiment.model.apply(variables, (images / 255 - 0.5) / 0.5, train=False)


@pytest.mark.parametrize("kind", ["run", "export"])
def test_a_head_is_put_in_the_order_of_the_data(run, places, tmp_path, kind):
    path = run
    if kind == "export":
        exported = weights.export(run, tmp_path / "model.safetensors")
        assert json.loads(exported.metadata["label_names"]) == list(NAMES)
        path = exported.path
    for place, said in (("usual", "head kept (3 classes)"), ("backwards", "put in the order of")):
        experiment = training.build(config_on(places[place], weights=str(path)))
        matched = experiment.match_weights(head="keep")
        assert said in matched.describe()
        predicted = np.argmax(logits_of(matched, experiment), -1)
        np.testing.assert_array_equal(predicted, experiment.test_data.labels)


def test_a_head_of_other_classes_is_not_kept(run, places):
    experiment = training.build(config_on(places["others"], weights=str(run)))
    with pytest.raises(
        ValueError, match=r"weights='.*'dog' of the latter is not.*weights_head='fr"
    ):
        experiment.match_weights(head="keep")
    matched = experiment.match_weights(head="auto")
    assert "head fresh (3 → 3 classes; the file's classes have other names)" in matched.describe()
    assert not any(path.startswith("params/head/") for path in matched.entries)
    assert "head fresh (3 → 3 classes)" in experiment.match_weights(head="fresh").describe()


def test_weights_without_class_names_are_described_as_such(run, places):
    (run / "data.json").unlink()
    experiment = training.build(config_on(places["backwards"], weights=str(run)))
    description = (
        "head kept (3 classes, compared by number: the file has none of the data's class names)"
    )
    assert description in experiment.match_weights(head="keep").describe()


def test_class_names_are_read_from_timms_config(run, places, tmp_path):
    """From config.json next to the file, as timm writes it for its hub."""
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(weights.export(run, tmp_path / "model.safetensors").path), plain)
    (tmp_path / "config.json").write_text(json.dumps({"label_names": list(NAMES)}))
    experiment = training.build(config_on(places["backwards"], weights=str(plain)))
    matched = experiment.match_weights(head="keep")
    assert "put in the order of the data by name: 'ant' is class 0 there and 2 here" in (
        matched.describe()
    )
    predicted = np.argmax(logits_of(matched, experiment), -1)
    np.testing.assert_array_equal(predicted, experiment.test_data.labels)
