"""Scores that compare a package's logits with the reference's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

QUALIFYING_MARGIN = 0.1
"""A position whose two best reference logits are closer than this is a tie and does not count."""


def margins(logits: np.ndarray) -> np.ndarray:
    """Distance of the two largest logits of every row."""
    best = np.partition(logits, -2, axis=-1)[:, -2:]
    return best[:, 1] - best[:, 0]


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of every row of `left` with its row of `right`, in f64."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    product = np.sum(left * right, axis=-1)
    return product / (np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1))


@dataclass
class Score:
    """Agreement over any number of sequences."""

    positions: int = 0
    qualified: int = 0
    flips: list[tuple[str, int]] = field(default_factory=list)
    cosines: list[np.ndarray] = field(default_factory=list)

    def add(self, case: str, logits: np.ndarray, reference: np.ndarray) -> None:
        """Takes in one sequence's logits, both [positions, vocabulary]."""
        qualified = margins(reference) >= QUALIFYING_MARGIN
        flipped = qualified & (logits.argmax(axis=-1) != reference.argmax(axis=-1))
        self.positions += len(reference)
        self.qualified += int(qualified.sum())
        self.flips += [(case, int(position)) for position in np.flatnonzero(flipped)]
        self.cosines.append(cosines(logits, reference))

    def figures(self) -> dict[str, float]:
        """The scores that have bounds."""
        cosine = np.concatenate(self.cosines)
        return {
            "flips": len(self.flips),
            "mean_cosine": round(float(cosine.mean()), 9),
            "min_cosine": round(float(cosine.min()), 9),
        }

    def report(self) -> dict[str, object]:
        """All scores, and where the first flips are."""
        where = [f"{case}:{position}" for case, position in self.flips[:20]]
        return {"positions": self.positions, "qualified": self.qualified, **self.figures(), "flipped": where}


def violations(figures: dict[str, float], bounds: dict[str, tuple[float, float]]) -> Iterable[str]:
    """What lies outside its bounds [low, high], or is not a number; scores without bounds are not checked."""
    for name, (low, high) in bounds.items():
        if not low <= figures[name] <= high:
            yield f"{name} {figures[name]} is outside {low}..{high}"
