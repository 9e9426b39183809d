"""The command-line programs; each is run as a module, or by `pnoise PROGRAM`."""

import gc

# Importing makes a quarter of a million objects that stay; by default Python looks through all of
# them again and again, for a tenth of the time that a program takes to start.
gc.set_threshold(50_000, 20, 50)
