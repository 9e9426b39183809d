"""Data: named data sets read by random access, and streams of batches from them."""

from pnoise_jax.data.datasets import Dataset, list_datasets, load
from pnoise_jax.data.pipeline import (
    EVALUATION_ORDERS,
    Batch,
    BatchIterator,
    eval_batches,
    evaluation_order,
    train_batches,
)

__all__ = [
    "EVALUATION_ORDERS",
    "Batch",
    "BatchIterator",
    "Dataset",
    "eval_batches",
    "evaluation_order",
    "list_datasets",
    "load",
    "train_batches",
]
