"""Judges what `coreai-bundle publish` writes to a Hub by reading it with Hugging Face's own client.

    hub.py PROGRAM LOCAL_HUB FIRST SECOND SCRATCH

`FIRST` and `SECOND` are release trees that differ. Prints one JSON object per check.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from verdict import judge

REPOSITORY = "judge/release"
TOKEN = "hf_secretOfTheJudge"
# What a new repository begins with.
ATTRIBUTES = ".gitattributes"


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by path; links are followed, as in the cache of Hub clients."""
    found = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: data for name, data in named.items() if name != ATTRIBUTES and not name.startswith(".cache/")}


def same(ours: dict[str, bytes], theirs: dict[str, bytes]) -> dict[str, object]:
    """Raises where two trees differ."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"files differ: {sorted(ours.keys() ^ theirs.keys())}")
    differing = [name for name, data in ours.items() if theirs[name] != data]
    if differing:
        raise ValueError(f"bytes differ: {differing}")
    return {"files": len(ours), "bytes": sum(map(len, ours.values()))}


class Judge:
    """The command under judgement, and the Hub that it publishes to."""

    def __init__(self, program: str, endpoint: str, scratch: Path) -> None:
        from huggingface_hub import HfApi

        self.program, self.scratch = program, scratch
        self.api = HfApi(endpoint=endpoint, token=TOKEN)

    def publish(self, tree: Path, *more: str, repository: str = REPOSITORY) -> dict:
        """Publishes; returns the result as JSON."""
        arguments = [self.program, "publish", str(tree), "--repo-id", repository, "--json", *more]
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        if TOKEN in done.stdout + done.stderr:
            raise ValueError("the token is shown")
        return json.loads(done.stdout.splitlines()[-1])["publish"]

    def commit(self) -> str:
        return self.api.model_info(REPOSITORY).sha

    def read(self, tree: Path) -> dict[str, object]:
        """Compares a tree with what the client downloads."""
        commit = self.commit()
        folder = self.api.snapshot_download(REPOSITORY, revision=commit, cache_dir=self.scratch / "cache")
        return same(files(tree), files(Path(folder)))

    def first(self, tree: Path) -> dict[str, object]:
        published = self.publish(tree, "--private")
        if published["published"]["commit"] != self.commit():
            raise ValueError("a different commit than was reported")
        return self.read(tree)

    def listed(self, tree: Path) -> dict[str, object]:
        """The digests that the client lists are those of the bytes."""
        here, large = files(tree), 0
        for entry in self.api.list_repo_tree(REPOSITORY, recursive=True):
            data = here.get(entry.path)
            if data is None or not hasattr(entry, "blob_id"):
                continue
            if entry.lfs is not None:
                large += 1
                expected, found = hashlib.sha256(data).hexdigest(), entry.lfs.sha256
            else:
                blob = b"blob %d\0" % len(data) + data
                expected, found = hashlib.sha1(blob).hexdigest(), entry.blob_id
            if expected != found:
                raise ValueError(f"{entry.path}: {found}, expected {expected}")
        if not large:
            raise ValueError("no large file is listed")
        return {"large": large}

    def repeated(self, tree: Path) -> dict[str, object]:
        before = self.commit()
        published = self.publish(tree)
        if published["published"]["commit"] is not None or self.commit() != before:
            raise ValueError("a second commit of the same files")
        return {"equal": len(published["equal"])}

    def changed(self, tree: Path) -> dict[str, object]:
        published = self.publish(tree)
        sent = published["published"]["sent"]
        if sent or not published["changed"]:
            raise ValueError(f"{sent} large files were sent, of which none changed: {published['changed']}")
        return self.read(tree) | {"changed": len(published["changed"])}

    def written(self, tree: Path) -> dict[str, object]:
        """What the client uploads is equal to what the command would publish: both agree about what a file is."""
        repository = "judge/theirs"
        self.api.create_repo(repository)
        self.api.upload_folder(repo_id=repository, folder_path=tree)
        compared = self.publish(tree, "--dry-run", repository=repository)
        if compared["new"] or compared["changed"]:
            raise ValueError(f"differing: {compared['new']} {compared['changed']}")
        return {"equal": len(compared["equal"])}


def main() -> None:
    program, local_hub, first, second, scratch = sys.argv[1], sys.argv[2], *map(Path, sys.argv[3:6])
    arguments = [local_hub, "--token", TOKEN, "--owner", "judge"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        endpoint = hub.stdout.readline().strip()
        # Both clients read these.
        os.environ |= {"HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(scratch / "home")}
        os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        subject = Judge(program, endpoint, scratch)
        judge("first", lambda: subject.first(first))
        judge("listed", lambda: subject.listed(first))
        judge("repeated", lambda: subject.repeated(first))
        judge("changed", lambda: subject.changed(second))
        judge("written", lambda: subject.written(first))
        hub.stdin.close()


if __name__ == "__main__":
    main()
