"""Writes golden/*.npz: tiny timm models with random weights, an input, and what timm computes.

Run by hand, in an environment with PyTorch and timm (last run: torch 2.13, timm 1.0.31)::

    python tests/models/make_golden.py

Each file holds timm's state dict under "state/", "images" (batch, height, width, channels) and
"logits" (batch, classes); for models with batch norms also the results of one forward pass in
training mode: "train_logits", the new running statistics under "train_state/", and under
"train_count/" how many values each batch norm averaged.

The weights are drawn so that every parameter and every constant matters: no norm is the identity,
no bias is zero, and the inputs of norms are so small that the epsilon shows in the logits.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from timm.layers import LayerNorm, RmsNorm
from timm.models.beit import Beit
from timm.models.convit import ConVit
from timm.models.davit import DaVit
from timm.models.deit import VisionTransformerDistilled
from timm.models.maxxvit import MaxxVit, model_cfgs
from timm.models.resnet import BasicBlock, Bottleneck, ResNet, downsample_conv
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import nn

GOLDEN = Path(__file__).parent / "golden"
BATCH = 4
NUM_CLASSES = 7


@torch.no_grad()
def perturb(model: nn.Module) -> None:
    """Draws every parameter and running statistic anew, norms and biases included."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d, RmsNorm)):
            module.weight.uniform_(0.5, 1.5)
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
            module.bias.normal_(std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.01)
            module.running_var.uniform_(1e-4, 3e-4)
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=1.5 * module.in_features**-0.5)
            if module.bias is not None:
                module.bias.normal_(std=0.2)
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(std=0.01 * fan_in**-0.5)
            if module.bias is not None:
                module.bias.normal_(std=0.01)
        # The last layer of a transformer's residual branch: it keeps the stream small.
        if name.endswith((".attn.proj", ".mlp.fc2", "_out_proj", "attn_pool.proj")):
            module.weight.mul_(0.005)
            module.bias.mul_(0.005)
        # The start of Swin's and DaViT's residual streams, likewise.
        if name.endswith(("patch_embed.norm", "downsample.reduction", "stem.norm")):
            for parameter in module.parameters():
                parameter.mul_(0.005)
    for name, parameter in model.named_parameters():
        if name in ("cls_token", "dist_token", "reg_token", "pos_embed"):
            parameter.normal_(std=0.005)
        if name.endswith((".q_bias", ".v_bias", ".mlp_bias", ".latent")):
            parameter.normal_(std=0.2)
        if name.endswith("relative_position_bias_table"):
            parameter.normal_()
        if name.endswith((".gamma_1", ".gamma_2", ".ls1.gamma", ".ls2.gamma")):
            parameter.uniform_(0.5, 1.5)
        if name.endswith(".gating_param"):
            parameter.normal_()
        if name.endswith(".logit_scale"):  # some above log(100), where it is clipped
            parameter.uniform_(2.0, 6.0)
    if isinstance(model, SwinTransformerV2):
        perturb_post_norms(model)


@torch.no_grad()
def perturb_post_norms(model: nn.Module) -> None:
    """Keeps the residual stream small in a model whose branches end with norms."""
    for name, module in model.named_modules():
        if name.endswith((".norm1", ".norm2", "downsample.norm")):
            module.weight.mul_(0.005)
            module.bias.mul_(0.005)
        if name.endswith((".qkv", ".fc1")):
            module.weight.mul_(200)


def vit(**options: object) -> nn.Module:
    """A Vision Transformer with patches of 8 pixels and MLPs twice as wide as its tokens."""
    return VisionTransformer(patch_size=8, mlp_ratio=2, num_classes=NUM_CLASSES, **options)


def deit(**options: object) -> nn.Module:
    """A distilled DeiT with patches and MLPs as in `vit`."""
    return VisionTransformerDistilled(patch_size=8, mlp_ratio=2, num_classes=NUM_CLASSES, **options)


