"""Which pretrained weights a run has started from: written down beside its config."""

import json
from pathlib import Path

from pnoise_jax import weights, writing
from pnoise_jax.runs import RunDirectory


def note_weights(path: Path, source: str | None) -> None:
    """Writes down which weights a run starts from, so that it recognises them anywhere.

    Args:
      path: the directory of the run.
      source: a path, an id of the hub or a URL, as the config has it; None removes what was
        written.
    """
    note = RunDirectory(path).weights
    if source is None:
        note.unlink(missing_ok=True)
        return
    content = {"weights": source, "fingerprint": weights.fingerprint(source)}
    if weights.is_remote(source):
        content["resolved"] = weights.resolved_id(source)  # with the commit or the generation
    writing.replace_file(note, json.dumps(content) + "\n")


def noted_weights(path: Path) -> tuple[str, str] | None:
    """The source and the fingerprint of the weights that a run has started from, as written."""
    try:
        note = json.loads(RunDirectory(path).weights.read_text())
        return note["weights"], note["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_fingerprint(source: str) -> str | None:
    """The fingerprint of weights; None where they are no longer there, which a run can do without.

    Raises:
      ValueError, OSError: something is there that cannot be read as weights.
    """
    if weights.is_remote(source) or Path(source).expanduser().exists():
        return weights.fingerprint(source)
    return None


def same_weights(path: Path, ours: str | None, theirs: str | None) -> bool:
    """Whether two sources are the weights that the run has started from.

    Their content decides. Where the second is a path that leads nowhere, because weights that are
    no longer needed may be gone, the file's name decides, and where no content was written down,
    the whole path. The same id of the hub, or the same URL, is taken for the same weights, so that
    a run goes on without the network.

    Args:
      path: the directory of the run.
      ours: the source that its config names.
      theirs: the source that is asked for now.

    Raises:
      ValueError, OSError: the second leads somewhere, but not to weights that can be read.
    """
    if ours is None or theirs is None or (ours == theirs and weights.is_remote(ours)):
        return ours == theirs
    digest = find_fingerprint(theirs)
    if digest is None:
        return Path(theirs).name == Path(ours).name
    noted = noted_weights(path)
    return ours == theirs if noted is None else noted[1] == digest
