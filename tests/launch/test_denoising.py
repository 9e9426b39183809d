"""Denoising, anomalies, fine-tuning and consistency, as a user runs them."""

import json

import pytest

from tests.launch import command

pytestmark = pytest.mark.long

TINY = ("--config.model.depth=1", "--config.model.dim=8", "--config.model.num_heads=2")
PRETRAIN = ("--config=denoising_digits:part=pretrain", "--config.steps=2", *TINY)


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """A run that holds out the eights, and what it printed."""
    path = tmp_path_factory.mktemp("denoising")
    held_out = "--config.task.held_out_classes=('8',)"
    code, output, errors = command.run(
        "train", *PRETRAIN, f"--workdir={path}", f"--data_dir={data_dir}", held_out
    )
    assert code == 0, errors
    return path, output


def test_it_reports_errors_and_starts_a_classifier(run, data_dir, tmp_path):
    path, output = run
    assert "MSE of the input" in output
    rows = json.loads((path / "evaluation.json").read_text())["rows"]
    assert {row["n"] for row in rows} == {900}
    assert rows[0]["input_mse"] < 1e-12 < 0.05 < rows[1]["input_mse"]

    config = ("--config=denoising_digits:part=finetune", "--config.steps=2", *TINY)
    code, output, errors = command.run(
        "train", *config, f"--config.weights={path}", f"--workdir={tmp_path}",
        f"--data_dir={data_dir}",
    )  # fmt: skip
    assert code == 0, errors
    text = " ".join(output.split())
    assert "weights of step 2, without the decoder" in text
    assert "head fresh (none in the file → 10 classes)" in text


def test_its_anomalies_are_measured_and_drawn(run):
    path, _ = run
    code, output, errors = command.run("anomaly", f"--workdir={path}")
    assert code == 0, errors
    names = ["anomaly.json", "anomaly.png", "anomaly.svg"]
    assert sorted(each.name for each in (path / "anomaly").iterdir()) == names
    (detection,) = json.loads((path / "anomaly" / "anomaly.json").read_text())
    assert detection["held_out"] == ["8"]
    curve = detection["reconstruction_error"]
    assert (curve["anomalous"], curve["normal"]) == (100, 900)
    assert f"{curve['auroc']:.3f} ({curve['interval'][0]:.3f} to" in output

    code, _, errors = command.run(
        "anomaly", f"--workdir={path}", "--config.data.test_split=test[:9]"
    )
    assert code == 64
    assert "anomaly contains another report" in errors
    assert json.loads((path / "anomaly" / "anomaly.json").read_text()) == [detection]


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train", (*PRETRAIN, "--config.noise.train=False"), "denoising has nothing to remove"),
        ("anomaly", (*PRETRAIN, "--held_out=eight"), "--held_out: there is no class 'eight'"),
        ("train", ("--config=consistency_digits", "--config.task.labelled_per_class=99"),
         "task.labelled_per_class=99: class"),
        ("train", ("--config=consistency_digits", "--config.task.consistency_weight=-1."),
         "consistency_weight=-1.0: give a number of at least 0"),
        ("train", (*PRETRAIN, "--config.task.held_out_classes=eight"), "there is no class"),
        ("audit", PRETRAIN, "'denoising' classifies nothing"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_clear_message(program, arguments, message, data_dir, tmp_path):
    code, _, errors = command.run(
        program, *arguments, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"
    )
    assert code == 64
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_consistency_trains(data_dir, tmp_path):
    small = ("--config.steps=2", "--config.model.width=4", "--config.batch_size=20")
    code, output, errors = command.run(
        "train", "--config=consistency_digits", *small, f"--workdir={tmp_path}",
        f"--data_dir={data_dir}",
    )  # fmt: skip
    assert code == 0, errors
    assert "consistency 0.0" in output
