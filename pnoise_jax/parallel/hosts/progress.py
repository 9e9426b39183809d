"""How far this process has got, for the watchdog and the other hosts."""

import dataclasses
import time


@dataclasses.dataclass
class Progress:
    """What was done last, and when.

    Attributes:
      what: a description, such as "step 312 of 1000"; empty before anything was noted.
      when: the time, by `time.monotonic()`.
    """

    what: str = ""
    when: float = 0.0


# One per process, which has one main thread; the watchdog reads it from another thread.
LATEST = Progress()


def note_progress(what: str) -> None:
    """Notes that something is done. Takes less than a microsecond: call it after every step."""
    LATEST.when = time.monotonic()
    LATEST.what = what
