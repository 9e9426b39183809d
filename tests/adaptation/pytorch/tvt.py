"""TVT from its formulas: a ViT of one block with the discriminator of patches, and four terms."""

import numpy as np
import torch
from torch.nn import functional

from tests.adaptation.pytorch import vit
from tests.adaptation.pytorch.vit import CLASSES, DIM, HEADS, Reverse, dense

BATCH = 3
WEIGHTS = {"domain": 0.7, "patch": 0.3, "information": 0.2}
COEFFICIENT = {"features": 0.4, "keys": 0.6}
GATE = "block_1/attn/key_gate/discriminator"


def shapes():
    layers = {
        "head": (DIM, CLASSES),
        "task/global/hidden_1": (DIM, 5),
        "task/global/hidden_2": (5, 5),
        "task/global/out": (5, 1),
    }
    layers |= {f"{GATE}/hidden_{n}": (DIM // HEADS, DIM // HEADS) for n in (1, 2)}
    return vit.shapes(1, **layers | {f"{GATE}/out": (DIM // HEADS, 1)})


def discriminate(p, name, x):
    for layer in ("hidden_1", "hidden_2"):
        x = torch.relu(dense(p, f"{name}/{layer}", x))
    return dense(p, f"{name}/out", x)[..., 0]


def run(p, images):
    """Features (batch, dim) and the patch logits (batch, patches, heads)."""
    x = vit.embed(p, images)
    q, k, v = vit.project(p, 1, x)
    logits = discriminate(p, GATE, Reverse.apply(k[:, 1:], COEFFICIENT["keys"]))
    probability = torch.sigmoid(logits)
    entropy = -(
        probability * torch.log2(probability) + (1 - probability) * torch.log2(1 - probability)
    )
    weights = vit.attention(q, k)
    gate = torch.cat([torch.ones(len(x), HEADS, 1), entropy.transpose(1, 2)], dim=2)
    weights = torch.cat([weights[:, :, :1] * gate[:, :, None], weights[:, :, 1:]], dim=2)
    return vit.class_token(p, vit.finish(p, 1, x, weights, v)), logits


def terms(p, source, target, labels):
    """The four terms of the loss."""
    (source, source_patches), (target, target_patches) = run(p, source), run(p, target)
    both = Reverse.apply(torch.cat([source, target]), COEFFICIENT["features"])
    domains = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)])
    logits = discriminate(p, "task/global", both)
    binary = functional.binary_cross_entropy_with_logits
    patches = [
        binary(source_patches, torch.ones_like(source_patches)),
        binary(target_patches, torch.zeros_like(target_patches)),
    ]
    predicted = dense(p, "head", target).softmax(-1)
    mean = predicted.mean(0)
    mean_entropy = -(predicted * predicted.log2()).sum(-1).mean()
    return {
        "class": functional.cross_entropy(dense(p, "head", source), labels),
        "domain": binary(logits, domains),
        "patch": sum(patches) / 2,
        "information": mean_entropy + (mean * mean.log2()).sum(),
    }


def compute():
    """The arrays of the golden file."""
    generator = np.random.default_rng(0)
    params = vit.draw(generator, shapes())
    images = vit.draw_images(generator, BATCH)
    labels = generator.integers(0, CLASSES, BATCH)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    losses = terms(p, *map(vit.normalise, images), torch.tensor(labels))
    total = losses["class"] + sum(weight * losses[name] for name, weight in WEIGHTS.items())
    arrays = {"images": images, "labels": labels.astype(np.int32)}
    arrays |= vit.named("term", {name: value.detach() for name, value in losses.items()})
    return arrays | vit.named("param", params) | vit.named("gradient", vit.gradients(p, total))
