"""The sweeps in configs/: every cell builds, and the trainings are as many as documented."""

import importlib

import pytest

from pnoise_jax import data
from pnoise_jax.studies.sweep.cells import build_cells
from pnoise_jax.studies.sweep.trainer import plan
from tests import test_configs


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "arguments", "cells", "trainings", "programs"),
    [
        ("figure2", ("vit",), 80, 45, 5),
        ("figure2", ("resnet",), 80, 45, 5),
        ("training_noise", ("vit",), 50, 50, 7),
        ("training_noise", ("resnet",), 50, 50, 7),
        ("inference_mixing", ("vit",), 35, 5, 1),
        ("inference_mixing", ("resnet",), 35, 5, 1),
        ("bridge", ("digits",), 256, 128, 64),
        ("bridge", ("glyphs",), 48, 24, 12),
        ("imagenet_figure2", ("model=l16",), 8, 8, 4),
        ("imagenet_figure2", ("model=50,seeds=5,train=no",), 40, 5, 1),
    ],
)
def test_a_sweep_builds_and_costs_what_it_says(
    data_dir, name, arguments, cells, trainings, programs, monkeypatch
):
    monkeypatch.setattr(data, "load", test_configs.load)
    module = importlib.import_module(f"configs.{name}")
    base = module.get_config(*arguments)
    base.data.data_dir = str(data_dir)
    base.batch_size = 48  # 8 devices here
    base.weights_required = False
    built = build_cells(base, module.sweep(*arguments))
    planned = plan(built)
    assert (len(built), sum(map(len, planned)), len(planned)) == (cells, trainings, programs)
    if "trainings" in module.__doc__:
        assert f"{trainings} trainings" in module.__doc__
