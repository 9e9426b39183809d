"""pnoise show as a user runs it."""

import csv
import json

import pytest

from tests.launch import command

pytestmark = pytest.mark.long

SMALL = ("--config=digits_vit", "--config.model.depth=1", "--config.model.dim=16")


def test_it_writes_figures_and_their_numbers(tmp_path, data_dir):
    out = tmp_path / "new" / "out"
    out.mkdir(parents=True)
    for name in ("latent_layer_3_patch.svg", "latent_image.png"):  # of an earlier call
        (out / name).touch()
    arguments = (*SMALL, f"--out={out}", f"--data_dir={data_dir}", "--strengths=1,0.3")
    code, output, errors = command.run("show", *arguments, DISPLAY="", MPLBACKEND="TkAgg")
    assert code == 0, errors
    names = ["images.png", "images.svg", "latent.png", "latent.svg", "show.csv", "show.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert "initial weights, not trained" in output
    pixels, latent = output.split("input of block 1: 200 images, in batches of 10")
    assert pixels.startswith("pixels of the 8 images drawn")
    for table, k in ((pixels, "8"), (latent, "10")):
        row = next(line for line in table.splitlines() if "optimal" in line)
        assert [cell.strip() for cell in row.split("│")[2:4]] == ["0.3", k]
    content = json.loads((out / "show.json").read_text())
    assert len(content["images"]) == 8
    (site,) = content["sites"]
    assert (site["k"], len(site["clean_singular_values"])) == (10, 10)
    with (out / "show.csv").open(newline="") as file:
        rows = {(r["place"], r["noise"], r["strength"]): r for r in csv.DictReader(file)}
    assert len(rows) == 2 * 6 * 2
    assert rows["pixels", "optimal", "1.0"]["config"] == "config.noise, strength 1"
    assert rows["layer_1", "erase", "1.0"]["cosine_median"] == ""
    assert float(rows["layer_1", "erase", "0.3"]["norm_median"]) == pytest.approx(0.7, abs=1e-4)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--strengths=0.1,nan", "--strengths=0.1,nan: give finite numbers"),
        ("--out=/dev/null/out", "--out='/dev/null/out' cannot be written"),
        ("--workdir=nowhere", "nowhere"),
        ("--images=0", "--images=0: give a number from 1"),
        ("--strengths=much", "--strengths=much: give numbers"),
        ("--seed=-1", "seed"),
    ],
)
def test_bad_input_ends_with_one_clear_message(tmp_path, data_dir, flag, message):
    out = f"--out={tmp_path / 'out'}"
    code, _, errors = command.run("show", *SMALL, f"--data_dir={data_dir}", out, flag)
    assert code in (1, 64)  # 64 if absl refuses the flag
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
