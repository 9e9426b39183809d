"""The paper's theory, checked: every figure of docs/theory.md. pnoise theory --out DIR

Prints nine tables: eight statements about the paper's equations, by closed forms and simulation,
and the label information in a model's features, by a probe. For the probe it trains digits_vit in
DIR/digits_vit, unless that run exists already or --workdir names another. DIR also gets the tables
as theory.md, and their figures at full precision as theory.json.
"""

import dataclasses
import json
from pathlib import Path

import ml_collections
from absl import flags

from pnoise_jax import parallel, training, writing
from pnoise_jax.studies import theory
from pnoise_jax.terminal import say

from . import main

_OUT = flags.DEFINE_string("out", None, "Directory for the tables; it is created.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Probe this run; by default DIR/digits_vit.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where data sets are.")


def run() -> None:
    """Computes, prints and writes."""
    out, named = Path(_OUT.value).expanduser(), f"--out={_OUT.value!r}"
    writing.make_directory(out, named=named)
    writing.require_places(out, named=named, files=("theory.md", "theory.json"))
    workdir = Path(_WORKDIR.value or out / "digits_vit").expanduser()
    config = _config(workdir)  # before the work, in case there is no such run
    findings = []
    for statement in (*theory.STATEMENTS, lambda: _probe(config, workdir)):
        findings.append(statement())
        say(f"\n{_titled(findings[-1])}")
    content = [dataclasses.asdict(each) for each in findings]
    writing.replace_file(out / "theory.json", json.dumps(content, indent=1) + "\n")
    writing.replace_file(out / "theory.md", "\n".join(map(_titled, findings)))


def _config(workdir: Path) -> ml_collections.ConfigDict:
    """The config of the run to probe."""
    given = _WORKDIR.value is not None
    config = training.read_config(workdir) if given else main.built_in_config("digits_vit")
    if _DATA_DIR.value is not None:
        config.data.data_dir = _DATA_DIR.value
    return config


def _probe(config: ml_collections.ConfigDict, workdir: Path) -> theory.Finding:
    """Probes the run, after training it if none is given."""
    if _WORKDIR.value is None:
        training.train(config, workdir)
    return theory.probe_run(training.restore(workdir, config, mesh=parallel.data_mesh()))


def _titled(finding: theory.Finding) -> str:
    return f"{finding.number}. {finding.title}\n\n{finding.markdown()}"


if __name__ == "__main__":
    flags.adopt_module_key_flags(main)  # for --help
    main.run(run)
