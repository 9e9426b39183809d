"""Every method is the same on two hosts as on one: real processes on this machine."""

import json

import pytest

from tests.launch import command

CONFIG = """
from tests.adaptation import domains

OF_METHODS = {{
    "ssrt": {{"task.bottleneck_dim": 16, "task.check_every": 4, "task.scales": 2}},
    "cdtrans": {{"task.source_duration": "6 steps", "task.pair_every": "3 steps"}},
}}

def get_config():
    config = domains.config("{method}", **OF_METHODS.get("{method}", {{}}))
    config.duration = "12 steps"
    config.evaluation.batch_size = 8
    config.noise.preset = "optimal_all_tokens"
    config.noise.train = True
    return config
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["source_only", "dann", "tvt", "ssrt", "cdtrans"])
def test_two_hosts_adapt_as_one(method, tmp_path):
    """Two processes of one device against one process of two: noise, pairs, snapshots and all."""
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(method=method))
    single, together = tmp_path / "alone", tmp_path / "together"
    code, _, errors = command.run(
        "train", f"--config={config}", f"--workdir={single}", JAX_NUM_CPU_DEVICES="2"
    )
    assert code == 0, errors
    host = ("train", f"--config={config}", f"--workdir={together}")
    codes, errors = command.ends(command.start_on_hosts(host, host, JAX_NUM_CPU_DEVICES="1"))
    assert codes == [0, 0], errors
    one, two = ((d / "metrics.jsonl").read_text().splitlines() for d in (single, together))
    for line, other in zip(one, two, strict=True):
        ours, theirs = json.loads(line), json.loads(other)
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"steps_per_second", "examples_per_second", "data_wait"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
    reports = [json.loads((d / "evaluation.json").read_text())["rows"] for d in (single, together)]
    for ours, theirs in zip(*reports, strict=True):
        assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-4)
