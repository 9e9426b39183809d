"""A step of CDTrans' second stage from its formulas: three branches through two blocks."""

import numpy as np
import torch
from torch.nn import functional

from tests.adaptation.pytorch import vit
from tests.adaptation.pytorch.vit import CLASSES, DIM

BATCH = 5
WEIGHTS = {"class": 1.0, "pseudo": 0.8, "distillation": 0.6}  # different, so that each counts
# The corrected and the earlier published code, and the default, whose teacher is a constant.
CASES = {"default": (True, False), "published": (False, False), "swapped": (False, True)}


def shapes():
    return vit.shapes(2) | {"head/norm/scale": (DIM,), "head/dense/kernel": (DIM, CLASSES)}


def run(p, source, target):
    """The class tokens of source, target and fusion."""
    source, target = vit.embed(p, source), vit.embed(p, target)
    fusion = target
    for block in (1, 2):
        of_source, of_target = vit.project(p, block, source), vit.project(p, block, target)
        crossed = vit.attention(of_source[0], of_target[1])
        fusion = vit.finish(p, block, fusion, crossed, of_target[2])
        source = vit.finish(p, block, source, vit.attention(*of_source[:2]), of_source[2])
        target = vit.finish(p, block, target, vit.attention(*of_target[:2]), of_target[2])
    return [vit.class_token(p, x) for x in (source, target, fusion)]


def neck(p, batch_norm, features):
    """Logits after the batch norm; updates its running statistics."""
    zero = torch.zeros(DIM)  # the frozen bias
    x = functional.batch_norm(
        features,
        batch_norm["mean"],
        batch_norm["var"],
        p["head/norm/scale"],
        zero,
        training=True,
        momentum=0.1,
        eps=1e-5,
    )
    return x @ p["head/dense/kernel"]


def terms(p, batch_norm, batch, *, detach, swap):
    """The three terms of the loss."""
    source, target, labels, pseudo_labels = batch
    source, target, fusion = run(p, source, target)
    source = neck(p, batch_norm, source)
    fusion = neck(p, batch_norm, fusion)
    target = neck(p, batch_norm, target)
    learner, teacher = (fusion, target) if swap else (target, fusion)
    taught = teacher.softmax(-1)
    taught = taught.detach() if detach else taught
    return {
        "class": functional.cross_entropy(source, labels),
        "pseudo": functional.cross_entropy(learner, pseudo_labels),
        "distillation": -(taught * learner.log_softmax(-1)).sum(-1).mean(),
    }


def compute():
    """The arrays of the golden file."""
    generator = np.random.default_rng(1)
    params = vit.draw(generator, shapes())
    images = vit.draw_images(generator, BATCH)
    labels = generator.integers(0, CLASSES, (2, BATCH))
    start = {"mean": generator.normal(size=DIM), "var": 1 + generator.random(DIM)}
    arrays = {"images": images, "labels": labels.astype(np.int32)}
    arrays |= vit.named("param", params) | vit.named("statistics", start)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    batch = (*map(vit.normalise, images), *map(torch.tensor, labels))
    for case, (detach, swap) in CASES.items():
        batch_norm = {name: torch.tensor(value) for name, value in start.items()}
        losses = terms(p, batch_norm, batch, detach=detach, swap=swap)
        total = sum(weight * losses[name] for name, weight in WEIGHTS.items())
        values = {name: value.detach() for name, value in losses.items()}
        arrays |= vit.named(f"{case}/term", values | {"total": total.detach()})
        arrays |= vit.named(f"{case}/gradient", vit.gradients(p, total))
        arrays |= vit.named(f"{case}/statistics", batch_norm)
    return arrays
