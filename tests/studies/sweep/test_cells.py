"""Cells: products, overrides, and errors that name the cell before anything is trained."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from pnoise_jax import data, training
from pnoise_jax.studies.sweep.cells import (
    Cell,
    as_text,
    build_cells,
    copy_config,
    describe_unused,
    name_of,
    product,
    require_one_numbering,
)
from tests.training.runs import small_config


def test_a_product_is_every_combination_the_last_field_fastest():
    assert product({"noise.strength": (0.1, 0.2), "seed": range(2)}) == [
        {"noise.strength": 0.1, "seed": 0},
        {"noise.strength": 0.1, "seed": 1},
        {"noise.strength": 0.2, "seed": 0},
        {"noise.strength": 0.2, "seed": 1},
    ]


def test_a_cell_is_the_base_with_its_overrides(data_dir):
    base = small_config(data_dir, **{"noise.preset": "paper_vit"})
    before = base.to_dict()
    resnet = training.model_config("resnet18", stage_sizes=(1,), width=8, stem="small")
    cells = build_cells(
        base,
        [
            {},
            {"noise.strength": np.float64(0.25), "seed": np.int64(2)},
            {"model": resnet, "noise.strength": 0.5},
        ],
    )
    assert base.to_dict() == before
    assert [cell.values for cell in cells] == [
        {"noise.strength": "", "seed": "0", "model": as_text(base.model)},
        {"noise.strength": "0.25", "seed": "2", "model": as_text(base.model)},
        {
            "noise.strength": "0.5",
            "seed": "0",
            "model": "resnet18(stage_sizes=(1,), stem='small', width=8)",
        },
    ]
    strengths = [cell.experiment.model.injection.noise.strength for cell in cells]
    assert strengths == [0.3, 0.25, 0.5]  # the first is the preset's
    assert cells[2].experiment.model.num_layers == 1
    assert cells[0].experiment.train_data is cells[1].experiment.train_data  # loaded once


def test_names_are_short_and_leave_out_what_is_not_set():
    values = {"noise.strength": "0.3", "noise.name": "", "model.name": "vit_ti_16", "seed": "1"}
    assert name_of(values) == "strength=0.3, model.name=vit_ti_16, seed=1"
    assert name_of({"noise.strength": ""}) == "base"
    values = {"evaluation.views": "5", "batch_size": "8", "noise.layer": "1", "other.layer": "2"}
    assert name_of(values) == "evaluation.views=5, batch_size=8, noise.layer=1, other.layer=2"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("optimal", r"noise.x='optimal' is a single value: .* \{'noise.x': \['optimal'\]\}"),
        (0.3, r"noise.x=0.3 is a single value"),
        ({"name": "vit"}, r"noise.x=\{'name': 'vit'\} is a single value"),
        ((), r"noise.x=\[\] leaves no cells"),
    ],
)
def test_a_product_of_invalid_values_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        product({"seed": range(2), "noise.x": values})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "returns no cells"),
        ([{"seed": 1}, ["seed"]], r"cell 2 of sweep\(\) is \['seed'\]: give a dict"),
        ([{"noise.strenght": 0.3}], r"cell 1 .*strenght=0.3\): .*did you mean 'noise.strength'"),
        ([{"nois.layer": "1"}], "nois.layer: unknown field; did you mean 'noise.layer'"),
        ([{"noise": 0.3}], "noise: unknown field"),
        ([{}, {"noise.layer": "7"}], r"cell 2 .*layer=7\): noise.layer=7: this model has no layer"),
        ([{"noise.layer": 1.5}], "noise.layer=1.5: .*<class 'str'>"),
        ([{"seed": 0}, {"seed": -1}], r"cell 2 .*seed=-1\): seed=-1: give a whole number"),
        ([{"seed": "one"}], "seed='one'"),
        ([{"noise.layer": 1}, {"noise.layer": "1"}], r"cell 2 .*\(layer=1\) is the same as"),
        ([{"seed": 0}, {"seed": 1}, {}], r"cell 3 .*\(seed=0\) is the same as another"),
        (
            [{"optimizer.momentum": 0.5}, {"optimizer.momentum": 0.9}],
            r"cell 2 .*the same as another \(momentum=0.5\); optimizer.momentum has no effect in",
        ),
        (
            [{"optimizer.momentum": 0.5}, {"optimizer.momentum": 0.6}],
            r"momentum has no effect in them, as it needs optimizer.name='sgd': "
            "list each cell once",
        ),
        (
            [{"noise.probability": 0.1}],
            "noise.probability=0.1 is set, but linear_transform does not",
        ),
        ([{"batch_size": 12}], "batch_size=12 is not divisible by 8 devices"),
        ([{"noise": {"preset": "paper_vit"}}], "only 'model' accepts a whole section"),
        ([{"model": {"name": "vit"}}], r"cell 1 .*model=vit\(\)\): .*unknown model 'vit'"),
    ],
)
def test_a_bad_cell_is_named(data_dir, overrides, message):
    with pytest.raises(ValueError, match=message):
        build_cells(small_config(data_dir), overrides)


EARLY = training.noise_config(name="gaussian", std=0.1, layer=1)
TWO_LAYERS = {"model.depth": 2}
CYCLIC = {"noise.preset": "paper_vit"}
AN_EPOCH = {"batch_size": 16, "data.train_split": "train[:64]", "duration": "1 epochs"}


@pytest.mark.parametrize(
    ("base", "field", "values", "why"),
    [
        ({}, "weights_head", ("keep", "auto"), "has no effect in them, as it needs weights"),
        ({}, "log_every", ("1 steps", "2 steps"), "changes no result"),
        ({}, "writers", ((), ("tensorboard",)), "changes no result"),
        ({}, "checkpoint.keep", (1, 2), "changes no result"),
        ({}, "data.num_threads", (0, 1), "changes no result"),
        ({}, "noise.inference", (True, False), "True and False come to the same"),
        (CYCLIC, "noise.strength", (0.3, None), "0.3 and None come to the same"),
        (CYCLIC, "noise.shift", (1, None), "come to the same"),
        (CYCLIC, "noise.schedule", ("linear 0 to 1 over 16 examples", "linear 0 to 1 over 1 steps"),
         "come to the same"),
        (TWO_LAYERS, "noise.layer", (2, "last"), "2 and last come to the same"),
        (TWO_LAYERS, "noise.layer", ("1,2", "2,1"), "come to the same"),
        (AN_EPOCH, "duration", ("1 epochs", "64 examples"), "come to the same"),
        (AN_EPOCH, "optimizer.warmup", ("0 steps", "0 epochs"), "come to the same"),
        (AN_EPOCH | {"steps": 2}, "optimizer.warmup", ("1 steps", "2 steps"), None),
        ({"steps": 2}, "duration", ("6 steps", "12 steps"), None),
        (TWO_LAYERS, "noise.layer", ("1", "last"), None),
        (TWO_LAYERS, "noise.layer", ("1,2", "random"), None),
        (CYCLIC, "noise.tokens", ("all", "patch"), None),
        (CYCLIC, "noise.train", (True, False), None),
        ({}, "evaluation.batch_size", (10, 20), None),
        ({}, "optimizer.beta1", (0.8, 0.9), None),
    ],
)  # fmt: skip
def test_a_cell_is_the_same_as_another_if_it_resolves_to_the_same(
    data_dir, base, field, values, why
):
    config = small_config(data_dir, **base)
    cells = [{field: value, "seed": seed} for value in values for seed in (0, 1)]
    if why is None:
        assert len(build_cells(config, cells)) == 4
    else:
        with pytest.raises(ValueError, match=rf"cell 3 .*same as another .*{field}:? .*{why}"):
            build_cells(config, cells)


def test_whether_a_noise_acts_at_inference_matters_next_to_another(data_dir):
    base = small_config(data_dir)
    base.noise.others.early = EARLY
    cells = [{"noise.others.early.inference": acts} for acts in (True, False)]
    assert len(build_cells(base, cells)) == 2


def test_fields_without_effect_in_any_cell_are_described(data_dir):
    base = small_config(data_dir, **{"optimizer.momentum": 0.5})
    cells = build_cells(base, [{"seed": 0}, {"seed": 1}])
    (sentence,) = describe_unused(cells)
    assert sentence.startswith("optimizer.momentum=0.5 has no effect")
    assert not describe_unused(build_cells(base, [{}, {"optimizer.name": "sgd"}]))


def test_a_field_of_the_command_line_may_not_be_swept(data_dir):
    with pytest.raises(ValueError, match=r"--config.seed is set on the command line and by sweep"):
        build_cells(small_config(data_dir), [{"seed": 1}], set_by_flags=["steps", "seed"])
    section = training.model_config("vit_ti_16", image_size=8, patch_size=4, dim=8, num_heads=2)
    with pytest.raises(ValueError, match=r"--config.model.dim .*\(as part of 'model'\)"):
        build_cells(small_config(data_dir), [{"model": section}], set_by_flags=["model.dim"])
    build_cells(small_config(data_dir), [{"model": section}], set_by_flags=["model_dim"])


def test_data_that_cannot_be_read_name_their_cell(data_dir, monkeypatch):
    def load(name, **options):
        raise FileNotFoundError(f"{name} is not there")

    monkeypatch.setattr(data, "load", load)
    with pytest.raises(OSError, match=r"cell 1 of sweep\(\) \(seed=1\): digits is not there"):
        build_cells(small_config(data_dir), [{"seed": 1}])


def test_a_locked_config_is_fine(data_dir):
    base = ml_collections.ConfigDict(small_config(data_dir)).lock()
    section = training.model_config("vit_ti_16", image_size=8, patch_size=4, dim=8, num_heads=2)
    (cell,) = build_cells(base, [{"model": section, "noise.layer": "2"}])
    assert cell.experiment.model.dim == 8


def test_cells_of_one_training_must_number_their_classes_alike(data_dir):
    """Data in another directory, which no weights depend on, may name other classes."""
    cell = build_cells(small_config(data_dir), [{}])[0]
    experiments = [
        dataclasses.replace(
            cell.experiment,
            test_data=dataclasses.replace(cell.experiment.test_data, class_names=names),
        )
        for names in (("a", "b"), None, ("b", "a"))
    ]
    cells = [Cell({"data.data_dir": str(i)}, x) for i, x in enumerate(experiments)]
    require_one_numbering(cells[:2])
    with pytest.raises(
        ValueError, match=r"data_dir=0 and data_dir=2 share a training.*'a' is clas"
    ):
        require_one_numbering(cells)


def test_cells_that_differ_in_the_seed_are_built_and_checked_once(data_dir, monkeypatch):
    built = []

    def build(config, **options):
        built.append(config.seed)
        return training.experiment.build(config, **options)

    monkeypatch.setattr(training, "build", build)
    fields = {"noise.strength": (0.1, 0.2), "seed": range(40)}
    base = small_config(data_dir, **{"noise.preset": "paper_vit"})
    cells = build_cells(base, product(fields))
    assert built == [0, 0]
    assert [cell.experiment.config.seed for cell in cells] == 2 * list(range(40))
    assert [cell.experiment.task.setup.config.seed for cell in cells] == 2 * list(range(40))
    assert {c.experiment.model.injection.noise.strength for c in cells[:40]} == {0.1}
    assert str(cells[-1].experiment.config).replace("seed: 39", "seed: 0") == str(
        cells[40].experiment.config
    )


def test_each_cell_has_its_own_seed_even_if_other_fields_refer_to_it(data_dir):
    base = small_config(data_dir)
    base.evaluation.seed = base.get_ref("seed")
    cells = build_cells(base, product({"seed": (1, 2, 3)}))
    configs = [cell.experiment.config for cell in cells]
    assert [(each.seed, each.evaluation.seed) for each in configs] == [(1, 1), (2, 2), (3, 3)]
    assert base.seed == base.evaluation.seed == 0


@pytest.mark.parametrize("seed", [-1, 2**40, 0.5, "one"])
def test_a_bad_seed_is_found_after_good_ones(data_dir, seed):
    with pytest.raises(ValueError, match=r"cell 3 of sweep.*seed="):
        build_cells(small_config(data_dir), [{"seed": 0}, {"seed": 1}, {"seed": seed}])


def test_nothing_is_traced_for_a_cell_whose_parameters_nobody_asks_for(data_dir, monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("traced")

    monkeypatch.setattr(training.Experiment, "initial_state", fail)
    assert build_cells(small_config(data_dir), [{"optimizer.learning_rate": 0.1}])


def test_a_copy_of_a_config_keeps_its_types_and_shares_nothing(data_dir):
    base = small_config(data_dir)
    plain = copy_config(base)
    with base.unlocked():
        base.twice = base.get_oneway_ref("seed") * 2  # has a function that cannot be pickled
    for copied in (plain, copy_config(base)):
        copied.seed = 3
        assert base.seed == 0
        with pytest.raises(TypeError):
            copied.ema_decay = "much"
    assert copy_config(base).twice == 0
