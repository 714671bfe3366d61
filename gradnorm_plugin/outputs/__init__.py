"""Image outputs: what the network says about the whole image. A kind is a file of its own and an entry in `OUTPUT_KINDS`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from gradnorm_plugin.labels import LabelRules
from gradnorm_plugin.outputs.classes import NO_CLASS, Classes
from gradnorm_plugin.outputs.label_set import LabelSet
from gradnorm_plugin.outputs.output import CLASS, ImageOutput, OutputError, Target, check_output_name
from gradnorm_plugin.outputs.value import Value

OUTPUT_KINDS: dict[str, type[ImageOutput]] = {kind.kind: kind for kind in (Classes, LabelSet, Value)}
"""By the key that names the kind in a data yaml."""

Outputs = tuple[ImageOutput, ...]
"""The image outputs of a network or data set, in the order of its logits."""


def describe_outputs(outputs: Outputs) -> dict[str, dict[str, Any]]:
    """Plain data that `read_outputs` reads: what checkpoints and exported files hold."""
    return {output.name: output.description for output in outputs}


def list_outputs(outputs: Outputs) -> str:
    """Them and what they tell, in a line for a person."""
    if [output.name for output in outputs] == [CLASS]:
        return ", ".join(outputs[0].rows)
    return "; ".join(f"{output.name} ({output.kind}: {', '.join(map(str, output.description.values()))})" for output in outputs)


def read_outputs(descriptions: Any) -> Outputs:
    """The outputs that {name: description} describes, as under `image_outputs` in a data yaml.

    Raises:
        OutputError: saying which description is wrong, and how.
    """
    if not isinstance(descriptions, Mapping) or not descriptions:
        raise OutputError(f"image_outputs is {descriptions!r}: write a line for each, such as `view: {{classes: [A, B]}}`")
    found: list[ImageOutput] = []
    for name, description in descriptions.items():
        check_output_name(name)
        kinds = [kind for kind in OUTPUT_KINDS if isinstance(description, Mapping) and kind in description]
        if len(kinds) != 1:
            expected = ", ".join(f"`{kind}`" for kind in OUTPUT_KINDS)
            raise OutputError(
                f"image output `{name}` is {description!r}: write exactly one of {expected}, such as {{classes: [A, B]}}"
            )
        if name == CLASS and kinds[0] != Classes.kind:
            raise OutputError(
                f"image output `{CLASS}` has `{kinds[0]}`, but its bare label line tells one of `{Classes.kind}`: rename it"
            )
        found.append(OUTPUT_KINDS[kinds[0]].from_description(name, description))
    if len({output.name.lower() for output in found}) < len(found):
        raise OutputError("two image outputs have names that differ in case alone: rename one")
    return tuple(found)


def read_temperatures(found: Any, outputs: Outputs) -> dict[str, float]:
    """The temperature of each output that tells a class and was calibrated, as checkpoints and exported files hold it.

    Raises:
        OutputError: if they are none.
    """
    told = {output.name for output in outputs if isinstance(output, Classes)}
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(
        name in told and type(value) is float and 0 < value < math.inf for name, value in found.items()
    ):
        raise OutputError(f"its temperatures are {found!r}, not a number above 0 for each output that tells a class")
    return dict(found)


def class_output(names: Mapping[int, str] | Sequence[str]) -> Classes:
    """The output of a data set's `classification_names`."""
    return Classes(CLASS, tuple(names[index] for index in range(len(names))))


def the_classes(outputs: Outputs) -> Classes | None:
    """The output whose label line needs no name: that of `classification_names`, or the one that tells a class; None for none."""
    found = [output for output in outputs if isinstance(output, Classes)]
    found = [output for output in found if output.name == CLASS] or found
    return found[0] if len(found) == 1 else None


def class_names(outputs: Outputs) -> dict[int, str]:
    """The image's classes; none where no output, or more than one, tells a class."""
    told = the_classes(outputs)
    return dict(enumerate(told.names)) if told else {}


def label_rules(outputs: Outputs, num_box_classes: int | None = None) -> LabelRules:
    """What label files with these image outputs are held against; None leaves the upper bound of box classes unchecked."""
    unnamed = the_classes(outputs)
    if unnamed is None:
        return LabelRules(num_box_classes, 0, None, outputs)
    return LabelRules(num_box_classes, unnamed.width, unnamed.name, outputs)


def split(outputs: Outputs, side_by_side: Any) -> list[Any]:
    """The (B, W) columns of each output, of a tensor or array that has them side by side."""
    ends = accumulate(output.width for output in outputs)
    return [side_by_side[:, end - output.width : end] for output, end in zip(outputs, ends, strict=True)]


def cooled(outputs: Outputs, logits: Tensor, temperatures: Mapping[str, float] | None) -> Tensor:
    """The logits of all outputs side by side, divided by the temperatures that there are, by name."""
    if not temperatures:
        return logits
    parts = zip(outputs, split(outputs, logits), strict=True)
    return torch.cat([part / temperatures[output.name] if output.name in temperatures else part for output, part in parts], 1)


def activate(outputs: Outputs, logits: Tensor, temperatures: Mapping[str, float] | None = None) -> Tensor:
    """Probabilities and values of all outputs side by side, of their logits at these temperatures."""
    whole = split(outputs, cooled(outputs, logits, temperatures))
    parts = [output.activate(part) for output, part in zip(outputs, whole, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


__all__ = [
    "CLASS",
    "NO_CLASS",
    "OUTPUT_KINDS",
    "Classes",
    "ImageOutput",
    "LabelSet",
    "OutputError",
    "Outputs",
    "Target",
    "Value",
    "activate",
    "class_names",
    "class_output",
    "cooled",
    "describe_outputs",
    "label_rules",
    "list_outputs",
    "read_outputs",
    "read_temperatures",
    "split",
    "the_classes",
]
