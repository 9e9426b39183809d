"""pnoise robustness as a user runs it."""

import json

import pytest

from tests.launch import command

pytestmark = pytest.mark.long

CONFIG = """
from pnoise_jax import training


def get_config():
    config = training.default_config()
    config.steps = 2
    config.batch_size = 16
    config.data.train_split, config.data.test_split = "train[:32]", "test[:32]"
    config.model = training.model_config(
        "vit_ti_16", image_size=8, patch_size=4, dim=8, depth=1, num_heads=2
    )
    config.task = training.task_config("robust_classification")
    return config


def arms():
    return {"plain": {}}


def strengths():
    return {kind: (0.1,) for kind in ("gaussian", "salt_and_pepper", "fgsm", "pgd")}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_dir):
    """The config, and the directory of its study."""
    directory = tmp_path_factory.mktemp("robustness")
    config = directory / "mine.py"
    config.write_text(CONFIG)
    flags = (f"--config={config}", f"--workdir={directory / 'study'}", f"--data_dir={data_dir}")
    code, output, errors = command.run(
        "robustness", *flags, "--seeds=3", "--pgd_steps=2", "--fgsm=0.1,0.2"
    )
    assert code == 0, errors
    assert "PGD: accuracy by epsilon, %" in output
    return config, directory / "study"


def test_flags_override_the_strengths_of_the_config(study):
    content = json.loads((study[1] / "robustness.json").read_text())
    assert content["settings"]["strengths"]["fgsm"] == [0.0, 0.1, 0.2]
    assert content["settings"]["strengths"]["pgd"] == [0.0, 0.1]
    assert content["settings"]["pgd_steps"] == 2
    assert content["seeds"] == [3]
    assert "--fgsm=0.1,0.2" in content["command"]


def test_a_run_is_measured_without_a_config(study, tmp_path):
    run = study[1] / "runs" / "plain-seed_3"
    flags = (f"--workdir={run}", f"--out={tmp_path}", "--pgd_steps=1", "--pgd=0.05")
    few = ("--gaussian=0.1", "--salt_and_pepper=0.1", "--fgsm=0.1")
    code, _, errors = command.run("robustness", *flags, *few)
    assert code == 0, errors
    content = json.loads((tmp_path / "robustness.json").read_text())
    assert content["settings"]["strengths"]["pgd"] == [0.0, 0.05]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--workdir=RUN",), "--out is not set: give a directory for the report"),
        (("--config=MINE", "--workdir=STUDY", "--out=x"), "--out='x': a study writes to --workdir"),
        (("--config=digits_vit", "--workdir=NEW"), "arms() returns None: define it next to"),
        (("--workdir=RUN", "--out=OUT", "--pgd=much"), "--pgd=much: give numbers"),
        (("--workdir=RUN", "--out=OUT", "--seeds=0,1"), "--seeds=0,1: a run keeps the seed"),
    ],
)
def test_bad_input_ends_with_one_clear_message(study, tmp_path, flags, message):
    config, workdir = study
    places = {
        "MINE": config,
        "STUDY": workdir,
        "RUN": workdir / "runs" / "plain-seed_3",
        "NEW": tmp_path / "new",
        "OUT": tmp_path / "out",
    }
    for word, place in places.items():
        flags = [flag.replace(f"={word}", f"={place}") for flag in flags]
    code, _, errors = command.run("robustness", *flags)
    assert code == 64
    assert message in errors
    assert "Traceback" not in errors
