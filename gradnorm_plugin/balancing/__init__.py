"""The mathematics of loss balancing. Imports torch and nothing else, so it can be read and tested without YOLO."""

from gradnorm_plugin.balancing.balancer import Balancer, sum_over_ranks, world_size
from gradnorm_plugin.balancing.bisector import Bisector
from gradnorm_plugin.balancing.directions import CAGrad, GradientSurgery, PCGrad
from gradnorm_plugin.balancing.dwa import DynamicWeightAverage
from gradnorm_plugin.balancing.fixed import FixedWeights
from gradnorm_plugin.balancing.gradients import GradientProbe, Meeting, TaskGradients, pairs
from gradnorm_plugin.balancing.gradnorm import GradNorm, preset
from gradnorm_plugin.balancing.log_losses import LogLosses
from gradnorm_plugin.balancing.projection import project_weights
from gradnorm_plugin.balancing.uncertainty import UncertaintyWeights
from gradnorm_plugin.balancing.uw_so import SoftOptimalUncertainty
from gradnorm_plugin.presets import PRESETS

BALANCERS: dict[str, type[Balancer]] = {
    balancer.name: balancer
    for balancer in (
        GradNorm,
        FixedWeights,
        UncertaintyWeights,
        DynamicWeightAverage,
        SoftOptimalUncertainty,
        LogLosses,
        PCGrad,
        CAGrad,
        Bisector,
    )
}
"""By name. One more is a file of its own, an entry here, and one in `presets.SETTINGS`, from which its flags follow: its
checks, its place in `compare`, in `run.json` and in the plots follow from the class."""

__all__ = [
    "BALANCERS",
    "PRESETS",
    "Balancer",
    "Bisector",
    "CAGrad",
    "DynamicWeightAverage",
    "FixedWeights",
    "GradNorm",
    "GradientProbe",
    "GradientSurgery",
    "LogLosses",
    "Meeting",
    "PCGrad",
    "SoftOptimalUncertainty",
    "TaskGradients",
    "UncertaintyWeights",
    "pairs",
    "preset",
    "project_weights",
    "sum_over_ranks",
    "world_size",
]
