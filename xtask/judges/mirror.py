"""Judges how `coreai-bundle` reads from a third-party Hub: olah, a mirror server, in front of the local Hub.

    mirror.py PROGRAM LOCAL_HUB CHECKPOINT SCRATCH

The results for the mirrored checkpoint must equal those for the folder. Prints one JSON object per check.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from verdict import judge

REPOSITORY = "google/tiny"
HOST = "127.0.0.1"
# Seconds until the mirror must answer.
PATIENCE = 60
# Files that do not name where the checkpoint came from.
WEIGHTS = {".mlirb", ".i8", ".f32"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def start_mirror(hub: str, scratch: Path) -> tuple[subprocess.Popen, str]:
    """Starts olah in front of a Hub; returns it and its address."""
    behind, port = hub.removeprefix("http://"), free_port()
    front = f"{HOST}:{port}"
    arguments = [sys.executable, "-m", "olah.server", "--host", HOST, "--port", str(port), "--hf-scheme", "http"]
    arguments += ["--hf-netloc", behind, "--hf-lfs-netloc", behind]
    arguments += ["--mirror-netloc", front, "--mirror-lfs-netloc", front, "--repos-path", str(scratch / "mirrored")]
    with (scratch / "mirror.log").open("w") as log:
        mirror = subprocess.Popen(arguments, cwd=scratch, stdout=log, stderr=log)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and mirror.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return mirror, f"http://{front}"
        except OSError:
            time.sleep(0.1)
    mirror.kill()
    raise SystemExit(f"the mirror does not answer: {(scratch / 'mirror.log').read_text()[-500:]}")


def run(program: str, *arguments: str) -> None:
    done = subprocess.run([program, *arguments, "--name", "m"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())


def weights(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.suffix in WEIGHTS)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def same(program: str, command: str, checkpoint: str, scratch: Path, *more: str) -> dict[str, object]:
    """Runs a command on the folder and on the mirrored repository; raises where the weights differ."""
    folder, mirrored = scratch / f"{command}-folder", scratch / f"{command}-mirrored"
    run(program, command, checkpoint, "-o", str(folder))
    run(program, command, REPOSITORY, "-o", str(mirrored), *more)
    ours, theirs = weights(folder), weights(mirrored)
    if not ours or ours != theirs:
        raise ValueError(f"{sorted(ours)} and {sorted(theirs)} differ")
    return {"files": len(ours), "bytes": sum(map(len, ours.values()))}


def main() -> None:
    program, local_hub, checkpoint, scratch = *sys.argv[1:4], Path(sys.argv[4])
    arguments = [local_hub, f"{REPOSITORY}={checkpoint}"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        mirror, endpoint = start_mirror(hub.stdout.readline().strip(), scratch)
        os.environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(scratch / "mirror-home")}
        judge("downloaded", lambda: same(program, "convert", checkpoint, scratch, "--download"))
        judge("streamed", lambda: same(program, "tables", checkpoint, scratch))
        mirror.terminate()
        mirror.wait()
        hub.stdin.close()


if __name__ == "__main__":
    main()
