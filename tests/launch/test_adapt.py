"""pnoise adapt and neighbours as a user runs them."""

import csv
import json

import pytest

from tests.launch import command

pytestmark = pytest.mark.long

CONFIG = """
from tests.adaptation import domains

def get_config():
    config = domains.config("tvt")
    config.model.depth = 1
    config.evaluation.every = "3 steps"
    config.evaluation.batch_size = 8
    config.noise.preset = "optimal_all_tokens"
    config.noise.train = True
    return config

def methods():
    return {"dann": {"task.domain_weight": 0.5}}
"""
PAIRS = """
def pairs():
    reverse = {"task.source": "tests.adaptation.domains:target",
               "data.name": "tests.adaptation.domains:source"}
    return {"So-Ta": {"seed": 0}, "Ta-So": reverse}
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(CONFIG)
    return file


def adapt(config, workdir, *more):
    return command.run("adapt", f"--config={config}", f"--workdir={workdir}", *more)


def test_a_study_writes_a_table_a_page_and_runs(config, tmp_path):
    workdir, flags = tmp_path / "study", ("--methods=source_only", "--seeds=1")
    code, output, errors = adapt(config, workdir, *flags)
    assert code == 0, errors
    assert "Source only: on top of source only without noise" in output
    assert "One seed, but an interval needs at least 3: none is given" in output
    stored = json.loads((workdir / "adaptation.json").read_text())
    assert [(r["method"], r["noise"], r["seed"], r["protocol"]) for r in stored["rows"]] == [
        ("source_only", False, 1, "clean"),
        ("source_only", True, 1, "clean"),
        ("source_only", True, 1, "noisy_shuffled"),
        ("source_only", True, 1, "noisy_listed"),
        ("target_labels", False, 1, "clean"),
    ]
    with (workdir / "adaptation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, stored["rows"], strict=True):
        assert float(row["accuracy"]) == expected["accuracy"]
        assert 0 <= float(row["per_class_mean"]) <= 100
        assert row["n"] == "40"
    report = json.loads((workdir / "runs/source_only-noise-seed_1/evaluation.json").read_text())
    assert report["rows"][0]["top1"] == pytest.approx(stored["rows"][1]["accuracy"])
    assert report["rows"][1]["top1"] == pytest.approx(stored["rows"][2]["accuracy"])
    assert stored["table"][0]["choice"] >= 0  # it was evaluated during training
    require_page(workdir, figures=("curves", "embedding", "confusion"))

    # The same command trains nothing, measures nothing, and reports the same.
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*.npz")}
    code, output, errors = adapt(config, workdir, *flags)
    assert code == 0, errors
    assert "steps/s" not in output
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*.npz")}
    assert json.loads((workdir / "adaptation.json").read_text())["rows"] == stored["rows"]

    # Other pixels are measured anew, and compared with no evaluation of the old ones.
    code, _, errors = adapt(
        config, workdir, *flags, "--config.data.test_transform=square_crop(8/16)"
    )
    assert code == 0, errors
    assert all(p.stat().st_mtime_ns != time for p, time in before.items())
    stored = json.loads((workdir / "adaptation.json").read_text())
    assert [row["choice"] for row in stored["table"]] == [None, None, None]

    # Another pair is refused, and named.
    config.write_text(CONFIG.replace('"tvt")', '"tvt", **{"task.source_split": "train[:40]"})'))
    code, _, errors = adapt(config, workdir, *flags)
    assert code == 64
    assert "contains a study of another pair" in errors
    assert "task.source_split: 'train' there, 'train[:40]' now" in errors
    assert "Traceback" not in errors


def require_page(workdir, figures):
    page = (workdir / "adaptation.html").read_text()
    for words in (
        "What does noise add to methods of domain adaptation?",
        "chosen without target labels",
        "best by target labels",
        "noisy, listed order",
        "Implicated, not proven",
        "mates are of its class in the stored order",
        "no interval: too few seeds",
    ):
        assert words in page
    assert "http" not in page
    for name in figures:
        assert (workdir / f"adaptation_{name}.svg").stat().st_size > 1000
        assert (workdir / f"adaptation_{name}.png").stat().st_size > 1000


@pytest.mark.slow
def test_methods_seeds_and_resuming(config, tmp_path):
    """A run without its last checkpoint resumes; one of another pair in runs/ is refused."""
    workdir = tmp_path / "study"
    flags = ("--methods=dann,tvt", "--seeds=0,1")
    code, _, errors = adapt(config, workdir, *flags)
    assert code == 0, errors
    stored = json.loads((workdir / "adaptation.json").read_text())
    assert len(stored["rows"]) == 2 * (1 + 4 + 4 + 1)
    assert len(list((workdir / "runs").iterdir())) == 2 * 6
    require_page(workdir, figures=("curves", "embedding", "transferability", "confusion"))
    run = workdir / "runs" / "dann-seed_1"
    for path in sorted((run / "checkpoints" / "6").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (run / "checkpoints" / "6").rmdir()
    (run / "evaluation.json").unlink()
    code, output, errors = adapt(config, workdir, *flags)
    assert code == 0, errors
    assert "resuming from the checkpoint of step 3" in output
    assert json.loads((workdir / "adaptation.json").read_text())["rows"] == stored["rows"]

    (workdir / "base_config.json").unlink()
    config.write_text(CONFIG.replace('"tvt")', '"tvt", **{"data.train_split": "train[:40]"})'))
    code, _, errors = adapt(config, workdir, *flags)
    assert code == 64
    assert "contains a run of another config (data.train_split: 'train' there" in errors


@pytest.mark.slow
def test_an_adapted_run_is_audited_in_random_class_and_listed_order(config, tmp_path):
    workdir = tmp_path / "run"
    code, _, errors = command.run("train", f"--config={config}", f"--workdir={workdir}")
    assert code == 0, errors
    flags = ("--batch_sizes=8", "--orders=20", "--purity_steps=0", "--resamples=200")
    code, output, errors = command.run("audit", f"--workdir={workdir}", *flags)
    assert code == 0, errors
    assert "Verdict:" in output
    stored = json.loads((workdir / "audit" / "audit.json").read_text())
    purity = {(row["noise"], row["order"]): row["purity"] for row in stored["rows"]}
    assert set(purity) == {(n, o) for n in (False, True) for o in ("shuffled", "class_sorted")}
    assert purity[True, "class_sorted"] > 0.7 > 0.5 > purity[True, "shuffled"]
    assert {"shuffled", "class_sorted", "as given"} <= {row["order"] for row in stored["orders"]}
    assert stored["config"]["task"]["name"] == "tvt"
    assert "mean per class" in command.run("evaluate", f"--workdir={workdir}")[1]


@pytest.mark.slow
def test_pairs_fill_one_table_pair_by_pair(config, tmp_path):
    config.write_text(CONFIG + PAIRS)
    workdir = tmp_path / "pairs"
    flags = ("--methods=source_only", "--seeds=0")
    flags += ("--config.noise.preset=None", "--config.noise.train=None")
    code, _, errors = adapt(config, workdir, *flags, "--pairs=Ta-So")
    assert code == 0, errors
    with (workdir / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["So-Ta"] for row in rows] == ["", ""]
    assert [row["average"] for row in rows] == ["", ""]
    assert "Still missing: So-Ta" in (workdir / "pairs.html").read_text()
    code, _, errors = adapt(config, workdir, *flags)
    assert code == 0, errors
    with (workdir / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        mean = (float(row["So-Ta"]) + float(row["Ta-So"])) / 2
        assert float(row["average"]) == pytest.approx(mean)
    assert "Still missing" not in (workdir / "pairs.html").read_text()


@pytest.mark.parametrize(
    ("flag", "added", "message"),
    [
        ("--methods=tvvt", "", "methods: 'tvvt' is unknown; did you mean 'tvt'"),
        ("--seeds=a", "", "--seeds=a: 'a' is not a whole number"),
        ("--pairs=Ar-Cl", "", "has no pairs(): leave the flag out, or define pairs()"),
        ("--pairs=So-Tb", PAIRS, "pairs: 'So-Tb' is unknown; did you mean 'So-Ta'"),
        (
            "--config.seed=3",
            "",
            "--config.seed: a study trains with several seeds: give them in --s",
        ),
        ("--config.task.patch_weight=-1", "", "patch_weight=-1.0: give a number of at least 0"),
        ("--seeds=0", "def methods():\n    return [1]\n", "methods() returns [1]: make it return"),
    ],
)
def test_bad_input_ends_with_one_clear_message(config, tmp_path, flag, added, message):
    config.write_text(CONFIG + added)
    code, output, errors = adapt(config, tmp_path / "study", flag)
    assert code == 64
    assert message in output + errors
    assert "Traceback" not in errors


def test_a_flag_that_methods_or_pairs_override_is_told(config, tmp_path):
    config.write_text(CONFIG + PAIRS)
    flags = ("--config.task.domain_weight=0.1", "--config.task.source=digits", "--methods=tvvt")
    _, output, _ = adapt(config, tmp_path / "study", *flags)
    for words in (
        "methods() sets task.domain_weight for dann, so --config.task.domain_weight has no effect",
        "pairs() sets task.source for Ta-So, so --config.task.source has no effect there",
    ):
        assert words in output


def test_the_neighbours_of_a_list_are_counted(tmp_path):
    file, out = tmp_path / "Art.txt", tmp_path / "out.json"
    file.write_text("".join(f"Art/{c}/{i}.jpg {c}\n" for c in range(3) for i in range(4)))
    code, output, errors = command.run(
        "neighbours", f"--lists={file}", "--batch_sizes=4,6", f"--out={out}"
    )
    assert code == 0, errors
    assert "VisDA-2017 validation, listed" in output
    row = json.loads(out.read_text())[-1]
    assert (row["n"], row["classes"], row["pure"]["4"], row["same"]["4"]) == (12, 3, 1.0, 1.0)
    assert row["pure"]["6"] == 0.0
