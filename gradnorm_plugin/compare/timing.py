"""The time of a forward pass of several networks, side by side on a machine whose speed drifts."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from torch import nn

from gradnorm_plugin.training.facts import device_name
from gradnorm_plugin.upstream.gateway import upstream

ROUNDS, PASSES = 15, 3
"""Rounds, and passes of each network in a round."""


def load_network(checkpoint: Path) -> nn.Module:
    """The network of a checkpoint as it predicts: fused, in evaluation mode, FP32, on the GPU if there is one.

    Raises:
        ValueError: if the file cannot be trusted.
        OSError: if it cannot be read.
    """
    logger = upstream("utils.general").LOGGER
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        network = upstream("models.experimental").attempt_load(str(checkpoint), device=device)
    finally:
        logger.setLevel(level)
    network.model[-1].export = True  # one answer, without the maps that only training wants
    return network


def time_networks(networks: Sequence[nn.Module], imgsz: int) -> tuple[str, list[tuple[float, float]]]:
    """The device, and for each network the medians of its milliseconds and of its ratio to the first, at `imgsz` pixels.

    The networks take turns within a round, in another order each time: drift slows all alike, and none inherits the same
    caches always. NMS is left out, it is the same for all.
    """
    device = next(networks[0].parameters()).device
    side = upstream("utils.general").check_img_size(imgsz, max(int(network.stride.max()) for network in networks))
    image = torch.rand(1, 3, side, side, device=device)
    order = random.Random(0)
    rounds: list[list[float]] = []
    with torch.inference_mode():
        for network in networks:
            network(image)  # the first pass allocates
        for _ in range(ROUNDS):
            spent: list[list[float]] = [[] for _ in networks]
            for _ in range(PASSES):
                for index in order.sample(range(len(networks)), len(networks)):
                    spent[index].append(_milliseconds(networks[index], image))
            rounds.append([median(times) for times in spent])
    columns = list(zip(*rounds, strict=True))
    ratios = [median(a / b for a, b in zip(column, columns[0], strict=True)) for column in columns]
    return device_name(device), [(median(column), ratio) for column, ratio in zip(columns, ratios, strict=True)]


def _milliseconds(network: nn.Module, image: torch.Tensor) -> float:
    if image.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)
