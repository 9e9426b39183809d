"""Fills the file system of a run while it saves; must be allowed to mount a small one.

    unshare --user --map-root-user --mount python -m tests.launch.full_disk DIR DATA_DIR

Prints a line of JSON for each try: the exit codes and errors of the run, and of the same command
once there is room again.
"""

import json
import pathlib
import subprocess
import sys
import time

from tests.launch import command

# The checkpoint that is there, or begun, when the disk fills, and the bytes left free.
TRIES = (("15.*tmp*", 0), ("20", 300_000), ("35.*tmp*", 600_000), ("45", 1_000_000))


def arguments(workdir, data_dir):
    return (
        "--config=configs/digits_vit.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        "--config.steps=60",
        "--config.checkpoint.every=5 steps",
        "--config.log_every=5 steps",
        "--config.checkpoint.keep=2",
    )


def fill(file, leave):
    """Adds to ``file`` until only ``leave`` bytes are free."""
    with file.open("ab", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(65536))
        except OSError:
            stream.truncate(max(0, stream.tell() - leave))


def run_full(workdir, data_dir, pattern, leave):
    """One try in an empty directory."""
    process = command.start("train", *arguments(workdir, data_dir))
    checkpoints = workdir / "checkpoints"
    while not list(checkpoints.glob(pattern)):
        if process.poll() is not None:
            sys.exit(f"no {pattern}: {process.communicate()}")
        time.sleep(0.002)
    filler = workdir.parent / "filler"
    while process.poll() is None:  # again, as old checkpoints are deleted meanwhile
        fill(filler, leave)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=300)
    filler.unlink()
    code, output, later = command.run("train", *arguments(workdir, data_dir))
    return {
        "code": process.returncode,
        "errors": errors,
        "later_code": code,
        "later": output + later,
        "checksums": json.loads((checkpoints / "60" / "arrays" / "metadata").read_text()),
    }


def main(directory, data_dir):
    directory = pathlib.Path(directory)
    for pattern, leave in TRIES:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "none", directory], check=True)
        print(json.dumps(run_full(directory / "run", data_dir, pattern, leave)), flush=True)
        subprocess.run(["umount", directory], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
