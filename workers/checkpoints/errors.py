"""The errors that say why a checkpoint was not stored.

An unreachable store raises `StoreUnavailable` instead.
"""

from __future__ import annotations


class CheckpointTooLarge(ValueError):
    """A checkpoint, or the writes of a task, are larger than the saver accepts at once.

    Nothing was stored.
    """

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"A checkpoint, or the writes of a task, would take {size} bytes, and {most} may be stored at "
            "once. Keep large values elsewhere, and their names in the graph's state."
        )


class ThreadFull(ValueError):
    """A thread has no space for a checkpoint, and no older checkpoint may be deleted. Nothing was stored."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The thread holds the {most} bytes that one may, and nothing in it may be dropped. "
            "Delete it, or begin another one."
        )


class TurnOver(RuntimeError):
    """The run does not have the turn of its thread (it was ended, or the thread deleted).

    Nothing was stored.
    """

    def __init__(self) -> None:
        super().__init__("Another run has the thread's turn, or the thread was deleted.")


class CheckpointGone(RuntimeError):
    """The checkpoint from which a graph continues was deleted or lost in the meantime. Nothing was stored.

    The run may be retried. It then continues from the checkpoints that are stored.
    """

    is_retryable = True

    def __init__(self) -> None:
        super().__init__("The checkpoint from which the graph goes on is not in the store any more.")
