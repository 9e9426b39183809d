"""Whole sweeps: what they share, what they skip, and that each cell equals a separate run."""

import collections
import csv
import io
import shutil

import jax
import pytest
from jax.sharding import AxisType
from rich.console import Console

from pnoise_jax import parallel, runs, training
from pnoise_jax.evaluation.evaluate import _score
from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.studies.sweep import speed as sweep_speed
from pnoise_jax.studies.sweep import trainer as sweep_training
from pnoise_jax.studies.sweep.cells import build_cells, product
from pnoise_jax.studies.sweep.sweep import run_sweep
from pnoise_jax.training import starting_weights
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
    """What a sweep prints, and the rows of results.csv."""
    text = io.StringIO()
    run_sweep(base, cells, workdir, console=Console(file=text, width=200), **options)
    with (workdir / "results.csv").open(newline="") as file:
        return text.getvalue(), list(csv.DictReader(file))


def compiled_steps(run):
    """How many training steps are compiled while ``run`` runs, and what it returns."""
    counts, returned = compiled(run)
    return counts["jit(sharded_step)"], returned


def compiled(run):
    """How often each function is compiled while ``run`` runs, by name, and what it returns."""
    counts = collections.Counter()

    def record(event, *_, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            counts[about["fun_name"]] += 1

    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        returned = run()
    finally:
        jax.monitoring.unregister_event_duration_listener(record)
    return counts, returned


@pytest.fixture(scope="module")
def swept(data_dir, tmp_path_factory):
    """The 15 cells, one after another; what was printed, the rows, and what was compiled."""
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    workdir = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "data_mesh", lambda: mesh)
        base = small_config(data_dir, **{"noise.preset": "paper_vit"})
        _score.clear_cache()  # other tests have filled it
        run = compiled(lambda: sweep(base, CELLS, workdir, together="never"))
    return workdir, *run


def test_strengths_and_seeds_share_one_compiled_step(swept):
    """One program trains six runs with noise, another three without, for fifteen cells.

    Two programs evaluate them: without noise, and with noise of any strength.
    """
    workdir, counts, (printed, rows) = swept
    assert counts["jit(sharded_step)"] == 2
    assert counts["jit(_score)"] == 2
    assert "15 cells, 0 of them already finished; remaining: 9 trainings in 2 programs" in printed
    assert len(rows) == 15
    assert len({row["run"] for row in rows}) == 9
    assert len(list((workdir / "runs").iterdir())) == 9


@pytest.mark.long
def test_each_cell_equals_a_separate_run(swept, base, tmp_path):
    workdir, _, (_, rows) = swept
    for changes in (
        {"noise.train": True, "noise.strength": 0.4, "seed": 2},
        {"noise.train": False},
    ):
        config = base.copy_and_resolve_references()
        config.update_from_flattened_dict({"noise.strength": 0.2, **changes})
        separate = training.train(config, tmp_path / f"{config.noise.train}")
        (row,) = (
            row
            for row in rows
            if row["noise.train"] == str(config.noise.train)
            and row["noise.strength"] == str(config.noise.strength)
            and row["seed"] == str(config.seed)
        )
        for name, expected in zip(("clean", "shuffled", "class_sorted"), separate, strict=True):
            assert float(row[f"{name}_nll"]) == pytest.approx(expected["nll"], rel=1e-4)
        assert (row["updates"], row["n"]) == ("12", "200")
        again = training.evaluate(None, workdir / row["run"])
        assert again[0]["nll"] == pytest.approx(separate[0]["nll"], rel=1e-4)


def test_finished_work_is_not_repeated(swept, base, tmp_path):
    """All of it; then with rows and a checkpoint lost, as after a kill."""
    original, _, (_, rows) = swept
    workdir = tmp_path / "copy"
    shutil.copytree(original, workdir)
    steps, (printed, again) = compiled_steps(lambda: sweep(base, CELLS, workdir))
    assert steps == 0
    assert "remaining: 0 trainings" in printed
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
    assert "remaining: 3 trainings in 1 programs" in printed
    (last,) = (line for line in printed.splitlines() if line.startswith("3/3"))
    assert last.endswith("train=True, strength=0.2, seed=1")  # finished trainings come first
    assert sorted(map(str, again)) == sorted(map(str, rows))
    after = {run: path.stat().st_ino for run, path in saved.items()}
    assert {run for run in after if after[run] != before[run]} == {lost}


