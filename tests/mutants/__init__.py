"""Do the tests notice a wrong line? Mutants of the package, and the tests that must fail.

``python -m tests.mutants --sample=25 --seed=1 --jobs=4 --minutes=30 --out=build/mutants``

A mutant is the package with one small mistake: ``+`` for ``-``, ``<`` for ``<=``, a condition
turned around, a number off by one, a loop that never runs. cosmic-ray makes them
(``pip install -e ".[mutants]"``); this folder chooses some, and runs tests on each:

- `table` says which tests must notice a mistake in which file;
- `mutations` lists the places of a file and leaves out mistakes that nobody could notice, such as
  one in a type annotation;
- `trial` runs the tests on one mutant, in a private copy of the working tree;
- `__main__` draws a sample, runs it and reports it.

A package has hundreds of places, so a run takes a sample: ``--sample`` places of each package, and
at each place one of its mutations. The same seed draws the same sample from the same code. First
the tests run on the package as it is: they must pass, and the time they take sets the time limit.
What JAX compiles for them serves the mutants; ``--cache`` keeps it for the next run.

A mutant is *killed* if a test fails, and *timed out* if the tests take far longer than they should:
both count as noticed. One that *survived* is either a gap, for which a test of what is promised is
to be written, or equal in all that matters to what it replaced: ``survivors.md`` lists these.
``--again=build/mutants/mutants.json`` tries the survivors of an earlier run of the same sample and
seed once more.
"""
