"""Create Azure's client for a Storage queue, in the account that the settings name."""

from __future__ import annotations

from typing import Any
from urllib.request import getproxies

from azure.storage.queue.aio import QueueClient

from gateway.settings import Settings

CONNECT_SECONDS, READ_SECONDS = 3, 5
# Retries of the client, one second apart. Its own default is three retries, the first after 15 s.
RETRIES = 2
# The connection string by which Core Tools name Azurite at its usual port. Its account and key are public
# (learn.microsoft.com, "Use the Azurite emulator").
DEVELOPMENT = "UseDevelopmentStorage=true"
_AZURITE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey="
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"
)


def client_of(settings: Settings, queue_name: str) -> QueueClient:
    """Return a client.

    It uses the connection string, or the identity when only an endpoint or account is set.
    Raises ValueError for an invalid connection string.
    """
    options: dict[str, Any] = {
        "retry_total": RETRIES,
        "initial_backoff": 1,
        "increment_base": 1,
        "random_jitter_range": 1,
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "logging_enable": False,
        # If no proxy is set, do not look for one: this would use two threads at each request, which wait for
        # the interpreter while the event loop is busy.
        "use_env_settings": bool(getproxies()),
    }
    if settings.storage:
        connection = _AZURITE if settings.storage.rstrip(";") == DEVELOPMENT else settings.storage
        try:
            return QueueClient.from_connection_string(connection, queue_name, **options)
        except ValueError:
            raise ValueError("AzureWebJobsStorage is not a connection string") from None
    from gateway.azure import credentials  # imported here, because a connection string does not need it

    uri = settings.storage_queues or f"https://{settings.storage_account}.queue.core.windows.net"
    credential = credentials.credential(settings.storage_client_id or settings.azure_client_id)
    return QueueClient(uri, queue_name, credential=credential, **options)
