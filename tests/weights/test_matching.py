"""Which arrays fit a model: heads, positions, and errors that say which do not."""

import errno
import json
import pathlib

import numpy as np
import pytest

from pnoise_jax import models, weights
from tests.models import test_golden as timm
from tests.weights import sources


def match(file, model, *image_shape, **options):
    return weights.match(file, model, sources.shapes(model, *image_shape), **options)


@pytest.fixture(scope="module")
def timm_vit(tmp_path_factory):
    return sources.save_timm(tmp_path_factory.mktemp("weights") / "vit", "vit_token")


@pytest.mark.parametrize(
    ("classes", "head", "kept"),
    [(7, "auto", True), (7, "keep", True), (7, "fresh", False), (9, "auto", False)],
)
def test_the_head(timm_vit, classes, head, kept):
    matched = match(timm_vit, sources.vit(classes), head=head)
    paths = {path for path, _ in matched.read()}
    assert {path for path in paths if "head" in path} == (
        {"params/head/kernel", "params/head/bias"} if kept else set()
    )
    assert len(paths) == (44 if kept else 42)
    said = "head kept (7 classes)" if kept else f"head fresh (7 → {classes} classes)"
    assert matched.describe() == (
        f"weights: {len(paths)} of 44 arrays from {timm_vit} (safetensors); timm's ViT; {said}"
    )


def test_a_head_to_keep_must_fit(timm_vit, tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            r"2 of another shape: head\.bias \(7,\), where params/head/bias is \(9,\), "
            r"head\.weight \(7, 36\), .*\n  The file has a head of 7 classes, and the model is for "
            r"9: to train, set weights_head='auto' .*; to evaluate, use data with .*$"
        ),
    ) as error:
        match(timm_vit, sources.vit(9), head="keep")
    assert "looks like" not in str(error.value)
    headless = {"head.weight": None, "head.bias": None}
    file = sources.save_timm(tmp_path / "file", "vit_token", **headless)
    with pytest.raises(
        ValueError, match=r"2 missing: .*\n  The file has no head, and the model is"
    ):
        match(file, sources.vit(), head="keep")
    assert (
        "head fresh (none in the file → 7 classes)"
        in match(file, sources.vit(), head="auto").describe()
    )
    with pytest.raises(ValueError, match=r"weights_head='zero': choose one of auto, keep, fresh"):
        match(file, sources.vit(), head="zero")


def test_positions_on_another_grid(timm_vit):
    matched = match(timm_vit, sources.vit(image_size=(48, 40)))
    assert matched.describe().endswith("position embedding 4×4 → 6×5")
    resized = dict(matched.read())["params/pos_embed"]
    original = sources.timm_state("vit_token")["pos_embed"]
    assert resized.shape == (1, 31, 36)
    np.testing.assert_array_equal(resized[:, 0], original[:, 0])  # the class token's


def test_a_class_token_without_a_position_gets_zero(tmp_path):
    """As in big_vision, and timm's no_embed_class."""
    state = sources.timm_state("vit_token")
    file = sources.save_timm(tmp_path / "file", "vit_token", pos_embed=state["pos_embed"][:, 1:])
    for side, grid in ((32, ""), (48, "position embedding 4×4 → 6×6; ")):
        matched = match(file, sources.vit(image_size=side))
        assert matched.describe().endswith(
            f"{grid}the class token has no position in the file: set to zero"
        )
    small = dict(match(file, sources.vit()).read())["params/pos_embed"]
    np.testing.assert_array_equal(small[:, 0], 0)
    np.testing.assert_array_equal(small[:, 1:], state["pos_embed"][:, 1:])


@pytest.mark.parametrize("name", ["vit_token", "convit"])  # whose class token has no position
def test_positions_are_read_as_a_square_even_if_their_number_fits(name, tmp_path):
    """4×4 and 2×8 are as many."""
    base, options = timm.MODELS[name]
    options = options | {"image_size": (16, 64)}
    model = models.create_model(base, num_classes=7, **options)
    matched = match(sources.save_timm(tmp_path / "file", name), model)
    assert matched.describe().endswith("position embedding 4×4 → 2×8")


