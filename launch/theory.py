"""Checks the paper's theory and computes every figure of docs/theory.md: pnoise theory --out DIR

Prints nine tables: eight statements about the paper's equations, from closed forms and simulation,
and the label information in a model's features, from a probe. For the probe it trains digits_vit in
DIR/digits_vit, unless that run already exists or --workdir names another. The tables are also
written to DIR as theory.md, and their figures at full precision as theory.json.
"""

import dataclasses
import json
from pathlib import Path

import ml_collections
from absl import flags

from pnoise_jax import parallel, training, writing
from pnoise_jax.studies import theory
from pnoise_jax.terminal import say

from . import main, run_flags

_OUT = flags.DEFINE_string("out", None, "Directory for the tables; it is created.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run to probe; default: DIR/digits_vit.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of the data sets.")


def run() -> None:
    """Computes the tables, and prints and writes them."""
    out = Path(_OUT.value).expanduser()
    with writing.removing_empty(out):
        _compute(out)


def _compute(out: Path) -> None:
    named = f"--out={_OUT.value!r}"
    writing.make_directory(out, named=named)
    writing.require_places(out, named=named, files=("theory.md", "theory.json"))
    workdir = Path(_WORKDIR.value or out / "digits_vit").expanduser()
    config = _config(workdir)  # before the work, so that a missing run fails early
    findings = []
    for statement in (*theory.STATEMENTS, lambda: _probe(config, workdir)):
        findings.append(statement())
        say(f"\n{_titled(findings[-1])}")
    content = [dataclasses.asdict(each) for each in findings]
    writing.replace_file(out / "theory.json", json.dumps(content, indent=1) + "\n")
    writing.replace_file(out / "theory.md", "\n".join(map(_titled, findings)))


def _config(workdir: Path) -> ml_collections.ConfigDict:
    """The config of the run to probe."""
    is_named = _WORKDIR.value is not None
    config = training.read_config(workdir) if is_named else run_flags.built_in_config("digits_vit")
    if _DATA_DIR.value is not None:
        config.data.data_dir = _DATA_DIR.value
    return config


def _probe(config: ml_collections.ConfigDict, workdir: Path) -> theory.Finding:
    """Probes the run of --workdir, or trains the default run and probes it."""
    if _WORKDIR.value is None:
        training.train(config, workdir)
    return theory.probe_run(training.restore(workdir, config, mesh=parallel.data_mesh()))


def _titled(finding: theory.Finding) -> str:
    return f"{finding.number}. {finding.title}\n\n{finding.markdown()}"


if __name__ == "__main__":
    flags.adopt_module_key_flags(main)  # for --help
    main.run(run)
