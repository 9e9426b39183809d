"""Data: named data sets read by random access, and streams of batches from them."""

from pnoise_jax.data import class_names, imagenet_sets
from pnoise_jax.data.batch_iterator import Batch, BatchIterator
from pnoise_jax.data.builtin.embedded import embedded_version
from pnoise_jax.data.dataset import Dataset, decode, select
from pnoise_jax.data.datasets import is_prepared, list_datasets, load, load_parts, suggest
from pnoise_jax.data.image.mean_image import MeanImage, PixelMean, load_mean_image
from pnoise_jax.data.image.transforms import Transform, create_transform, list_transforms
from pnoise_jax.data.in_memory import DATASETS, InMemory, register_dataset
from pnoise_jax.data.orders import EVALUATION_ORDERS, evaluation_order, partly_sorted_order
from pnoise_jax.data.pipeline import eval_batches, train_batches
from pnoise_jax.data.selection import draw_per_class
from pnoise_jax.data.shared_examples import can_compare_images, count_repeated, count_shared
from pnoise_jax.data.stored import manifest

__all__ = [
    "DATASETS",
    "EVALUATION_ORDERS",
    "Batch",
    "BatchIterator",
    "Dataset",
    "InMemory",
    "MeanImage",
    "PixelMean",
    "Transform",
    "can_compare_images",
    "class_names",
    "count_repeated",
    "count_shared",
    "create_transform",
    "decode",
    "draw_per_class",
    "embedded_version",
    "eval_batches",
    "evaluation_order",
    "imagenet_sets",
    "is_prepared",
    "list_datasets",
    "list_transforms",
    "load",
    "load_mean_image",
    "load_parts",
    "manifest",
    "partly_sorted_order",
    "register_dataset",
    "select",
    "suggest",
    "train_batches",
]
