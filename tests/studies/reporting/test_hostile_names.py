"""Class names and paths that a terminal, a page or a spreadsheet would act on."""

import csv
import json
import re
import shutil
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from pnoise_jax import studies, training
from pnoise_jax.data import manifest, prepare
from tests.training.runs import small_config

pytestmark = pytest.mark.long

CLASSES = [
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http:evil")',
    "\x1b[31mred\x1b]0;pwn\x07",
    "[bold]x[red]",
    "a\tb\N{RIGHT-TO-LEFT OVERRIDE}txt",
    "$\\frac{$ :smile:",
    "'' --config",
]
ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.fixture(scope="module")
def evil_dir(tmp_path_factory):
    """A data set with such class names, in a directory with such a name."""
    images = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(len(CLASSES)):
            folder = images / split / f"class{number}"
            folder.mkdir(parents=True)
            for n in range(20):
                pixels = generator.random((8, 8, 3)) * 60 + number * 25
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{n}.png")
    data_dir = tmp_path_factory.mktemp("data") / "[a-z]+ :smile: \x1b[31m"
    prepared = prepare.prepare("folder/evil", manual_dir=images, data_dir=data_dir).path
    (prepared / "label.labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    manifest.write(prepared)
    return data_dir


def evil_config(evil_dir):
    config = small_config(evil_dir, **{"duration": "8 steps", "evaluation.batch_size": 5})
    config.data.name, config.data.train_split = "folder/evil", "train"
    config.data.test_split = "test"
    return config


@pytest.fixture(scope="module")
def trained(evil_dir, tmp_path_factory):
    """A run in a directory with such a name, and its rows."""
    workdir = tmp_path_factory.mktemp("run") / "[" / "red] \x1b]0;x\x07\N{RIGHT-TO-LEFT OVERRIDE}"
    return workdir, training.train(evil_config(evil_dir), workdir)


def test_hostile_names_are_trained_evaluated_and_audited(evil_dir, trained, capfd):
    workdir, rows = trained
    config = evil_config(evil_dir)
    assert (
        training.train(config, workdir) == rows
    )  # resumes: prints the header and the report again
    config.evaluation.batch_size = 10
    training.evaluate(config, workdir)
    settings = studies.AuditSettings(batch_sizes=(5,), orders=20, resamples=100, purity_steps=2)
    studies.audit_runs(config, workdir, settings=settings, command="--workdir='\x1b[31m'")
    output = "".join(capfd.readouterr())
    assert not ACTS.search(output), ACTS.search(output)
    assert "[/red] \\x1b]0;x\\x07\\u202e/evaluation.json" in output
    assert "[a-z]+ :smile: " in output

    report = json.loads((workdir / "audit" / "audit.json").read_text())
    names = {row["name"] for row in report["per_class"]}
    assert names == {
        CLASSES[0],
        CLASSES[1],
        "\\x1b[31mred\\x1b]0;pwn\\x07",
        CLASSES[3],
        "a\\tb\\u202etxt",
        CLASSES[5],
        CLASSES[6],
    }
    page = (workdir / "audit" / "audit.html").read_text()
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not ACTS.search(page)
    for drawing in (workdir / "audit").glob("*.svg"):
        xml.etree.ElementTree.parse(drawing)
    with (workdir / "audit" / "audit.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [c for c in cells if c.startswith(("=", "+", "@")) or re.match(r"-\D", c)]


def test_a_broken_checkpoint_below_such_a_path_does_not_end_the_run(
    evil_dir, trained, tmp_path, capfd
):
    workdir = tmp_path / "[" / "red]"
    shutil.copytree(trained[0], workdir)
    (workdir / "checkpoints" / "8" / "arrays" / "metadata").write_text("[/red]")
    assert training.train(evil_config(evil_dir), workdir) == trained[1]
    assert f"moved the checkpoint of step 8 to {workdir}" in capfd.readouterr().out
