"""What a comparison refuses, and that configs/regularisers.py keeps its promises."""

import importlib

import pytest

from pnoise_jax import data, training
from pnoise_jax.studies.regularisers import Arm, Seeds, Setting, compare_regularisers
from pnoise_jax.studies.regularisers.plan import check_arms, check_splits
from pnoise_jax.studies.sweep import override
from tests.training.runs import small_config

CONFIG = importlib.import_module("configs.regularisers")
TWO = ({"optimizer.learning_rate": 1e-3}, {"optimizer.learning_rate": 3e-3})


def test_all_arms_have_one_budget_and_each_combination_its_partner():
    arms = CONFIG.arms()
    check_arms(arms, CONFIG.contrasts())
    assert {len(arm.candidates) for arm in arms.values()} == {4}
    for name, arm in arms.items():
        if arm.on_top_of is not None:
            assert name == f"{arm.on_top_of} + noise"
            assert all(fields["noise.train"] for fields in arm.candidates)
    others = set(arms) - {"none", "noise", "noise, mixed labels", "noise at layer 2"}
    assert {f"{arm} + noise" for arm in others if " + " not in arm} <= others


def test_the_twin_differs_from_the_noise_in_its_labels_alone():
    arms = CONFIG.arms()
    pairs = zip(arms["noise"].candidates, arms["noise, mixed labels"].candidates, strict=True)
    for noisy, twin in pairs:
        assert twin == {**noisy, "mixup.labels_follow_noise": True}


def test_views_are_of_arms_that_are_trained_with_shifts():
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


@pytest.mark.parametrize("arm", [n for n, a in CONFIG.arms().items() if a.on_top_of is None])
def test_every_candidate_can_be_trained(arm, data_dir):
    setting = CONFIG.settings()["digits_300"]
    config = override(CONFIG.get_config(), setting.splits(tuning=True))
    config.data.data_dir = str(data_dir)
    config.batch_size = 48  # for the eight devices of the tests
    for fields in CONFIG.arms()[arm].candidates:
        experiment = training.build(override(config, fields))
        training.check_training(experiment)
        assert experiment.total_steps == 400


@pytest.mark.parametrize(
    ("arms", "contrasts", "message"),
    [
        ({"noise": Arm(TWO)}, [], "arms() has no 'none'"),
        ({"none": Arm(TWO), "a": Arm(TWO[:1])}, [], "arm 'a' has 1 candidates and 'none' has 2"),
        ({"none": Arm([])}, [], "arm 'none' has 0 candidates"),
        ({"none": Arm(TWO), "a": Arm(TWO, on_top_of="non")}, [], "did you mean 'none'?"),
        (
            {
                "none": Arm(TWO),
                "a": Arm(TWO, on_top_of="none"),
                "b": Arm(TWO, on_top_of="a"),
            },
            [],
            "'a', which is itself on top of 'none'",
        ),
        ({"none": Arm(TWO)}, [("none", "mixup")], "contrasts() names 'mixup'"),
    ],
)
def test_unfair_or_unknown_arms_are_refused(arms, contrasts, message):
    with pytest.raises(ValueError, match=r"arm") as error:
        check_arms(arms, contrasts)
    assert message in str(error.value)


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


@pytest.mark.parametrize(("tuning", "test"), [((1, 2), (2, 3)), ((), (2, 3)), ((1,), (2,))])
def test_seeds_are_fresh_and_enough(tuning, test):
    with pytest.raises(ValueError, match="seed"):
        Seeds(tuning, test)


def test_prefixes_of_the_digits_are_balanced(data_dir):
    for count in (100, 300):
        labels = data.load("digits", split=f"train[:{count}]", data_dir=data_dir).labels
        assert {(labels == digit).sum() for digit in range(10)} == {count // 10}
