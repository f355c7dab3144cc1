"""Loads each package in a folder with Apple's API, saves it again, and prints the digest of what was saved.

    python save_by_apple.py FOLDER        needs coreai-core==1.0.0b3

Prints a line "digest  name" a package; on stderr, which packages came back with other bytes than they went in with.
"""

import hashlib
import multiprocessing
import sys
import tempfile
from pathlib import Path


def save(package):
    from coreai.authoring.asset import AIModelAsset

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / package.name
        AIModelAsset.load(package).program.save_asset(copy)
        return (copy / "main.mlirb").read_bytes()


def main(folder):
    changed = 0
    names = (folder / "names.txt").read_text().splitlines()
    # A package that Apple's code does not accept ends its process.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=50) as pool:
        for number, name in (line.split("  ", 1) for line in names):
            package = folder / f"{number}.aimodel"
            saved = pool.apply_async(save, (package,)).get(timeout=60)
            print(f"{hashlib.sha256(saved).hexdigest()}  {name}", flush=True)
            if saved != (package / "main.mlirb").read_bytes():
                changed += 1
                print(f"{number} came back with other bytes: {name}", file=sys.stderr)
    print(f"{len(names)} packages, {changed} came back with other bytes", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
