"""Unsupervised domain adaptation: each method is a task.

The config's data section describes the target domain, whose labels are used only in evaluation; the
task's `source` names the labelled data set to learn from.
"""

from pnoise_jax.adaptation.cdtrans.cdtrans import CdTrans
from pnoise_jax.adaptation.dann import Dann
from pnoise_jax.adaptation.discriminators import find_sown
from pnoise_jax.adaptation.losses import binary_entropy
from pnoise_jax.adaptation.paired_batches import PairedBatches, target_seed
from pnoise_jax.adaptation.source_only import SourceOnly
from pnoise_jax.adaptation.ssrt.ssrt import Ssrt
from pnoise_jax.adaptation.task import AdaptationTask
from pnoise_jax.adaptation.tvt import Tvt

__all__ = [
    "AdaptationTask",
    "CdTrans",
    "Dann",
    "PairedBatches",
    "SourceOnly",
    "Ssrt",
    "Tvt",
    "binary_entropy",
    "find_sown",
    "target_seed",
]
