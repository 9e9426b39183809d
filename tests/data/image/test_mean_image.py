"""Caffe's mean image: read, brought to RGB, subtracted, and files that are something else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax.data.image.mean_image import load_mean_image

MEANS = np.array([104.007, 116.669, 122.679])  # blue, green, red


def mean_image(size=(256, 256)):
    """As in the file, (3, height, width) float64 BGR."""
    noise = np.random.default_rng(0).uniform(-10, 10, (3, *size))
    return MEANS[:, None, None] + noise - noise.mean(axis=(1, 2), keepdims=True)


def save_array(directory, array):
    path = directory / "ilsvrc_2012_mean.npy"
    np.save(path, array, allow_pickle=False)
    return path


def test_it_is_rgb_with_the_channels_last_in_0_to_1(tmp_path):
    array = mean_image()
    loaded = load_mean_image(save_array(tmp_path, array), size=(256, 256))
    assert (loaded.pixels.shape, loaded.pixels.dtype) == ((256, 256, 3), np.float32)
    for place, channel in ((0, 2), (1, 1), (2, 0)):
        np.testing.assert_allclose(loaded.pixels[..., place], array[channel] / 255, rtol=1e-6)
    np.testing.assert_allclose(loaded.channel_means, MEANS[::-1] / 255, rtol=1e-6)
    assert not loaded.pixels.flags.writeable


def test_a_file_that_is_divided_by_255_gives_the_same(tmp_path):
    whole = load_mean_image(save_array(tmp_path, mean_image()), size=(256, 256))
    divided = load_mean_image(save_array(tmp_path, mean_image() / 255), size=(256, 256))
    np.testing.assert_allclose(divided.pixels, whole.pixels, rtol=1e-6)


def test_subtracted_on_the_device_and_static_to_jit(tmp_path):
    loaded = load_mean_image(save_array(tmp_path, mean_image((6, 5))), size=(6, 5))
    images = np.random.default_rng(1).integers(0, 256, (4, 6, 5, 3), np.uint8)
    expected = images / 255 - mean_image((6, 5))[::-1].transpose(1, 2, 0) / 255
    traces = []

    def subtract(mean, x):
        traces.append(mean)
        return mean.subtract(x)

    compiled = jax.jit(subtract, static_argnums=0)
    reloaded = load_mean_image(tmp_path / "ilsvrc_2012_mean.npy", size=(6, 5))
    for mean in (loaded, reloaded):
        actual = compiled(mean, jnp.asarray(images))
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert len(traces) == 1  # equal pixels, one program
    np.testing.assert_allclose(loaded.subtract(images), expected, atol=1e-6)
    other = load_mean_image(save_array(tmp_path, mean_image((6, 5)) + 1), size=(6, 5))
    assert other != loaded


def test_images_of_another_size_are_refused(tmp_path):
    loaded = load_mean_image(save_array(tmp_path, mean_image((6, 6))), size=(6, 6))
    with pytest.raises(ValueError, match=r"\(5, 6, 3\), but the mean image .* set image_size=6"):
        loaded.subtract(np.zeros((2, 5, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (mean_image()[::-1], r"the largest first, as in RGB, but .*array\[::-1\]"),
        (mean_image().transpose(1, 2, 0), r"channels last.*transpose\(2, 0, 1\)"),
        (mean_image((224, 224)), r"float64 \(3, 224, 224\), but images of 256 x 256 pixels"),
        (mean_image()[:1], r"\(1, 256, 256\)"),
        (mean_image().astype(np.uint8), r"uint8 \(3, 256, 256\).*need floating-point"),
        (mean_image() - 110, r"values from -\d.*is it a mean image\?"),
        (mean_image() * 3, r"values from .* to 3\d\d"),
        (mean_image() / 127, r"values from .* to 1\.\d+, but pixels range"),
        (np.full((3, 256, 256), np.nan), r"values from nan to nan"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message) as error:
        load_mean_image(save_array(tmp_path, array), size=(256, 256))
    assert "data.mean_image=" in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist: give the path of Caffe's"):
        load_mean_image(tmp_path / "gone.npy", size=(256, 256))
    path = tmp_path / "mean.npy"
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is not a NumPy array"):
        load_mean_image(path, size=(256, 256))
    np.savez(tmp_path / "mean.npz", mean=mean_image((4, 4)))
    with pytest.raises(ValueError, match="has several arrays"):
        load_mean_image(tmp_path / "mean.npz", size=(256, 256))
    whole = save_array(tmp_path, mean_image()).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a NumPy array"):
        load_mean_image(path, size=(256, 256))


def test_pickles_are_never_loaded(tmp_path):
    path = tmp_path / "mean.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="is not a NumPy array"):
        load_mean_image(path, size=(256, 256))
