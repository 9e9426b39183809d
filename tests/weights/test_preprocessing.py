"""Which images weights expect, and warnings where a config differs."""

import json
import math
import re

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pnoise_jax import data, training, weights
from pnoise_jax.training.evaluating import imported
from pnoise_jax.training.evaluating.imported import warn_of_preprocessing
from pnoise_jax.weights import preprocessing
from tests.training.runs import small_config
from tests.weights import sources

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def expected_by(file, **options):
    model = sources.vit(**options)
    return weights.match(file, model, sources.shapes(model)).preprocessing


@pytest.mark.parametrize(
    ("section", "transform"),
    [
        (
            {"interpolation": "bicubic", "crop_pct": 0.9},
            "resize_crop(0.9, interpolation='bicubic')",
        ),
        (
            {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},
            "resize_square(interpolation='bilinear')",
        ),
        (
            {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "squash"},
            "square_crop(0.875, interpolation='bicubic')",
        ),
        (  # timm resizes to 36, and square_crop(0.875) to 37
            {"interpolation": "bilinear", "crop_pct": 0.875, "crop_mode": "squash"}
            | {"input_size": [3, 32, 32]},
            "square_crop(32/36, interpolation='bilinear')",
        ),
        *(
            (
                {"interpolation": "bilinear", "crop_pct": share, "crop_mode": "squash"}
                | {"input_size": [3, side, side]},
                None,
            )
            for share, side in ((1.5, 32), (0, 32), (float("nan"), 32), ("large", 32), (0.0, 0))
        ),
        (
            {"interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "squash"}
            | {"input_size": [3, 10**400, -1]},
            "square_crop(0.9, interpolation='bilinear')",
        ),
        ({"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "border"}, None),
        ({"interpolation": "random", "crop_pct": 0.9}, None),
        *(
            ({"interpolation": "bicubic", "crop_pct": share}, None)
            for share in (1.5, 0, -1, float("nan"), None, "large")
        ),
    ],
)
def test_timms_config_beside_the_file(tmp_path, section, transform):
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": IMAGENET | section}))
    expected = expected_by(file)
    assert expected.mean == (0.485, 0.456, 0.406)
    assert expected.std == (0.229, 0.224, 0.225)
    assert expected.test_transform == transform
    assert expected.source == "config.json beside the file"


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ([0, 0, 0], [1, 1, 1]),
        ([0.0, 0.0, 0.0], [1 / 255, 1 / 255, 1 / 255]),
        ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        ([1], [1.0]),
    ],
)
def test_all_statistics_that_timm_uses_are_accepted(tmp_path, mean, std):
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    (tmp_path / "config.json").write_text(
        json.dumps({"pretrained_cfg": {"mean": mean, "std": std}})
    )
    expected = expected_by(file)
    assert (expected.mean, expected.std) == (tuple(mean), tuple(std))


@pytest.mark.parametrize(
    ("name", "values", "fix"),
    [
        ("mean", [123.675, 116.28, 103.53], r"they are .*mean=\(0.485, 0.456, 0.406\)"),
        ("std", [58.395, 57.12, 57.375], r"they are .*std=\(0.229, 0.224, 0.225\)"),
        ("std", [float("inf")] * 3, "finite"),
        ("mean", [float("nan")] * 3, "finite"),
    ],
)
def test_numbers_on_another_scale_are_refused(tmp_path, name, values, fix):
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    section = IMAGENET | {name: values}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": section}))
    with pytest.raises(ValueError, match=rf"config\.json beside the file: {name}=.*{fix}"):
        expected_by(file)


@pytest.mark.parametrize(
    "text", [None, "{", "[1]", '{"model_type": "vit"}', '{"pretrained_cfg": 3}']
)
def test_without_a_description_it_is_unknown(tmp_path, text):
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert expected_by(file) is None
    model = sources.vit()
    said = weights.match(file, model, sources.shapes(model)).describe_preprocessing()
    assert said.endswith("the weights expect are unknown: check data.*")


def test_metadata_take_precedence_over_config_json(tmp_path):
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    metadata = {"pretrained_cfg": json.dumps({"mean": [0.1], "std": [0.2]})}
    save_file(state, tmp_path / "file", metadata=metadata)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": IMAGENET}))
    assert expected_by(tmp_path / "file").describe() == (
        "the weights expect mean (0.1,), std (0.2,), test_transform unknown (the file's metadata)"
    )


def test_empty_metadata_hide_nothing(tmp_path):
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    save_file(state, tmp_path / "file", metadata={"pretrained_cfg": "{}"})
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": IMAGENET}))
    assert expected_by(tmp_path / "file").source == "config.json beside the file"


@pytest.mark.parametrize(
    ("transform", "theirs"),
    [
        ("resize_crop(0.9, interpolation='bicubic')", ("bicubic", 0.9, "center")),
        ("resize_crop(3/4)", ("bicubic", 0.75, "center")),
        ("resize_square(interpolation='bicubic')", ("bicubic", 1.0, "squash")),
        ("none", ("bilinear", 1.0, "squash")),
        ("square_crop(0.5)", ("bilinear", 0.5, "squash")),
        ("square_crop(interpolation='bicubic')", ("bicubic", 0.875, "squash")),
    ],
)
def test_transforms_in_timms_terms(transform, theirs):
    section = {"mean": (0.5,), "std": (0.25,), "test_transform": transform}
    names = ("interpolation", "crop_pct", "crop_mode")
    expected = {"mean": [0.5], "std": [0.25]} | dict(zip(names, theirs, strict=True))
    assert preprocessing.to_timm(section) == expected
    assert preprocessing.to_timm(section, size=(224, 224)) == expected


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.875, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("size", [(32, 32), (224, 224), (240, 240), (24, 36)])
def test_timm_resizes_to_the_same_square(ratio, size):
    """It rounds down, square_crop to the nearest."""
    section = {"mean": (0.5,), "std": (0.5,), "test_transform": f"square_crop({ratio})"}
    crop_pct = preprocessing.to_timm(section, size=size)["crop_pct"]
    assert crop_pct == pytest.approx(ratio, rel=0.02)
    assert [math.floor(x / crop_pct) for x in size] == [round(x / ratio) for x in size]


@pytest.mark.parametrize("ratio", [0.5, 0.875, 0.9, 1.0])
@pytest.mark.parametrize("name", ["square_crop", "resize_crop"])
def test_timm_makes_the_same_images(name, ratio):
    """For settings that we write and that we read; where timm is installed."""
    timm = pytest.importorskip("timm.data")
    pixels = np.random.default_rng(0).integers(0, 256, (47, 90, 3), np.uint8)

    def by_timm(crop_pct, **words):
        make = timm.create_transform(
            input_size=(3, 32, 32), crop_pct=crop_pct, mean=(0,) * 3, std=(1,) * 3, **words
        )
        return np.round(make(Image.fromarray(pixels)).numpy().transpose(1, 2, 0) * 255)

    def ours(text):
        statistics = {"mean": (0.5,), "std": (0.5,), "field": "data.test_transform"}
        return data.create_transform(text, size=(32, 32), train=False, **statistics)(pixels)

    section = {"mean": (0.5,), "std": (0.5,), "test_transform": f"{name}({ratio})"}
    words = preprocessing.to_timm(section, size=(32, 32))
    words = {key: words[key] for key in ("interpolation", "crop_pct", "crop_mode")}
    np.testing.assert_array_equal(by_timm(**words), ours(section["test_transform"]))
    stated = words | {"crop_pct": ratio, "input_size": [3, 32, 32]}
    read = preprocessing._from_timm(stated, "a file")
    np.testing.assert_array_equal(by_timm(**words | {"crop_pct": ratio}), ours(read.test_transform))


def test_a_mean_image_replaces_the_mean(tmp_path):
    section = {"mean": (0.5,), "mean_image": "/there/mean.npy", "std": (1.0,)}
    words = preprocessing.to_timm(section | {"test_transform": "none"})
    assert (words["mean_image"], words["std"]) == ("mean.npy", [1.0])
    assert "mean" not in words
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": words}))
    expected = expected_by(file)
    assert (expected.mean, expected.std, expected.mean_image) == (None, (1.0,), "mean.npy")
    assert expected.describe() == (
        "the weights expect mean image 'mean.npy' to be subtracted, std (1.0,), test_transform "
        "resize_square(interpolation='bilinear') (config.json beside the file)"
    )


def test_googles_vits_see_pixels_from_minus_one_to_one():
    expected = expected_by(sources.GOLDEN / "augreg.npz", dim=24, depth=2, mlp_dim=48)
    assert expected.mean == expected.std == (0.5, 0.5, 0.5)
    assert expected.test_transform is None


def test_warnings_where_the_config_differs(data_dir, tmp_path):
    """Named by field and value; nothing is changed."""
    file = tmp_path / "model.safetensors"
    sources.save_random_vit(file, dim=16, depth=1, patch_size=4, grid=2)

    def warnings(**changes):
        config = small_config(data_dir, weights=str(file), **changes)
        experiment = training.build(config)
        return warn_of_preprocessing(experiment, experiment.match_weights())

    assert warnings() == []  # nothing is known
    said = {"mean": [0.5], "std": [0.3], "interpolation": "bicubic", "crop_pct": 0.9}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": said}))
    transform = "resize_crop(0.9, interpolation='bicubic')"
    assert warnings() == [
        "the weights expect data.std=(0.3,), but it is (0.5,): set it",
        f"the weights expect data.test_transform={transform!r}, but it is 'none': set it, or "
        "expect other accuracies than published",
    ]
    # The same in other words, and to half a level of a pixel, 0.00196.
    assert warnings(**{"data.std": (0.3019,), "data.test_transform": transform}) == []
    (nearly,) = warnings(**{"data.std": (0.302,), "data.test_transform": "resize_crop(9/10)"})
    assert "data.std" in nearly


@pytest.mark.parametrize(
    ("theirs", "mean", "ours", "said"),
    [
        ("/there/mean.npy", None, "/here/mean.npy", None),
        ("mean.npy", None, None, r"expect data.mean_image='mean.npy', but data.mean_image is None"),
        (
            None,
            (0.5,),
            "mean.npy",
            r"expect data.mean=\(0.5,\) and no mean image, but data.mean_im",
        ),
        (None, None, "mean.npy", None),  # nothing is known
        (None, (0.5,), None, None),
    ],
)
def test_a_mean_image_on_only_one_side_gives_a_warning(theirs, mean, ours, said):
    expected = weights.Preprocessing(mean, (1.0,), None, "a file", theirs)
    section = ml_collections.ConfigDict({"mean_image": ours})
    warnings = imported._warn_of_mean_image(expected, section)
    assert bool(warnings) == (said is not None)
    if said is not None:
        assert re.search(said, warnings[0])


def test_load_returns_variables_for_apply(tmp_path):
    golden = sources.arrays(sources.TIMM / "vit_token.npz")
    file, model = sources.save_timm(tmp_path / "file", "vit_token"), sources.vit()
    variables = weights.load(file, model)
    assert variables["batch_stats"] == {}
    logits = jax.jit(model.apply)(variables, golden["images"])
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)


def test_load_of_a_resnet_and_of_a_fresh_head(tmp_path):
    """A ResNet takes any image size; the file determines the channels."""
    resnet = sources.resnet(num_classes=9)
    file = sources.save_timm(tmp_path / "file", "resnet_basic")
    with pytest.raises(ValueError, match="set weights_head='auto'"):
        weights.load(file, resnet)
    variables = weights.load(file, resnet, head="auto", key=jax.random.key(3))
    assert variables["params"]["head"]["kernel"].shape == (24, 9)
    assert (variables["params"]["head"]["kernel"] != 0).any()
    state = sources.timm_state("resnet_basic")
    np.testing.assert_array_equal(
        variables["batch_stats"]["bn1"]["mean"], state["bn1.running_mean"]
    )
