"""Whole sweeps: what they share, what they skip, and that each cell is the run that it is alone."""

import csv
import io
import shutil

import jax
import pytest
from jax.sharding import AxisType
from rich.console import Console

from pnoise_jax import parallel, training
from pnoise_jax.studies import sweep_speed, sweep_training
from pnoise_jax.studies.sweep import run_sweep
from pnoise_jax.studies.sweep_cells import build_cells, product
from tests.training.runs import small_config

CELLS = [
    *product({"noise.train": (True,), "noise.strength": (0.2, 0.4), "seed": range(3)}),
    *product({"noise.train": (False,), "noise.strength": (0.1, 0.2, 0.4), "seed": range(3)}),
]


@pytest.fixture(autouse=True)
def two_devices(monkeypatch):
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    monkeypatch.setattr(parallel, "data_mesh", lambda: mesh)


@pytest.fixture
def base(data_dir):
    return small_config(data_dir, **{"noise.preset": "paper_vit"})


def sweep(base, cells, workdir, **options):
    """What it prints, and the rows of results.csv."""
    text = io.StringIO()
    run_sweep(base, cells, workdir, console=Console(file=text, width=200), **options)
    with (workdir / "results.csv").open(newline="") as file:
        return text.getvalue(), list(csv.DictReader(file))


def compiled_steps(run):
    """How many training steps are compiled while ``run`` runs, and what it returns."""
    found = []

    def record(event, *_, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        returned = run()
    finally:
        jax.monitoring.unregister_event_duration_listener(record)
    return found.count("jit(step)"), returned


@pytest.fixture(scope="module")
def swept(data_dir, tmp_path_factory):
    """The 15 cells, one after another; what was printed, the rows, and the steps compiled."""
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    workdir = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "data_mesh", lambda: mesh)
        base = small_config(data_dir, **{"noise.preset": "paper_vit"})
        run = compiled_steps(lambda: sweep(base, CELLS, workdir, together="never"))
    return workdir, *run


def test_strengths_and_seeds_share_one_compiled_step(swept):
    """Six runs with noise by one program, three without by another, for fifteen cells."""
    workdir, steps, (printed, rows) = swept
    assert steps == 2
    assert "15 cells, 0 of them finished before; to go: 9 trainings by 2 programs" in printed
    assert len(rows) == 15
    assert len({row["run"] for row in rows}) == 9
    assert len(list((workdir / "runs").iterdir())) == 9


def test_each_cell_is_the_run_that_it_is_alone(swept, base, tmp_path):
    workdir, _, (_, rows) = swept
    for changes in (
        {"noise.train": True, "noise.strength": 0.4, "seed": 2},
        {"noise.train": False},
    ):
        config = base.copy_and_resolve_references()
        config.update_from_flattened_dict({"noise.strength": 0.2, **changes})
        alone = training.train(config, tmp_path / f"{config.noise.train}")
        (row,) = (
            row
            for row in rows
            if row["noise.train"] == str(config.noise.train)
            and row["noise.strength"] == str(config.noise.strength)
            and row["seed"] == str(config.seed)
        )
        for name, expected in zip(("clean", "shuffled", "class_sorted"), alone, strict=True):
            assert float(row[f"{name}_nll"]) == pytest.approx(expected["nll"], rel=1e-4)
        assert (row["steps"], row["n"]) == ("12", "1000")
        again = training.evaluate(None, workdir / row["run"])
        assert again[0]["nll"] == pytest.approx(alone[0]["nll"], rel=1e-4)


def test_what_is_finished_is_not_repeated(swept, base, tmp_path):
    """All of it; then with rows lost, and with rows and a checkpoint lost, as after a kill."""
    original, _, (_, rows) = swept
    workdir = tmp_path / "copy"
    shutil.copytree(original, workdir)
    steps, (printed, again) = compiled_steps(lambda: sweep(base, CELLS, workdir))
    assert steps == 0
    assert "to go: 0 trainings" in printed
    assert again == rows
    assert (workdir / "figure.svg").exists()

    saved = {run: workdir / run / "checkpoints" / "12" for run in {row["run"] for row in rows}}
    before = {run: path.stat().st_ino for run, path in saved.items()}
    lost = rows[1]["run"]
    saved[lost].rename(tmp_path / "lost")
    text = (workdir / "results.csv").read_text().splitlines(keepends=True)
    (workdir / "results.csv").write_text("".join([text[0], *text[4:]]))  # three cells, three runs
    steps, (printed, again) = compiled_steps(lambda: sweep(base, CELLS, workdir))
    assert steps == 1
    assert "to go: 3 trainings by 1 programs" in printed
    assert sorted(map(str, again)) == sorted(map(str, rows))
    after = {run: path.stat().st_ino for run, path in saved.items()}
    assert {run for run in after if after[run] != before[run]} == {lost}


