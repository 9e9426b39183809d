"""Writes golden/*: weights in Google's names, positions on other grids, and timm's results.

Run by hand, in an environment with PyTorch and timm (last run: torch 2.13, timm 1.0.31)::

    python tests/weights/make_golden.py

- augreg.npz, big_vision.npz: the same tiny ViT with random weights, in the names of AugReg's files
  and in those of big_vision's, whose blocks are stacked; google.npz: "images" (batch, height,
  width, channels) and timm's "logits" after `load_pretrained` of each, which must agree.
- resized.npz: "images" of 48 x 40 pixels and timm's "logits", with the weights of
  ../models/golden/vit_token.npz, which are for 32 x 32.
- positions.npz: "from" (1, 1 + 4 * 4, 3), and "to/<rows>x<columns>" by `resample_abs_pos_embed`;
  "bare/…" the same without a class token; "linear/…" bilinear, as timm does for an npz.
- deit_distilled_resized.npz, beit_resized.npz: as resized.npz, from the families' golden files.
- swin_resized.npz, convit_resized.npz: the same; Swin with windows of 6 x 6 tokens, and ConViT, for
  which timm has no filter, on 48 x 48 pixels with positions by `resample_abs_pos_embed`.
- vit_registers_resized.npz, vit_all_tokens_resized.npz: the same for ViTs with registers.
- maxvit_resized.npz: the same, on images of 96 x 64 pixels with weights for 64 x 96.
- relative_positions.npz: "from" (5 * 5 + 3, 2), a table for 3 x 3 tokens and three others, and
  "to/<rows>x<columns>" by `resize_rel_pos_bias_table`; "bare/…" the same without the others.
"""

from pathlib import Path

import numpy as np
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models import beit, maxxvit, swin_transformer
from timm.models.convit import ConVit
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

GOLDEN = Path(__file__).parent / "golden"
MODELS = Path(__file__).parents[1] / "models" / "golden"
DIM, DEPTH, HEADS, PATCH, SIDE, CLASSES = 24, 2, 3, 8, 32, 7


