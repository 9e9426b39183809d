"""pnoise sweep and benchmark sweep as a user runs them."""

import csv
import json

import pytest

from tests.launch import command

pytestmark = pytest.mark.long

CONFIG = """
from configs import digits_vit
from pnoise_jax.studies.sweep.cells import product

def get_config(layer="1"):
    config = digits_vit.get_config()
    config.model.dim, config.model.depth = 8, 1
    config.steps = 4
    config.log_every = "2 steps"
    config.noise.preset = "paper_vit"
    config.noise.layer = layer
    return config

def sweep(layer="1"):
    yield from product({"noise.train": (True,), "noise.strength": (0.1, 0.2, 0.3)})
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(CONFIG)
    return file


def sweep(config, workdir, data_dir, *more):
    return command.run(
        "sweep",
        f"--config={config}",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        *more,
    )


def test_a_sweep_from_a_file_writes_results_figures_and_runs(config, data_dir, tmp_path):
    workdir = tmp_path / "sweep"
    code, output, errors = sweep(f"{config}:last", workdir, data_dir)
    assert code == 0, errors
    assert "3 cells, 0 of them already finished; remaining: 3 trainings in 1 programs" in output
    assert "one after another about" in output  # measured
    assert "of one seed: there are no intervals" in output
    with (workdir / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["noise.strength"] for row in rows] == ["0.1", "0.2", "0.3"]
    assert {row["updates"] for row in rows} == {"4"}
    for name in ("summary.csv", "figure.svg", "figure.png"):
        assert (workdir / name).stat().st_size > 0
    code, output, errors = command.run("evaluate", f"--workdir={workdir / rows[2]['run']}")
    assert code == 0, errors
    stored = json.loads((workdir / rows[2]["run"] / "evaluation.json").read_text())
    assert stored["config"]["noise"]["layer"] == "last"
    assert stored["rows"][1]["nll"] == pytest.approx(float(rows[2]["shuffled_nll"]), rel=1e-5)

    code, _, errors = sweep(f"{config}:last", workdir, data_dir, "--config.batch_size=60")
    assert code == 64
    assert "results of another base config (batch_size: 50 there, 60 now)" in errors
    code, _, errors = sweep(config, workdir / rows[0]["run"], data_dir)
    assert code == 64
    assert "holds a run of pnoise train" in errors


@pytest.mark.parametrize(
    ("old", "new", "more", "message"),
    [
        ("def sweep", "def swep", (), "has no sweep(): define it next to get_config()"),
        ("yield from", "", (), "sweep() returns None: make it return a list of cells"),
        ("(0.1, 0.2, 0.3)", "(0.1 / 0,)", (), "the config file fails: ZeroDivisionError"),
        ("", "", ("--config.noise.strength=1",), "is set on the command line and by sweep()"),
        ("", "", ("--shard=2/2",), "--shard='2/2': shards are numbered from 0, so give a number"),
        ("", "", ("--shard=1",), "--shard='1' is not of the form INDEX/COUNT"),
    ],
)
def test_bad_input_ends_with_one_clear_message(config, data_dir, tmp_path, old, new, more, message):
    config.write_text(CONFIG.replace(old, new) if old else CONFIG)
    code, output, errors = sweep(config, tmp_path / "sweep", data_dir, *more)
    assert code == 64
    assert message in output + errors
    assert "Traceback" not in errors
    assert not (tmp_path / "sweep").exists()


def test_shards_work_side_by_side_in_one_directory(config, data_dir, tmp_path):
    """Like the jobs of an array; without --shard the same command then has nothing to train."""
    workdir = tmp_path / "sweep"
    arguments = (f"--config={config}", f"--workdir={workdir}", f"--data_dir={data_dir}")
    jobs = [command.Forked("launch.sweep", *arguments, f"--shard={index}/2") for index in range(2)]
    outputs, errors = zip(*(job.communicate() for job in jobs), strict=True)
    assert [job.returncode for job in jobs] == [0, 0], errors
    for index, count in enumerate((2, 1)):
        assert f"shard {index}/2: {count} of the sweep's 3 cells" in outputs[index]
        assert f"remaining: {count} trainings in 1 programs" in outputs[index]
    has_summary = [f"wrote {workdir / 'summary.csv'}" in output for output in outputs]
    assert any(has_summary)
    for output, wrote in zip(outputs, has_summary, strict=True):
        assert wrote != ("are still missing, and belong to other shards" in output)

    code, output, error = sweep(config, workdir, data_dir)
    assert code == 0, error
    assert "3 cells, 3 of them already finished; remaining: 0 trainings" in output
    with (workdir / "results.csv").open(newline="") as file:
        assert sorted(row["noise.strength"] for row in csv.DictReader(file)) == [
            "0.1",
            "0.2",
            "0.3",
        ]
    assert len(list((workdir / "runs").iterdir())) == 3
    assert not list((workdir / "shards").glob("*.csv"))


@pytest.mark.slow
def test_the_benchmark_compares_both_ways(data_dir, tmp_path):
    out = tmp_path / "sweep.json"
    sizes = ("--batch_size=4", "--runs=2", "--rounds=2")
    code, output, errors = command.run(
        "benchmark",
        "sweep",
        *sizes,
        "--preset=paper_vit",
        f"--out={out}",
        TFDS_DATA_DIR=str(data_dir),
    )
    assert code == 0, errors
    (result,) = json.loads(out.read_text())["results"]
    together = result["alternatives"]["together"]
    assert len(together["ratios"]) == 2
    assert min(result["compile_seconds"].values()) > 0
    assert result["whole_ratio"] > 0
    assert result["difference"]["together"] < 1e-3
    assert "loss and gradient norm of both agreed" in output
    code, _, errors = command.run("benchmark", "sweep", "--preset=paper_vt")
    assert code != 0
    assert "did you mean 'paper_vit'" in errors
