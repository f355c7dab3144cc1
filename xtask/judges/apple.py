"""Judges `.aimodel` packages by Apple's own loader, verifier, serializer and Linux runtime.

    apple.py judge JOB.json          one package; prints one JSON object per check
    apple.py compare JOB.json        two packages' stored logits, position by position

A job of `judge`:

    package     the .aimodel folder
    variant     provider, tbl or stock
    cache_pairs 1 for one pair of caches for all layers, 2 for a pair for each kind of layer
    queries     tokens that a call of each function takes, by its name; -1 for any number
    feedings    how sequences are fed, see `runtime.Feeding.parse`; the first one's logits are stored and must be of all positions
    checkpoint  the folder that it was converted from
    tables      the gather tables as dumped, or null: then the rows are computed from the checkpoint
    oracles     oracle files: their sequences are fed, and the numpy reference is compared with them first
    most_cases  how many of the oracles' cases are fed, the first ones; null for all
    sequences   more token ids to feed, for which there is no oracle
    bounds      {"flips" | "mean_cosine" | "min_cosine": [low, high]}
    rounding_cosine
                the minimum cosine between logits that are only rounded differently
    logits      a .npz file for the package's logits, or null
    interpreter our own interpreter (`oracle/examples/logits.rs`), to compare with Apple's runtime, or null

A job of `compare`: `left` and `right`, two such .npz files, the left one with at least the sequences of the right one,
and `min_cosine`.

Every line has `check`, `status` (passed or failed), `message` and `detail`. The exit code is 0 when the judge did its
work, whatever the verdicts; a crash of Apple's code ends the process, and the caller counts it as a failed check.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from coreai.authoring import AIModelAsset

import package
from checkpoint import Checkpoint
from decoder import Decoder
from runtime import Feeding, Session, open_session
from scores import QUALIFYING_MARGIN, Score, cosines, margins, violations
from tables import PerLayerTable

SAME_ROUNDING_COSINE = 0.99999
"""The minimum cosine between our interpreter's logits, rounded as Apple's, and Apple's."""

SAME_FEEDING_COSINE = 0.99999
"""The minimum cosine between logits of one package that was fed in two ways."""

INTERPRETED_CASES = 2
"""Cases that our interpreter is fed: `oracle/tests/it/interpreter_apple.rs` compares its bits with Apple's at every position of a
package of each weight format, so it only remains to check that it runs what we convert."""

MARGIN_TOLERANCE = 1e-3
"""How far the reference's margins may lie from the oracle's, both computed in f32 by different code."""


Detail = Mapping[str, object]


class Failed(Exception):
    """A check whose scores are out of bounds; carries them."""

    def __init__(self, message: str, detail: Detail) -> None:
        super().__init__(message)
        self.detail = detail


def emit(check: str, status: str, message: str, detail: Detail) -> None:
    """Prints the verdict of one check."""
    print(json.dumps({"check": check, "status": status, "message": message, "detail": detail}), flush=True)


def run_check(check: str, body: Callable[[], Detail]) -> bool:
    """Runs one check and prints its verdict; anything raised is a failure."""
    try:
        detail = body()
    except Failed as failure:
        emit(check, "failed", str(failure), failure.detail)
        return False
    except Exception as error:  # Apple's bindings raise RuntimeError and others; each is a verdict.
        emit(check, "failed", f"{type(error).__name__}: {error}", {})
        return False
    emit(check, "passed", "", detail)
    return True


@dataclass(frozen=True)
class Case:
    """One sequence to feed, with the oracle's results for it if there are any."""

    name: str
    ids: list[int]
    oracle: dict[str, list[float]] | None = None


@dataclass(frozen=True)
class Job:
    """A package to judge; see the module's text."""

    package: Path
    variant: str
    cache_pairs: int
    queries: dict[str, int]
    feedings: list[str]
    checkpoint: Checkpoint
    tables: Path | None
    cases: list[Case]
    bounds: dict[str, tuple[float, float]]
    rounding_cosine: float
    logits: Path | None
    interpreter: Path | None

    @staticmethod
    def read(path: Path) -> Job:
        job = json.loads(path.read_text())
        cases = [
            Case(f"{Path(oracle).stem}[{index}]", case["prompt_ids"] + case["generated_ids"], case)
            for oracle in job["oracles"]
            for index, case in enumerate(json.loads(Path(oracle).read_text())["cases"])
        ]
        cases = cases[: job["most_cases"]]
        cases += [Case(f"sequence[{index}]", ids) for index, ids in enumerate(job["sequences"])]
        return Job(
            package=Path(job["package"]),
            variant=job["variant"],
            cache_pairs=job["cache_pairs"],
            queries=job["queries"],
            feedings=job["feedings"],
            checkpoint=Checkpoint(Path(job["checkpoint"])),
            tables=Path(job["tables"]) if job["tables"] else None,
            cases=cases,
            bounds={name: (low, high) for name, (low, high) in job["bounds"].items()},
            rounding_cosine=job["rounding_cosine"],
            logits=Path(job["logits"]) if job["logits"] else None,
            interpreter=Path(job["interpreter"]) if job["interpreter"] else None,
        )


