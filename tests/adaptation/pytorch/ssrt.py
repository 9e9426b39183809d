"""SSRT from its formulas: the step after 500 of a ramp of 1000, for each layer and direction."""

import math

import numpy as np
import torch
from torch.nn import functional

from tests.adaptation.pytorch import vit
from tests.adaptation.pytorch.vit import CLASSES, DIM, Reverse, dense

BATCH, BOTTLENECK = 6, 5
STEP, PERIOD = 500, 1000
ALPHA, THRESHOLD = 0.3, 0.4
WEIGHTS = {"domain": 2.0, "self": 0.2}
PLACES = (0, 1, 2)  # the image, and the inputs of both blocks
DIRECTIONS = ("forward", "backward")
COEFFICIENT = 0.2 / (1 + math.exp(-STEP / 1000)) - 0.1
RAMP = math.sin(math.pi / 2 * STEP / PERIOD)


def shapes():
    layers = {"head/bottleneck": (DIM, BOTTLENECK)}
    for name, outputs in (("head/classifier", CLASSES), ("task/discriminator", 1)):
        layers |= {f"{name}/hidden": (BOTTLENECK, BOTTLENECK), f"{name}/out": (BOTTLENECK, outputs)}
    sizes = vit.shapes(2, **layers)
    return sizes | {"head/norm/scale": (BOTTLENECK,), "head/norm/bias": (BOTTLENECK,)}


def two_layers(p, name, x):
    return dense(p, f"{name}/out", torch.relu(dense(p, f"{name}/hidden", x)))


def perturb(x):
    return x + RAMP * ALPHA * (x.flip(0) - x).detach()


def run(p, source, target, place):
    """The class tokens of source, target and perturbed target, in this order."""
    x = torch.cat([source, target])
    if place == 0:
        x = torch.cat([x, perturb(target)])
    x = vit.embed(p, x)
    for block in (1, 2):
        if block == place:
            x = torch.cat([x, perturb(x[BATCH:])])
        x = vit.run_block(p, block, x)
    return vit.class_token(p, x)


def divergence(logits, others):
    """KL(p || q), a mean over the rows in which p is confident."""
    log_p, log_q = logits.log_softmax(-1), others.log_softmax(-1)
    kept = log_p.exp().max(-1).values > THRESHOLD
    assert 0 < kept.sum() < BATCH, "the golden case should leave out some rows and keep some"
    return (log_p.exp() * (log_p - log_q)).sum(-1)[kept].mean()


def terms(p, batch_norm, batch, place, direction):
    """The three terms of the loss; updates the running statistics of the batch norm."""
    source, target, labels = batch
    x = dense(p, "head/bottleneck", run(p, source, target, place))
    x = functional.batch_norm(
        x,
        batch_norm["mean"],
        batch_norm["var"],
        p["head/norm/scale"],
        p["head/norm/bias"],
        training=True,
        momentum=0.1,
        eps=1e-5,
    )
    x = torch.relu(x)
    source, target, perturbed = two_layers(p, "head/classifier", x).split(BATCH)
    pair = (target, perturbed) if direction == "forward" else (perturbed, target)
    domains = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)])
    scores = two_layers(p, "task/discriminator", Reverse.apply(x[: 2 * BATCH], COEFFICIENT))
    return {
        "class": functional.cross_entropy(source, labels),
        "domain": functional.binary_cross_entropy_with_logits(scores[:, 0], domains),
        "self": divergence(*pair),
    }


def compute():
    """The arrays of the golden file."""
    generator = np.random.default_rng(2)
    params = vit.draw(generator, shapes(), scale=1.0)
    images = vit.draw_images(generator, BATCH)
    labels = generator.integers(0, CLASSES, BATCH)
    start = {"mean": generator.normal(size=BOTTLENECK), "var": 1 + generator.random(BOTTLENECK)}
    arrays = {"images": images, "labels": labels.astype(np.int32)}
    arrays |= vit.named("param", params) | vit.named("statistics", start)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    batch = (*map(vit.normalise, images), torch.tensor(labels))
    for place in PLACES:
        for direction in DIRECTIONS:
            batch_norm = {name: torch.tensor(value) for name, value in start.items()}
            losses = terms(p, batch_norm, batch, place, direction)
            weights = WEIGHTS | {"self": RAMP * WEIGHTS["self"]}
            total = losses["class"] + sum(weight * losses[name] for name, weight in weights.items())
            case = f"{place}/{direction}"
            values = {name: value.detach() for name, value in losses.items()}
            arrays |= vit.named(f"{case}/term", values | {"total": total.detach()})
            arrays |= vit.named(f"{case}/gradient", vit.gradients(p, total))
            arrays |= vit.named(f"{case}/statistics", batch_norm)
    return arrays
