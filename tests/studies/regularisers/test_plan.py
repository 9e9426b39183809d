"""What a comparison refuses, and that configs/regularisers.py keeps its promises."""

import importlib

import pytest

from pnoise_jax import data, training
from pnoise_jax.studies.regularisers import Arm, Seeds, Setting, compare_regularisers
from pnoise_jax.studies.regularisers.cells import check_cells
from pnoise_jax.studies.regularisers.checks import check_arms, check_contrasts, check_splits
from pnoise_jax.studies.sweep import override
from tests.training.runs import small_config

CONFIG = importlib.import_module("configs.regularisers")
TWO = ({"optimizer.learning_rate": 1e-3}, {"optimizer.learning_rate": 3e-3})


def test_all_arms_have_one_budget_and_each_combination_its_partner():
    arms = CONFIG.arms()
    check_arms(arms)
    check_contrasts(CONFIG.contrasts(), arms)
    assert {len(arm.candidates) for arm in arms.values()} == {4}
    for name, arm in arms.items():
        if arm.on_top_of is not None:
            assert name == f"{arm.on_top_of} + noise"
            assert all(fields["noise.train"] for fields in arm.candidates)
    others = set(arms) - {"none", "noise", "noise, mixed labels", "noise at layer 2"}
    assert {f"{arm} + noise" for arm in others if " + " not in arm} <= others


def test_the_twin_differs_from_the_noise_only_in_its_labels():
    arms = CONFIG.arms()
    pairs = zip(arms["noise"].candidates, arms["noise, mixed labels"].candidates, strict=True)
    for noisy, twin in pairs:
        assert twin == {**noisy, "mixup.labels_follow_noise": True}


def test_arms_have_views_only_if_they_are_trained_with_shifts():
    for arm in CONFIG.arms().values():
        name = arm.on_top_of
        fields = [*arm.candidates, *(CONFIG.arms()[name].candidates if name else ())]
        shifted = any("random_shift" in each.get("data.train_transform", "") for each in fields)
        assert (arm.views > 1) == shifted


@pytest.mark.parametrize("name", [n for n in CONFIG.settings() if n.startswith("digits")])
def test_no_test_digit_is_seen_in_tuning(name, data_dir):
    setting = CONFIG.settings()[name]
    config = override(CONFIG.get_config(), setting.fields)
    config.data.data_dir = str(data_dir)
    check_splits(config, name, setting)
    tuning = setting.splits(tuning=True)
    assert all(split.startswith("train") for split in tuning.values())


def test_every_candidate_can_be_trained(data_dir):
    setting = CONFIG.settings()["digits_300"]
    config = override(CONFIG.get_config(), setting.fields)
    config.data.data_dir = str(data_dir)
    config.batch_size = 48  # for the eight devices of the tests
    check_cells(config, "digits_300", setting, CONFIG.arms())
    assert training.build(config).total_steps == 400


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"noise": Arm(TWO)}, "arms() has no 'none'"),
        ({"none": Arm(TWO), "a": Arm(TWO[:1])}, "arm 'a' has 1 candidates and 'none' has 2"),
        ({"none": Arm([])}, "arm 'none' has 0 candidates"),
        ({"none": Arm(TWO), "a": Arm(TWO, on_top_of="non")}, "did you mean 'none'?"),
        (
            {
                "none": Arm(TWO),
                "a": Arm(TWO, on_top_of="none"),
                "b": Arm(TWO, on_top_of="a"),
            },
            "'a', which is itself on top of 'none'",
        ),
        ({}, "arms() returns {}"),
        ([Arm(TWO)], "give a dict by name"),
        ({"none": list(TWO)}, "give an Arm(candidates)"),
        ({"none": Arm(TWO[0])}, "candidates={'optimizer.learning_rate': 0.001}: give a list"),
        ({"none": Arm(["a", "b"])}, "arm 'none': candidate 1 is 'a': give a dict"),
        ({"none": Arm(TWO, on_top_of=3)}, "on_top_of=3"),
        ({1: Arm(TWO)}, "arms() has the name 1"),
        *(({"none": Arm(TWO, views=n)}, f"views={n}: give a whole") for n in (-3, 0, 2.0, True)),
    ],
)
def test_unfair_or_unknown_arms_are_refused(arms, message):
    with pytest.raises(ValueError, match=r"arm") as error:
        check_arms(arms)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ([("none", "mixup")], "contrasts() names 'mixup'"),
        ([("none", "a", "b")], "contrasts() has ('none', 'a', 'b'): give the names of two arms"),
        ([("none",)], "give the names of two arms"),
        (["ab"], "contrasts() has 'ab'"),
        ([("none", 3)], "give the names of two arms"),
        ({"none": "a"}, "give a list of pairs"),
        ("none", "give a list of pairs"),
        ([("a", "a")], "compares arm 'a' with itself"),
        ([("none", "a"), ("a", "none")], "has ('a', 'none') twice"),
    ],
)
def test_bad_contrasts_are_refused(contrasts, message):
    with pytest.raises(ValueError, match=r"contrasts\(\)") as error:
        check_contrasts(contrasts, dict.fromkeys(("none", "a", "b"), Arm(TWO)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.train_split", "test[:200]"),
        ("data.test_split", "train"),
        ("data.name", "mnist_5k"),
        ("data.data_dir", "/elsewhere"),
        ("data.test_transform", "none"),
        ("data", {"train_split": "test"}),
        ("duration", "60 steps"),
        ("steps", 60),
        ("batch_size", 10),
        ("accumulate", 2),
        ("fsdp", 2),
        ("tensor_parallel", 2),
        ("seed", 3),
        ("evaluation.views", 5),
        ("evaluation.seed", 5),
        ("weights", "elsewhere.safetensors"),
        ("task.name", "other"),
    ],
)
def test_arms_cannot_change_data_budget_or_evaluation(field, value):
    unfair = Arm([TWO[0], {**TWO[1], field: value}])
    with pytest.raises(ValueError, match="must be the same for all arms") as error:
        check_arms({"none": Arm(TWO), "unfair": unfair})
    assert f"arm 'unfair' sets {field}={value!r}" in str(error.value)


