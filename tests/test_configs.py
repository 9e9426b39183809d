"""Every config builds, and its train step and models can be traced."""

import importlib
import inspect
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import data, models, noise, parallel, studies, training
from pnoise_jax.studies.adaptation import reference
from pnoise_jax.studies.adaptation.methods import METHODS, Method, configure
from pnoise_jax.studies.robustness import CurveSettings
from pnoise_jax.studies.sweep.cells import override
from pnoise_jax.training import validate
from pnoise_jax.training.checks import check_training

# Every row of the paper's tables 1 (ResNets), 2, 3 and 4 (ViTs), then the other recipes.
_NOISES = ("vanilla", "gaussian", "cyclic", "salt_and_pepper")
TABLE_1 = [f"model={n},noise={noise}" for n in (18, 34, 50, 101) for noise in _NOISES]
TABLE_2 = [f"model={n},noise={noise}" for n in ("ti16", "s16", "b16", "l16") for noise in _NOISES]
TABLE_3 = ["model=b16,size=384,noise=cyclic"]
TABLE_4 = [f"model=b16,size={size},noise=optimal" for size in (224, 384)]

NAMES = sorted(path.stem for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
# Those that take an argument, "config.py:argument", with all their arguments.
ARGUMENTS = {
    "bridge": ("digits", "glyphs"),
    "denoising_digits": ("part=pretrain", "part=finetune"),
    "figure2": ("vit", "resnet"),
    "imagenet_vit": (
        *TABLE_2,
        *TABLE_3,
        *TABLE_4,
        "model=s16,recipe=augreg",
        "model=s16,recipe=augreg_finetune",
    ),
    "imagenet_resnet": (
        *TABLE_1,
        "model=50,recipe=standard",
        "model=18,noise=published",
        "recipe=published",
        "recipe=published,noise=published_gaussian",
        "recipe=published,noise=published_impulse",
    ),
    "imagenet_figure2": ("model=b16", "model=50"),
    "imagenet_test_sets": ("model=vit_b_16",),
    "imagenet_variants": (
        "model=deit_ti_16_distilled",
        "model=swin_t,noise=cyclic",
        "model=beit_b_16,noise=gaussian",
        "model=convit_ti,noise=salt_and_pepper",
    ),
    "tiny_imagenet": ("model=resnet18,noise=cyclic", "model=ti16,noise=optimal"),
    "glyphs_resnet": ("200", "1000"),
    "glyphs_vit": ("200", "1000"),
    "glyphs_vit_gpu": ("200", "1000"),
    "inference_mixing": ("vit", "resnet"),
    "training_noise": ("vit", "resnet"),
    "uda_domainnet": ("split", "union"),
}


def get_config(name, argument=None):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config() if argument is None else module.get_config(argument)


_load = data.load  # as it is now: a test may put the function below in its place
_STORED = {  # classes, examples of a training split, image shape
    "glyphs/200": (200, 16_000, (32, 32, 1)),
    "glyphs/1000": (1000, 80_000, (32, 32, 1)),
    "domainnet": (345, 48_000, None),
    "imagenet2012": (1000, 1_281_167, None),
    "office_home": (65, 4365, None),
    "visda2017": (12, 55_388, None),
    "tiny_imagenet": (200, 100_000, (64, 64, 3)),
}


def load(name, *, split, **options):
    """Like `data.load`, but has only the shape of data that is slow to prepare or not ours."""
    if name not in _STORED:
        return _load(name, split=split, **options)
    classes, examples, shape = _STORED[name]
    labels = np.arange(examples, dtype=np.int32) % classes
    images = np.broadcast_to(np.uint8(0), (examples, *(shape or ())))
    return data.Dataset(name, split, classes, shape, labels, images)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ARGUMENTS])
def test_a_config_builds(name, data_dir):
    config = get_config(name)
    config.data.data_dir = str(data_dir)
    config.batch_size = 48  # 8 devices here
    assert_trains(config)


@pytest.mark.parametrize("name", ["robustness_digits", "robustness_glyphs"])
def test_curves_go_beyond_the_strengths_of_training(name):
    module = importlib.import_module(f"configs.{name}")
    strengths = CurveSettings(module.strengths()).strengths
    for arm, fields in module.arms().items():
        config = override(module.get_config(), fields)
        validate(config)
        trained = [
            value
            for field, value in fields.items()
            if field in ("noise.std", "noise.probability", "task.attack_epsilon")
        ]
        assert len(trained) == (arm != "plain")
        for value in trained:
            assert value in strengths[arm]
            assert max(strengths[arm]) > value


