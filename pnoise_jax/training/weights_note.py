"""Which pretrained weights a run has started from: noted beside its config."""

import json
from pathlib import Path

from pnoise_jax import weights, writing
from pnoise_jax.runs import RunDirectory


def note_weights(path: Path, given: str | None) -> None:
    """Writes down which weights a run starts from, so that it knows them wherever they are."""
    note = RunDirectory(path).weights
    if given is None:
        note.unlink(missing_ok=True)
    else:
        digest = weights.fingerprint(Path(given).expanduser())
        content = json.dumps({"weights": given, "fingerprint": digest}) + "\n"
        writing.replace_file(note, content)


def noted_weights(path: Path) -> tuple[str, str] | None:
    """The path and the fingerprint of the weights that a run there has started from, as noted."""
    try:
        note = json.loads((RunDirectory(path).weights).read_text())
        return note["weights"], note["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def same_weights(path: Path, ours: str | None, theirs: str | None) -> bool:
    """Whether two paths stand for the weights that the run there has started from.

    Their content says it. Where the second leads nowhere, as what is no longer needed may be gone,
    its name decides, and where no content was noted the whole path.

    Raises:
      ValueError, OSError: the second leads somewhere, but not to weights that can be read.
    """
    if ours is None or theirs is None:
        return ours == theirs
    place = Path(theirs).expanduser()
    if not place.exists():
        return place.name == Path(ours).name
    noted = noted_weights(path)
    return ours == theirs if noted is None else noted[1] == weights.fingerprint(place)