def test_positions_without_a_square_grid_cannot_be_resized(tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token", pos_embed=np.ones((1, 7, 36), "f4"))
    as_they_are = match(file, sources.vit(image_size=(16, 24))).describe()
    assert as_they_are.endswith(
        "; 7 positions used unchanged, read as 1 + 2×3: the file does not say which"
    )
    with pytest.raises(ValueError, match="pos_embed has 7 positions, which is not a square grid"):
        match(file, sources.vit())


def save_with_sixteen_positions(file, **said):
    """16 positions may be 4×4 without the class token's, or 1 + 3×5."""
    x = sources.timm_state("vit_token")["pos_embed"][:, 1:]
    state = sources.timm_state("vit_token") | {"pos_embed": x}
    state = {name: np.ascontiguousarray(array) for name, array in state.items()}
    sources.save_file(state, file, metadata={"pnoise_jax.model": json.dumps(said)})
    return file


def test_positions_on_an_unknown_grid_are_used_with_a_note(tmp_path):
    file = save_with_sixteen_positions(tmp_path / "file")
    matched = match(file, sources.vit(image_size=(24, 40)))
    assert matched.describe().endswith(
        "; 16 positions used unchanged, read as 1 + 3×5, not as 4×4 without the class "
        "token's: the file does not say which"
    )


@pytest.mark.parametrize(
    ("stated", "model", "said"),
    [
        ([24, 40], (24, 40), "head kept (7 classes)"),
        ([24, 40], (40, 24), "head kept (7 classes); position embedding 3×5 → 5×3"),
        (
            [16, 64],
            (16, 64),
            "(7 classes); the class token has no position in the file: set to zero",
        ),
        # No grid has this number of positions: the guess stands.
        ([24, 56], 32, "(7 classes); the class token has no position in the file: set to zero"),
        ([8, 8], 32, "(7 classes); the class token has no position in the file: set to zero"),
        (["a", None], 32, "(7 classes); the class token has no position in the file: set to zero"),
    ],
)
def test_the_grid_that_a_file_states(tmp_path, stated, model, said):
    file = save_with_sixteen_positions(tmp_path / "file", image_size=stated)
    assert match(file, sources.vit(image_size=model)).describe().endswith(said)


@pytest.mark.parametrize("model", [{"class_token": False, "pooling": "mean"}, {"patch_size": 16}])
def test_another_model_is_named(timm_vit, model):
    with pytest.raises(ValueError, match=r"does not fit config\.model") as error:
        match(timm_vit, sources.vit(**model))
    assert "It looks like vit_b_8 with dim=36, depth=3, mlp_dim=72: set" in str(error.value)
    wrong = (
        "1 unexpected: cls_token"
        if "class_token" in model
        else "proj.weight (36, 3, 8, 8), here (8, 8"
    )
    assert wrong in str(error.value)


def test_missing_unexpected_and_misshapen_arrays_are_listed_together(tmp_path):
    changes = {
        "norm.bias": None,
        "attn_pool.latent": np.ones(36, "f4"),
        "blocks.1.mlp.fc1.weight": np.ones((70, 36), "f4"),
    }
    file = sources.save_timm(tmp_path / "file", "vit_token", **changes)
    with pytest.raises(
        ValueError,
        match=(
            r"file' does not fit config\.model:\n  The file's model has attention instead of .*\n"
            r"  1 missing: params/norm/bias \(36,\)\n"
            r"  1 unexpected: attn_pool\.latent \(36,\)\n  3 of another shape: "
            r"blocks\.1\.mlp\.fc1\.weight \(70, 36\), here \(36, 70\), where "
            r"params/block_2/mlp/fc1/kernel is \(36, 72\), head\.bias .* is \(36, 9\)$"
        ),
    ):
        match(file, sources.vit(9))


@pytest.mark.parametrize("head", ["keep", "auto"])
@pytest.mark.parametrize(
    ("half", "missing"), [("weight", r"kernel \(36, 7\)"), ("bias", r"bias \(7,\)")]
)
def test_half_a_head_is_no_head(tmp_path, half, missing, head):
    file = sources.save_timm(tmp_path / "file", "vit_token", **{f"head.{half}": None})
    with pytest.raises(ValueError, match=rf"model:\n  1 missing: params/head/{missing}$"):
        match(file, sources.vit(), head=head)
    assert "head fresh (7 → 9 classes)" in match(file, sources.vit(9), head="auto").describe()


@pytest.mark.parametrize("theirs", [True, False])
def test_a_class_token_is_not_inferred(timm_vit, tmp_path, theirs):
    file, model = timm_vit, sources.vit(class_token=False, pooling="mean")
    expected = "The file has a class token and the model has none: set model.class_token=True"
    if not theirs:
        file, model = (
            sources.save_timm(tmp_path / "file", "vit_token", cls_token=None),
            sources.vit(),
        )
        expected = "The file has no class token and the model has one: set model.class_token=False"
    with pytest.raises(ValueError, match=expected):
        match(file, model)


def test_the_most_similar_registered_model_is_suggested(tmp_path):
    small = sources.save_timm(tmp_path / "file", "resnet_basic")
    resnet34 = models.create_model("resnet34")
    with pytest.raises(ValueError, match=r"like resnet18 with stage_sizes=\(2, 1, 1\), width=6:"):
        match(small, resnet34, 32, 32, 3, head="auto")
    with pytest.raises(ValueError, match=r"It looks like resnet18 with stage_sizes"):
        match(small, sources.vit(), head="auto")  # of another family
    vit = {
        "patch_embed.proj.weight": np.ones((384, 3, 16, 16), "f4"),
        "pos_embed": np.ones((1, 197, 384), "f4"),
        "cls_token": np.ones((1, 1, 384), "f4"),
    } | {f"blocks.{block}.norm1.bias": np.ones(384, "f4") for block in range(12)}
    sources.save_file(vit, tmp_path / "vit")
    with pytest.raises(ValueError, match=r"It looks like vit_s_16: set config.model to it"):
        match(tmp_path / "vit", models.create_model("vit_ti_16"), head="auto")


def google(tmp_path, **changed):
    arrays = sources.arrays(sources.GOLDEN / "augreg.npz") | changed
    np.savez(tmp_path / "file.npz", **arrays)
    return tmp_path / "file.npz"


def test_the_number_of_heads_is_checked_where_the_file_tells_it(tmp_path):
    model = sources.vit(dim=24, depth=2, mlp_dim=48, num_heads=4)
    with pytest.raises(ValueError, match=r"has num_heads=3, the model 4: set model\.num_heads=3"):
        match(google(tmp_path), model)


def test_a_layer_before_the_head_goes_with_the_head(tmp_path):
    """As in the original ViTs, trained on ImageNet-21k."""
    layer = {"pre_logits/kernel": np.ones((24, 24), "f4"), "pre_logits/bias": np.ones(24, "f4")}
    file = google(tmp_path, **layer)
    options = {"dim": 24, "depth": 2, "mlp_dim": 48}
    assert "head fresh (7 → 9" in match(file, sources.vit(9, **options), head="auto").describe()
    message = r"2 unexpected: pre_logits/bias \(24,\), pre_.*\n.*set weights_head='fresh' to leave"
    with pytest.raises(ValueError, match=message):
        match(file, sources.vit(7, **options))


def test_a_head_of_imagenet_21k(tmp_path):
    head = {"head.weight": np.zeros((21843, 36), "f4"), "head.bias": np.zeros(21843, "f4")}
    file = sources.save_timm(tmp_path / "file", "vit_token", **head)
    with pytest.raises(ValueError, match=r"a head of 21843 classes, and the model is for 1000: to"):
        match(file, sources.vit(1000))
    matched = match(file, sources.vit(1000), head="auto")
    assert matched.describe().endswith("head fresh (21843 → 1000 classes)")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://host/vit.safetensors", "is not a path: download the file and give its path"),
        (
            "s3://bucket/vit.npz",
            "is not a path: .* or give an id of the Hugging Face hub as hf_hub",
        ),
        ("gs:/bucket/vit.npz", "is not a path: .* or an object as gs://BUCKET/NAME$"),
        ("timm/vit_tiny_patch16_224.augreg_in21k", "is not a path: .* as hf_hub:OWNER/NAME, or"),
    ],
)
def test_addresses_are_not_downloaded(path, said):
    with pytest.raises(ValueError, match=rf"weights='{path}' {said}"):
        match(path, sources.vit())


