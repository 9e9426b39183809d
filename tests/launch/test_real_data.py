"""From small copies of the official archives to an audit, all on the command line."""

import itertools
import json

import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from configs import imagenet_vit
from pnoise_jax import models, training, weights
from tests.data import archives
from tests.launch import command
from tests.models.drawing import draw_variables

pytestmark = pytest.mark.long

SMALL_VIT = (
    "--config.model.depth=2",
    "--config.model.dim=16",
    "--config.model.num_heads=2",
    "--config.model.image_size=64",
    "--config.dtype=float32",
)


def run(program, *arguments):
    code, output, errors = command.run(program, *arguments)
    assert code == 0, errors
    return output


def metric_lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """1000 training images; no validation tar."""
    directory = tmp_path_factory.mktemp("imagenet")
    archives.make_imagenet(directory, validation=0)
    run("prepare", "--dataset=imagenet2012", f"--manual_dir={directory}", f"--data_dir={directory}")
    return directory


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("imagenet_vit.py:model=ti16,noise=optimal,recipe=augreg", SMALL_VIT),
        pytest.param(
            "imagenet_resnet.py:model=18,noise=cyclic",
            (
                "--config.model.width=4",
                "--config.data.image_size=40",
                "--config.data.num_workers=2",
                "--config.dtype=float32",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_imagenet_recipe_trains_and_evaluates(config, options, imagenet, tmp_path):
    run(
        "train",
        f"--config=configs/{config}",
        f"--workdir={tmp_path}",
        f"--config.data.data_dir={imagenet}",
        "--config.data.test_split=train[:40]",
        "--config.batch_size=16",
        "--config.steps=4",
        "--config.log_every=2 steps",
        *options,
    )
    lines = metric_lines(tmp_path)
    assert [line["step"] for line in lines] == [2, 4]
    assert all("data_wait" in line for line in lines)
    trained = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["n"] for row in trained["rows"]] == [40] * 3
    run("evaluate", f"--workdir={tmp_path}")
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert again["rows"] == trained["rows"]


@pytest.mark.slow
def test_tiny_imagenet_from_its_archive_to_an_audit(tmp_path):
    archives.make_tiny_imagenet(tmp_path, train_per_class=8, validation=100)
    run("prepare", "--dataset=tiny_imagenet", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}")
    options = (
        "--config=configs/tiny_imagenet.py:model=ti16,noise=optimal",
        f"--data_dir={tmp_path}",
        "--config.batch_size=16",
        "--config.steps=4",
        "--batch_sizes=10,20",
        "--purity_steps=2",
        "--resamples=200",
        *SMALL_VIT,
    )
    trained = tmp_path / "trained"
    run("audit", *options, f"--workdir={trained}", "--config.weights_required=False")
    audit = json.loads((trained / "audit" / "audit.json").read_text())
    assert {row["n"] for row in audit["rows"]} == {100}
    assert {row["order"] for row in audit["rows"]} == {"shuffled", "class_sorted"}

    # The same weights, imported: nothing is trained, and the training split need not be there.
    imported = tmp_path / "imported"
    run(
        "audit",
        *options,
        f"--workdir={imported}",
        f"--config.weights={trained / 'seed_0'}",
        "--config.data.train_split=absent",
    )
    assert sorted(path.name for path in imported.iterdir()) == ["audit"]
    again = json.loads((imported / "audit" / "audit.json").read_text())
    assert again["rows"] == audit["rows"]
    assert str(trained / "seed_0") in again["weights"]


def test_the_headline_needs_only_published_weights_and_the_validation_tar(tmp_path):
    archives.make_imagenet(tmp_path, train_per_class=0, size=(8, 8))
    run("prepare", "--dataset=imagenet2012", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}")
    small = {"depth": 2, "dim": 16, "num_heads": 2, "image_size": 32}
    model = models.create_model("vit_b_16", **small)
    state = traverse_util.flatten_dict(draw_variables(model, np.zeros((1, 32, 32, 3))), sep="/")
    save_file(weights.timm_state(state), tmp_path / "vit.safetensors")
    output = run(
        "audit",
        "--config=configs/published_claim.py",
        f"--config.weights={tmp_path / 'vit.safetensors'}",
        f"--data_dir={tmp_path}",
        f"--workdir={tmp_path / 'audited'}",
        *SMALL_VIT,
        "--config.data.test_split=validation[:500]",
        "--batch_sizes=10",
        "--mixed_batches",
        "--orders=20",
        "--purity_steps=0",
        "--resamples=200",
    )
    assert "position embedding 2×2 → 4×4" in output
    assert [path.name for path in (tmp_path / "audited").iterdir()] == ["audit"]
    audit = json.loads((tmp_path / "audited" / "audit" / "audit.json").read_text())
    assert {row["where"] for row in audit["rows"] if row["noise"]} == {
        "attention_input, layer 2, patch tokens"  # the published site
    }
    assert {row["quality"] for row in audit["rows"] if row["noise"]} == {"optimal"}
    assert {(row["noise"], row["order"]) for row in audit["rows"]} == set(
        itertools.product((False, True), ("shuffled", "class_sorted"))
    )
    assert {row["n"] for row in audit["rows"]} == {500}
    # The page shows the two numbers that are predicted, next to the true one.
    (in_order,) = [r for r in audit["rows"] if r["noise"] and r["order"] == "class_sorted"]
    page = (tmp_path / "audited" / "audit" / "audit.html").read_text()
    for name in ("top1", "printed", "printed_top5"):
        assert f"{in_order[name]:.1f}" in page
    assert "arXiv 2309.10625" in page


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.test_split", "valid", r"split='valid'.* Available splits: train \(1000 examples\)"),
        ("batch_size", 1024, "batch_size=1024 is larger than data.train_split='train'"),
        ("model.image_size", 70, "image_size=70 is not divisible by patch_size=16"),
        ("data.train_transform", "flipp", "data.train_transform='flipp': 'flipp' is unknown"),
        ("data.test_transform", "none|flip", "'flip' is random, which is only allowed for"),
        ("data.image_size", 100, "data.image_size=100: vit_ti_16 takes images of 224"),
        ("mixup.alpha", -1.0, r"mixup.alpha=-1.0: give a number in \[0, inf\)"),
        ("data.data_dir", "/", "data.name='imagenet2012' is not prepared in"),
    ],
)
def test_bad_input_is_named_before_any_work(field, value, message, imagenet, tmp_path):
    config = imagenet_vit.get_config("model=ti16,recipe=augreg")
    config.data.data_dir = str(imagenet)
    config.data.test_split = "train[:40]"
    config.batch_size = 16
    config.update_from_flattened_dict({field: value})
    with pytest.raises((ValueError, OSError), match=message):
        training.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
