"""What each noise exchanges between devices; docs/pods.md has the table."""

import pytest

from pnoise_jax.studies import ahead_of_time

ROW = 5 * 3 * 4  # bytes


def structured(parts):
    """The bytes that a device sends, by kind, if 64 rows are split into ``parts``."""
    return {
        "cyclic shift": {"collective-permute": ROW},
        "reverse": {"collective-permute": 64 / parts * ROW},
        "optimal": {"all-reduce": 2 * (parts - 1) / parts * ROW},
        "optimal, groups within a device": {},
        "optimal, over tokens": {},
        "Gaussian": {},
        "salt-and-pepper, of the image": {},
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("fsdp", "tensor_parallel"), [(1, 1), (4, 1), (1, 2), (2, 2), (1, 4), (2, 4)]
)
def test_structured_noise_exchanges_a_row_on_every_mesh(fsdp, tensor_parallel):
    """Devices that share matrix products have the same rows, and exchange none with each other."""
    mesh = ahead_of_time.open_topology("cpu:8").mesh(fsdp, tensor_parallel)
    parts = 8 // tensor_parallel
    results = ahead_of_time.noise_exchanges(64, (5, 3), "float32", mesh)
    bytes_sent = {(result["noise"], result["pass"]): result["sent"] for result in results}
    for direction in ("forward", "backward"):
        for name, sent in structured(parts).items():
            assert bytes_sent[name, direction] == pytest.approx(sent), (name, direction)
        matmul, others = bytes_sent["optimal, matmul", direction], 64 * (parts - 1) / parts * ROW
        if parts > 2:  # for two, the compiler sums partial results instead
            assert matmul["all-gather"] == pytest.approx(others)
        assert sum(matmul.values()) >= 0.99 * others
    assert bytes_sent["salt-and-pepper, of the batch", "forward"]["all-reduce"] < ROW
    assert bytes_sent["salt-and-pepper, of the batch", "backward"] == {}
