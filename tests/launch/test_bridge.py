"""pnoise bridge as a user runs it."""

import csv

import pytest

from pnoise_jax.studies import bridge
from tests.launch import command
from tests.studies.test_bridge import ROWS, write_sweep


def test_it_writes_a_table_for_each_sweep_and_one_figure(tmp_path):
    sweeps = [
        write_sweep(tmp_path / "digits", ROWS),
        write_sweep(tmp_path / "glyphs", ROWS, name="glyphs/200"),
    ]
    out = tmp_path / "out"
    listed = ",".join(map(str, sweeps))
    code, output, errors = command.run("bridge", f"--sweeps={listed}", f"--out={out}")
    assert code == 0, errors
    names = ["bridge.png", "bridge.svg", "bridge_digits.csv", "bridge_glyphs.csv"]
    assert sorted(path.name for path in out.iterdir()) == names
    with (out / "bridge_glyphs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == bridge.COLUMNS
    assert (row["clean"], row["knocked_out"], row["class_sorted"]) == ("80.0", "50.0", "90.5")
    assert output.index("digits: Spearman") < output.index("glyphs/200: Spearman")

    before = {path: path.read_bytes() for path in out.iterdir()}
    again = write_sweep(tmp_path / "again", [(*row[:6], 79.0, *row[7:]) for row in ROWS])
    for others in (f"{again},{sweeps[1]}", sweeps[1]):  # other numbers; fewer tables
        code, _, errors = command.run("bridge", f"--sweeps={others}", f"--out={out}")
        assert code == 64
        assert "contains files from other sweeps (bridge_" in errors
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--sweeps="], 64, "--sweeps=: give the work directory of one sweep or more"),
        (
            ["--sweeps=none"],
            1,
            "--sweeps=none: none/results.csv cannot be read (No such file or di",
        ),
        ([], 64, "--sweeps is required: Work directories of the sweeps."),
    ],
)
def test_a_missing_sweep_is_named_with_its_flag(tmp_path, flags, code, message):
    ended, _, errors = command.run("bridge", *flags, f"--out={tmp_path / 'out'}")
    assert ended == code
    assert f"error: {message}" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
