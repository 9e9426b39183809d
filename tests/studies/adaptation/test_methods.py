"""Which runs a study has, how each is configured, and what is refused before any training."""

import pytest

from pnoise_jax import training
from pnoise_jax.studies.adaptation import reference, run_adaptation, study
from pnoise_jax.studies.adaptation.methods import Method, build_runs, choose, configure
from tests.adaptation import domains


def base(**changes):
    config = domains.config("tvt", **changes)
    config.noise.preset = "optimal_all_tokens"
    config.noise.train = True
    return config


def names(rows):
    return [row.run_name(0) for row in rows]


def test_the_bounds_and_every_method_without_noise_always_run():
    assert names(choose(["tvt"], {}, noise=True)) == [
        "source_only-seed_0",
        "tvt-seed_0",
        "tvt-noise-seed_0",
        "target_labels-seed_0",
    ]
    assert names(choose(["tvt"], {}, noise=False))[1:-1] == ["tvt-seed_0"]
    assert len(choose(None, {}, noise=True)) == 12
    assert "tvt_published-seed_0" in names(choose(None, {"tvt_published": {}}, noise=True))


def test_a_method_has_its_task_its_overrides_and_its_noise():
    config = base(**{"task.patch_weight": 0.5})
    plain = configure(config, Method("tvt"), {}, 3)
    assert (plain.task.name, plain.task.patch_weight, plain.seed) == ("tvt", 0.5, 3)
    assert plain.noise.preset is None
    noisy = configure(config, Method("dann", noise=True), {"task.domain_weight": 0.25}, 0)
    assert (noisy.task.name, noisy.task.domain_weight) == ("dann", 0.25)
    assert noisy.task.source == config.task.source
    assert noisy.noise.preset == "optimal_all_tokens"
    upper = configure(config, Method("target_labels"), {}, 0)
    assert upper.task.name == "classification"
    custom = configure(config, Method("mine"), {"task.name": "tvt", "task.detach": False}, 0)
    assert (custom.task.name, custom.task.detach, custom.task.patch_weight) == ("tvt", False, 0.5)
    assert config.task.detach  # the base is not changed


def test_a_method_may_start_from_the_run_of_source_only(tmp_path):
    overrides = {"tvt": {"weights": "source_only"}}
    rows = choose(["tvt"], overrides, noise=True)
    runs = build_runs(base(), rows, [4], overrides, directory=tmp_path)
    weights = {run.name: run.experiment.config.weights for run in runs}
    start = str(tmp_path / "source_only-seed_4")
    assert weights == {
        "source_only-seed_4": None,
        "tvt-seed_4": start,
        "tvt-noise-seed_4": start,
        "target_labels-seed_4": None,
    }


