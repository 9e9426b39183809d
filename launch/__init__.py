"""The command-line programs; each is run as a module, or by `pnoise PROGRAM`."""

import gc

from . import huge_pages, xla_options

# If Python is about to run one of them, and before it imports anything.
huge_pages.start_again()
xla_options.choose()

# Importing makes a quarter of a million objects that stay; by default Python looks through all of
# them again and again, for a tenth of the time that a program takes to start.
gc.set_threshold(50_000, 20, 50)
