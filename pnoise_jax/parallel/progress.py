"""How far this process is, for the watchdog and the other hosts."""

import dataclasses
import time


@dataclasses.dataclass
class Progress:
    """What was done last, and when.

    Attributes:
      what: in words, such as "step 312 of 1000"; empty before anything was noted.
      when: at what time, by `time.monotonic()`.
    """

    what: str = ""
    when: float = 0.0


# One for the process, as it has one main thread: the watchdog sees it from another thread.
LATEST = Progress()


def note_progress(what: str) -> None:
    """Notes that something is done. It takes less than a microsecond: call it after every step."""
    LATEST.when = time.monotonic()
    LATEST.what = what