def test_a_folder_may_be_called_like_an_owner_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    sources.save_timm(tmp_path / "timm" / "vit.safetensors", "vit_token")
    match("timm/vit.safetensors", sources.vit())


def test_a_missing_file_error_tells_what_is_there(tmp_path):
    for name in ("vit_base.safetensors", "config.json"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"has vit_base\.safetensors$"):
        match(tmp_path / "vit_bse.safetensors", sources.vit())
    with pytest.raises(FileNotFoundError, match=r"has config\.json, vit_base\.safetensors$"):
        match(tmp_path / "x", sources.vit())
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*/none$"):
        match(tmp_path / "none" / "x", sources.vit())


def test_a_file_that_may_not_be_read_is_named(timm_vit, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", refuse)  # root may read anything
    with pytest.raises(
        OSError, match=rf"weights='{timm_vit}' cannot be read \(Permission denied\)"
    ):
        match(timm_vit, sources.vit())
    with pytest.raises(
        OSError, match=rf"weights='{timm_vit}' cannot be read \(Permission denied\): make it rea"
    ):
        weights.fingerprint(timm_vit)


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("encoder.layers.encoder_layer_0.ln_1.weight", "a ViT in torchvision's names"),
        (
            "vit.encoder.layer.0.attention.attention.key.bias",
            "a transformer in Hugging Face's names",
        ),
    ],
)
def test_common_naming_schemes_that_are_not_supported(tmp_path, name, whose):
    sources.save_file({name: np.ones(3, "f4")}, tmp_path / "file")
    with pytest.raises(
        ValueError, match=f"belong to {whose}, which are not supported: give weights of timm"
    ):
        match(tmp_path / "file", sources.vit())
