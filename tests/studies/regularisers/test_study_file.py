"""A work directory belongs to one comparison; another is refused, and what differs is named."""

import json

import pytest

from pnoise_jax.runs import STUDY
from pnoise_jax.studies.regularisers import Arm, Seeds, Setting, study_file
from pnoise_jax.studies.sweep import override
from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.training import model_config, run_config
from tests.training.runs import small_config

ARMS = {
    "none": Arm([{"optimizer.learning_rate": 1e-3}]),
    "decay + noise": Arm([{"noise.strength": 0.3}], on_top_of="none", views=2),
}
SETTINGS = {
    "one": Setting(train="train[:300]", held_out="train[597:]", test="test"),
    "two": Setting(
        train="train[:100]",
        held_out="train[597:]",
        test="test",
        fields={"model": model_config("vit_ti_16", image_size=8), "data.mean": (0.1,)},
    ),
}
SAME = {"arms": ARMS, "settings": SETTINGS, "seeds": Seeds((5,), (0, 1)), "contrasts": []}


def claim(path, config, **changes):
    parts = SAME | changes
    described = study_file.describe(config, **parts)
    study_file.claim(path, described, config, parts["settings"])


@pytest.fixture
def config(data_dir):
    return small_config(data_dir, **{"noise.preset": None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": ARMS | {"none": Arm([{"optimizer.learning_rate": 3e-3}])}},
            "arms / none / candidates / 1 / optimizer.learning_rate: 0.001 there, 0.003 now",
        ),
        ({"arms": ARMS | {"new": ARMS["none"]}}, "arms / new: "),
        ({"arms": {"none": ARMS["none"]}}, "arms / decay + noise: "),
        (
            {"arms": ARMS | {"decay + noise": Arm([{"noise.strength": 0.3}], on_top_of="none")}},
            "arms / decay + noise / views: 2 there, 1 now",
        ),
        ({"settings": {"one": SETTINGS["one"]}}, "settings / two: "),
        (
            {"settings": SETTINGS | {"one": Setting(train="train", held_out="x", test="test")}},
            "settings / one / train: 'train[:300]' there, 'train' now",
        ),
        ({"seeds": Seeds((5,), (0, 2))}, "seeds / test: [0, 1] there, [0, 2] now"),
        ({"seeds": Seeds((6,), (0, 1))}, "seeds / tuning: [5] there, [6] now"),
        ({"contrasts": [("decay + noise", "none")]}, "contrasts: [] there, [['decay"),
    ],
)
def test_another_comparison_is_refused(changes, message, config, tmp_path):
    claim(tmp_path, config)
    before = (tmp_path / STUDY).read_text()
    claim(tmp_path, config)  # the same one resumes
    with pytest.raises(ValueError, match="contains another comparison") as error:
        claim(tmp_path, config, **changes)
    assert message in str(error.value)
    assert (tmp_path / STUDY).read_text() == before


@pytest.mark.parametrize(
    "field", ["batch_size", "optimizer.weight_decay", "model.dim", "evaluation.views"]
)
def test_another_base_config_is_refused(field, config, tmp_path):
    claim(tmp_path, config)
    with pytest.raises(ValueError, match=rf"\(config / {field}: .* there, 7.* now\)"):
        claim(tmp_path, override(config, {field: 7}))


def test_harmless_fields_may_change_and_new_fields_have_their_defaults(config, tmp_path):
    claim(tmp_path, config)
    file = tmp_path / STUDY
    stored = json.loads(file.read_text())
    del stored["config"]["ema_decay"], stored["config"]["label_smoothing"]
    file.write_text(json.dumps(stored))
    claim(tmp_path, override(config, {"log_every": "7 steps", "data.data_dir": "/elsewhere"}))
    with pytest.raises(ValueError, match=r"config / label_smoothing: 0.0 there, 0.1 now"):
        claim(tmp_path, override(config, {"label_smoothing": 0.1}))


def test_a_damaged_file_is_named(config, tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / STUDY).write_text(text)
        with pytest.raises(ValueError, match=r"study\.json cannot be read"):
            claim(tmp_path, config)


def test_a_run_is_refused(config, tmp_path):
    run_config.claim(tmp_path, config)
    with pytest.raises(ValueError, match=r"contains a run of pnoise train"):
        claim(tmp_path, config)
    assert not (tmp_path / STUDY).exists()


def test_training_refuses_the_directory_of_a_comparison(config, tmp_path):
    claim(tmp_path, config)
    with pytest.raises(ValueError, match="belongs to a sweep or a study"):
        run_config.claim(tmp_path, config)


def test_a_directory_that_is_older_than_the_file_is_adopted_if_its_sweeps_fit(config, tmp_path):
    directory = tmp_path / "one" / "tuning"
    directory.mkdir(parents=True)
    base = override(config, SETTINGS["one"].splits(tuning=True))
    sweep_results.claim(directory, base)
    (directory / "results.csv").write_text("format\n")
    with pytest.raises(ValueError, match=r"results of another base config \(batch_size: 16 there"):
        claim(tmp_path, override(config, {"batch_size": 8}))
    assert not (tmp_path / STUDY).exists()
    claim(tmp_path, config)
    assert (tmp_path / STUDY).exists()
