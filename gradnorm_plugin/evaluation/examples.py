"""A few validation images whose answers are explained: of each image output the best, the worst right and the worst wrong one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradnorm_plugin.evaluation.recording import Recording
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.outputs import CLASS, ImageOutput
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.images import write_image
from gradnorm_plugin.predict.predictor import Predictor
from gradnorm_plugin.run_folder import EXPLAINED_PICTURES, output_picture
from gradnorm_plugin.upstream.gateway import upstream


def explain_examples(
    recording: Recording, folder: Path, outputs: Sequence[ImageOutput], weights: str | JointBackend, imgsz: int, device: str
) -> None:
    """Write the explained pictures of these image outputs into `folder`, as `predict --explain` draws them.

    Args:
        weights: one .pt of a joint model, or what was loaded of it.
        imgsz: pixels of the longer side.
        device: as in YOLOv5's `--device`.
    """
    log = upstream("utils.general").LOGGER
    level = log.level
    log.setLevel(logging.WARNING)  # it has said already what this network is
    try:
        predictor = Predictor(weights, imgsz=imgsz, device=device)
        for output in outputs:
            answers, targets = recording.labelled(output)
            files = np.array(recording.files)[output.known(recording.targets(output))]
            for which, index in choose_examples(output, answers, targets).items():
                picture = folder / output_picture(output.task, EXPLAINED_PICTURES[which])
                true = output.say_target(output.target(targets[index]))
                note = f"{Path(files[index]).name}, true {'class ' * (output.name == CLASS)}{true}"
                write_image(picture, predictor(str(files[index])).explain(output.name).draw(note=note))
    except PredictError as error:
        log.warning(f"WARNING ⚠️ no more explained pictures: {error}")
    finally:
        log.setLevel(level)


def choose_examples(output: ImageOutput, answers: np.ndarray, targets: np.ndarray) -> dict[str, int]:
    """Which of the labelled images are shown: `best` and `worst` are right, `wrong` is not; by the loss of their answers.

    For a class that is by the probability of the true one. None of a kind that there is not.
    """
    order = np.argsort(output.answer_losses(answers, targets), kind="stable")
    hits = np.array([output.right(answers[index], output.target(targets[index])) for index in order], dtype=bool)
    right, wrong = order[hits], order[~hits]
    found = {"best": right[:1], "worst": right[1:][-1:], "wrong": wrong[-1:]}
    return {which: int(index) for which, chosen in found.items() for index in chosen}
