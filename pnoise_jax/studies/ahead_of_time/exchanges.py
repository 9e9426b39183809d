"""Measures each noise's exchanges and memory traffic from its compiled program."""

from typing import Any

import jax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from pnoise_jax import noise, parallel


def noises(k: int, devices: int) -> dict[str, noise.Noise]:
    """Returns every kind of noise and implementation, by its name in the table."""

    def linear(quality: noise.QualityMatrix, **options) -> noise.LinearTransform:
        return noise.LinearTransform(quality, **options)

    shift, optimal = noise.CyclicShift(0.3), noise.Optimal()
    return {
        "cyclic shift": linear(shift),
        "cyclic shift, matmul": linear(shift, implementation="matmul"),
        "reverse": linear(noise.Reverse(0.3)),
        "reverse, matmul": linear(noise.Reverse(0.3), implementation="matmul"),
        "optimal": linear(optimal),
        "optimal, matmul": linear(optimal, implementation="matmul"),
        "optimal, groups within a device": linear(optimal, group_size=k // devices),
        "optimal, over tokens": linear(optimal, axis="tokens"),
        "Gaussian": noise.Gaussian(),
        "salt-and-pepper, of the image": noise.SaltAndPepper(0.1, extremes="image"),
        "salt-and-pepper, of the batch": noise.SaltAndPepper(0.1, extremes="batch"),
    }


def noise_exchanges(
    k: int, shape: tuple[int, ...], dtype: DTypeLike, mesh: Mesh
) -> list[dict[str, Any]]:
    """Measures what noise on x (k, *shape) exchanges when the k rows are split over the devices.

    Returns:
      A dictionary for each noise of `noises` and each pass, forward (x to noisy x) and backward
      (the gradient with respect to x), with these keys. "noise" and "pass": their names. "sent":
      the bytes that a device sends, by kind of exchange. "traffic": the bytes that it reads from
      and writes to its memory, from `parallel.count_traffic`. "least": the least possible traffic,
      which is to read its rows once and write as many once.
    """
    split = parallel.split_batch(mesh)
    x = jax.ShapeDtypeStruct((k, *shape), dtype, sharding=split)
    key = jax.eval_shape(lambda: jax.random.key(0))
    least = 2 * x.size * x.dtype.itemsize // parallel.batch_parts(mesh)
    results = []
    for name, each in noises(k, parallel.batch_parts(mesh)).items():

        def forward(key, x, each=each):
            return each(key, x)

        def backward(key, x, g, each=each):
            return jax.vjp(lambda x: each(key, x), x)[1](g)[0]

        passes = {"forward": (forward, (key, x)), "backward": (backward, (key, x, x))}
        for direction, (function, arguments) in passes.items():
            with parallel.lay_out(mesh):
                compiled = jax.jit(function, out_shardings=split).lower(*arguments).compile()
            text = compiled.as_text() or ""
            exchanges = parallel.find_collectives(text, mesh.size)
            sent: dict[str, float] = {}
            for exchange in exchanges:
                sent[exchange.kind] = sent.get(exchange.kind, 0.0) + exchange.sent
            moved = {"traffic": parallel.count_traffic(text), "least": least}
            results.append({"noise": name, "pass": direction, "sent": sent, **moved})
    return results
