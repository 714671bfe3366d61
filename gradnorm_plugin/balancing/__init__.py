"""The mathematics of loss balancing. Imports torch and nothing else, so it can be read and tested without YOLO."""

from gradnorm_plugin.balancing.balancer import Balancer
from gradnorm_plugin.balancing.directions import CAGrad, GradientSurgery, PCGrad
from gradnorm_plugin.balancing.dwa import DynamicWeightAverage
from gradnorm_plugin.balancing.fixed import FixedWeights
from gradnorm_plugin.balancing.gradnorm import PRESETS, GradNorm
from gradnorm_plugin.balancing.meeting import Meeting
from gradnorm_plugin.balancing.probe import GradientProbe, TaskGradients
from gradnorm_plugin.balancing.projection import project_weights
from gradnorm_plugin.balancing.ranks import sum_over_ranks, world_size
from gradnorm_plugin.balancing.uncertainty import UncertaintyWeights

__all__ = [
    "PRESETS",
    "Balancer",
    "CAGrad",
    "DynamicWeightAverage",
    "FixedWeights",
    "GradNorm",
    "GradientProbe",
    "GradientSurgery",
    "Meeting",
    "PCGrad",
    "TaskGradients",
    "UncertaintyWeights",
    "project_weights",
    "sum_over_ranks",
    "world_size",
]