def reference_logits(job: Job) -> list[np.ndarray]:
    """The f32 logits of every case."""
    decoder = Decoder(job.checkpoint)
    return [decoder.logits(case.ids) for case in job.cases]


def check_reference(job: Job, references: list[np.ndarray]) -> Detail:
    """Compares the numpy reference with the oracle: every arg-max above a tie, every margin, every norm."""
    worst_margin = worst_norm = 0.0
    known = [
        (case.name, case.oracle, logits) for case, logits in zip(job.cases, references, strict=True) if case.oracle
    ]
    for name, oracle, logits in known:
        expected = np.array(oracle["teacher_forced_margins"])
        differing = logits.argmax(axis=-1) != np.array(oracle["teacher_forced_argmax"])
        if np.any(differing & (expected > MARGIN_TOLERANCE)):
            raise Failed(f"arg-max differs from the oracle in {name}", {})
        norms = np.array(oracle["logit_norms"])
        worst_margin = max(worst_margin, float(np.abs(margins(logits) - expected).max()))
        worst_norm = max(worst_norm, float(np.abs(np.linalg.norm(logits, axis=-1) / norms - 1).max()))
    detail: Detail = {"cases": len(known), "margin_error": worst_margin, "norm_error": worst_norm}
    if worst_margin > MARGIN_TOLERANCE or worst_norm > MARGIN_TOLERANCE:
        raise Failed("the numpy reference does not reproduce the oracle", detail)
    return detail


def per_layer_table(job: Job) -> PerLayerTable | None:
    """The rows that the host would read: the dump if there is one, which must equal the result of the rule; none without such rows."""
    if not job.checkpoint.config.per_layer:
        return None
    computed = PerLayerTable.quantize(job.checkpoint)
    if job.tables is None:
        return computed
    dumped = PerLayerTable.dump(job.tables)
    if not dumped.equals(computed):
        raise Failed(f"{job.tables / 'embed_per_layer.i8'} differs from the result of its rule", {})
    return dumped


async def run_cases(
    job: Job, session: Session, references: list[np.ndarray], stored: dict[str, np.ndarray]
) -> Detail:
    """Feeds every case in the first way, scores the logits and stores them."""
    score = Score()
    signatures = {}
    for name, description in session.descriptions.items():
        # Apple's engine refuses a prefill of any length that has outputs; others want the logits of one of fixed length.
        has_logits = name == "main" or job.queries[name] != package.DYNAMIC
        expected = package.Expected(job.variant, job.cache_pairs, job.queries[name], has_logits)
        signature = package.check_signature(description, expected, job.checkpoint.config)
        signatures |= {f"{name} {kind}": names for kind, names in signature.items()}
    for case, reference in zip(job.cases, references, strict=True):
        logits = await session.logits(case.ids, Feeding.parse(job.feedings[0]))
        score.add(case.name, logits, reference)
        stored[case.name] = logits
    if job.logits:
        np.savez(job.logits, allow_pickle=False, **stored)
    detail = {**score.report(), **signatures}
    if problems := "; ".join(violations(score.figures(), job.bounds)):
        raise Failed(problems, detail)
    return detail


async def run_feeding(
    job: Job, session: Session, feeding: str, references: list[np.ndarray], stored: dict[str, np.ndarray]
) -> Detail:
    """Feeds every case in another way: as good as the first, and the same except for the order of sums."""
    score = Score()
    nearest = 1.0
    for case, reference in zip(job.cases, references, strict=True):
        logits = await session.logits(case.ids, Feeding.parse(feeding))
        score.add(case.name, logits, reference[-len(logits) :])
        nearest = min(nearest, float(cosines(stored[case.name][-len(logits) :], logits).min()))
    detail = {**score.report(), "cosine with the first": round(nearest, 9)}
    problems = list(violations(score.figures(), job.bounds))
    if not nearest >= SAME_FEEDING_COSINE:
        problems.append(f"minimum cosine with {job.feedings[0]} is {nearest:.9f}, {SAME_FEEDING_COSINE} is the least")
    if problems:
        raise Failed("; ".join(problems), detail)
    return detail


