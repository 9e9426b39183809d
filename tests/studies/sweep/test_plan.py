"""The plan of a sweep: which trainings it needs, and what identifies them."""

import json

import pytest

from pnoise_jax.studies.sweep.cells import build_cells, product
from pnoise_jax.studies.sweep.trainer import plan, training_config
from pnoise_jax.training import HARMLESS, flatten
from tests.training.runs import small_config


@pytest.mark.parametrize("train", [True, False])
def test_a_program_is_identified_by_the_config_that_is_trained(data_dir, train):
    base = small_config(data_dir, **{"noise.preset": "paper_vit", "noise.train": train})
    fields = {"noise.strength": (0.1, 0.2), "optimizer.learning_rate": (0.1, 0.2), "seed": (0, 1)}
    programs = plan(build_cells(base, product(fields)))
    runs = [run for program in programs for run in program]
    assert len(runs) == (8 if train else 4)
    for run in runs:
        config = run.experiment.config
        assert config == training_config(run.cells[0].experiment)
        fields_of_program = json.loads(run.program)
        for name, value in flatten(config):
            if not name.startswith((*HARMLESS, "seed", "noise.strength", "noise.probability")):
                assert fields_of_program[name] == value
        assert run.experiment.model.injection is None or train
    assert [len(program) for program in programs] == ([4, 4] if train else [2, 2])
