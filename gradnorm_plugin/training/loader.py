"""Upstream's training loader, telling the run which batch is trained and when it is over.

Our callbacks run on the first process only; every process asks its loader for the next batch. So this is the place for
what all ranks do together after a batch, the last of an epoch included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gradnorm_plugin.data.dataset import JointLoader


class WatchedLoader(JointLoader):
    """Yields the batches of `loader`.

    Args:
        loader: upstream's; its batches are (images, targets, paths, shapes).
        begin: called with a batch's image files before it is handed out.
        end: called when the batch has been trained.
        end_epoch: called when all have been.
    """

    def __init__(
        self,
        loader: Any,
        begin: Callable[[Sequence[str]], None],
        end: Callable[[], None],
        end_epoch: Callable[[], None],
    ) -> None:
        super().__init__(loader)
        self.begin, self.end, self.end_epoch = begin, end, end_epoch

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            self.begin(batch[2])
            yield batch
            self.end()
        self.end_epoch()