def parallel_vit(**options: object) -> nn.Module:
    """A ViT with parallel blocks, patches of 7 pixels and `vit`'s MLPs."""
    blocks = {"block_fn": ParallelScalingBlock, "norm_layer": RmsNorm, "qk_norm": True}
    head = {"class_token": False, "global_pool": "map", "qkv_bias": False}
    return VisionTransformer(
        patch_size=7, mlp_ratio=2, num_classes=NUM_CLASSES, **blocks, **head, **options
    )


def beit(**options: object) -> nn.Module:
    """A BEiT with `vit`'s patches and MLPs."""
    positions = {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}
    return Beit(patch_size=8, mlp_ratio=2, num_classes=NUM_CLASSES, **positions, **options)


def swin(**options: object) -> nn.Module:
    """A Swin Transformer with windows of 4 x 4 patches."""
    return SwinTransformer(window_size=4, embed_dim=8, num_classes=NUM_CLASSES, **options)


def swin_v2(**options: object) -> nn.Module:
    """A Swin V2 with windows of 4 x 4 patches."""
    return SwinTransformerV2(window_size=4, embed_dim=8, num_classes=NUM_CLASSES, **options)


def convit(**options: object) -> nn.Module:
    """A ConViT with `vit`'s patches and MLPs, and 9 features per head."""
    return ConVit(patch_size=8, mlp_ratio=2, embed_dim=9, num_classes=NUM_CLASSES, **options)


def davit(**options: object) -> nn.Module:
    """A DaViT with windows of 3 x 3 tokens."""
    return DaVit(window_size=3, num_classes=NUM_CLASSES, **options)


def maxvit(**options: object) -> nn.Module:
    """A MaxViT with TensorFlow's settings and heads of 4 features."""
    cfg = model_cfgs["maxvit_tiny_tf"]
    return MaxxVit(cfg, transformer_dim_head=4, num_classes=NUM_CLASSES, **options)


def resnet(block: type[nn.Module], *layers: int, width: int, small_stem: bool) -> nn.Module:
    """A ResNet of any width and depth: timm's have a stem of 64 channels and four stages."""
    channels = tuple(width * 2**stage for stage in range(len(layers)))
    model = ResNet(block, layers, num_classes=NUM_CLASSES, channels=channels)
    if small_stem:
        model.conv1 = nn.Conv2d(3, width, 3, stride=1, padding=1, bias=False)
        model.maxpool = nn.Identity()
    else:
        model.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(width)
    out = width * block.expansion
    downsample = downsample_conv(width, out, 1) if out != width else None
    model.layer1[0] = block(width, width, downsample=downsample)
    for stage in range(len(layers) + 1, 5):
        model.add_module(f"layer{stage}", nn.Identity())
    return model


