"""Which entries go into which shard, decided before an image is written."""

from collections.abc import Sequence
from pathlib import Path

from pnoise_jax.data.prepare import publish, records
from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan
from pnoise_jax.data.prepare.shards import Shard, digest
from pnoise_jax.data.prepare.sources import Read
from pnoise_jax.data.prepare.treatment import treat


def lay_out(
    split: SplitPlan, plan: Plan, directory: Path, *, short_side: int | None
) -> list[Shard]:
    """The shards of a split: TFDS's order, and TFDS's number for images as they come.

    Shrinking and converting leave the number as it is: it is a matter of the sources, so that it
    is known before an image is read.

    Args:
      split: one of the plan's.
      plan: the data set.
      directory: where the records are to stand; notes lie beside it.
      short_side: as `prepare` has it.

    Raises:
      ValueError: two entries have one key.
    """
    ordered = records.in_order(split.entries, split.name)
    sizes = _record_sizes(ordered, split, plan)
    bounds = records.shard_bounds(sizes)
    template = publish.template(directory, plan.name, split.name)
    settings = (plan.name, list(plan.class_names), split.source.stamp, short_side)
    shards = []
    for i, (first, end) in enumerate(bounds):
        path = Path(template.sharded_filepath(shard_index=i, num_shards=len(bounds)))
        entries = ordered[first:end]
        shards.append(
            Shard(
                path=path,
                note_path=directory.parent / "notes" / f"{path.name}.json",
                entries=entries,
                digest=digest(entries, *settings),
                expected_bytes=records.file_size(sizes[first:end]),
            )
        )
    return shards


def _record_sizes(entries: Sequence[Entry], split: SplitPlan, plan: Plan) -> list[int]:
    """Bytes of the records, of images that keep their bytes or are repaired."""
    with split.source.open() as read:
        return [
            records.record_size(
                entry,
                _repaired_size(entry, read)
                if plan.rule(entry.key) == "repair"
                else entry.member.size,
            )
            for entry in entries
        ]


def _repaired_size(entry: Entry, read: Read) -> int:
    try:
        return len(treat(read(entry.member), rule="repair").data)
    except (OSError, ValueError):
        return entry.member.size  # it is refused by name when its shard is written
