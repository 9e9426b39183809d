"""Flags that are missing or wrong: the message names the flag and what to give."""

import pytest

from tests.launch import command


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("compile", ["--config=digits_vit"], "--topology is required: Chip and shape"),
        ("show", ["--config=digits_vit"], "--out is required: Directory for the figures"),
        ("show", ["--out=out"], "by default, the config of the run in --workdir."),
        ("audit", ["--seeds=0"], "--workdir is required: Work directory of the run"),
        ("bridge", ["--stall_minutes=1"], "\n--out is required: Directory for tables and figures"),
        ("train", ["--workdir=run"], "--config is required: Config file, or the name of a built"),
    ],
)
def test_a_required_flag_is_named_with_its_meaning(program, arguments, message):
    code, _, errors = command.run(program, *arguments)
    assert code == 64
    assert errors.startswith("error: --")
    assert message in errors
    assert "must have a value" not in errors


@pytest.mark.parametrize(
    ("flag", "exit_code", "message"),
    [
        ("--batch_sizes=0", 64, "'0' is not a whole number of at least 1"),
        ("--lists=none.txt", 1, "--lists=none.txt: none.txt cannot be read"),
        ("--out=nowhere/x.json", 64, "--out='nowhere/x.json': there is no directory"),
    ],
)
def test_neighbours_names_the_flag_that_is_wrong(flag, exit_code, message):
    code, output, errors = command.run("neighbours", flag)
    assert (code, output) == (exit_code, "")
    assert message in errors