def arrays(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, np.ndarray]:
    """The tensors as arrays under `prefix`, without the batch norms' step counters."""
    return {
        prefix + name: tensor.detach().numpy().copy()
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


@torch.no_grad()
def training_step(model: nn.Module, images: torch.Tensor) -> dict[str, np.ndarray]:
    """The results of one forward pass in training mode."""
    counts = {}

    def count(name: str):
        def hook(module, inputs, output):
            counts[f"train_count/{name}"] = np.array(inputs[0].numel() // inputs[0].shape[1])

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(count(name))
    logits = model.train()(images)
    running = {name: x for name, x in model.state_dict().items() if "running_" in name}
    return {"train_logits": logits.numpy(), **arrays(running, "train_state/"), **counts}


@torch.no_grad()
def write(
    name: str, model: nn.Module, *, height: int = 32, width: int = 32, batch: int = BATCH
) -> None:
    """Writes one file."""
    perturb(model)
    images = torch.randn(batch, 3, height, width)
    golden = arrays(model.state_dict(), "state/")
    golden["images"] = images.permute(0, 2, 3, 1).numpy()
    golden["logits"] = model.eval()(images).numpy()
    if isinstance(model, (ResNet, MaxxVit)):
        golden |= training_step(model, images)
    np.savez_compressed(GOLDEN / f"{name}.npz", **golden)
    print(f"{name}: logits of size {np.abs(golden['logits']).mean():.3f}")


def main() -> None:
    torch.manual_seed(0)
    GOLDEN.mkdir(exist_ok=True)
    mean = {"global_pool": "avg", "fc_norm": False, "embed_dim": 24, "depth": 2, "num_heads": 2}
    write("vit_token", vit(img_size=32, embed_dim=36, depth=3, num_heads=3))
    write("vit_mean", vit(img_size=(32, 16), **mean), width=16)
    write("vit_no_class_token", vit(img_size=32, class_token=False, **mean))
    write("resnet_basic", resnet(BasicBlock, 2, 1, 1, width=6, small_stem=False))
    write("resnet_bottleneck", resnet(Bottleneck, 1, 2, width=8, small_stem=False))
    write("resnet_small_stem", resnet(BasicBlock, 1, 1, width=8, small_stem=True))
    write_deit_and_beit()
    write_swin_and_convit()
    write_davit()
    write_maxvit()
    write_parallel_vit()
    write_registers()
    write_swin_v2()
    write_pre_norm()


def write_deit_and_beit() -> None:
    torch.manual_seed(1)
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    write("deit_distilled", deit(img_size=32, **small))
    write("beit", beit(img_size=32, **small))


def write_swin_and_convit() -> None:
    torch.manual_seed(2)
    write("swin", swin(img_size=32, patch_size=2, depths=(2, 2, 1), num_heads=(2, 4, 8)))
    # 11 x 6 tokens, which are padded for windows and for merging.
    padded = swin(img_size=(44, 24), patch_size=4, depths=(2, 2), num_heads=(2, 4))
    write("swin_padded", padded, height=44, width=24)
    write("convit", convit(img_size=32, depth=3, num_heads=4, local_up_to_layer=2))


def write_davit() -> None:
    torch.manual_seed(3)
    # 11 x 5 and 6 x 3 tokens, which are padded for the stem, for windows and for halving.
    model = davit(embed_dims=(8, 16), depths=(1, 2), num_heads=(2, 4))
    write("davit", model, height=42, width=20)


def write_maxvit() -> None:
    torch.manual_seed(4)
    sizes = {"embed_dim": (8, 16), "depths": (2, 1), "block_type": ("M", "M"), "stem_width": 8}
    # Windows of 2 x 3 tokens. The first shortcut has no convolution.
    model = maxvit(img_size=(64, 96), head_hidden_size=16, **sizes)
    write("maxvit", model, height=64, width=96, batch=2)


def write_parallel_vit() -> None:
    torch.manual_seed(5)
    model = parallel_vit(img_size=(28, 21), embed_dim=24, depth=2, num_heads=2)
    write("parallel_vit", model, height=28, width=21)


def write_registers() -> None:
    torch.manual_seed(6)
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1e-5}
    reg_gap = {"class_token": False, "no_embed_class": True, "global_pool": "avg"}
    model = vit(img_size=(32, 24), reg_tokens=2, **reg_gap, **small)
    write("vit_registers", model, width=24)
    write("vit_all_tokens", vit(img_size=32, reg_tokens=3, **small))


def write_pre_norm() -> None:
    torch.manual_seed(8)
    options = {"pre_norm": True, "qkv_bias": False, "norm_layer": partial(LayerNorm, eps=1e-5)}
    model = vit(img_size=32, embed_dim=24, depth=2, num_heads=2, **options)
    write("vit_pre_norm", model)


def write_swin_v2() -> None:
    torch.manual_seed(7)
    write("swinv2", swin_v2(img_size=32, patch_size=2, depths=(2, 2, 1), num_heads=(2, 4, 8)))
    # 11 x 6 tokens, as in swin_padded.
    sizes = {"patch_size": 4, "depths": (2, 2), "num_heads": (2, 4)}
    padded = swin_v2(img_size=(44, 24), pretrained_window_sizes=(3, 0), **sizes)
    write("swinv2_padded", padded, height=44, width=24)


if __name__ == "__main__":
    main()