@pytest.mark.parametrize(
    ("methods", "overrides", "changes", "message"),
    [
        (["tvvt"], {}, {}, "methods: 'tvvt' is unknown; did you mean 'tvt'"),
        (["tvt", "tvt"], {}, {}, "'tvt' appears twice"),
        (["tvt"], {"tvt": {"task.patch_wait": 1.0}}, {}, "TVT: task.patch_wait: unknown field"),
        (["tvt"], {"tvt": 3}, {}, r"methods\(\) gives 3 for 'tvt'"),
        (None, {"../tvt": {}}, {}, r"methods\(\) returns the name '\.\./tvt', which names a dir"),
        (None, {"tvt-noise": {}}, {}, "the name 'tvt-noise': -noise marks rows with noise"),
        (["dann"], {"dann": {"task.domain_weight": -1.0}}, {}, "domain_weight=-1.0: give a number"),
        (["tvt"], {}, {"model.pooling": "mean"}, "TVT: model.pooling='mean'"),
        (["tvt"], {}, {"data.name": "tests.adaptation.domains:other_classes"}, "classes"),
        (["tvt"], {}, {"task.source_split": "train[:0]"}, r"train\[:0\]"),
        (["tvt"], {}, {"data.train_split": "train[:0]"}, r"train\[:0\]"),
        (["tvt"], {}, {"evaluation.draws": 5}, "evaluation.draws=5: the tables of a study have no"),
        (["tvt"], {}, {"task.source": ""}, "an adaptation study needs a source and a target"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path, methods, overrides, changes, message
):
    with pytest.raises(ValueError, match=message):
        run_adaptation(
            base(**changes), tmp_path / "study", methods=methods, seeds=[0], overrides=overrides
        )
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ((0, 1, 0), r"seeds=\(0, 1, 0\): 0 appears twice, which would count one training as two"),
        ((), "seeds is empty"),
    ],
)
def test_seeds_that_would_count_wrongly_are_refused(tmp_path, seeds, message):
    with pytest.raises(ValueError, match=message):
        run_adaptation(base(), tmp_path / "study", methods=["tvt"], seeds=seeds)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("fields", "noisy", "message"),
    [
        ({"seed": 7}, True, "seed=7, .* use --seeds"),
        ({"data.test_split": "train"}, True, "data.test_split='train', .*the same for all methods"),
        ({"task.source_split": "test"}, True, "task.source_split='test', .*the same for all"),
        ({"evaluation.batch_size": 5}, True, "evaluation.batch_size=5, .*the same for all methods"),
        ({"noise.strength": 0.2}, False, "noise.strength=0.2, but the config has no noise"),
        ({"noise.preset": "paper_vit"}, False, "the config has no noise, so no row has any"),
        (
            {"noise.preset": None, "noise.train": None},
            True,
            "noise.preset=None, which leaves the row without noise",
        ),
    ],
)
def test_what_a_method_cannot_change_is_refused(tmp_path, fields, noisy, message):
    config = base() if noisy else domains.config("tvt")
    rows = choose(["tvt"], {"tvt": fields}, noise=noisy)
    with pytest.raises(ValueError, match=rf"^TVT( \+ noise)?: .*{message}"):
        build_runs(config, rows, [0], {"tvt": fields}, directory=tmp_path)


def test_a_model_without_a_class_token_is_refused_for_tvt(tmp_path):
    config = base()
    config.noise = training.default_config().noise
    config.model = training.model_config("resnet18")
    with pytest.raises(ValueError, match=r"TVT: .*not a transformer with a class token"):
        build_runs(config, choose(["tvt"], {}, noise=False), [0], {}, directory=tmp_path)


def test_the_published_tables_agree_with_their_averages():
    assert len(reference.OFFICE_HOME_PAIRS) == 12
    assert reference.OFFICE_HOME_PAIRS[:4] == ("Ar-Cl", "Ar-Pr", "Ar-Re", "Cl-Ar")
    for table in reference.TABLES.values():
        for row in table.rows:
            assert len(row.values) == len(table.columns)
            assert row.mean == pytest.approx(row.average, abs=0.11)
    assert "PN" not in " ".join(row.name for row in reference.OFFICE_HOME.rows)


@pytest.mark.parametrize(("split", "known"), [("test", 0), ("train", 120), ("train[:9]+test", 9)])
def test_a_study_knows_how_many_test_images_its_upper_bound_has_learned(tmp_path, split, known):
    config = domains.config("source_only", **{"data.test_split": split})
    rows = choose(["source_only"], {}, noise=False)
    told = study._on_upper_bound(build_runs(config, rows, [0], {}, directory=tmp_path))
    assert [f"{known} of the" in each or "trained on the test" in each for each in told] == (
        [True] if known else []
    )


def test_runs_of_an_earlier_call_that_the_table_leaves_out_are_named(tmp_path):
    runs = build_runs(base(), choose(["tvt"], {}, noise=True), [0], {}, directory=tmp_path)
    (tmp_path / "measured").mkdir()
    assert study._left_out(tmp_path, runs) == []
    for name in ("tvt-noise-seed_0", "tvt-seed_1", "dann-seed_0"):
        (tmp_path / "measured" / f"{name}.npz").touch()
    (sentence,) = study._left_out(tmp_path, runs)
    assert "the tables leave out dann-seed_0, tvt-seed_1, measured by an earlier" in sentence
