"""Which directories a run or a sweep may use."""

import json

import pytest

from pnoise_jax.studies.sweep import results
from pnoise_jax.training import run_config
from tests.training.runs import small_config

FOREIGN = {
    "config.json": '{"architectures": ["BertModel"], "pad_token_id": 0}',
    "data.json": "[1, 2]",
    "modules.json": "[]",
    "weights.json": "{}",
    "metrics.jsonl": '{"epoch": 1, "loss": 2.5}\n',
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_run_replaces_no_file_of_another_program(name, data_dir, tmp_path):
    (tmp_path / name).write_text(FOREIGN[name])
    with pytest.raises(ValueError, match=f"files of other programs.* replaced \\({name}\\)"):
        run_config.claim(tmp_path, small_config(data_dir))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: FOREIGN[name]}


@pytest.mark.parametrize("name", ["data.json", "modules.json", "weights.json", "figure.svg"])
def test_neither_does_a_sweep(name, data_dir, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"files of other programs.* replaced \\({name}\\)"):
        results.claim(tmp_path, small_config(data_dir))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: "{}"}


def test_a_run_that_has_saved_nothing_makes_way(data_dir, tmp_path):
    run_config.claim(tmp_path, small_config(data_dir))
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "loss": 2.5}\n')
    run_config.claim(tmp_path, small_config(data_dir, seed=1))
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
