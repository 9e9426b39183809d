"""The share of the time in which the devices wait for data, and steps that are not finite."""

import time

import jax.numpy as jnp
import optax
import pytest

from pnoise_jax.training.loop.window import Window


class Loss:
    """The loss of a step that ends at a certain time."""

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
def test_only_the_time_that_devices_wait_counts(step, batch, idle):
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


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("loss", "grad_norm", "expected"),
    [
        (1.0, NAN, "the gradient norm of step 4 is nan"),
        (1.0, INF, "the gradient norm of step 4 is inf"),
        (NAN, 1.0, "the loss of step 4 is nan"),
        (INF, NAN, "the loss of step 4 is inf, and its gradient norm is nan"),
        (3e38, 3e38, "None"),  # only their sum is too large
    ],
)
def test_what_is_not_finite_is_named(loss, grad_norm, expected):
    metrics = {"loss": jnp.float32(loss), "grad_norm": jnp.float32(grad_norm)}
    fine = {"loss": jnp.ones(()), "grad_norm": jnp.ones(())}
    window = Window(1, optax.constant_schedule(0.1))
    for each in (fine, metrics, fine):
        window.add(each)
    assert str(window.first_broken(5)) == expected
    assert [str(each) for each in window.close(5).broken] == [expected]
    for each in (fine, metrics, fine):  # of two runs together
        window.add({name: jnp.stack([fine[name], value]) for name, value in each.items()})
    assert [str(each) for each in window.close(5).broken] == ["None", expected]