@pytest.mark.long
@pytest.mark.parametrize("preset", noise.PRESETS)
@pytest.mark.parametrize("name", ["digits_vit", "digits_resnet"])
def test_a_config_builds_with_every_preset_that_its_model_has_a_place_for(name, preset, data_dir):
    config = get_config(name)
    config.data.data_dir = str(data_dir)
    config.batch_size = 48
    config.noise.preset = preset
    config.noise.train = True
    if "resnet" in name and preset == "optimal_published":
        with pytest.raises(ValueError, match="this model has no such point"):
            training.build(config, load=load)
        return
    assert_trains(config)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "argument"), [(name, value) for name in ARGUMENTS for value in ARGUMENTS[name]]
)
def test_a_config_builds_with_every_argument(name, argument, data_dir):
    config = get_config(name, argument)
    config.data.data_dir = str(data_dir)
    if name == "denoising_digits":
        config.batch_size = 48
    elif "glyphs" in config.data.name or "digits" in config.data.name:
        assert argument in config.data.name or argument in config.model.name
        config.batch_size = 48
    if argument != ARGUMENTS[name][0]:
        shorten(config)
    if argument in TABLE_1 + TABLE_2 and not argument.endswith("noise=cyclic"):
        assert_noise_fits(config)
    else:
        assert_trains(config)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("noise=vanilla", None),
        ("noise=gaussian", noise.Gaussian(strength=1.0)),
        ("noise=cyclic", noise.LinearTransform(noise.CyclicShift(0.3))),
        ("noise=salt_and_pepper", noise.SaltAndPepper(0.3)),
        ("noise=optimal", noise.LinearTransform(noise.Optimal())),
    ],
)
@pytest.mark.parametrize(
    "name", ["imagenet_vit", "imagenet_resnet", "imagenet_variants", "tiny_imagenet"]
)
def test_a_noise_of_the_tables_is_the_papers(name, argument, expected):
    injection = noise.Injection.from_config(get_config(name, argument).noise)
    if expected is None:
        assert injection is None
        return
    assert injection.noise == expected
    assert injection.layer == "last"
    assert injection.inference
    assert injection.train == (argument != "noise=optimal")  # the published 95 % command


def test_the_published_recipe_is_the_published_script():
    config = get_config("imagenet_resnet", "recipe=published")
    assert config.model.name == "resnet34"
    assert config.noise.preset == "published_resnet"
    assert (config.weights_required, config.weights_head) == (True, "fresh")
    assert (config.batch_size, config.evaluation.batch_size) == (512, 512)
    assert (config.dtype, config.label_smoothing, config.mixup.alpha) == ("float32", 0.0, 0.0)
    assert config.data.train_transform == "random_resized_crop(scale=(0.05, 1))"
    assert config.data.test_transform == "resize_square"
    assert config.data.mean == (0.485, 0.456, 0.406)
    assert config.data.std == (0.229, 0.224, 0.225)
    experiment = training.build(config, load=load)
    assert [(p.noise, p.batch_size) for p in experiment.protocols] == [
        (False, 512),
        (True, 512),
        (True, 512),
    ]
    assert config.optimizer.name == "adamw"
    assert (config.optimizer.weight_decay, config.optimizer.weight_decay_on) == (0.01, "all")
    for epoch in (0, 1, 50, 99):  # PyTorch's CosineAnnealingLR(100, eta_min=1e-9)
        expected = 1e-9 + (1e-3 - 1e-9) * (1 + np.cos(np.pi * epoch / 100)) / 2
        first, following = (math.ceil(n * 1_281_167 / 512) for n in (epoch, epoch + 1))
        for step in (first, following - 1):
            assert float(experiment.schedule(step)) == pytest.approx(expected, rel=0.03)
    gaussian = get_config("imagenet_resnet", "model=18,noise=published_gaussian,recipe=published")
    assert (gaussian.model.name, gaussian.noise.preset) == (
        "resnet18",
        "published_resnet_gaussian",
    )


def test_an_audit_of_the_published_recipe_needs_mixed_batches():
    labels = np.repeat(np.arange(1000), 50)
    with pytest.raises(ValueError, match="or allow mixed_batches"):
        studies.AuditSettings(batch_sizes=(512,)).for_labels(labels, "imagenet2012")
    settings = studies.AuditSettings(batch_sizes=(512,), mixed_batches=True)
    assert settings.for_labels(labels, "imagenet2012") == settings
    command = "--batch_sizes=512 --mixed_batches"
    assert command in importlib.import_module("configs.imagenet_resnet").__doc__


def test_every_variant_is_registered_and_has_the_published_site():
    variants = importlib.import_module("configs.imagenet_variants").MODELS
    families = ("deit", "swin", "beit", "convit", "davit", "maxvit", "vit_22b", "vit_parallel")
    kinds_of_vit = ("_reg1", "_reg4", "_clip")
    assert sorted(variants) == [
        n for n in models.list_models() if n.startswith(families) or n.endswith(kinds_of_vit)
    ]
    for name in variants:
        options = dict(get_config("imagenet_variants", f"model={name}").model)
        model = models.create_model(options.pop("name"), **options)
        noise.Injection.preset("optimal_published").validate(
            num_layers=model.num_layers, points=model.points
        )


