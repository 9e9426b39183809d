"""The command-line programs; each is run as a module, or by `pnoise PROGRAM`."""

import gc

from . import huge_pages, xla_options

# Both act only if Python is about to run one of these programs, and must precede other imports.
huge_pages.start_again()
xla_options.choose()

# Imports create a quarter of a million objects that stay alive. By default, Python's garbage
# collector scans all of them repeatedly, which takes a tenth of a program's start-up time.
gc.set_threshold(50_000, 20, 50)
