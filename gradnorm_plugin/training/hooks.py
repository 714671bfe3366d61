"""Our hooks on upstream's callbacks, in order.

Upstream runs callbacks in registration order; ours come before its loggers. It runs most, but not all, on the main process only,
so ours are registered only there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradnorm_plugin.data.targets import JointTargets
from gradnorm_plugin.evaluation.mosaics import badges_on_mosaics, label_badges
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.plots import plot_epochs, plot_updates
from gradnorm_plugin.training.resume import attach_state
from gradnorm_plugin.training.run_file import RunFile
from gradnorm_plugin.training.seams import Hook
from gradnorm_plugin.training.tables import BatchLines, EpochTable, UpdateTable
from gradnorm_plugin.training.tracking import Tracking
from gradnorm_plugin.upstream.gateway import upstream

if TYPE_CHECKING:

    class _Callbacks:
        """The part of upstream's class that is used here."""

        def run(self, hook: str, *args: Any, thread: bool = False, **kwargs: Any) -> None: ...

        def register_action(self, hook: str, name: str, callback: Callable[..., None]) -> None: ...

else:
    _Callbacks = upstream("utils.callbacks").Callbacks

_loggers = upstream("utils.loggers")


class JointCallbacks(_Callbacks):
    """Upstream's callbacks, passing plain box tensors instead of joint targets to its loggers.

    The image-level labels are written on the mosaics that the loggers draw.
    """

    def __init__(self, run: JointRun) -> None:
        super().__init__()
        self._run = run
        self.epochs = EpochTable(run)
        self.tracking = Tracking(run, self.epochs)

    def run(self, hook: str, *args: Any, thread: bool = False, **kwargs: Any) -> None:
        """Run the actions of `hook`."""
        targets = next((arg for arg in args if isinstance(arg, JointTargets)), None)
        if targets is None:
            super().run(hook, *args, thread=thread, **kwargs)
            return
        plain = [arg.boxes if arg is targets else arg for arg in args]
        outputs, box_names = self._run.outputs, self._run.model.names
        with badges_on_mosaics(_loggers, lambda _: label_badges(outputs, targets.outputs), box_names):
            super().run(hook, *plain, thread=thread, **kwargs)


class CheckpointState(Hook):
    """Adds the balancer's state to the checkpoint that upstream writes next."""

    def __init__(self, run: JointRun) -> None:
        self.run = run

    def on_fit_epoch_end(self, *_: object) -> None:
        """Attach the state."""
        attach_state(self.run.model, self.run.criterion.state_dict())


class Plots(Hook):
    """`gradnorm` and `joint_results` as `.png` and `.pdf` from the two tables, at the end."""

    def __init__(self, run: JointRun) -> None:
        self.run = run

    def on_train_end(self, *_: object) -> None:
        """Draw the plots."""
        folder = Path(self.run.loggers.save_dir)
        if self.run.options.noplots or self.run.options.evolve:
            return
        plot_updates(folder)
        plot_epochs(folder)


_HOOKS = tuple(name for name in vars(Hook) if name.startswith("on_"))


def make_callbacks(run: JointRun) -> JointCallbacks:
    """Callbacks with our hooks, in order: screen lines show the weights the batch was trained with, so they come before it is
    settled; the state is attached once the whole epoch is settled; the plots read what the other hooks wrote."""
    callbacks = JointCallbacks(run)
    if upstream("train").RANK not in {-1, 0}:
        return callbacks
    tables = BatchLines(run), UpdateTable(run), callbacks.epochs
    for hook in (RunFile(run), *tables, callbacks.tracking, CheckpointState(run), Plots(run)):
        for name in _HOOKS:
            callbacks.register_action(name, type(hook).__name__, getattr(hook, name))
    return callbacks