def test_rows_of_cells_that_are_gone_are_kept_and_left_out(swept, base, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(swept[0], workdir)
    printed, rows = sweep(base, CELLS[:3], workdir)
    assert len(rows) == 15
    assert "keeps 12 row(s) of cells that this sweep does not have" in printed
    assert len((workdir / "summary.csv").read_text().splitlines()) == 2


def test_together_gives_the_same(swept, base, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_speed, "MAX_TOGETHER", 4)  # six runs in two chunks of three
    _, _, (_, expected) = swept
    steps, (_, rows) = compiled_steps(
        lambda: sweep(base, CELLS[:6], tmp_path / "together", together="always")
    )
    assert steps == 1
    for row, alone in zip(rows, expected, strict=False):
        assert row["run"] == alone["run"]
        assert float(row["clean_nll"]) == pytest.approx(float(alone["clean_nll"]), rel=1e-4)
        assert float(row["shuffled_nll"]) == pytest.approx(float(alone["shuffled_nll"]), rel=1e-4)


@pytest.mark.parametrize("faster", ["together", "one after another"])
def test_the_faster_way_is_taken_and_the_figures_are_printed(base, tmp_path, monkeypatch, faster):
    """Measured once for two programs that differ in their noise."""
    measured = []

    def measure(experiments, program, *, together):
        measured.append(together)
        quick = together == (faster == "together")
        return sweep_speed.Speed(1.0, 0.1 if quick else 1.0, len(experiments) if together else 1)

    monkeypatch.setattr(sweep_training, "measure", measure)
    text = io.StringIO()
    cells = product({"noise.train": (True,), "noise.shift": (1, 2), "seed": (0, 1)})
    trainer = sweep_training.Trainer(
        tmp_path, parallel.data_mesh(), Console(file=text, width=300), together="auto"
    )
    programs = sweep_training.plan(build_cells(base, cells))
    trainer.choose(programs)
    assert measured == [False, True]
    assert "4 runs of 12 steps, 2 program(s)" in text.getvalue()
    assert text.getvalue().strip().endswith(faster)


def test_measuring_really_compiles_and_steps(base):
    experiments = [cell.experiment for cell in build_cells(base, product({"seed": (0, 1)}))]
    for together in (False, True):
        program = training.create_program(
            experiments[0], parallel.data_mesh(), any_strength=True, together=together
        )
        speed = sweep_speed.measure(experiments, program, together=together)
        assert speed.runs == (2 if together else 1)
        assert 0 < speed.step < speed.compiling
        assert speed.seconds(programs=2, runs=4, steps=10) == pytest.approx(
            2 * speed.compiling + 40 * speed.step / speed.runs
        )


@pytest.mark.parametrize(("runs", "size"), [(1, 1), (5, 5), (8, 8), (9, 5), (25, 7)])
def test_chunks_are_few_and_even(runs, size):
    assert sweep_speed.chunk_size(runs) == size


def test_what_cannot_be_is_refused_before_anything_is_written(base, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"together='maybe': choose one of auto, never, always"):
        run_sweep(base, CELLS, tmp_path / "sweep", together="maybe")
    with pytest.raises(ValueError, match="cell 2"):
        run_sweep(base, [{}, {"noise.layer": "9"}], tmp_path / "sweep")
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(ValueError, match="4 hosts: a sweep runs on one host"):
        run_sweep(base, CELLS, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_training_that_breaks_down_is_named_and_the_others_are_kept(base, tmp_path):
    cells = [{"noise.train": True, "noise.strength": s} for s in (0.2, 3e38)]
    with pytest.raises(training.NonFiniteLossError, match=r"train=True, strength=3e\+38: the loss"):
        run_sweep(base, cells, tmp_path, together="never", console=Console(quiet=True))
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2
