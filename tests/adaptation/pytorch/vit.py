"""A small ViT from its formulas, and what the methods share; parameters by this package's paths."""

import numpy as np
import torch
from torch.nn import functional

DIM, HEADS, CLASSES, PATCH, SIDE = 8, 2, 4, 4, 8


class Reverse(torch.autograd.Function):
    """The identity, whose gradient is multiplied by minus a coefficient."""

    @staticmethod
    def forward(context, x, coefficient):
        context.coefficient = coefficient
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return -context.coefficient * gradient, None


def dense_shapes(dense):
    """Shapes of kernels and biases from those of kernels."""
    kernels = {f"{name}/kernel": shape for name, shape in dense.items()}
    return kernels | {f"{name}/bias": shape[-1:] for name, shape in dense.items()}


def shapes(depth, **more):
    """Shapes of a ViT's parameters without its head, and of `more` dense layers, by path."""
    layers = {"patch_embed": (PATCH, PATCH, 1, DIM)}
    for block in range(1, depth + 1):
        layers |= {
            f"block_{block}/attn/qkv": (DIM, 3 * DIM),
            f"block_{block}/attn/proj": (DIM, DIM),
            f"block_{block}/mlp/fc1": (DIM, 2 * DIM),
            f"block_{block}/mlp/fc2": (2 * DIM, DIM),
        }
    sizes = dense_shapes(layers | more)
    norms = [f"block_{block}/norm{n}" for block in range(1, depth + 1) for n in (1, 2)]
    for norm_name in (*norms, "norm"):
        sizes |= {f"{norm_name}/scale": (DIM,), f"{norm_name}/bias": (DIM,)}
    tokens = 1 + (SIDE // PATCH) ** 2
    return sizes | {"cls_token": (1, 1, DIM), "pos_embed": (1, tokens, DIM)}


def draw(generator, shapes, scale=0.5):
    """Normally distributed parameters."""
    return {name: scale * generator.normal(size=shape) for name, shape in shapes.items()}


def draw_images(generator, batch):
    """Images of source and target, (2, batch, side, side, 1) uint8."""
    return generator.integers(0, 256, (2, batch, SIDE, SIDE, 1), np.uint8)


def normalise(images):
    return torch.tensor((images / 255 - 0.5) / 0.5)


def dense(p, name, x):
    return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]


def norm(p, name, x):
    return functional.layer_norm(x, (DIM,), p[f"{name}/scale"], p[f"{name}/bias"], 1e-6)


def embed(p, images):
    """The tokens of images, the class token first."""
    kernel = p["patch_embed/kernel"].permute(3, 2, 0, 1)
    x = functional.conv2d(images.permute(0, 3, 1, 2), kernel, p["patch_embed/bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    return torch.cat([p["cls_token"].expand(len(x), 1, DIM), x], dim=1) + p["pos_embed"]


def project(p, block, x):
    """Queries, keys and values of a block's input, (batch, tokens, heads, dim / heads) each."""
    qkv = dense(p, f"block_{block}/attn/qkv", norm(p, f"block_{block}/norm1", x))
    return qkv.reshape(*x.shape[:2], 3, HEADS, DIM // HEADS).unbind(2)


def attention(q, k):
    """Softmaxed weights, (batch, heads, tokens, tokens)."""
    return (torch.einsum("bthd,bshd->bhts", q, k) / (DIM // HEADS) ** 0.5).softmax(-1)


def finish(p, block, x, weights, v):
    """A block's output from its input, its attention's weights and its values."""
    h = torch.einsum("bhts,bshd->bthd", weights, v).reshape(x.shape)
    x = x + dense(p, f"block_{block}/attn/proj", h)
    h = dense(p, f"block_{block}/mlp/fc1", norm(p, f"block_{block}/norm2", x))
    return x + dense(p, f"block_{block}/mlp/fc2", functional.gelu(h))


def run_block(p, block, x):
    q, k, v = project(p, block, x)
    return finish(p, block, x, attention(q, k), v)


def class_token(p, x):
    """The input of the head."""
    return norm(p, "norm", x)[:, 0]


def gradients(p, loss):
    """Gradients of a loss by path; zeros for parameters that it does not depend on."""
    computed = torch.autograd.grad(loss, list(p.values()), allow_unused=True)
    return {
        name: np.zeros(value.shape, np.float32)
        if gradient is None
        else gradient.numpy().astype(np.float32)
        for (name, value), gradient in zip(p.items(), computed, strict=True)
    }


def named(kind, arrays):
    """Arrays in float32 with the names kind/name."""
    return {f"{kind}/{name}": np.asarray(x, np.float32) for name, x in arrays.items()}
