"""What each noise exchanges between devices; docs/pods.md has the table."""

import pytest

from launch.benchmark import exchanges
from pnoise_jax.studies import ahead_of_time
from tests.launch import command

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
    spec = exchanges.Spec("cpu:8", 64, (5, 3), (fsdp,), "float32")
    mesh = ahead_of_time.open_topology("cpu:8").mesh(fsdp)
    found = {(r["noise"], r["pass"]): r["sent"] for r in exchanges.measure(spec, mesh)}
    for direction in ("forward", "backward"):
        for name, sent in STRUCTURED.items():
            assert found[name, direction] == pytest.approx(sent), (name, direction)
        gathered = found["optimal, matmul", direction]["all-gather"]
        assert gathered == pytest.approx(7 * 8 * ROW)  # every row of the other seven
    assert found["salt-and-pepper, of the batch", "forward"]["all-reduce"] < ROW
    assert found["salt-and-pepper, of the batch", "backward"] == {}


def test_an_uneven_split_is_named():
    code, _, errors = command.run("benchmark", "exchanges", "--k=60")
    assert code == 1
    assert "--k=60 is not divisible by --devices=8: use a multiple of 8, such as 64" in errors
