"""The paper's theory as executable statements, each with a table of numbers: docs/theory.md."""

from pnoise_jax.studies.theory.finding import Finding
from pnoise_jax.studies.theory.probe import LabelInformation, label_information, probe_run
from pnoise_jax.studies.theory.statements import STATEMENTS
from pnoise_jax.studies.theory.toy import Example, read_example

__all__ = [
    "STATEMENTS",
    "Example",
    "Finding",
    "LabelInformation",
    "label_information",
    "probe_run",
    "read_example",
]
