"""Makes golden/tvt.npz with PyTorch: the terms of TVT and their gradients, from the formulas.

Independent of this package: ``python tests/adaptation/make_golden.py`` in an environment with
PyTorch. One block of a ViT, no dropout, everything in float64.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional

DIM, HEADS, CLASSES, PATCH, SIDE, BATCH = 8, 2, 4, 4, 8, 3
WEIGHTS = {"domain": 0.7, "patch": 0.3, "information": 0.2}
COEFFICIENT = {"features": 0.4, "keys": 0.6}


class Reverse(torch.autograd.Function):
    """The identity, with minus a coefficient times the gradient."""

    @staticmethod
    def forward(context, x, coefficient):
        context.coefficient = coefficient
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return -context.coefficient * gradient, None


def shapes():
    """Of the parameters, by their paths in this package."""
    tokens = 1 + (SIDE // PATCH) ** 2
    dense = {
        "patch_embed": (PATCH, PATCH, 1, DIM),
        "block_1/attn/qkv": (DIM, 3 * DIM),
        "block_1/attn/proj": (DIM, DIM),
        "block_1/mlp/fc1": (DIM, 2 * DIM),
        "block_1/mlp/fc2": (2 * DIM, DIM),
        "head": (DIM, CLASSES),
        "task/global/hidden_1": (DIM, 5),
        "task/global/hidden_2": (5, 5),
        "task/global/out": (5, 1),
    }
    gate = "block_1/attn/key_gate/discriminator"
    dense |= {f"{gate}/hidden_{n}": (DIM // HEADS, DIM // HEADS) for n in (1, 2)}
    dense[f"{gate}/out"] = (DIM // HEADS, 1)
    found = {f"{name}/kernel": shape for name, shape in dense.items()}
    found |= {f"{name}/bias": shape[-1:] for name, shape in dense.items()}
    for norm in ("block_1/norm1", "block_1/norm2", "norm"):
        found |= {f"{norm}/scale": (DIM,), f"{norm}/bias": (DIM,)}
    return found | {"cls_token": (1, 1, DIM), "pos_embed": (1, tokens, DIM)}


def discriminate(p, name, x):
    for layer in ("hidden_1", "hidden_2"):
        x = torch.relu(x @ p[f"{name}/{layer}/kernel"] + p[f"{name}/{layer}/bias"])
    return (x @ p[f"{name}/out/kernel"] + p[f"{name}/out/bias"])[..., 0]


def norm(p, name, x):
    return functional.layer_norm(x, (DIM,), p[f"{name}/scale"], p[f"{name}/bias"], 1e-6)


def run(p, images):
    """Features (batch, dim) and the patch logits (batch, patches, heads)."""
    kernel = p["patch_embed/kernel"].permute(3, 2, 0, 1)
    x = functional.conv2d(images.permute(0, 3, 1, 2), kernel, p["patch_embed/bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([p["cls_token"].expand(len(x), 1, DIM), x], dim=1) + p["pos_embed"]
    h = norm(p, "block_1/norm1", x)
    qkv = h @ p["block_1/attn/qkv/kernel"] + p["block_1/attn/qkv/bias"]
    q, k, v = qkv.reshape(*x.shape[:2], 3, HEADS, DIM // HEADS).unbind(2)
    keys = Reverse.apply(k[:, 1:], COEFFICIENT["keys"])
    logits = discriminate(p, "block_1/attn/key_gate/discriminator", keys)
    probability = torch.sigmoid(logits)
    entropy = -(
        probability * torch.log2(probability) + (1 - probability) * torch.log2(1 - probability)
    )
    weights = torch.einsum("bthd,bshd->bhts", q, k) / (DIM // HEADS) ** 0.5
    weights = weights.softmax(-1)
    gate = torch.cat([torch.ones(len(x), HEADS, 1), entropy.transpose(1, 2)], dim=2)
    weights = torch.cat([weights[:, :, :1] * gate[:, :, None], weights[:, :, 1:]], dim=2)
    h = torch.einsum("bhts,bshd->bthd", weights, v).reshape(x.shape)
    x = x + h @ p["block_1/attn/proj/kernel"] + p["block_1/attn/proj/bias"]
    h = norm(p, "block_1/norm2", x) @ p["block_1/mlp/fc1/kernel"] + p["block_1/mlp/fc1/bias"]
    x = x + functional.gelu(h) @ p["block_1/mlp/fc2/kernel"] + p["block_1/mlp/fc2/bias"]
    return norm(p, "norm", x)[:, 0], logits


def terms(p, source, target, labels):
    """The four terms of the loss."""
    (source, source_patches), (target, target_patches) = run(p, source), run(p, target)

    def classify(x):
        return x @ p["head/kernel"] + p["head/bias"]

    both = Reverse.apply(torch.cat([source, target]), COEFFICIENT["features"])
    domains = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)])
    logits = discriminate(p, "task/global", both)
    binary = functional.binary_cross_entropy_with_logits
    patches = [
        binary(source_patches, torch.ones_like(source_patches)),
        binary(target_patches, torch.zeros_like(target_patches)),
    ]
    predicted = classify(target).softmax(-1)
    mean = predicted.mean(0)
    mean_entropy = -(predicted * predicted.log2()).sum(-1).mean()
    return {
        "class": functional.cross_entropy(classify(source), labels),
        "domain": binary(logits, domains),
        "patch": sum(patches) / 2,
        "information": mean_entropy + (mean * mean.log2()).sum(),
    }


def main():
    torch.set_default_dtype(torch.float64)
    generator = np.random.default_rng(0)
    params = {name: 0.5 * generator.normal(size=shape) for name, shape in shapes().items()}
    images = generator.integers(0, 256, (2, BATCH, SIDE, SIDE, 1), np.uint8)
    labels = generator.integers(0, CLASSES, BATCH)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    source, target = (torch.tensor((x / 255 - 0.5) / 0.5) for x in images)
    found = terms(p, source, target, torch.tensor(labels))
    total = found["class"] + sum(weight * found[name] for name, weight in WEIGHTS.items())
    total.backward()
    arrays = {"images": images, "labels": labels.astype(np.int32)}
    arrays |= {f"term/{name}": value.detach().numpy() for name, value in found.items()}
    arrays |= {f"param/{name}": value.astype(np.float32) for name, value in params.items()}
    arrays |= {
        f"gradient/{name}": value.grad.numpy().astype(np.float32) for name, value in p.items()
    }
    np.savez_compressed(pathlib.Path(__file__).parent / "golden" / "tvt.npz", **arrays)


if __name__ == "__main__":
    main()
