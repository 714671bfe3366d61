"""The moment of the heart beat: how full the ventricles are and which valves stand open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Phase:
    """A moment of the heart beat: squeeze of the ventricles and opening of the valves, all 0 to 1."""

    squeeze: float
    inflow: float
    outflow: float

    @classmethod
    def sample(cls, jets: tuple[str, ...], rng: np.random.Generator) -> Phase:
        """A phase in which all `jets` can leak: a valve leaks while it is shut.

        Atrioventricular valves are shut in systole, arterial ones in diastole, both in the isovolumic moments between.
        """
        arterial, atrial = bool({"AR", "PR"} & set(jets)), bool({"MR", "TR"} & set(jets))
        if arterial == atrial:
            moment = "isovolumic" if arterial else rng.choice(["systole", "diastole"])
        else:
            moment = "diastole" if arterial else "systole"
        if moment == "systole":
            return cls(rng.uniform(0.5, 1.0), 0.0, rng.uniform(0.5, 1.0))
        if moment == "diastole":
            return cls(rng.uniform(0.0, 0.5), rng.uniform(0.4, 1.0), 0.0)
        return cls(rng.uniform(0.1, 0.9), rng.uniform(0.0, 0.1), 0.0)
