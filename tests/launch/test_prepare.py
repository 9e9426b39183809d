"""pnoise prepare as a user runs it."""

import signal
import time

import pytest

from launch import huge_pages, prepare
from pnoise_jax import data
from pnoise_jax.data.prepare import Prepared
from tests.data import archives
from tests.launch import command


def test_prepares_once_and_says_what_a_config_needs(tmp_path):
    changes = {"train/cat/cmyk.jpg": archives.encode(archives.Image.new("CMYK", (30, 30)))}
    archives.make_folder(tmp_path / "pets", changes=changes)
    arguments = ("--dataset=folder/pets", f"--manual_dir={tmp_path / 'pets'}", "--short_side=32")
    code, output, errors = command.run("prepare", *arguments, f"--data_dir={tmp_path / 'data'}")
    assert code == 0, errors
    assert not errors.replace(huge_pages.SENTENCE, "").strip()
    path = tmp_path / "data" / "folder" / "pets" / "1.0.0"
    flags = [
        "  --config.data.name=folder/pets",
        f"  --config.data.data_dir={tmp_path / 'data'}",
        "  --config.data.train_split=train",
        "  --config.data.test_split=test",
    ]
    assert output.splitlines() == [
        f"prepared {path}",
        "examples: test 12, train 13",
        "images: 1 CMYK to RGB",
        "classes: 3, starting at label 0: cat, dog, owl",
        "in a config, or as flags of pnoise train:",
        *flags,
    ]
    assert len(data.load("folder/pets", split="train", data_dir=tmp_path / "data")) == 13

    code, output, errors = command.run(
        "prepare", *arguments, "--verify", TFDS_DATA_DIR=str(tmp_path / "data")
    )
    assert code == 0, errors
    assert output.startswith(f"nothing to do: {path} already exists")
    assert output.splitlines()[-5:-1] == flags
    assert output.splitlines()[-1] == "verified: 7 files are unchanged since they were prepared"


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["testing", "training"], {"train_split=training", "test_split=testing"}),
        (["Test", "Train"], {"train_split=Train", "test_split=Test"}),
        (["test", "train", "val"], {"train_split=train", "test_split=val"}),
        (["train", "validation"], {"train_split=train", "test_split=validation"}),
        (["train"], {"train_split=train[:90%]", "test_split=train[90%:]"}),
        (["validation"], {"test_split=validation"}),
        (["art", "clipart"], set()),
    ],
)
def test_suggested_splits(splits, expected, tmp_path):
    """A test split is never suggested for training."""
    path = tmp_path / "folder" / "x" / "1.0.0"
    prepared = Prepared("folder/x", path, dict.fromkeys(splits, 9), is_new=True)
    lines = prepare.describe(prepared).split("as flags of pnoise train:\n")[1].splitlines()
    flags = {line.strip(" '").removeprefix("--config.data.") for line in lines}
    assert {flag for flag in flags if "_split=" in flag} == expected


def test_errors_are_messages(tmp_path):
    """A missing file, and a wrong flag."""
    expected = {
        "--dataset=visda2017": (
            "train.tar",
            "validation.tar",
            "github.com",
            "Found there: nothing",
        ),
        "--short_side=0": ("--short_side=0", "positive"),
    }
    processes = {
        argument: command.start(
            "prepare", "--dataset=folder/x", argument, f"--manual_dir={tmp_path}"
        )
        for argument in expected
    }
    for argument, process in processes.items():
        output, errors = process.communicate(timeout=100)
        wrong_flag = argument.startswith("--short_side")
        assert process.returncode == (64 if wrong_flag else 1)
        assert not output
        assert errors.startswith("error: ")
        assert "Traceback" not in errors
        for words in expected[argument]:
            assert words in errors


def test_an_interruption_ends_with_a_message(tmp_path):
    archives.make_folder(tmp_path / "pets", splits=(), per_class=3000)
    process = command.start(
        "prepare",
        "--dataset=folder/pets",
        f"--manual_dir={tmp_path / 'pets'}",
        f"--data_dir={tmp_path / 'data'}",
        "--short_side=16",  # to make it slow
    )
    while not list(tmp_path.glob("data/incomplete.folder.pets/1.0.0/part.*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert not output
    assert errors == "interrupted; the same command resumes where it stopped\n"
    assert not list(tmp_path.glob("data/**/part.*"))