def test_rows_of_removed_cells_are_kept_but_not_summarised(swept, base, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(swept[0], workdir)
    printed, rows = sweep(base, CELLS[:3], workdir)
    assert len(rows) == 15
    assert "keeps 12 row(s) of cells that are not in this sweep" in printed
    (part,) = workdir.glob("summary-*.csv")
    assert part.name in printed
    assert len(part.read_text().splitlines()) == 2
    for name in ("summary.csv", "figure.svg"):  # of all cells
        assert (workdir / name).read_bytes() == (swept[0] / name).read_bytes()


def test_rows_of_other_data_or_weights_are_not_averaged_with_new_ones(swept, base, tmp_path):
    """Cells may only name both; their trainings have stored which they were."""
    workdir, (_, rows) = tmp_path / "copy", swept[2]
    shutil.copytree(swept[0], workdir)
    run = workdir / rows[1]["run"]
    noted = run / "data.json"
    before = noted.read_text()
    noted.write_text(before.replace('"train_examples": 200', '"train_examples": 199'))
    with pytest.raises(ValueError, match=r"strength=0.2, seed=1: .* trained on 199 examples of"):
        sweep(base, CELLS, workdir)
    noted.write_text(before)
    other = run.with_name(f"{run.name[:-8]}0123abcd")  # a digest of other fields
    run.rename(other)
    table = workdir / "results.csv"
    table.write_text(table.read_text().replace(run.name, other.name))
    assert (
        "15 of them already finished" in sweep(base, CELLS, workdir)[0]
    )  # data and weights are the same
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"weights": null', '"weights": "/gone/w"'))
    with pytest.raises(ValueError, match=r"strength=0.2, seed=1: .* another config \(weights: '/g"):
        sweep(base, CELLS, workdir)
    assert config != (other / "config.json").read_text()
    shutil.rmtree(other)  # nothing is known of it then
    assert "15 of them already finished" in sweep(base, CELLS, workdir)[0]


def test_a_sweep_resumes_with_changes_that_affect_no_result(swept, base, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(swept[0], workdir)
    base.data.num_workers, base.data.num_threads, base.data.cache = 2, 3, False
    base.checkpoint.keep, base.log_every, base.evaluation.every = 5, "7 steps", "3 steps"
    printed, _ = sweep(base, CELLS, workdir)
    assert "15 cells, 15 of them already finished" in printed
    base.data.test_transform = "resize_square"
    with pytest.raises(ValueError, match="another base config"):
        sweep(base, CELLS, workdir)
    base.data.test_transform, base.weights_head = "none", "fresh"
    with pytest.raises(ValueError, match=r"another base config \(weights_head"):
        sweep(base, CELLS, workdir)


def test_results_that_cannot_be_written_are_printed(base, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep_results, "replace_file", full)
    text = io.StringIO()
    with pytest.raises(OSError, match=r"results.csv cannot be written \(No space left"):
        run_sweep(base, CELLS[:1], tmp_path, console=Console(file=text, width=300))
    printed = text.getvalue()
    (row,) = csv.DictReader(printed[printed.index("format,") :].splitlines())
    assert 0 <= float(row["clean_top1"]) <= 100


@pytest.mark.parametrize("name", ["runs", "results.csv", "summary.csv", "figure.png"])
def test_a_path_of_the_wrong_kind_is_named_before_a_sweep(base, tmp_path, name):
    (tmp_path / name).write_text("") if name == "runs" else (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=rf"{name} is a (file|directory)"):
        run_sweep(base, CELLS[:1], tmp_path, console=Console(quiet=True))


def test_training_together_gives_the_same_results(swept, base, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_speed, "MAX_TOGETHER", 4)  # six runs in two chunks of three
    _, _, (_, expected) = swept
    steps, (_, rows) = compiled_steps(
        lambda: sweep(base, CELLS[:6], tmp_path / "together", together="always")
    )
    assert steps == 1
    for row, separate in zip(rows, expected, strict=False):
        assert row["run"] == separate["run"]
        assert float(row["clean_nll"]) == pytest.approx(float(separate["clean_nll"]), rel=1e-4)
        assert float(row["shuffled_nll"]) == pytest.approx(
            float(separate["shuffled_nll"]), rel=1e-4
        )


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


@pytest.mark.parametrize("fits", [True, False])
def test_finished_compilation_does_not_count_and_what_does_not_fit_is_not_used(
    base, tmp_path, monkeypatch, fits
):
    """One program: compiling it together has taken an hour, but that is over."""

    def measure(experiments, program, *, together):
        if together and not fits:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return sweep_speed.Speed(*((3600.0, 1.0, 2) if together else (1.0, 1.0, 1)))

    monkeypatch.setattr(sweep_training, "measure", measure)
    text = io.StringIO()
    trainer = sweep_training.Trainer(
        tmp_path, parallel.data_mesh(), Console(file=text, width=300), together="auto"
    )
    programs = sweep_training.plan(build_cells(base, product({"seed": (0, 1)})))
    trainer.choose(programs)
    printed = text.getvalue().strip()
    assert printed.endswith(": together" if fits else "device memory: training one after another")


@pytest.mark.long
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


def test_invalid_sweeps_are_refused_before_anything_is_written(base, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"together='maybe': choose one of auto, never, always"):
        run_sweep(base, CELLS, tmp_path / "sweep", together="maybe")
    with pytest.raises(ValueError, match="cell 2"):
        run_sweep(base, [{}, {"noise.layer": "9"}], tmp_path / "sweep")
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(ValueError, match="4 hosts: a sweep runs on one host"):
        run_sweep(base, CELLS, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_trainings_that_break_down_are_named_once_all_others_are_finished(base, tmp_path):
    cells = product({"noise.train": (True,), "noise.strength": (3e38, 0.2, 2e38)})
    with pytest.raises(
        training.NonFiniteLossError,
        match=r"2 of 3 .*train=True, strength=3e\+38: the loss .*2e\+38: the loss .*Leave these",
    ):
        run_sweep(base, cells, tmp_path, together="never", console=Console(quiet=True))
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["noise.strength"] for row in csv.DictReader(file)] == ["0.2"]


def test_a_second_sweep_in_a_directory_changes_nothing_there(base, tmp_path):
    sweep_results.claim(tmp_path, base)
    before = (tmp_path / "base_config.json").read_text()
    base.batch_size = 32
    with runs.lock(tmp_path), pytest.raises(OSError, match="in use: another process is training"):
        run_sweep(base, CELLS[:1], tmp_path)
    assert (tmp_path / "base_config.json").read_text() == before


def keep_rows(workdir, kept):
    """Drops all rows of results.csv but some."""
    text = (workdir / "results.csv").read_text().splitlines(keepends=True)
    (workdir / "results.csv").write_text("".join([text[0], *text[1:][kept]]))


def test_a_damaged_checkpoint_says_what_to_delete(swept, base, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(swept[0], workdir)
    keep_rows(workdir, slice(1, None))
    run = workdir / swept[2][1][0]["run"]
    shutil.rmtree(run / "checkpoints" / "12" / "state")
    with pytest.raises(OSError, match=rf"strength=0.2, seed=0: none of .*: delete {run}, and"):
        run_sweep(base, CELLS, workdir, console=Console(quiet=True))
    assert (run / "checkpoints" / "12").exists()
    (run / "config.json").write_text("{")
    with pytest.raises(ValueError, match=rf"strength=0.2, seed=0: .*JSON.*: delete {run}, and"):
        run_sweep(base, CELLS, workdir, console=Console(quiet=True))


def test_an_evaluation_that_is_not_finite_names_its_cell_and_loses_no_other(
    swept, base, tmp_path, monkeypatch
):
    def evaluate_cell(self, state, mesh, protocols):
        if protocols[0].noise and self.setup.config.noise.strength == 0.2:
            raise ValueError("the logits are not finite")
        return [{"top1": 1.0, "nll": 2.0, "n": 3}] * len(protocols)

    monkeypatch.setattr(training.Classification, "evaluate", evaluate_cell)
    workdir = tmp_path / "copy"
    shutil.copytree(swept[0], workdir)
    keep_rows(workdir, slice(6))  # those trained with noise
    with pytest.raises(ValueError, match=r"train=False, strength=0.2, seed=0: the logits"):
        run_sweep(base, CELLS, workdir, console=Console(quiet=True))
    with (workdir / "results.csv").open(newline="") as file:
        assert [row["noise.strength"] for row in csv.DictReader(file)][6:] == ["0.1"]


def test_views_have_their_own_clean_accuracy(base, tmp_path):
    base.noise.preset = None  # clean evaluations have none
    _, rows = sweep(base, product({"evaluation.views": (1, 5)}), tmp_path)
    assert rows[0]["run"] == rows[1]["run"]
    assert rows[0]["clean_nll"] != rows[1]["clean_nll"]
    config = training.read_config(tmp_path / rows[0]["run"])
    for row in rows:
        config.evaluation.views = int(row["evaluation.views"])
        clean = training.evaluate(config, tmp_path / row["run"])[0]
        assert float(row["clean_nll"]) == pytest.approx(clean["nll"], rel=1e-5)


def test_weights_to_start_from_are_identified_by_their_content(base, tmp_path):
    def identity(path, runs=None):
        base.weights = str(path)
        ((run,),) = sweep_training.plan(build_cells(base, [{"seed": 0}]), runs)
        return run.identity

    file, copy = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    file.write_bytes(b"some")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    before = identity(file)
    shutil.copy(file, copy)
    assert identity(copy) == before
    starting_weights.note_weights(tmp_path / "runs" / "one", str(file))
    file.unlink()  # not needed if a run has stored what it was
    assert identity(file, tmp_path / "runs") == before != identity(file, tmp_path / "none")
    file.write_bytes(b"other")
    assert identity(file, tmp_path / "runs") != before


def test_results_of_other_weights_are_refused(base, tmp_path):
    """At the same path."""
    (tmp_path / "weights").write_bytes(b"some")
    base.weights = str(tmp_path / "weights")
    sweep_results.claim(tmp_path, base)
    (tmp_path / "results.csv").touch()
    sweep_results.claim(tmp_path, base)
    (tmp_path / "weights").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"weights: '.*' with other content there"):
        sweep_results.claim(tmp_path, base)


def test_means_of_draws_are_refused_because_no_row_shows_them(base, tmp_path):
    with pytest.raises(ValueError, match=r"cell 2 .*evaluation\.draws=16.*set evaluation\.draws=1"):
        sweep(base, [{"evaluation.draws": 1}, {"evaluation.draws": 16}], tmp_path)
