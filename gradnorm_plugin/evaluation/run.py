"""`val`: upstream's `val.main()`, with both tasks measured in its one pass."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from gradnorm_plugin.data.checking import LabelScan, check_labels
from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.data.finding import find_dataset
from gradnorm_plugin.evaluation.bootstrap import Bootstrap
from gradnorm_plugin.evaluation.files import same_stem
from gradnorm_plugin.evaluation.one_pass import run_one_pass
from gradnorm_plugin.evaluation.options import SPLITS, EvaluationError, parse_options
from gradnorm_plugin.files import explain, is_a_matter_of_place
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.terminal import fail
from gradnorm_plugin.upstream.gateway import swapped, upstream

_general = upstream("utils.general")


def main(argv: Sequence[str] | None = None) -> None:
    """Validate with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    try:
        evaluate(parse_options(argv))
    except (LabelErrors, DescriptionError, EvaluationError) as error:
        fail(str(error))
    except OSError as error:
        if not is_a_matter_of_place(error):
            raise
        fail(explain(error))
    except AssertionError as error:  # upstream's way to say what is wrong with its input
        if not str(error):
            raise
        fail(str(error))


def evaluate(options: argparse.Namespace) -> None:
    """Run upstream's `val.main` on the options, with our one pass in the place of its `run`.

    Raises:
        LabelErrors, DescriptionError: if the data are not as they should be; nothing has been written then.
        EvaluationError: if the model cannot be loaded, has no image classes, or other classes than the data.
    """
    settings = dict(vars(options))
    _general.print_args(settings)
    bootstrap = Bootstrap(settings.pop("bootstrap"), settings.pop("seed"))
    split = options.task if options.task in SPLITS else "val"
    data, scan = _check_data(options.data, split, settings.pop("allow_download"))
    if options.save_txt and (pair := same_stem(scan.label_files)):
        raise EvaluationError(f"--save-txt: {pair[0]} and {pair[1]} would be one file in the folder of results; rename one image")
    one_pass = partial(run_one_pass, joint_data=data, scan=scan, bootstrap=bootstrap if bootstrap.resamples else None)
    with swapped(upstream("val"), run=one_pass):
        upstream("val").main(argparse.Namespace(**settings))


def _check_data(file: str, split: str, allow_download: bool) -> tuple[dict[str, Any], LabelScan]:
    data = find_dataset(file, allow_download)
    try:
        return data, check_labels(data, (split,))[split]
    except DescriptionError as error:
        raise DescriptionError(f"{file}: {error}") from None
