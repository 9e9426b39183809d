"""Records, next to a run's config, the pretrained weights that it started from."""

import json
from pathlib import Path

from pnoise_jax import weights, writing
from pnoise_jax.runs import RunDirectory


def note_weights(path: Path, source: str | None) -> None:
    """Writes a note of the weights that a run starts from, so that it recognises them anywhere.

    Args:
      path: the work directory.
      source: the config's path, hub id or URL; None removes the note.
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
    """The noted source and fingerprint of the weights of a run; None without a valid note."""
    try:
        note = json.loads(RunDirectory(path).weights.read_text())
        return note["weights"], note["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_fingerprint(source: str) -> str | None:
    """The fingerprint of weights; None if they no longer exist, since a resumed run needs none.

    Raises:
      ValueError, OSError: the source exists, but cannot be read as weights.
    """
    if weights.is_remote(source) or Path(source).expanduser().exists():
        return weights.fingerprint(source)
    return None


def same_weights(path: Path, ours: str | None, theirs: str | None) -> bool:
    """Whether two sources are the same weights, those that the run started from.

    The content decides. If `theirs` is a path that does not exist (the weights are no longer
    needed, so they may have been deleted), the file's name decides; if no content was noted, the
    whole path. The same hub id or URL counts as the same weights, so that a run can be resumed
    without network access.

    Args:
      path: the work directory.
      ours: the source in the run's config.
      theirs: the source in the new config.

    Raises:
      ValueError, OSError: `theirs` exists, but cannot be read as weights.
    """
    if ours is None or theirs is None or (ours == theirs and weights.is_remote(ours)):
        return ours == theirs
    digest = find_fingerprint(theirs)
    if digest is None:
        return Path(theirs).name == Path(ours).name
    noted = noted_weights(path)
    return ours == theirs if noted is None else noted[1] == digest