def run_package(
    job: Job, asset: AIModelAsset, references: list[np.ndarray], stored: dict[str, np.ndarray]
) -> None:
    """The checks that run the package, which is lowered once for all ways to feed it: that takes up to four seconds."""
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        sessions: list[Session] = []

        def run() -> Detail:
            session = open_session(asset, per_layer_table(job), job.checkpoint.config)
            sessions.append(runner.run(opened.enter_async_context(session)))
            return runner.run(run_cases(job, sessions[0], references, stored))

        run_check("run", run)
        if len(stored) == len(job.cases):
            for feeding in job.feedings[1:]:
                body = run_feeding(job, sessions[0], feeding, references, stored)
                run_check(f"fed by {feeding}", lambda body=body: runner.run(body))
        runner.run(opened.aclose())


def interpreted(job: Job, cases: list[Case], interpreter: Path, rounding: str) -> np.ndarray:
    """The logits of all positions of these cases as our interpreter computes them."""
    with tempfile.TemporaryDirectory() as folder:
        sequences, out = Path(folder) / "sequences.json", Path(folder) / "logits.f32"
        sequences.write_text(json.dumps([case.ids for case in cases]))
        tables = str(job.tables) if job.variant != "stock" else "-"
        subprocess.run([interpreter, job.package, tables, sequences, rounding, out], check=True)
        positions = sum(len(case.ids) for case in cases)
        return np.fromfile(out, dtype="<f4").reshape(positions, -1)


def check_interpreter(
    job: Job, interpreter: Path, references: list[np.ndarray], stored: dict[str, np.ndarray]
) -> Detail:
    """Compares our interpreter with Apple's runtime on the first cases: every winner, and how far apart the logits are.

    Rounded as Apple's, they must be practically equal. With wide sums, as on GPUs, Apple's own rounding remains as a difference.
    """
    cases = job.cases[:INTERPRETED_CASES]
    qualified = margins(np.concatenate(references[:INTERPRETED_CASES])) >= QUALIFYING_MARGIN
    apple = np.concatenate([stored[case.name] for case in cases])
    winners = apple.argmax(axis=-1)
    detail: dict[str, object] = {"positions": len(apple), "qualified": int(qualified.sum())}
    problems = []
    for rounding, least in {"apple": SAME_ROUNDING_COSINE, "wide": job.rounding_cosine}.items():
        logits = interpreted(job, cases, interpreter, rounding)
        lowest = float(cosines(apple, logits).min())
        flips = int(((logits.argmax(axis=-1) != winners) & qualified).sum())
        detail |= {f"{rounding} flips": flips, f"{rounding} min cosine": round(lowest, 9)}
        if (flips and rounding == "apple") or not lowest >= least:
            problems.append(f"{rounding}: {flips} flips, minimum cosine {lowest:.9f}, {least} is the least")
    if problems:
        raise Failed("; ".join(problems), detail)
    return detail


def judge(job: Job) -> None:
    """All checks of one package; a package that does not load is not run."""
    opened: list[AIModelAsset] = []

    def load() -> Detail:
        asset, facts = package.load(job.package, list(job.queries))
        opened.append(asset)
        return facts

    references = reference_logits(job)
    if any(case.oracle for case in job.cases):
        run_check("reference", lambda: check_reference(job, references))
    if run_check("load", load):
        run_check("fixed point", lambda: package.check_fixed_point(job.package, opened[0]))
        stored: dict[str, np.ndarray] = {}
        run_package(job, opened[0], references, stored)
        if job.interpreter and len(stored) == len(job.cases):
            interpreter = job.interpreter
            run_check("interpreter", lambda: check_interpreter(job, interpreter, references, stored))


def compare(left_file: str, right_file: str, least: float) -> Detail:
    """Cosine of two packages' logits at every position of every sequence that the right one was fed."""
    left, right = np.load(left_file), np.load(right_file)
    cosine = np.concatenate([cosines(left[name], right[name]) for name in right.files])
    detail = {"positions": len(cosine), "min_cosine": round(float(cosine.min()), 9)}
    if not cosine.min() >= least:
        raise Failed(f"minimum cosine {cosine.min():.9f} is below {least}", detail)
    return detail


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code."""
    match arguments:
        case ["judge", job]:
            judge(Job.read(Path(job)))
        case ["compare", job]:
            files = json.loads(Path(job).read_text())
            run_check("agreement", lambda: compare(files["left"], files["right"], files["min_cosine"]))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
