"""`Saver`: the gateway's checkpointer for LangGraph, which stores checkpoints in plain Redis.

It imports LangGraph.
"""

from __future__ import annotations

from holdfast_gateway.extras import needs

with needs("worker", __name__):
    from workers.checkpoints.errors import CheckpointGone, CheckpointTooLarge, ThreadFull
    from workers.checkpoints.saver import Saver

__all__ = ["CheckpointGone", "CheckpointTooLarge", "Saver", "ThreadFull"]