def refusal(config, path, *, arms=None, setting=None, **options):
    """The error of a study of these, which writes nothing."""
    setting = setting or Setting(train="train[:300]", held_out="train[597:]", test="test")
    settings = options.pop("settings", {"digits": setting})
    with pytest.raises(ValueError, match=r".") as error:
        compare_regularisers(
            config,
            path / "study",
            arms={"none": Arm(TWO)} | (arms or {}),
            settings=settings,
            **{"contrasts": []} | options,
        )
    assert not (path / "study").exists()
    return str(error.value)


NOISE = {
    "noise.name": "linear_transform",
    "noise.quality": "cyclic_shift",
    "noise.strength": 0.3,
    "noise.train": True,
}


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (
            {"a": Arm([NOISE, NOISE | {"noise.strenght": 0.1}], on_top_of="none")},
            "did you mean 'noise.strength'",
        ),
        ({"a": Arm([NOISE, NOISE | {"noise.strength": "much"}], on_top_of="none")}, "'much'"),
        ({"a": Arm([{"mixup.alpha": -1.0}, {"mixup.alpha": 1.0}])}, "mixup.alpha=-1.0"),
        (
            {"a": Arm([{"mixup.labels_follow_noise": True}, NOISE])},
            "no noise acts in training",
        ),
        ({"a": Arm([{}, {"optimizer.weight_decay": 0.1}], on_top_of="none")}, "the same as arm"),
        (
            {"a": Arm([{"mixup.switch_probability": 0.1}, {"mixup.switch_probability": 0.9}])},
            "the same as arm 'none'",
        ),
    ],
)
def test_a_bad_candidate_is_found_before_any_training(arms, message, data_dir, tmp_path):
    config = small_config(data_dir)
    config.noise.preset = None
    error = refusal(config, tmp_path, arms=arms)
    assert "settings()['digits']" in error
    assert "arm 'a' (" in error
    assert message in error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a": "train"}, "settings()['a'] is 'train'"),
        ({"../a": Setting(train="a", test="b", held_out="c")}, "the name becomes a directory"),
        ({"a": Setting(train=3, test="b", held_out="c")}, "settings()['a']: train=3"),
        (
            {"a": Setting(train="a", test="b", held_out="c", fields={"seed": 3})},
            "sets seed=3 in its fields",
        ),
        (
            {"a": Setting(train="a", test="b", held_out="c", fields={"data.nam": "x"})},
            "settings()['a']: data.nam",
        ),
        (
            {"a": Setting(train="trian", test="test", held_out="train")},
            "settings()['a']: train='trian'",
        ),
        ([], "settings() returns []"),
    ],
)
def test_bad_settings_are_refused(settings, message, data_dir, tmp_path):
    assert message in refusal(small_config(data_dir), tmp_path, settings=settings)


def test_views_that_all_arms_have_anyway_are_refused(data_dir, tmp_path):
    config = small_config(data_dir)
    config.evaluation.views = 3
    error = refusal(config, tmp_path, arms={"a": Arm(TWO, views=3)})
    assert "arm 'a': views=3 equals the config's evaluation.views" in error


def test_no_setting_at_all_is_refused(data_dir, tmp_path):
    assert "names no setting" in refusal(small_config(data_dir), tmp_path, names=[])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": "train[:300]", "held_out": "train[200:]", "test": "test"},
            "tune_on and held_out",
        ),
        ({"train": "train[:300]", "held_out": "test[:100]", "test": "test"}, "held_out and test"),
        (
            {"train": "train+test[:1]", "tune_on": "train[:9]", "held_out": "train[9:]"}
            | {"test": "test"},
            "train and test",
        ),
        *(
            (
                {"train": "train[:300]", "tune_on": tune_on, "held_out": "train[597:]"}
                | {"test": "test"},
                "tune_on and test",
            )
            for tune_on in ("test", "train[:300]+test[:500]", "test[999:]")
        ),
    ],
)
def test_splits_that_share_examples_are_refused(splits, message, data_dir, tmp_path):
    config = small_config(data_dir)
    config.noise.preset = None
    with pytest.raises(ValueError, match="in common") as error:
        compare_regularisers(
            config,
            tmp_path / "study",
            arms={"none": Arm(TWO)},
            settings={"bad": Setting(**splits)},
            contrasts=[],
        )
    assert message in str(error.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("tuning", "test"),
    [
        ((1, 2), (2, 3)),
        ((), (2, 3)),
        ((1,), (2,)),
        ((5,), (1, 1)),
        ((5, 5), (1, 2)),
        ((5,), (1, -2)),
        ((5,), (1, 2**32)),
        ((5,), (1, 2.0)),
        ((True,), (2, 3)),
        ("5", (1, 2)),
        (5, (1, 2)),
    ],
)
def test_seeds_are_fresh_and_enough(tuning, test):
    with pytest.raises(ValueError, match="seed"):
        Seeds(tuning, test)


def test_prefixes_of_the_digits_are_balanced(data_dir):
    for count in (100, 300):
        labels = data.load("digits", split=f"train[:{count}]", data_dir=data_dir).labels
        assert {(labels == digit).sum() for digit in range(10)} == {count // 10}
