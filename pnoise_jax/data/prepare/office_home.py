"""Office-Home from its official zip, or from what comes out of it: one split for each domain."""

from pathlib import Path

from pnoise_jax.data.prepare import kinds
from pnoise_jax.data.prepare.archives import Zip
from pnoise_jax.data.prepare.class_folders import (
    entries,
    find_classes,
    inside,
    refuse_hidden_images,
    require_same,
    top_folders,
)
from pnoise_jax.data.prepare.missing import missing_files
from pnoise_jax.data.prepare.plan import Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import Folder, Listing, Source
from pnoise_jax.terminal import printable

VERSION = "1.0.0"

_ROOT = "OfficeHomeDataset_10072016"
_DOMAINS = ("art", "clipart", "product", "real_world")
_NUM_CLASSES = 65


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Splits art, clipart, product and real_world, with the same classes, sorted.

    Args:
      manual_dir: with OfficeHomeDataset_10072016.zip, or the folder of that name, or that folder.
      scratch: not needed.

    Raises:
      FileNotFoundError: it, or a domain, is not there.
      OSError: the zip is cut off or damaged.
      ValueError: domains differ in their classes; or see `find_classes`.
    """
    del scratch
    source = _find(manual_dir)
    listing = source.scan()
    folders = _domain_folders(source, listing)
    classes, files = {}, []
    for domain, folder in folders.items():
        where, part = f"{source.path}: {printable(folder)}", inside(listing, folder)
        refuse_hidden_images(source, part, where=where)
        files.append(kinds.sort_files(source, part))
        kinds.refuse_unreadable(files[-1].unreadable, where=where, fix=kinds.OFFICIAL)
        classes[domain] = find_classes(files[-1], listing, folder, where=where)
    names = require_same(classes, where=str(source.path))
    return Plan(
        name="office_home",
        version=VERSION,
        splits=[
            SplitPlan(domain, source, entries(classes[domain], names, folder))
            for domain, folder in folders.items()
        ],
        class_names=names,
        description="Office-Home: a split for each domain, the same classes in all.",
        homepage="https://www.hemanthdv.org/officeHomeDataset.html",
        notes=[
            *kinds.notes(files),
            *[f"{len(names)} classes, the official archive has {_NUM_CLASSES}"]
            * (len(names) != _NUM_CLASSES),
        ],
    )


def _find(manual_dir: Path) -> Source:
    if (manual_dir / f"{_ROOT}.zip").is_file():
        return Zip(manual_dir / f"{_ROOT}.zip")
    for directory in (manual_dir / _ROOT, manual_dir):
        if (directory / "Art").is_dir():
            return Folder(directory)
    raise missing_files(
        manual_dir,
        "office_home",
        [f"{_ROOT}.zip  (1.1 GiB), or the folder {_ROOT} that comes out of it"],
        page="https://www.hemanthdv.org/officeHomeDataset.html",
    )


def _domain_folders(source: Source, listing: Listing) -> dict[str, str]:
    """Each domain's folder; mirrors write `Real World` in more than one way."""
    root = _ROOT if _ROOT in listing.folders else "."
    names = top_folders(listing, root)
    prefix = "" if root == "." else f"{root}/"
    by_letters = {"".join(filter(str.isalpha, name)).lower(): prefix + name for name in names}
    letters = {domain: domain.replace("_", "") for domain in _DOMAINS}
    missing = [domain for domain in _DOMAINS if letters[domain] not in by_letters]
    if missing:
        raise FileNotFoundError(
            f"{source.path} lacks the domains {', '.join(missing)}: its folders are "
            f"{shorten(names) or 'none'}, and Art, Clipart, Product and Real World are needed"
        )
    return {domain: by_letters[letters[domain]] for domain in _DOMAINS}