def augreg(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random arrays in AugReg's names; none is zero or one."""

    def draw(*shape: int) -> np.ndarray:
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 25
        return rng.normal(0, fan_in**-0.5, shape).astype(np.float32)

    def norm() -> dict[str, np.ndarray]:
        return {"scale": 1 + draw(DIM), "bias": draw(DIM)}

    def dense(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {"kernel": draw(*inputs, *outputs), "bias": draw(*outputs)}

    modules = {
        "embedding": dense((PATCH, PATCH, 3), (DIM,)),
        "Transformer/encoder_norm": norm(),
        "head": dense((DIM,), (CLASSES,)),
    }
    for block in range(DEPTH):
        prefix = f"Transformer/encoderblock_{block}"
        modules |= {f"{prefix}/LayerNorm_{number}": norm() for number in (0, 2)}
        modules[f"{prefix}/MlpBlock_3/Dense_0"] = dense((DIM,), (2 * DIM,))
        modules[f"{prefix}/MlpBlock_3/Dense_1"] = dense((2 * DIM,), (DIM,))
        attention = f"{prefix}/MultiHeadDotProductAttention_1"
        for name in ("query", "key", "value"):
            modules[f"{attention}/{name}"] = dense((DIM,), (HEADS, DIM // HEADS))
        modules[f"{attention}/out"] = dense((HEADS, DIM // HEADS), (DIM,))
    arrays = {
        f"{module}/{leaf}": x for module, leaves in modules.items() for leaf, x in leaves.items()
    }
    tokens = 1 + (SIDE // PATCH) ** 2
    positions = draw(1, tokens, DIM)
    return arrays | {"cls": draw(1, 1, DIM), "Transformer/posembed_input/pos_embedding": positions}


def big_vision(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same in the names of big_vision's scanned models."""
    renamed = {}
    for name, x in arrays.items():
        name = name.replace("Transformer/posembed_input/", "").replace("LayerNorm_2", "LayerNorm_1")
        name = name.replace("MlpBlock_3", "MlpBlock_0").replace("Attention_1/", "Attention_0/")
        renamed[f"params/{name}"] = x
    stacked = {}
    for name, x in renamed.items():
        if "encoderblock_0" in name:
            blocks = [renamed[name.replace("block_0", f"block_{i}")] for i in range(DEPTH)]
            stacked[name.replace("encoderblock_0", "encoderblock")] = np.stack(blocks)
        elif "encoderblock_" not in name:
            stacked[name] = x
    return stacked


def vit(**options: object) -> VisionTransformer:
    return VisionTransformer(patch_size=PATCH, mlp_ratio=2, num_classes=CLASSES, **options).eval()


@torch.no_grad()
def write_google(rng: np.random.Generator) -> None:
    arrays = augreg(rng)
    np.savez_compressed(GOLDEN / "augreg.npz", **arrays)
    np.savez_compressed(GOLDEN / "big_vision.npz", **big_vision(arrays))
    images = torch.randn(2, 3, SIDE, SIDE)
    logits = []
    for name in ("augreg", "big_vision"):
        model = vit(img_size=SIDE, embed_dim=DIM, depth=DEPTH, num_heads=HEADS)
        model.load_pretrained(str(GOLDEN / f"{name}.npz"))
        logits.append(model(images).numpy())
    np.testing.assert_array_equal(*logits)
    write("google", images, logits[0])


def timm_state(name: str) -> dict[str, torch.Tensor]:
    """The weights in a golden file of tests/models."""
    with np.load(MODELS / f"{name}.npz") as golden:
        return {
            name.removeprefix("state/"): torch.from_numpy(golden[name])
            for name in golden
            if name.startswith("state/")
        }


@torch.no_grad()
def write_resized() -> None:
    model = vit(img_size=(48, 40), embed_dim=36, depth=3, num_heads=3)
    model.load_state_dict(checkpoint_filter_fn(timm_state("vit_token"), model))
    images = torch.randn(2, 3, 48, 40)
    write("resized", images, model(images).numpy())


@torch.no_grad()
def write_resized_families() -> None:
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": PATCH, "mlp_ratio": 2}
    relative = {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}
    common = {"img_size": (48, 40), "num_classes": CLASSES, **sizes}
    for name, model, fit in (
        ("deit_distilled", VisionTransformerDistilled(**common), checkpoint_filter_fn),
        ("beit", beit.Beit(**common, **relative), beit.checkpoint_filter_fn),
    ):
        model.eval().load_state_dict(fit(timm_state(name), model))
        images = torch.randn(2, 3, 48, 40)
        write(f"{name}_resized", images, model(images).numpy())


@torch.no_grad()
def write_resized_swin() -> None:
    model = swin_transformer.SwinTransformer(
        img_size=(48, 40),
        patch_size=2,
        window_size=6,
        embed_dim=8,
        depths=(2, 2, 1),
        num_heads=(2, 4, 8),
        num_classes=CLASSES,
    )
    state = swin_transformer.checkpoint_filter_fn(timm_state("swin"), model)
    model.eval().load_state_dict(state)
    images = torch.randn(2, 3, 48, 40)
    write("swin_resized", images, model(images).numpy())


@torch.no_grad()
def write_resized_convit() -> None:
    sizes = {"embed_dim": 9, "depth": 3, "num_heads": 4, "patch_size": PATCH, "mlp_ratio": 2}
    model = ConVit(img_size=48, num_classes=CLASSES, local_up_to_layer=2, **sizes)
    state = timm_state("convit")
    positions = resample_abs_pos_embed(state["pos_embed"], [6, 6], num_prefix_tokens=0)
    model.eval().load_state_dict(state | {"pos_embed": positions})
    images = torch.randn(2, 3, 48, 48)
    write("convit_resized", images, model(images).numpy())


@torch.no_grad()
def write_resized_maxvit() -> None:
    sizes = {"embed_dim": (8, 16), "depths": (2, 1), "block_type": ("M", "M"), "stem_width": 8}
    model = maxxvit.MaxxVit(
        maxxvit.model_cfgs["maxvit_tiny_tf"],
        img_size=(96, 64),
        num_classes=CLASSES,
        transformer_dim_head=4,
        head_hidden_size=16,
        **sizes,
    )
    state = maxxvit.checkpoint_filter_fn(timm_state("maxvit"), model)
    model.eval().load_state_dict(state)
    images = torch.randn(1, 3, 96, 64)
    write("maxvit_resized", images, model(images).numpy())


def write_relative_positions() -> None:
    table = torch.randn(5 * 5 + 3, 2)
    golden = {"from": table.numpy()}
    for rows, columns in ((5, 5), (9, 4), (2, 2), (1, 7), (30, 30)):
        positions = (2 * rows - 1) * (2 * columns - 1)
        for kind, source, others in (("to", table, 3), ("bare", table[:-3], 0)):
            resized = resize_rel_pos_bias_table(source, (rows, columns), (positions + others, 2))
            golden[f"{kind}/{rows}x{columns}"] = resized.numpy()
    np.savez_compressed(GOLDEN / "relative_positions.npz", **golden)


def write(name: str, images: torch.Tensor, logits: np.ndarray) -> None:
    images = images.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(GOLDEN / f"{name}.npz", images=images, logits=logits)
    print(f"{name}: logits of size {np.abs(logits).mean():.3f}")


def write_positions() -> None:
    positions = torch.randn(1, 1 + 4 * 4, 3)
    golden = {"from": positions.numpy()}
    for rows, columns in ((6, 6), (2, 2), (3, 7), (1, 4)):
        grid = f"{rows}x{columns}"
        golden[f"to/{grid}"] = resample_abs_pos_embed(positions, [rows, columns]).numpy()
        bare = resample_abs_pos_embed(positions[:, 1:], [rows, columns], num_prefix_tokens=0)
        golden[f"bare/{grid}"] = bare.numpy()
        linear = {"interpolation": "bilinear", "antialias": False}  # as timm reads an npz
        linearly = resample_abs_pos_embed(positions, [rows, columns], **linear)
        golden[f"linear/{grid}"] = linearly.numpy()
    np.savez_compressed(GOLDEN / "positions.npz", **golden)


@torch.no_grad()
def write_resized_registers() -> None:
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1e-5}
    reg_gap = {"class_token": False, "no_embed_class": True, "global_pool": "avg"}
    for name, options in (
        ("vit_registers", {"reg_tokens": 2, **reg_gap}),
        ("vit_all_tokens", {"reg_tokens": 3}),
    ):
        model = vit(img_size=(48, 40), **small, **options)
        # timm's filter resizes only from squares: the grid of 4 x 3 is given here.
        state = timm_state(name)
        if name == "vit_registers":
            state["pos_embed"] = resample_abs_pos_embed(
                state["pos_embed"], (6, 5), old_size=(4, 3), num_prefix_tokens=0
            )
        model.load_state_dict(checkpoint_filter_fn(state, model))
        images = torch.randn(2, 3, 48, 40)
        write(f"{name}_resized", images, model(images).numpy())


def main() -> None:
    torch.manual_seed(0)
    GOLDEN.mkdir(exist_ok=True)
    write_google(np.random.default_rng(0))
    write_resized()
    write_positions()
    torch.manual_seed(1)
    write_resized_families()
    write_relative_positions()
    torch.manual_seed(2)
    write_resized_swin()
    write_resized_convit()
    torch.manual_seed(3)
    write_resized_maxvit()
    torch.manual_seed(4)
    write_resized_registers()


if __name__ == "__main__":
    main()
