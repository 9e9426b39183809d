"""What follows from the measurements: evidence, the kinds of a verdict, and its words."""

from pnoise_jax.studies.leak.verdict.kinds import KINDS, Evidence, Verdict, judge

__all__ = ["KINDS", "Evidence", "Verdict", "judge"]
