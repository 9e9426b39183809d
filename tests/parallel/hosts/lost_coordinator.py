"""Host 0 dies as soon as host 1 has joined, which then writes to the store."""

import os
import sys
import time
from pathlib import Path

import jax

from pnoise_jax import parallel
from pnoise_jax.parallel.hosts import hosts

parallel.start(timeout=120)
joined = Path(sys.argv[1])
if hosts.index() == 0:
    while not joined.exists():
        time.sleep(0.01)
    os._exit(1)
joined.touch()
try:
    while True:
        hosts.client().key_value_set("any", "value", allow_overwrite=True)
except jax.errors.JaxRuntimeError as error:
    sys.exit(parallel.end_together(error, str(error)))
