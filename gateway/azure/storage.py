"""Azure's client of one Storage queue, as the settings name the account."""

from __future__ import annotations

from typing import Any
from urllib.request import getproxies

from azure.storage.queue.aio import QueueClient

from gateway.settings import Settings

CONNECT_SECONDS, READ_SECONDS = 3, 5
RETRIES = 2  # of the client, a second apart; its own default would be three, the first after 15 s
# Core Tools' name for Azurite at its usual port; account and key are public (learn.microsoft.com, "Use the
# Azurite emulator").
DEVELOPMENT = "UseDevelopmentStorage=true"
_AZURITE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey="
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"
)


def client_of(settings: Settings, queue_name: str) -> QueueClient:
    """A client by connection string, or by identity when there is only an endpoint or an account's name.

    Raises ValueError when the connection string is none.
    """
    options: dict[str, Any] = {
        "retry_total": RETRIES,
        "initial_backoff": 1,
        "increment_base": 1,
        "random_jitter_range": 1,
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "logging_enable": False,
        # Where no proxy is set nobody looks for one: it takes two threads at each request, and they wait for
        # the interpreter while the event loop is busy.
        "use_env_settings": bool(getproxies()),
    }
    if settings.storage:
        connection = _AZURITE if settings.storage.rstrip(";") == DEVELOPMENT else settings.storage
        try:
            return QueueClient.from_connection_string(connection, queue_name, **options)
        except ValueError:
            raise ValueError("AzureWebJobsStorage is not a connection string") from None
    from gateway.azure import credentials  # only here, so that a connection string needs none of it

    uri = settings.storage_queues or f"https://{settings.storage_account}.queue.core.windows.net"
    credential = credentials.credential(settings.storage_client_id or settings.azure_client_id)
    return QueueClient(uri, queue_name, credential=credential, **options)
