"""pnoise theory as a user runs it."""

import json
import pathlib

import pytest

from pnoise_jax.studies import theory
from tests.launch import command

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "theory.md").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """A small model, trained for two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    config = "--config.steps=2", "--config.model.depth=1", "--config.model.dim=16"
    arguments = "--config", "digits_vit", f"--workdir={workdir}", f"--data_dir={data_dir}", *config
    code, _, errors = command.run("train", *arguments)
    assert code == 0, errors
    return workdir


def test_it_prints_every_table_and_writes_all_digits(run, tmp_path, data_dir):
    out = tmp_path / "new" / "out"
    code, output, errors = command.run("theory", f"--out={out}", f"--workdir={run}")
    assert code == 0, errors
    assert sorted(path.name for path in out.iterdir()) == ["theory.json", "theory.md"]
    findings = json.loads((out / "theory.json").read_text())
    assert [finding["number"] for finding in findings] == list(range(1, 10))
    text = (out / "theory.md").read_text()
    for finding in findings:
        rows = tuple(map(tuple, finding["rows"]))
        table = theory.Finding(**finding | {"rows": rows}).markdown()
        assert table in text
        assert table in output
    # The page's last table is of a trained run; it has the same columns and rows.
    heads = table.splitlines()[:2], [line.split(" | ")[0] for line in table.splitlines()[2:]]
    for line in (*heads[0], *heads[1]):
        assert line in PAGE
    bound = {row[0]: row[2] for row in findings[-1]["rows"]}
    assert max(bound.values()) < 2.31  # ten classes
    assert bound["optimal, class-sorted"] > bound["none, shuffled"] > bound["optimal, shuffled"]


@pytest.mark.parametrize(
    ("flag", "exit_code", "message"),
    [
        ("--workdir=nowhere", 1, "nowhere"),
        ("--out=/dev/null/out", 64, "--out='/dev/null/out' cannot be written"),
    ],
)
def test_bad_input_ends_with_one_clear_message(tmp_path, flag, exit_code, message):
    code, _, errors = command.run("theory", f"--out={tmp_path}", flag)
    assert code == exit_code
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.slow  # trains digits_vit
def test_the_page_has_the_figures_of_the_probe(tmp_path, data_dir):
    """To a tenth: other processors round differently, so the weights differ."""
    code, _, errors = command.run("theory", f"--out={tmp_path}", f"--data_dir={data_dir}")
    assert code == 0, errors
    *_, probed = json.loads((tmp_path / "theory.json").read_text())
    for name, _, nats, *_ in probed["rows"]:
        (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
        assert nats == pytest.approx(float(line.split(" | ")[2]), abs=0.1)
