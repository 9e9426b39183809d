"""From measurements to a verdict: the evidence, the kinds and the wording."""

from pnoise_jax.studies.leak.verdict.kinds import KINDS, Evidence, Verdict, judge

__all__ = ["KINDS", "Evidence", "Verdict", "judge"]
