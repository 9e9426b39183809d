"""Files of weights for tests: the golden files' arrays, in the formats that users have."""

import functools
import pathlib

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from pnoise_jax import models, weights

GOLDEN = pathlib.Path(__file__).parent / "golden"
TIMM = pathlib.Path(__file__).parents[1] / "models" / "golden"


def arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an npz."""
    with np.load(file, allow_pickle=False) as golden:
        return dict(golden)


def timm_state(name: str) -> dict[str, np.ndarray]:
    """timm's state dict from a golden file, with counters like timm's own."""
    golden = arrays(TIMM / f"{name}.npz")
    state = {k.removeprefix("state/"): x for k, x in golden.items() if k.startswith("state/")}
    norms = [k.removesuffix("running_mean") for k in state if k.endswith("running_mean")]
    return state | {f"{norm}num_batches_tracked": np.array(5) for norm in norms}


def save_timm(file: pathlib.Path, name: str, **changed: np.ndarray | None) -> pathlib.Path:
    """A golden file's weights as timm saves them; arrays added or, as None, left out."""
    state = timm_state(name) | changed
    save_file({k: np.asarray(x, order="C") for k, x in state.items() if x is not None}, file)
    return file


def vit(num_classes: int = 7, image_size: int | tuple[int, int] = 32, **options) -> nn.Module:
    """The model of vit_token.npz, or a variant of it."""
    defaults = {"patch_size": 8, "dim": 36, "depth": 3, "num_heads": 3, "mlp_dim": 72}
    return models.create_model(
        "vit_ti_16", num_classes=num_classes, image_size=image_size, **defaults | options
    )


def resnet(num_classes: int = 7) -> nn.Module:
    """The model of resnet_basic.npz."""
    return models.create_model("resnet18", num_classes=num_classes, stage_sizes=(2, 1, 1), width=6)


@functools.lru_cache
def shapes(model: nn.Module, *image_shape: int) -> dict:
    """The shapes of the model's variables."""
    image_shape = image_shape or (*model.image_shape, 3)
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def read(file: pathlib.Path, model: nn.Module, *image_shape: int, **options) -> dict:
    """The variables in a file that has all of them."""
    matched = weights.match(file, model, shapes(model, *image_shape), **options)
    return traverse_util.unflatten_dict(dict(matched.read()), sep="/")


def save_random_vit(
    file: pathlib.Path, *, dim: int, depth: int, patch_size: int, grid: int
) -> None:
    """A ViT of one channel and ten classes with random weights, in timm's names."""
    rng = np.random.default_rng(0)
    weight_shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid * grid, dim),
        "patch_embed.proj.weight": (dim, 1, patch_size, patch_size),
        "head.weight": (10, dim),
    }
    for block in range(depth):
        weight_shapes |= {
            f"blocks.{block}.attn.qkv.weight": (3 * dim, dim),
            f"blocks.{block}.attn.proj.weight": (dim, dim),
            f"blocks.{block}.mlp.fc1.weight": (4 * dim, dim),
            f"blocks.{block}.mlp.fc2.weight": (dim, 4 * dim),
        }
    biases = {
        name.replace("weight", "bias"): shape[:1]
        for name, shape in weight_shapes.items()
        if name.endswith("weight")
    }
    norms = ["norm", *(f"blocks.{block}.norm{n}" for block in range(depth) for n in (1, 2))]
    biases |= {f"{norm}.bias": (dim,) for norm in norms}
    state = {name: rng.normal(0, 0.1, shape) for name, shape in (weight_shapes | biases).items()}
    state |= {f"{norm}.weight": rng.uniform(0.5, 1.5, dim) for norm in norms}
    save_file({name: x.astype(np.float32) for name, x in state.items()}, file)
