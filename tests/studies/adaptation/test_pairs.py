"""The table of several pairs: what it averages, and what it refuses to."""

import csv
import io
import json

import pytest
from rich.console import Console

from pnoise_jax import runs
from pnoise_jax.runs import BASE_CONFIG
from pnoise_jax.studies.adaptation import pairs, pairs_page, reference, run_pairs
from pnoise_jax.studies.adaptation.study import overrides_as_text
from pnoise_jax.training import run_config
from tests.adaptation import domains

PAIRS = {
    "A-B": {"task.source": "tests.adaptation.domains:source"},
    "B-A": {"task.source": "tests.adaptation.domains:renumbered"},
}
TVT = {"tvt": {"task.patch_weight": 0.5}}


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Studies train nothing; they store the number of seeds as the accuracy."""

    def study(config, path, *, seeds, overrides, metric, methods=("tvt",)):
        path.mkdir(exist_ok=True)
        runs.write_config(path / BASE_CONFIG, config)
        names = ("source_only", *methods)
        content = {
            "metric": metric,
            "seeds": sorted(seeds),
            "overrides": overrides_as_text(overrides or {}),
            "config": json.loads(config.to_json_best_effort()),
            "sentences": [],
            "table": [
                {
                    "method": {"name": name, "noise": False},
                    "values": {"clean": {"value": float(len(seeds))}},
                }
                for name in names
            ],
        }
        (path / "adaptation.json").write_text(json.dumps(content))
        return content

    monkeypatch.setattr(pairs, "run_adaptation", study)


def test_pairs_with_the_same_settings_share_a_table(tmp_path):
    run_pairs(domains.config("tvt"), tmp_path, PAIRS, names=["A-B"], seeds=[0, 1])
    rows = run_pairs(domains.config("tvt"), tmp_path, PAIRS, names=["B-A"], seeds=[1, 0])
    assert [(row["A-B"], row["B-A"], row["average"]) for row in rows] == [(2.0, 2.0, 2.0)] * 2
    with (tmp_path / "pairs.csv").open(newline="") as file:
        assert [row["average"] for row in csv.DictReader(file)] == ["2.0", "2.0"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"noise.strength": 0.5}, {}, "noise.strength: 0.1 there, 0.5 now"),
        ({"duration": "20 steps"}, {}, "duration: '6 steps' there, '20 steps' now"),
        ({"evaluation.batch_size": 5}, {}, "evaluation.batch_size: 10 there, 5 now"),
        ({"data.test_transform": "resize_square"}, {}, "data.test_transform: 'none' there, 'resi"),
        ({}, {"metric": "per_class_mean"}, "metric: 'accuracy' there, 'per_class_mean' now"),
        ({}, {"seeds": [5, 6]}, r"seeds: \[0, 1, 2\] there, \[5, 6\] now"),
        ({}, {"overrides": TVT}, r"methods\(\)\['tvt'\]: {} there, {'task.patch_weight': '0.5'}"),
    ],
)
def test_a_table_of_pairs_with_different_settings_is_refused(tmp_path, changes, options, message):
    changes = {"noise.preset": "paper_vit", "noise.strength": 0.1} | changes
    before = domains.config("tvt", **{"noise.preset": "paper_vit", "noise.strength": 0.1})
    run_pairs(before, tmp_path, PAIRS, names=["A-B"])
    table = (tmp_path / "pairs.csv").read_bytes()
    with pytest.raises(ValueError, match=rf"the pair 'A-B' was studied .*{message}"):
        run_pairs(domains.config("tvt", **changes), tmp_path, PAIRS, names=["B-A"], **options)
    assert not (tmp_path / "B-A").exists()
    assert (tmp_path / "pairs.csv").read_bytes() == table


@pytest.mark.parametrize("text", ["", "{}", '{"metric": 1, "seeds": [], "table": [{}]}', "\x80"])
def test_a_damaged_pair_is_named(tmp_path, text):
    run_pairs(domains.config("tvt"), tmp_path, PAIRS, names=["A-B"])
    (tmp_path / "A-B" / "adaptation.json").write_text(text, "latin-1")
    with pytest.raises(
        ValueError, match=r"A-B/adaptation\.json is damaged .*study this pair again"
    ):
        run_pairs(domains.config("tvt"), tmp_path, PAIRS, names=["B-A"])


@pytest.mark.parametrize(
    ("pairs", "names", "message"),
    [
        ({"../A": {}}, None, r"pairs\(\) returns the name '\.\./A', which names a directory"),
        (PAIRS, [], "pairs: none is named"),
        ({}, None, "pairs: none is named"),
    ],
)
def test_pairs_that_name_no_directory_are_refused(tmp_path, pairs, names, message):
    with pytest.raises(ValueError, match=message):
        run_pairs(domains.config("tvt"), tmp_path / "study", pairs, names=names)
    assert not (tmp_path / "study").exists()


def test_settings_that_are_not_compared_may_change(tmp_path):
    run_pairs(domains.config("tvt"), tmp_path, PAIRS, names=["A-B"])
    config = domains.config("tvt", seed=4, **{"data.num_threads": 3})
    run_pairs(config, tmp_path, PAIRS, names=["B-A"], overrides={"dann": {"duration": "9 steps"}})


def test_seeds_may_be_added_to_all_pairs_at_once(tmp_path, monkeypatch):
    """The table never mixes old and new numbers of seeds."""
    run_pairs(domains.config("tvt"), tmp_path, PAIRS, seeds=[0])
    tables = []
    render = pairs_page.render
    monkeypatch.setattr(
        pairs_page, "render", lambda rows, *rest: tables.append(rows[0]) or render(rows, *rest)
    )
    run_pairs(domains.config("tvt"), tmp_path, PAIRS, seeds=[0, 1])
    assert [(row["A-B"], row["B-A"], row["average"]) for row in tables] == [
        (2.0, None, None),
        (2.0, 2.0, 2.0),
    ]


def test_pairs_of_several_official_metrics_need_a_choice(tmp_path, monkeypatch):
    monkeypatch.setattr(
        reference, "_METRICS", {"tests.adaptation.domains:source": "per_class_mean"}
    )
    turned = {"B-A": {"data.name": "tests.adaptation.domains:source"}}
    config = domains.config("tvt", **{"task.source": "tests.adaptation.domains:renumbered"})
    mixed = {"A-B": {}} | turned
    with pytest.raises(ValueError, match=r"A-B: accuracy, B-A: per_class_mean\).* --metric"):
        run_pairs(config, tmp_path, mixed)
    run_pairs(config, tmp_path, mixed, metric="accuracy")


def test_the_table_says_its_metric():
    text = io.StringIO()
    row = {"method": "tvt", "noise": False, "protocol": "clean", "A-B": 70.0, "average": 70.0}
    pairs_page.print_table(Console(file=text, width=120), [row], ["A-B"], "per_class_mean")
    assert "mean of per-class accuracies by ordered pair" in " ".join(text.getvalue().split())


@pytest.mark.parametrize(("metric", "shown"), [("accuracy", True), ("per_class_mean", False)])
def test_published_rows_are_shown_only_for_their_metric(metric, shown):
    config = domains.config("tvt", **{"data.name": "office_home"})
    studied = dict.fromkeys(reference.OFFICE_HOME_PAIRS)
    assert ("CDTrans-B" in pairs_page.render([], studied, config, metric)) == shown


def test_runs_and_pairs_have_their_own_directories(tmp_path):
    config = domains.config("tvt")
    run_config.claim(tmp_path / "run", config)
    with pytest.raises(ValueError, match=r"contains a run of pnoise train"):
        run_pairs(config, tmp_path / "run", PAIRS)
    run_pairs(config, tmp_path / "pairs", PAIRS)
    for path in (tmp_path / "pairs", tmp_path / "pairs" / "A-B"):
        with pytest.raises(ValueError, match="belongs to a sweep or a study"):
            run_config.claim(path, config)
