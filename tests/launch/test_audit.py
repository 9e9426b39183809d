"""pnoise audit as a user runs it."""

import json

import pytest

from tests.launch import command

pytestmark = pytest.mark.long

SMALL = (
    "--config.duration=30 steps",
    "--config.optimizer.warmup=0 steps",
    "--config.model.depth=2",
    "--config.model.dim=16",
    "--config.checkpoint.every=30 steps",
    "--config.data.test_split=test[:200]",
)
QUICK = ("--orders=20", "--purity_steps=2", "--resamples=200")


@pytest.fixture(scope="module")
def audited(data_dir, tmp_path_factory):
    """Two seeds, trained by the audit itself."""
    workdir = tmp_path_factory.mktemp("runs")
    arguments = ("--config=configs/digits_vit.py", f"--config.data.data_dir={data_dir}", *SMALL)
    code, output, errors = command.run(
        "audit",
        *arguments,
        f"--workdir={workdir}",
        "--seeds=0,1",
        "--batch_sizes=10,20",
        "--metric=macro_f1",
        *QUICK,
    )
    assert code == 0, errors
    return workdir, output


def test_it_trains_missing_runs_and_writes_the_report(audited):
    workdir, output = audited
    assert (workdir / "seed_0" / "checkpoints" / "30").is_dir()
    assert (workdir / "seed_1" / "checkpoints" / "30").is_dir()
    content = json.loads((workdir / "audit" / "audit.json").read_text())
    assert content["seeds"] == [0, 1]
    assert content["steps"] == [30, 30]
    assert content["interval_over"] == "seeds and examples"
    assert len(content["rows"]) == 2 * 2 * 2
    assert content["metric"]["name"] == "macro_f1"
    assert not content["metric"]["depends_on_batching"]
    assert "Verdict: " in output
    assert content["verdict"]["text"] in " ".join(output.split())
    assert content["verdict"]["text"].partition(":")[0] in (
        (workdir / "audit" / "audit.html").read_text()
    )
    evaluated = json.loads((workdir / "seed_0" / "evaluation.json").read_text())["rows"]
    clean, noisy = evaluated[0], evaluated[2]
    (class_sorted,) = [
        r
        for r in content["rows"]
        if r["noise"] and r["order"] == "class_sorted" and r["batch_size"] == 10
    ]
    one_image = 100 / 200
    assert content["rows"][0]["top1_by_seed"][0] == pytest.approx(clean["top1"], abs=one_image)
    assert class_sorted["top1_by_seed"][0] == pytest.approx(noisy["top1"], abs=one_image)


def test_another_audit_reuses_the_runs_with_other_noises(audited, tmp_path):
    workdir, _ = audited
    code, output, errors = command.run(
        "audit",
        f"--workdir={workdir}",
        f"--out={tmp_path}",
        "--config.noise.preset=paper_vit",
        "--presets=optimal_published",
        "--strengths=0.2,0.4",
        "--batch_sizes=10",
        *QUICK,
    )
    assert code == 0, errors
    assert "training seed" not in output
    content = json.loads((tmp_path / "audit.json").read_text())
    noises = [(f["quality"], f["strength"]) for f in content["findings"]]
    assert noises == [(q, s) for q in ("cyclic_shift", "optimal") for s in (0.2, 0.4)]
    assert (tmp_path / "audit.html").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--seeds=0,x"], "--seeds=0,x: give whole numbers"),
        (["--batch_sizes=200"], "largest class of digits's split 'test[:200]' has 20 examples"),
        (["--metric=macro"], "metric='macro' is unknown; did you mean 'macro_f1'?"),
        (["--orders=5"], "orders=5: give a whole number of at least 20"),
        (["--presets=published_vit"], "published_vit"),
        (["--config.model.depth=3"], "model.depth: 2 there, 3 now"),
    ],
)
def test_bad_input_is_named_before_any_work(audited, flags, expected, tmp_path):
    code, _, errors = command.run(
        "audit", f"--workdir={audited[0]}", f"--out={tmp_path / 'out'}", *flags
    )
    assert code != 0
    assert expected in errors, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out" / "audit.json").exists()


def test_a_missing_run_and_config_are_named(tmp_path):
    code, _, errors = command.run("audit", f"--workdir={tmp_path}")
    assert code == 1
    assert "holds no run" in errors
    assert "give --config" in errors
