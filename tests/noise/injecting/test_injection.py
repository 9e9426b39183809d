"""The injection's spec: places, presets, config sections, and what each refuses."""

import pytest

from pnoise_jax import noise

OPTIMAL = noise.LinearTransform(noise.Optimal())
POINTS = ("image", "block_input", "attention_input")


def test_layers():
    assert noise.Injection(OPTIMAL).layers(12) == (12,)
    assert noise.Injection(OPTIMAL, layer=3).layers(12) == (3,)
    assert noise.Injection(OPTIMAL, layer=[3, 6]).layers(12) == (3, 6)
    assert noise.Injection(OPTIMAL, layer="random").layers(3) == (1, 2, 3)


def test_by_default_it_acts_in_training_on_all_tokens_of_the_last_block():
    assert noise.Injection(OPTIMAL) == noise.Injection(
        OPTIMAL,
        layer="last",
        point="block_input",
        tokens="all",
        train=True,
        inference=False,
        stop_gradient=False,
    )


def test_the_first_layer_and_whether_it_is_drawn():
    for layer, point, first, drawn in (
        ("last", "block_input", 12, False),
        ((6, 3), "attention_input", 3, False),
        ("random", "block_input", 1, True),
        ("random", "image", 0, False),
        (5, "image", 0, False),
    ):
        injection = noise.Injection(OPTIMAL, layer=layer, point=point)
        assert injection.first_layer(12) == first
        assert injection.draws_layer == drawn


@pytest.mark.parametrize("layer", [0, -1, True, 2.5, (), (1, 0), (1, "2"), "first", None])
def test_an_invalid_layer_is_named(layer):
    with pytest.raises(ValueError, match=r"layer=.*: give a number from 1, several numbers"):
        noise.Injection(OPTIMAL, layer=layer)


def test_a_section_overrides_its_preset():
    section = {"preset": "published_resnet", "strength": 0.1, "layer": "6, 8", "shift": None}
    assert noise.Injection.from_config(section) == noise.Injection(
        noise.LinearTransform(noise.CyclicShift(0.1, shift=-1)),
        layer=(6, 8),
        train=True,
        inference=True,
        stop_gradient=True,
    )
    assert noise.Injection.from_config({"preset": "paper_vit", "layer": "3"}).layer == 3


def test_injections_are_equal_whatever_their_sections_name():
    """So a model with either is the same static argument, compiled once."""
    section = {"preset": "paper_vit", "layer": 3}
    first, other = (
        noise.Injection.from_config(section, name=name) for name in ("noise", "noise.others.early")
    )
    assert (first.section, other.section) == ("noise", "noise.others.early")
    assert first == other
    assert hash(first) == hash(other)


def test_another_quality_takes_the_presets_place_and_not_its_strength():
    section = {"preset": "published_resnet", "quality": "optimal"}
    injection = noise.Injection.from_config(section)
    assert injection.noise == OPTIMAL
    assert (injection.stop_gradient, injection.train) == (True, True)
    gaussian = noise.Injection.from_config({"preset": "paper_vit", "name": "gaussian"})
    assert gaussian == noise.Injection(noise.Gaussian(), train=True, inference=True)


@pytest.mark.parametrize(
    ("preset", "named"),
    [
        ("published_resnet", {"quality": "cyclic_shift"}),
        ("published_resnet", {"name": "linear_transform"}),
        ("published_resnet", {"name": "linear_transform", "quality": "cyclic_shift"}),
        ("published_resnet_gaussian", {"name": "gaussian"}),
        ("published_resnet_impulse", {"name": "salt_and_pepper"}),
        ("optimal_published", {"quality": "optimal"}),
    ],
)
def test_repeating_the_presets_name_and_quality_changes_nothing(preset, named):
    injection = noise.Injection.from_config({"preset": preset} | named)
    assert injection == noise.Injection.preset(preset)


def test_a_presets_tokens_do_not_apply_at_the_image():
    injection = noise.Injection.from_config({"preset": "optimal_published", "point": "image"})
    assert injection == noise.Injection(OPTIMAL, point="image", train=False, inference=True)


@pytest.mark.parametrize(
    "section", [{}, {"name": "none"}, {"preset": "paper_vit", "name": "none"}, {"layer": None}]
)
def test_a_section_without_noise_gives_no_injection(section):
    assert noise.Injection.from_config(section) is None


