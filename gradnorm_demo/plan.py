"""Which images a split holds: a fixed table of cases, scaled to the wanted number and shuffled by the seed.

The table is the data set that the demo imitates: 1042 images whose jets (AR 1250, MR 429, PR 84, TR 319) and views
(PSAX 374, PLAX 555, A4C 111, and two images without a view label) add up to its published frequencies. Every case is
anatomically possible: no aortic jet in a four-chamber view, no mitral jet in an aortic short axis, none at all at
ventricular level.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

JETS = ("AR", "MR", "PR", "TR")
VIEWS = ("PSAX", "PLAX", "A4C")
FINDINGS = ("effusion", "lead")
HEART_UNIT = 150.0
"""Millimetres."""
LEVEL_VIEW = {"plax": "PLAX", "a4c": "A4C", "aortic": "PSAX", "papillary": "PSAX", "mitral": "PSAX"}


@dataclass(frozen=True)
class Extras:
    """What an image of the set with more image outputs has beyond jets and view.

    Attributes:
        effusion: mean width of the dark rim around the heart, heart units; 0 for no pericardial effusion.
        lead: whether a pacemaker's lead runs through the right heart.
        side: radians; where the rim is widest, and the lead away from the middle of its chamber.
        stated: the image outputs about which the label file says something.
    """

    effusion: float
    lead: bool
    side: float
    stated: tuple[str, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Extras:
        """Each finding in four images of ten, whatever the view; each label line missing in one of five."""
        return cls(
            effusion=float(rng.uniform(0.02, 0.09)) if rng.random() < 0.4 else 0.0,
            lead=bool(rng.random() < 0.4),
            side=float(rng.uniform(0, 2 * math.pi)),
            stated=tuple(output for output in ("finding", "rim") if rng.random() < 0.8),
        )

    @property
    def rim(self) -> float:
        """Mean width of the effusion, mm."""
        return self.effusion * HEART_UNIT

    @property
    def findings(self) -> dict[str, bool]:
        """Which of `FINDINGS` the image shows."""
        return dict(zip(FINDINGS, (self.effusion > 0, self.lead), strict=True))


@dataclass(frozen=True)
class Case:
    """One image to draw.

    Attributes:
        level: imaging plane, a key of `LEVEL_VIEW`.
        jets: names of the jets in it, in the order in which their label lines are written.
        labelled: whether the label file states the view.
        extras: findings and the width of the rim, in the set with more image outputs.
    """

    level: str
    jets: tuple[str, ...] = ()
    labelled: bool = True
    extras: Extras | None = None

    @property
    def view(self) -> str | None:
        """Name of the view class, or None for an image without a view label."""
        return LEVEL_VIEW[self.level] if self.labelled else None


# plane, jets, images of 1042. Jets are separated by spaces.
_TABLE: tuple[tuple[str, str, int], ...] = (
    ("plax", "", 16),
    ("plax", "MR", 59),
    ("plax", "MR MR", 10),
    ("plax", "AR", 45),
    ("plax", "AR AR", 105),
    ("plax", "AR AR AR", 44),
    ("plax", "AR MR", 120),
    ("plax", "AR AR MR", 156),
    ("a4c", "", 8),
    ("a4c", "MR", 35),
    ("a4c", "TR", 30),
    ("a4c", "MR TR", 26),
    ("a4c", "MR MR", 6),
    ("a4c", "TR TR", 6),
    ("papillary", "", 13),
    ("mitral", "", 7),
    ("aortic", "", 6),
    ("aortic", "AR", 20),
    ("aortic", "AR AR", 29),
    ("aortic", "AR AR AR", 15),
    ("aortic", "TR", 19),
    ("aortic", "AR TR", 108),
    ("aortic", "AR AR TR", 53),
    ("aortic", "AR TR TR", 20),
    ("aortic", "PR", 16),
    ("aortic", "AR PR", 17),
    ("aortic", "AR AR PR", 21),
    ("aortic", "PR TR", 15),
    ("aortic", "AR PR TR", 15),
)
_UNLABELLED = (Case("plax", ("MR",), labelled=False), Case("aortic", ("TR",), labelled=False))


def reference_cases() -> list[tuple[Case, int]]:
    """The table: each distinct case with its number of images in a set of 1042."""
    labelled = [(Case(level, tuple(jets.split())), count) for level, jets, count in _TABLE]
    return labelled + [(case, 1) for case in _UNLABELLED]


def plan_split(images: int, rng: np.random.Generator) -> list[Case]:
    """Return `images` cases in random order, in the table's proportions (largest remainders; exact at 1042)."""
    if images < 1:
        raise ValueError(f"a split of {images} images was asked for; at least 1 is needed")
    cases, counts = zip(*reference_cases(), strict=True)
    shares = np.array(counts) * (images / sum(counts))
    whole = np.floor(shares + 1e-9).astype(int)
    missing = images - whole.sum()
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    plan = [case for case, count in zip(cases, whole, strict=True) for _ in range(count)]
    return [plan[i] for i in rng.permutation(len(plan))]


def add_extras(plan: list[Case], rng: np.random.Generator) -> list[Case]:
    """The same cases, each with findings of its own."""
    return [replace(case, extras=Extras.sample(rng)) for case in plan]


def count_cases(plan: list[Case]) -> dict[str, dict[str, int]]:
    """Count what a plan holds: images, jets, views and findings by class, images without a label line or without a jet."""
    jets = Counter(jet for case in plan for jet in case.jets)
    views = Counter(case.view for case in plan)
    counts = {
        "images": {
            "all": len(plan),
            "without view label": views[None],
            "without jet": sum(not case.jets for case in plan),
        },
        "jets": {name: jets[name] for name in JETS},
        "views": {name: views[name] for name in VIEWS},
    }
    extras = [case.extras for case in plan if case.extras]
    if extras:
        counts["images"] |= {f"without {output}": sum(output not in e.stated for e in extras) for output in ("finding", "rim")}
        counts["findings"] = {name: sum(e.findings[name] for e in extras) for name in FINDINGS}
    return counts