def test_every_row_of_table_3_takes_the_published_noise():
    rows = importlib.import_module("configs.imagenet_test_sets").MODELS
    assert {"vit_b_16", "vit_b_16_384", "deit_b_16", "swin_b_384"} <= set(rows)
    for row in rows:
        config = get_config("imagenet_test_sets", f"model={row}")
        validate(config)
        options = dict(config.model)
        model = models.create_model(options.pop("name"), **options)
        noise.Injection.from_config(config.noise).validate(
            num_layers=model.num_layers, points=model.points
        )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("modle=b16", "imagenet_vit.py:modle=b16: unknown argument 'modle'; give model=b16"),
        ("model=b32", "imagenet_vit.py:model=b32: model must be one of b16, ti16, s16, l16"),
        ("size=300", "size must be one of 224, 384"),
    ],
)
def test_a_wrong_argument_error_lists_the_choices(argument, message):
    with pytest.raises(ValueError, match=message):
        get_config("imagenet_vit", argument)


@pytest.mark.parametrize("name", NAMES)
def test_all_arguments_of_a_config_are_tested_here(name):
    parameters = inspect.signature(importlib.import_module(f"configs.{name}").get_config).parameters
    assert len(parameters) == (name in ARGUMENTS)
    if parameters:
        with pytest.raises(ValueError, match=rf"{name}\.py:300: .*give "):
            get_config(name, "300")


def shorten(config):
    """Leaves two blocks, or one or two in each stage: tracing takes long, and blocks are alike.

    The place of the noise is checked in the whole model first.
    """
    options = dict(config.model)
    whole = models.create_model(options.pop("name"), **options)
    injection = noise.Injection.from_config(config.noise)
    if injection is not None:
        assert injection.layer in ("last", "random", 1)
        injection.validate(num_layers=whole.num_layers, points=whole.points)
    if hasattr(whole, "depth"):
        config.model.depth = 2
        if hasattr(whole, "local_layers"):
            config.model.local_layers = 1
    else:
        config.model.stage_sizes = tuple(min(size, 2) for size in whole.stage_sizes)


# The images beside labelled ones in a batch of a task; by default those of a target domain.
OTHER_IMAGES = {"classification": None, "denoising": None, "consistency": "unlabelled_image"}


def assert_trains(config):
    """Traces the program of the run: mixing, accumulation, averages, frozen parameters and all."""
    config.weights_required = False
    others = OTHER_IMAGES.get(config.task.name, "target_image")
    adapts = others == "target_image"
    if adapts and config.model.name == "vit_b_16":
        shorten(config)
    experiment = training.build(config, load=load)
    check_training(experiment)
    program = training.create_program(experiment, parallel.data_mesh())
    parts = (config.accumulate,) if config.accumulate > 1 else ()
    batch = {
        name: jax.ShapeDtypeStruct(
            (*parts, config.batch_size // config.accumulate, *shape),
            dtype,
            sharding=program.batches,
        )
        for name, shape, dtype in (
            ("image", experiment.test_data.image_shape, jnp.uint8),
            ("label", (), jnp.int32),
            *([(others, experiment.test_data.image_shape, jnp.uint8)] * (others is not None)),
        )
    }
    after, metrics = jax.eval_shape(
        program.step, program.like, batch, *program.constants(experiment)
    )
    assert jax.tree.structure(after) == jax.tree.structure(program.like)
    assert metrics["loss"].shape == ()


def assert_noise_fits(config):
    """Traces the model in training; its gradient is traced with other rows."""
    config.weights_required = False
    experiment = training.build(config, load=load)
    check_training(experiment)
    images = jax.ShapeDtypeStruct((config.batch_size, *experiment.test_data.image_shape), "float32")
    logits = jax.eval_shape(
        lambda variables, x: experiment.model.apply(
            variables,
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"noise": jax.random.key(0), "dropout": jax.random.key(1)},
        )[0],
        experiment.variables,
        images,
    )
    assert logits.shape == (config.batch_size, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_its_command(name):
    module = importlib.import_module(f"configs.{name}")
    assert re.search(rf"pnoise \w+ --config {name}\b", module.__doc__)


UDA = [name for name in NAMES if name.startswith("uda_")]


@pytest.mark.parametrize("name", UDA)
@pytest.mark.parametrize("method", METHODS)
def test_a_study_builds_each_method(name, method, data_dir, monkeypatch):
    monkeypatch.setattr(data, "load", load)  # of the source
    module = importlib.import_module(f"configs.{name}")
    config = configure(
        module.get_config(), Method(method, noise=True), module.methods().get(method, {}), 0
    )
    config.data.data_dir = str(data_dir)
    config.batch_size = 48
    if config.model.name == "vit_b_16":
        config.model.depth = 1
    config.weights_required = False
    experiment = training.build(config, load=load)
    check_training(experiment)
    assert experiment.model.injection.train
    assert len(experiment.protocols) == 3


def test_the_pairs_of_the_papers_are_in_their_order():
    for name, columns in (
        ("uda_office_home", reference.OFFICE_HOME_PAIRS),
        ("uda_domainnet", reference.DOMAINNET_PAIRS),
    ):
        pairs = importlib.import_module(f"configs.{name}").pairs()
        assert tuple(pairs) == columns
        for fields in pairs.values():
            assert fields["task.source_split"] != fields["data.train_split"]
    union = importlib.import_module("configs.uda_domainnet").pairs("union")["clp-skt"]
    assert union["data.train_split"] == union["data.test_split"] == "sketch_train+sketch_test"
