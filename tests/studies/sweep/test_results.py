"""results.csv: what it keeps, and what it refuses."""

import csv
import types

import pytest

from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.studies.sweep.results import MEASURES, Results
from pnoise_jax.training import run_config
from tests.training.runs import small_config


def cell(**values):
    return types.SimpleNamespace(values={k.replace("_", "."): v for k, v in values.items()})


def measured(top1):
    values = dict.fromkeys(MEASURES, top1)
    return {"run": "runs/a,b", "updates": 12, "n": 1000, **values, "class_sorted_top1": None}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def base(data_dir):
    return small_config(data_dir, **{"noise.strength": 0.5})


def test_rows_are_kept_when_columns_change(base, tmp_path):
    path = tmp_path / "results.csv"
    results = Results(tmp_path, base, ["noise.strength"])
    results.add(cell(noise_strength="0.1"), measured(50.5))
    results.add(cell(noise_strength="0.5"), measured(60.0))
    results.write()
    assert [row["noise.strength"] for row in rows(path)] == ["0.1", "0.5"]
    assert rows(path)[0]["run"] == "runs/a,b"
    assert rows(path)[0]["class_sorted_top1"] == ""

    more = Results(tmp_path, base, ["seed", "noise.strength"])  # the base's seed is 0
    assert more.get(cell(seed="0", noise_strength="0.1"))["clean_top1"] == "50.5"
    assert more.get(cell(seed="1", noise_strength="0.1")) is None
    more.add(cell(seed="1", noise_strength="0.1"), measured(70.0))
    more.write()
    assert [(row["seed"], row["clean_top1"]) for row in rows(path)] == [
        ("0", "50.5"),
        ("0", "60.0"),
        ("1", "70.0"),
    ]

    fewer = Results(tmp_path, base, ["seed"])  # strength is the base's 0.5
    assert fewer.get(cell(seed="0"))["clean_top1"] == "60.0"
    assert fewer.get(cell(seed="1")) is None
    assert fewer.others([cell(seed="0"), cell(seed="1")]) == 2
    fewer.write()
    assert len(rows(path)) == 3  # none is lost


@pytest.mark.parametrize(
    "text",
    [
        "format,seed,clean_top1\n1,0,50.0\n",
        "seed,clean_top1\n0,50.0\n",
        "format,seed,run,updates,n," + ",".join(MEASURES) + "\n1,0,a,12,1000,1,2,3,4,5,6\n",
        "format,seed,run,updates,n," + ",".join(MEASURES) + "\n2,0,a,12\n",
    ],
)
def test_another_format_is_refused(base, tmp_path, text):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(ValueError, match=r"rows of format .* move the file away"):
        Results(tmp_path, base, ["seed"])


def test_a_field_may_be_called_steps_but_not_like_another_column(base, tmp_path):
    path = tmp_path / "results.csv"
    results = Results(tmp_path, base, ["steps"])
    for steps in ("", "5"):
        results.add(cell(steps=steps), measured(50.0))
    results.write()
    again = Results(tmp_path, base, ["steps"])
    assert again.get(cell(steps=""))["updates"] == "12"
    assert again.get(cell(steps="12")) is None
    assert path.read_text().splitlines()[0].count("steps") == 1
    with pytest.raises(ValueError, match=r"sweep\(\) sets 'updates', and results.csv has another"):
        Results(tmp_path, base, ["updates"])


def test_an_invalid_table_is_refused(base, tmp_path):
    (tmp_path / "results.csv").write_bytes(b"format,seed\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"results.csv is not a table in UTF-8"):
        Results(tmp_path, base, ["seed"])


def test_a_work_directory_belongs_to_one_base(base, tmp_path):
    sweep_results.claim(tmp_path, base)
    base.batch_size = 24  # nothing is there yet
    sweep_results.claim(tmp_path, base)
    results = Results(tmp_path, base, ["seed"])
    results.add(cell(seed="0"), measured(50.0))
    results.write()
    base.data.data_dir = "/elsewhere"
    base.log_every = "1 step"
    sweep_results.claim(tmp_path, base)
    base.evaluation.batch_size = 50  # for a run this would not matter
    base.batch_size = 32
    with pytest.raises(
        ValueError, match=r"batch_size: 24 there, 32 now; evaluation.batch_size: 10 there, 50 now"
    ):
        sweep_results.claim(tmp_path, base)
    (tmp_path / "base_config.json").unlink()
    with pytest.raises(ValueError, match=r"has a results.csv but no base_config.json"):
        sweep_results.claim(tmp_path, base)


def test_a_run_of_launch_train_is_refused(base, tmp_path):
    run_config.claim(tmp_path, base)
    with pytest.raises(ValueError, match=r"holds a run of pnoise train"):
        sweep_results.claim(tmp_path, base)


def test_another_study_is_refused_and_keeps_its_base_config(base, tmp_path):
    (tmp_path / "base_config.json").write_text("{}")
    (tmp_path / "measured").mkdir()
    with pytest.raises(ValueError, match=r"holds another study"):
        sweep_results.claim(tmp_path, base)
    assert (tmp_path / "base_config.json").read_text() == "{}"


def test_training_refuses_the_directory_of_a_sweep(base, tmp_path):
    sweep_results.claim(tmp_path, base)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"belongs to a sweep or a study.*base_config\.json"):
        run_config.claim(tmp_path, base)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    run_config.claim(tmp_path / "runs" / "one", base)
    sweep_results.claim(tmp_path, base)
