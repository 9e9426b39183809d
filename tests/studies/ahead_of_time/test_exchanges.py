"""What each noise exchanges between devices; docs/pods.md has the table."""

import pytest

from pnoise_jax.studies import ahead_of_time

ROW = 5 * 3 * 4  # bytes
STRUCTURED = {
    "cyclic shift": {"collective-permute": ROW},
    "reverse": {"collective-permute": 8 * ROW},
    "optimal": {"all-reduce": 2 * 7 / 8 * ROW},
    "optimal, groups within a device": {},
    "optimal, over tokens": {},
    "Gaussian": {},
    "salt-and-pepper, of the image": {},
}


@pytest.mark.parametrize("fsdp", [1, 4])
def test_structured_noise_exchanges_a_row_on_every_mesh(fsdp):
    mesh = ahead_of_time.open_topology("cpu:8").mesh(fsdp)
    results = ahead_of_time.noise_exchanges(64, (5, 3), "float32", mesh)
    found = {(result["noise"], result["pass"]): result["sent"] for result in results}
    for direction in ("forward", "backward"):
        for name, sent in STRUCTURED.items():
            assert found[name, direction] == pytest.approx(sent), (name, direction)
        gathered = found["optimal, matmul", direction]["all-gather"]
        assert gathered == pytest.approx(7 * 8 * ROW)  # every row of the other seven
    assert found["salt-and-pepper, of the batch", "forward"]["all-reduce"] < ROW
    assert found["salt-and-pepper, of the batch", "backward"] == {}
