"""Judges our verifier by Apple's loader: `damage.py FOLDER`.

The folder holds programs, `*.mlirb`, that were damaged and that our verifier still passes: Apple's loader must
accept them too. It ends its process on a program that it refuses, so the programs are loaded by a second process, which
says which one is next; if it ends, another process continues after that program.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from verdict import judge

SHOWN = 5
"""Refused programs that the message names."""

METADATA = '{"assetVersion": "2.0", "producer": "damage.py"}'


def load_all(programs: list[Path]) -> None:
    """Loads programs as packages, each after its name is printed."""
    from coreai.authoring import AIModelAsset  # Takes half a second, and the first process does not need it.

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "damaged.aimodel"
        for program in programs:
            print(program.name, flush=True)
            package.mkdir()
            (package / "metadata.json").write_text(METADATA)
            shutil.copyfile(program, package / "main.mlirb")
            asset = AIModelAsset.load(package)
            if asset.summary(include_statistics=True) is None:
                raise SystemExit("error: there is no summary")
            asset.program._module.verify()
            shutil.rmtree(package)


def refusals(folder: Path) -> tuple[int, list[str]]:
    """The number of programs, and those at which the loading process ended, with the reason it gave."""
    programs = sorted(folder.glob("*.mlirb"), key=lambda path: int(path.stem))
    refused: list[str] = []
    start = 0
    while start < len(programs):
        command = [sys.executable, __file__, "--load", str(folder), str(start)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        loaded = len(done.stdout.splitlines())
        if done.returncode == 0:
            break
        if loaded == 0:
            raise RuntimeError(f"the loading process ended at once: {done.stderr[-500:]}")
        reasons = [line.rsplit(" error: ", 1)[-1] for line in done.stderr.splitlines() if "error: " in line]
        start += loaded
        refused.append(f"{programs[start - 1].name} ({done.returncode}): {(reasons or [done.stderr[-200:]])[0]}")
    return len(programs), refused


def check(folder: Path) -> dict[str, object]:
    """All programs must load."""
    count, refused = refusals(folder)
    if count == 0:
        raise RuntimeError("there is no program to load")
    if refused:
        raise RuntimeError(f"{len(refused)} of {count} are refused: {'; '.join(refused[:SHOWN])}")
    return {"programs": count}


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code."""
    match arguments:
        case ["--load", folder, start]:
            load_all(sorted(Path(folder).glob("*.mlirb"), key=lambda path: int(path.stem))[int(start) :])
        case [folder]:
            judge("damage", lambda: check(Path(folder)))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