def test_every_noise_from_a_section():
    build = noise.Injection.from_config
    assert build({"name": "gaussian", "std": 0.5}).noise == noise.Gaussian(std=0.5)
    assert build({"name": "salt_and_pepper", "probability": 0.1}).noise == noise.SaltAndPepper(0.1)
    shift = {"name": "linear_transform", "quality": "cyclic_shift", "strength": 0.2, "shift": 3}
    assert build(shift).noise == noise.LinearTransform(noise.CyclicShift(0.2, shift=3))
    matmul = {"name": "linear_transform", "quality": "optimal", "implementation": "matmul"}
    assert build(matmul).noise.implementation == "matmul"


def test_in_batches_of_groups_only_noises_that_mix_examples():
    grouped = noise.Injection(OPTIMAL).in_batches_of(10)
    assert grouped.noise == noise.LinearTransform(noise.Optimal(), group_size=10)
    five = noise.Injection(noise.LinearTransform(noise.Optimal(), group_size=5))
    assert five.in_batches_of(10) == five
    tokens = noise.Injection(noise.LinearTransform(noise.Optimal(), axis="tokens"))
    assert tokens.in_batches_of(10) == tokens
    salt = noise.Injection(noise.SaltAndPepper(0.1, extremes="batch")).in_batches_of(10)
    assert salt.noise.group_size == 10
    with pytest.raises(ValueError, match=r"noise\.group_size=5 does not divide the batch of 12"):
        five.in_batches_of(12)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"stength": 0.3}, "noise.stength: unknown key; did you mean 'strength'"),
        ({"preset": "paper_vti"}, "noise.preset='paper_vti'.*did you mean 'paper_vit'"),
        ({"name": "gausian"}, "noise.name='gausian'.*did you mean 'gaussian'"),
        ({"name": "linear_transform", "quality": "optimum"}, "quality='optimum'.*'optimal'"),
        ({"name": "linear_transform", "quality": "cyclic_shift"}, "strength is not set"),
        ({"name": "linear_transform", "quality": "reverse"}, "not set: reverse needs one"),
        ({"name": "salt_and_pepper"}, "probability is not set"),
        ({"name": "salt_and_pepper", "probability": 1.5}, r"probability=1.5: .*\[0, 1\]"),
        ({"name": "gaussian", "quality": "optimal"}, "quality='optimal' is set, but gaussian"),
        ({"preset": "paper_vit", "quality": "optimal", "shift": 2}, "noise.shift=2 is set"),
        ({"strength": 0.3}, "noise.strength=0.3 is set, but there is no noise"),
        ({"preset": "paper_vit", "axis": "views"}, "noise.axis='views'.*group_size"),
        ({"preset": "paper_vit", "layer": "0"}, "noise.layer=0"),
        ({"preset": "paper_vit", "layer": "lst"}, "layer='lst': give a number from 1"),
        ({"preset": "paper_vit", "point": "mlp"}, "point='mlp': choose one of 'block_input'"),
        ({"preset": "paper_vit", "tokens": "class"}, "tokens='class'"),
        (
            {"name": "gaussian", "strength": 0.1, "options": {"strength": 0.9}},
            r"noise.options={'strength': 0.9} is set, but gaussian does not use it; set it",
        ),
        ({"preset": "paper_vit", "options": {"shift": -1}}, "linear_transform does not use it"),
        (
            {"name": "gaussian", "point": "image", "layer": "7"},
            "noise.layer='7' is set, but point='image' does not use it; set it to None",
        ),
        (
            {"name": "gaussian", "point": "image", "tokens": "patch"},
            "noise.tokens='patch' is set, but point='image' does not use it",
        ),
        (
            {"name": "gaussian", "train": False, "stop_gradient": True},
            "noise.stop_gradient=True is set, but noise with train=False does not use it",
        ),
    ],
)
def test_a_bad_field_of_a_section_is_named(section, message):
    with pytest.raises(ValueError, match=message):
        noise.Injection.from_config(section)


def test_validate_names_what_the_model_has():
    with pytest.raises(ValueError, match="no layer 13; its layers are 1 to 12"):
        noise.Injection(OPTIMAL, layer=13).validate(num_layers=12, points=POINTS)
    with pytest.raises(ValueError, match=r"'attention_input'.*it has 'image', 'block_input'"):
        noise.Injection(OPTIMAL, point="attention_input").validate(
            num_layers=8, points=("image", "block_input")
        )
    noise.Injection(OPTIMAL, layer=(1, 12)).validate(num_layers=12, points=POINTS)


def test_a_bad_train_or_noise_is_refused():
    with pytest.raises(ValueError, match="train='no'"):
        noise.Injection(OPTIMAL, train="no")
    with pytest.raises(ValueError, match="give a noise"):
        noise.Injection("gaussian")
