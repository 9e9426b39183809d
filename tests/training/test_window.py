"""The share of the time in which the devices wait for data."""

import time

import jax.numpy as jnp
import optax
import pytest

from pnoise_jax.training.window import Window


class Loss:
    """Of a step that ends at a certain time."""

    def __init__(self, end):
        self.end = end

    def block_until_ready(self):
        time.sleep(max(0.0, self.end - time.perf_counter()))


@pytest.mark.parametrize(
    ("step", "batch", "idle"),
    [
        (0.03, 0.0, 0.0),  # the devices are the slower side: never idle
        (0.03, 0.01, 0.0),
        (0.01, 0.03, 2 / 3),  # each batch comes two thirds of its time too late
        (0.0, 0.02, 1.0),
    ],
)
def test_only_what_the_devices_wait_counts(step, batch, idle):
    window = Window(1, optax.constant_schedule(0.1))
    busy_until = time.perf_counter()

    def batches():
        for _ in range(12):
            time.sleep(batch)
            yield {}

    for number, _ in enumerate(window.watch(batches())):
        busy_until = max(busy_until, time.perf_counter()) + step
        window.add({"loss": Loss(busy_until)})
        if number == 0:
            window.restart_clock()
    time.sleep(max(0.0, busy_until - time.perf_counter()))
    window._metrics = [{"loss": jnp.ones(()), "grad_norm": jnp.ones(())}]
    assert window.close(12).speed["data_wait"] == pytest.approx(100 * idle, abs=15)
