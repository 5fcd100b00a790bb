"""Open the queue that the settings name."""

from __future__ import annotations

import os
import secrets
import socket

from gateway.queue.job_queue import JobQueue
from gateway.queue.redis_queue import RedisQueue
from gateway.redis.cluster import Router
from gateway.redis.commands import Commands
from gateway.redis.connect import Place
from gateway.settings import Settings

READ_TIMEOUT_SECONDS = 15.0  # longer than a blocking read of the queue, which takes up to 1 s


def open_queue(settings: Settings, redis: Commands, place: Place) -> JobQueue:
    """Return the queue that the settings name. The Azure client is imported only if it is needed."""
    keep = settings.open_seconds  # A message must last as long as its stream may exist without an end.
    if settings.queue == "azure-storage":
        from gateway.azure.storage import client_of
        from gateway.queue.azure_queue import HELD, AzureQueue

        jobs = client_of(settings, settings.queue_name)
        held = client_of(settings, settings.queue_name + HELD)
        return AzureQueue(jobs, held, poll=settings.queue_poll, keep=keep, lease=settings.lease)
    return RedisQueue(
        redis,
        Router(place, name="holdfast-queue", timeout=READ_TIMEOUT_SECONDS),
        name=settings.queue_name,
        consumer=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        lease_ms=round(settings.lease * 1000),
        keep_ms=round(keep * 1000),
    )
