"""One of two processes with different settings; prints the outcome of each case, as JSON.

The first argument is a directory for both, the second one for this process.
"""

import json
import sys
from pathlib import Path

from pnoise_jax import parallel

parallel.start(timeout=120)
SHARED, OWN = map(Path, sys.argv[1:3])
FIRST = OWN.name == "0"


def outcome(call, *args, **options):
    """What a call returns, or its error's type and text."""
    try:
        return call(*args, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]


def fail_on_the_second():
    if not FIRST:
        raise RuntimeError("as no library should")
    return "done"


def agree(here, there, **where_known):
    known = where_known.get("known_here" if FIRST else "known_there")
    return outcome(parallel.require_agreement, here if FIRST else there, where_known=known)


results = {
    "same": agree({"a": "1"}, {"a": "1"}),
    "value": agree({"a": "1", "rate": "0.001"}, {"a": "1", "rate": "0.002"}),
    "absent": agree({"a": "1", "depth": "3"}, {"a": "1"}),
    "known on one": agree({}, {}, known_here={"debugger": "1"}, known_there={}),
    "known on both": agree({}, {}, known_here={"mine": "1"}, known_there={"mine": "2"}),
    "many": agree({f"f{n}": "0" for n in range(30)}, {f"f{n}": "1" for n in range(30)}),
    "all do": outcome(parallel.on_all_hosts, lambda: "done"),
    "one fails": outcome(parallel.on_all_hosts, fail_on_the_second),
    "any": parallel.on_any_host(FIRST),
    "none": parallel.on_any_host(False),
    "shared": outcome(parallel.require_shared_directory, SHARED, flag="workdir"),
    "left in it": sorted(path.name for path in SHARED.iterdir()),
    "own": outcome(parallel.require_shared_directory, OWN, flag="workdir", within=0.5),
    "first cannot write": outcome(
        parallel.require_shared_directory, SHARED / "absent", flag="workdir"
    ),
    "other topics": outcome(
        *((parallel.on_any_host, True) if FIRST else (parallel.on_all_hosts, lambda: 0))
    ),
    "still together": parallel.on_any_host(not FIRST),
}
print(json.dumps(results))
