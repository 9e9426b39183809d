"""The input pipelines to compare, and generated JPEGs of ImageNet's sizes.

A pipeline is a function without arguments that returns an iterator over one pass. Its batches,
(batch, side, side, 3), are cropped at random (RandomResizedCrop), resized, and flipped at random.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from array_record.python.array_record_data_source import ArrayRecordDataSource

from pnoise_jax import data
from pnoise_jax.data import create_transform
from pnoise_jax.data.image import RandomResizedCrop

Pipeline = Callable[[], Iterator[np.ndarray]]

DATASET = "folder/textures"

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_CLASSES = ("brick", "cloth", "grass", "water")

# (height, width): the most frequent sizes of ImageNet, a larger and a smaller one.
_SIZES = ((375, 500), (375, 500), (375, 500), (333, 500), (500, 375), (480, 640), (300, 400))
_QUALITY = 95


def ours(
    data_dir: Path,
    *,
    batch_size: int,
    side: int,
    threads: int,
    streams: Sequence[Mapping[str, Any]] = ({},),
) -> Pipeline:
    """This project's training pipeline on array_record, uint8.

    Args:
      data_dir: the data directory of the prepared images.
      batch_size, side: the size of the batches, over all hosts, and the side of the images.
      threads: the number of decoding threads.
      streams: further arguments of `data.train_batches` for each stream; the streams are read one
        after another. By default a single host reads one pass.
    """
    dataset = data.load(DATASET, split="train", data_dir=data_dir)
    transform = create_transform(
        "random_resized_crop|flip",
        size=(side, side),
        mean=MEAN,
        std=STD,
        train=True,
        field="data.train_transform",
    )

    def batches() -> Iterator[np.ndarray]:
        for options in streams:
            steps = {"start_step": 0, "num_steps": len(dataset) // batch_size, **options}
            with data.train_batches(
                dataset,
                batch_size=batch_size,
                seed=0,
                num_threads=threads,
                transform=transform,
                **steps,
            ) as stream:
                for batch in stream:
                    yield batch["image"]

    return batches


def exhaust(pipeline: Pipeline) -> None:
    """Reads all batches of a pass."""
    for _ in pipeline():
        pass


def tf_data(file: Path, *, batch_size: int, side: int, threads: int, dtype: str) -> Pipeline:
    """tf.data on tfrecord, decoding and cropping as in big_vision and TensorFlow's examples.

    Args:
      file: the file that `write_tfrecord` wrote.
      batch_size, side: the size of the batches and the side of the images.
      threads: the number of decoding threads.
      dtype: "uint8", or "float32", which is also normalised.
    """
    tf = _tensorflow()
    features = {"image": tf.io.FixedLenFeature([], tf.string)}
    mean, std = (tf.constant([255 * x for x in values]) for values in (MEAN, STD))

    def load(record):
        encoded = tf.io.parse_single_example(record, features)["image"]
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            tf.zeros((1, 0, 4)),
            area_range=(0.08, 1),
            aspect_ratio_range=(3 / 4, 4 / 3),
            min_object_covered=0,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.concat([begin[:2], size[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(encoded, box, channels=3)
        image = tf.image.resize(image, (side, side))
        if dtype == "uint8":
            return tf.image.random_flip_left_right(tf.cast(image, tf.uint8))
        return (tf.image.random_flip_left_right(image) - mean) / std

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    batches = (
        tf.data.TFRecordDataset(str(file))
        .map(load, num_parallel_calls=threads)
        .batch(batch_size, drop_remainder=True)
        .prefetch(2)
        .with_options(options)
    )
    return lambda: batches.as_numpy_iterator()


def write_tfrecord(directory: Path, file: Path) -> None:
    """Copies the records of a prepared data set from array_record to a tfrecord file."""
    paths = sorted(map(str, directory.glob("*.array_record*")))
    with _tensorflow().io.TFRecordWriter(str(file)) as writer:
        for record in ArrayRecordDataSource(paths):
            writer.write(record)


def _tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # silences a note about the CPU
    import tensorflow  # pyright: ignore[reportMissingModuleSource]  (the extra "benchmark")

    return tensorflow


def pil_folder(folders: Path, *, batch_size: int, side: int) -> Pipeline:
    """A loop over class folders with PIL, as in torchvision's ImageFolder; float32, normalised."""
    files = sorted(folders.glob("*/*.jpg"))
    crop = RandomResizedCrop()
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)

    def load(file: Path, generator: np.random.Generator) -> np.ndarray:
        with file.open("rb") as opened, PIL.Image.open(opened) as encoded:
            image = encoded.convert("RGB")
        top, left, height, width = crop.box(image.height, image.width, generator)
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((side, side), PIL.Image.Resampling.BILINEAR)
        if generator.random() < 0.5:
            image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        return (np.asarray(image, np.float32) / 255 - mean) / std

    def batches() -> Iterator[np.ndarray]:
        generator = np.random.default_rng(0)
        order = generator.permutation(len(files))
        for start in range(0, len(files) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield np.stack([load(files[i], generator) for i in chosen])

    return batches


def write_folders(directory: Path, images: int) -> None:
    """Writes ``images`` JPEGs as ``<directory>/<class>/<number>.jpg``, the same ones every time."""
    for name in _CLASSES:
        (directory / name).mkdir(parents=True)
    for number in range(images):
        texture = _texture(np.random.default_rng(number), *_SIZES[number % len(_SIZES)])
        file = directory / _CLASSES[number % len(_CLASSES)] / f"{number:06}.jpg"
        PIL.Image.fromarray(texture).save(file, quality=_QUALITY)


def _texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise at all scales, stronger at coarse ones, as in photographs, and mostly gray."""
    pixels = np.zeros((height, width, 3), np.float32)
    for step in (1, 2, 4, 8, 16, 32, 64, 128):
        shape = (height // step + 2, width // step + 2)
        gray = generator.standard_normal((*shape, 1), np.float32)
        colour = generator.standard_normal((*shape, 3), np.float32)
        noise = gray + 0.4 * colour
        pixels += step**0.3 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    mean = generator.uniform(90, 160, 3)
    return np.clip(mean + 50 / pixels.std() * pixels, 0, 255).astype(np.uint8)
