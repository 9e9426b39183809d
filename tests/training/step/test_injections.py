"""Several injections in one config: built, checked, described, stored, evaluated and audited."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models, noise, parallel, studies, training
from pnoise_jax.studies.sweep.cells import build_cells
from pnoise_jax.studies.sweep.trainer import plan
from pnoise_jax.training import noise_config, run_config
from pnoise_jax.training.loop import console
from pnoise_jax.training.step.program import advance
from tests.training.runs import small_config

SHIFT = noise.LinearTransform(noise.CyclicShift(0.3))
EARLY = {"name": "gaussian", "std": 0.5, "layer": 1, "inference": True}


def config_of_two(data_dir, *, early=EARLY, **changes):
    """A model of two blocks: a cyclic shift at the last, and the noise `early`."""
    config = small_config(data_dir, **{"noise.preset": "paper_vit"})
    config.model.depth = 2
    config.noise.others.early = noise_config(**early)
    config.update_from_flattened_dict(changes)
    return config


def logits(model, variables, *, train, key=3):
    images = jax.random.normal(jax.random.key(1), (8, 8, 8, 1))
    rngs = {name: jax.random.key(key) for name in ("noise", "dropout")}
    apply = jax.jit(lambda *inputs: model.apply(*inputs, train=train, rngs=rngs))
    return np.asarray(apply(variables, images))


@pytest.mark.parametrize("train", [True, False])
def test_a_config_builds_the_same_model_as_code(data_dir, train):
    built = training.build(config_of_two(data_dir))
    model = models.create_model(
        "vit_ti_16",
        num_classes=10,
        image_size=8,
        patch_size=4,
        dim=16,
        depth=2,
        num_heads=2,
        injection=(
            noise.Injection(SHIFT, inference=True),
            noise.Injection(noise.Gaussian(std=0.5), layer=1, inference=True),
        ),
    )
    assert built.model == model
    variables = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    expected = logits(model, variables, train=train)
    np.testing.assert_array_equal(logits(built.model, variables, train=train), expected)
    for left_out in ((), model.injection[:1], model.injection[1:]):
        other = logits(model.clone(injection=left_out), variables, train=train)
        assert not np.array_equal(other, expected)


def test_each_injection_draws_from_its_own_key(data_dir):
    """Otherwise two Gaussians of opposite sign at one place would cancel each other."""
    config = config_of_two(data_dir)
    config.noise = noise_config(**EARLY)
    config.noise.others.opposite = noise_config(**(EARLY | {"strength": -1.0}))
    model = training.build(config).model
    plain = model.clone(injection=None)
    variables = plain.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    for train in (True, False):
        clean = logits(plain, variables, train=train)
        assert not np.allclose(logits(model, variables, train=train), clean, atol=1e-3)


def test_a_section_without_others_is_named(data_dir):
    config = small_config(data_dir)
    del config.noise.others
    with pytest.raises(ValueError, match=r"noise\.others is missing; .*default_config\(\)"):
        training.validate(config)


def test_the_others_act_in_the_order_of_their_names(data_dir):
    config = config_of_two(data_dir)
    config.noise.others.a = noise_config(preset="optimal_all_tokens")
    config.noise.others.off = noise_config(**(EARLY | {"name": "none"}))
    injections = training.build(config).injections
    assert [each.section for each in injections] == [
        "noise",
        "noise.others.a",
        "noise.others.early",
    ]
    config.noise.preset = None
    assert [each.section for each in training.build(config).injections] == [
        "noise.others.a",
        "noise.others.early",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 9}, r"noise\.others\.early\.layer=9: this model has no layer 9"),
        ({"point": "here"}, r"noise\.others\.early\.point='here'"),
        ({"shift": 2}, r"noise\.others\.early\.shift=2 is set, but gaussian does not use it"),
        ({"std": -1.0}, r"noise\.others\.early\.std=-1\.0"),
        ({"name": "gausian"}, r"noise\.others\.early\.name='gausian'.*did you mean 'gaussian'"),
        ({"others": {"late": noise_config()}}, r"noise\.others\.early\.others=\['late'\]: this"),
    ],
)
def test_errors_name_the_injection(data_dir, changes, message):
    with pytest.raises(ValueError, match=message):
        training.build(config_of_two(data_dir, early=EARLY | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 3}, r"noise\.others\.early\.group_size=3 does not divide the batch of 10"),
        (
            {"axis": "views", "group_size": 2},
            r"noise\.others\.early\.axis='views' with noise\.others\.early\.gr",
        ),
    ],
)
def test_every_injection_that_mixes_is_checked(data_dir, changes, message):
    early = {"preset": "paper_vit", "layer": 1, **changes}
    with pytest.raises(ValueError, match=message):
        training.build(config_of_two(data_dir, early=early))
    # Noise that acts only in training need not fit the batches of the evaluation.
    early = {"preset": "paper_vit", "layer": 1, "group_size": 3, "inference": False}
    experiment = training.build(config_of_two(data_dir, early=early))
    with pytest.raises(ValueError, match=r"others\.early\.group_size=3 .* batch of 16 ex"):
        training.check_training(experiment)


@pytest.mark.parametrize("section", ["noise", "noise.others.early"])
def test_noise_that_acts_nowhere_is_refused(data_dir, section):
    off = {f"{section}.train": False, f"{section}.inference": False}
    experiment = training.build(config_of_two(data_dir, **off))
    message = rf"{section}\.train=False and {section}\.inference=False: .* never acts; set one"
    with pytest.raises(ValueError, match=message):
        training.check_training(experiment)
    for field in off:
        training.check_training(training.build(config_of_two(data_dir, **(off | {field: True}))))


def test_noise_that_only_noisy_evaluation_applies_is_allowed(data_dir):
    """If no injection has inference=True, noisy evaluation applies all."""
    off = {"noise.train": False, "noise.inference": False}
    training.check_training(training.build(small_config(data_dir, **off)))
    off |= {"noise.others.early.inference": False}
    training.check_training(training.build(config_of_two(data_dir, **off)))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("paper_vit", r"noise\.others\.early='paper_vit' is not a section: .*noise_config\("),
        ({"name": "gaussian"}, r"noise\.others\.early\.preset is missing: .*noise_config\("),
        ({**noise_config(), "strenght": 1.0}, r"others\.early\.strenght: .*early\.strength'"),
    ],
)
def test_an_invalid_noise_section_is_named(data_dir, section, message):
    config = small_config(data_dir)
    config.noise.others.early = section
    with pytest.raises(ValueError, match=message):
        training.build(config)


def test_noise_config_refuses_unknown_fields_and_wrong_types():
    with pytest.raises(ValueError, match=r"noise\.strenght: unknown.*did you mean 'strength'"):
        noise_config(strenght=0.1)
    with pytest.raises(TypeError, match="'strength'"):
        noise_config(strength="much")


@pytest.mark.parametrize(
    ("layer", "text"), [(2, "2"), ((1, 2), "1,2"), ([1, 2], "1,2"), ("last", "last"), ("2", "2")]
)
def test_layers_may_be_numbers(data_dir, layer, text):
    config = config_of_two(data_dir)
    config.noise.layer = layer
    assert config.noise.layer == text
    same = config_of_two(data_dir, **{"noise.layer": text})
    assert training.build(config).model == training.build(same).model
    assert not training.differing(config, same)
    for wrong in (True, 2.0, (1, "2"), ()):
        with pytest.raises(TypeError, match="'layer'"):
            config.noise.layer = wrong
    config.noise.layer = None
    assert config.noise.layer is None


def test_an_empty_section_of_others_adds_no_field():
    """So the digests of stored runs and sweeps do not change."""
    others = [name for name, _ in training.flatten(training.default_config()) if "others" in name]
    assert others == []


def test_the_header_describes_each_injection(data_dir):
    assert console.describe_noise(training.build(config_of_two(data_dir))).splitlines() == [
        f"noise: {SHIFT} at block_input, layer 2, all tokens; on in training, on in noisy "
        "evaluation; k = 10 in noisy evaluation; k = 16 in training",
        f"noise.others.early: {noise.Gaussian(std=0.5)} at block_input, layer 1, all tokens; on "
        "in training, on in noisy evaluation",
    ]
    off = config_of_two(data_dir, **{"noise.others.early.inference": False})
    assert "early: Gau" in (text := console.describe_noise(training.build(off)).splitlines()[1])
    assert text.endswith("on in training, off in noisy evaluation")


def test_warnings_name_the_injection(data_dir):
    early = {"preset": "paper_vit", "strength": 0.6, "layer": 1}
    warnings = console.warn_of_noise(training.build(config_of_two(data_dir, early=early)))
    assert [text.partition(":")[0] for text in warnings] == ["noise.others.early"] * len(warnings)
    assert warnings
    assert "a neighbour dominates" in warnings[0]


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """A work directory with a run of two injections, one of them random."""
    workdir = tmp_path_factory.mktemp("two")
    training.train(config_of_two(data_dir), workdir)
    return workdir


@pytest.mark.long
def test_a_run_reloads_and_is_evaluated_with_both(run, data_dir):
    config = run_config.read_config(run)
    assert not training.differing(config, config_of_two(data_dir))
    assert training.build(config).model == training.build(config_of_two(data_dir)).model
    evaluated = json.loads((run / "evaluation.json").read_text())
    again = training.evaluate(None, run)
    assert [row["top1"] for row in again] == [row["top1"] for row in evaluated["rows"]]
    assert "noise.others.early: Gaussian" in evaluated["injection"]
    config.noise.others.early.strength = 40.0  # can be overridden like the first one's fields
    loud = training.evaluate(config, run)
    assert loud[0]["top1"] == again[0]["top1"]
    assert loud[1]["nll"] != again[1]["nll"]
    assert next((run / "evaluations").glob("*paper_vit_and_gaussian*.json"))


def test_an_evaluation_leaves_out_what_is_off_at_inference(run):
    config = run_config.read_config(run)
    config.noise.others.early.inference = False
    without = training.evaluate(config, run)
    config.noise.others.early.name = "none"
    assert [row["nll"] for row in training.evaluate(config, run)] == [r["nll"] for r in without]


@pytest.mark.slow
def test_an_audit_applies_both_injections(run, data_dir, tmp_path):
    settings = studies.AuditSettings(orders=20, batch_sizes=(10,), purity_steps=2)
    config = run_config.read_config(run)
    audit = studies.audit_runs(config, run, out=tmp_path, settings=settings)
    (finding,) = audit.content["findings"]
    assert finding["noise_id"] == (
        "cyclic_shift 0.3 at block_input, layer 2, all tokens + "
        "gaussian 1, std 0.5 at block_input, layer 1, all tokens"
    )
    page = (tmp_path / "audit.html").read_text()
    assert "cyclic_shift 0.3 at" in page
    assert "gaussian 1, std 0.5 at" in page
    assert "(strength 0.3) together with Gaussian noise (strength 1, std 0.5) makes" in page
    assert audit.content["notes"] == []
    config.noise.others.early.inference = False
    audit = studies.audit_runs(config, run, out=tmp_path / "shift", settings=settings)
    (finding,) = audit.content["findings"]
    assert finding["noise_id"] == "cyclic_shift 0.3 at block_input, layer 2, all tokens"
    assert "noise.others.early is off in noisy evaluation" in (note := audit.content["notes"][0])
    assert note.removeprefix("note: ") in (tmp_path / "shift" / "audit.html").read_text()
    with pytest.raises(ValueError, match=r"strengths=\(0\.1,\): .* 2 injections \(noise, noise\.o"):
        studies.audit_runs(config, run, out=tmp_path, strengths=(0.1,))


def test_a_sweep_over_the_strength_of_either_shares_a_program(data_dir, tmp_path):
    fields = ("noise.strength", "noise.others.early.strength")
    sweep = [{fields[0]: 0.1}, {fields[0]: 0.2}, {fields[1]: 0.5}]
    cells = build_cells(config_of_two(data_dir), sweep)
    assert cells[0].name == "noise.strength=0.1"
    assert cells[2].name == "noise.others.early.strength=0.5"
    (program,) = plan(cells)
    assert len(program) == 3
    mesh = parallel.data_mesh()
    shared = training.create_program(program[0].experiment, mesh, any_strength=True)
    strengths = [np.asarray(shared.constants(each.experiment)[1]) for each in program]
    np.testing.assert_array_equal(strengths, np.float32([[0.1, 1], [0.2, 1], [0.3, 0.5]]))
    last = program[2].experiment
    separate = training.create_program(last, mesh)
    assert first_loss(shared, last) == pytest.approx(first_loss(separate, last), rel=1e-5)
    assert first_loss(shared, last) != first_loss(shared, program[1].experiment)


def first_loss(program, experiment):
    """The loss of the first step of a run."""
    state = program.create(jax.random.key(0))
    with experiment.task.open_batches() as batches:
        _, metrics = next(advance(program, state, batches, program.constants(experiment)))
    return float(metrics["loss"])
