"""The rules for the values of the settings, in addition to their types."""

from __future__ import annotations

import re
from dataclasses import fields
from urllib.parse import parse_qs, urlsplit

from gateway.settings.declared import Fields

LONGEST_SECONDS = 10 * 365 * 86400.0
SHORTEST_LEASE_SECONDS = 0.1
LAST_PORT = 65535
SHORTEST_SECRET = 32  # the least number of characters
MOST_PAUSES, LONGEST_PAUSE_SECONDS = 20, 604_800  # for the retries of a webhook
DEEPEST = 200  # orjson allows 254
MOST_CLAIMS = 32  # most claims that are passed to chains
LARGEST_EVENT_BYTES = 8 * 1024 * 1024  # a reader of the log reads a frame as a whole
_POSITIVE = (
    "lease",
    "heartbeat",
    "producer_grace",
    "retention",
    "thread_seconds",
    "worker_concurrency",
    "stage_tries",
    "stage_limit_tries",
)


def check(settings: Fields) -> None:
    """Check the settings. Raises ValueError, which names the variable and the rule, never the value."""
    for item in fields(settings):
        if item.type in ("int", "float") and getattr(settings, item.name) < 0:
            raise ValueError(f"{item.metadata['env']} may not be negative")
    for item in fields(settings):
        positive = item.name in _POSITIVE or item.name.startswith("max_")
        if positive and not getattr(settings, item.name) > 0:
            raise ValueError(f"{item.metadata['env']} must be more than 0")
    for item in fields(settings):
        if item.type == "float" and getattr(settings, item.name) > LONGEST_SECONDS:
            raise ValueError(f"{item.metadata['env']} may be ten years at most")
    if settings.lease < SHORTEST_LEASE_SECONDS:
        raise ValueError(f"GATEWAY_LEASE_SECONDS must be at least {SHORTEST_LEASE_SECONDS:g}")
    if settings.port > LAST_PORT:
        raise ValueError(f"PORT must be at most {LAST_PORT}")
    if settings.max_event > LARGEST_EVENT_BYTES:
        raise ValueError(f"GATEWAY_MAX_EVENT_BYTES must be at most {LARGEST_EVENT_BYTES}")
    if settings.max_depth > DEEPEST:
        raise ValueError(f"GATEWAY_MAX_DEPTH must be at most {DEEPEST}")
    if settings.redis_url and not settings.redis_url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("REDIS_URL must begin with redis://, rediss:// or unix://")
    if settings.redis_auth not in ("url", "entra"):
        raise ValueError("GATEWAY_REDIS_AUTH must be url or entra")
    if settings.redis_auth == "entra" and not _takes_tokens(settings.redis_url):
        raise ValueError(
            "GATEWAY_REDIS_AUTH=entra needs a rediss:// REDIS_URL, certificates checked, no password"
        )
    if settings.queue not in ("redis", "azure-storage"):
        raise ValueError("GATEWAY_QUEUE must be redis or azure-storage")
    if settings.queue == "azure-storage" and not (
        settings.storage or settings.storage_queues or settings.storage_account
    ):
        raise ValueError("GATEWAY_QUEUE=azure-storage needs AzureWebJobsStorage")
    if settings.queue == "azure-storage" and not re.fullmatch(
        r"(?=.{3,56}$)[a-z0-9]+(-[a-z0-9]+)*", settings.queue_name
    ):
        raise ValueError("GATEWAY_QUEUE_NAME must be 3 to 56 lower-case letters, digits and single dashes")
    if settings.direct_start not in ("off", "stream", "always"):
        raise ValueError("GATEWAY_DIRECT_START must be off, stream or always")
    if not set(settings.model_lacks.split()) <= {"stream_options", "finish_reason"}:
        raise ValueError("GATEWAY_MODEL_LACKS may hold stream_options and finish_reason, by space")
    _check_auth(settings)
    _check_webhooks(settings)
    _check_operations(settings)
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise ValueError("GATEWAY_LOG_LEVEL must be debug, info, warning or error")


def _check_auth(settings: Fields) -> None:
    if settings.auth not in ("", "none", "keys", "easyauth", "jwt", "owner"):
        raise ValueError("GATEWAY_AUTH must be none, keys, easyauth or jwt")
    if settings.auth == "keys" and not settings.keys_file:
        raise ValueError("GATEWAY_AUTH=keys needs GATEWAY_KEYS_FILE")
    if settings.auth == "easyauth" and settings.website_auth.lower() != "true":
        raise ValueError(
            "GATEWAY_AUTH=easyauth needs WEBSITE_AUTH_ENABLED=True, which App Service sets while its "
            "Authentication is switched on: without that anybody can write its headers. Switch "
            "Authentication on, or set GATEWAY_AUTH to keys or jwt"
        )
    _check_jwt(settings)
    if settings.chain_claims and settings.auth not in ("jwt", "easyauth"):
        raise ValueError("GATEWAY_CHAIN_CLAIMS needs GATEWAY_AUTH=jwt or easyauth")
    if settings.chain_claims.count(",") >= MOST_CLAIMS:
        raise ValueError(f"GATEWAY_CHAIN_CLAIMS may have {MOST_CLAIMS} names")
    keys = settings.token_keys.split()
    if any(len(key) < SHORTEST_SECRET for key in keys):
        raise ValueError(f"GATEWAY_TOKEN_KEYS: each must have at least {SHORTEST_SECRET} characters")
    if settings.auth not in ("", "none", "owner") and not keys:
        raise ValueError(f"GATEWAY_AUTH={settings.auth} needs GATEWAY_TOKEN_KEYS")
    longest = settings.max_run + settings.retention  # after this time the token's stream is deleted
    if settings.token_seconds and not 1 <= settings.token_seconds <= longest:
        raise ValueError(
            f"GATEWAY_TOKEN_SECONDS must be 0, or 1 to {longest:g}: the sum of GATEWAY_MAX_RUN_SECONDS and "
            "GATEWAY_RETENTION_SECONDS"
        )
    for name in settings.hosts.split():
        if not re.fullmatch(r"\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?", name):
            raise ValueError("GATEWAY_HOSTS: each is a name or an address in lower case, without a port")
    for origin in settings.cors_origins.split():
        if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", origin):
            raise ValueError(
                "GATEWAY_CORS_ORIGINS: each is a scheme and a host, perhaps a port, in lower case"
            )


def _check_jwt(settings: Fields) -> None:
    required = {
        "GATEWAY_JWT_REQUIRED_SCOPE": settings.jwt_required_scope,
        "GATEWAY_JWT_REQUIRED_ROLE": settings.jwt_required_role,
    }
    for name, value in required.items():
        if value and settings.auth != "jwt":
            raise ValueError(f"{name} needs GATEWAY_AUTH=jwt")
        if len(value.split()) > 1:
            raise ValueError(f"{name} must be one name, without spaces")
    if settings.auth != "jwt":
        return
    if not (settings.jwt_issuer and settings.jwt_audience):
        raise ValueError("GATEWAY_AUTH=jwt needs GATEWAY_JWT_ISSUER and GATEWAY_JWT_AUDIENCE")
    places = {"GATEWAY_JWT_ISSUER": settings.jwt_issuer, "GATEWAY_JWT_JWKS_URL": settings.jwt_jwks_url}
    for name, url in places.items():
        if url and not keeps_keys(url):
            raise ValueError(f"{name} must begin with https://; http:// is for this machine alone")


def keeps_keys(url: str) -> bool:
    """Return whether keys from this URL are safe: it uses https, or http on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
    )


def _is_loopback(host: str) -> bool:
    return host == "localhost" or bool(re.fullmatch(r"127(\.[0-9]{1,3}){3}|::1", host))


def _check_webhooks(settings: Fields) -> None:
    if any(len(key) < SHORTEST_SECRET for key in settings.webhook_keys.split()):
        raise ValueError(f"GATEWAY_WEBHOOK_KEYS: each must have at least {SHORTEST_SECRET} characters")
    for host in settings.webhook_hosts.split():
        if not re.fullmatch(r"[0-9a-f:.]{2,45}|[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?", host):
            raise ValueError(
                "GATEWAY_WEBHOOK_HOSTS: each is a name or an address in lower case, without a port"
            )
    if settings.webhook_loopback not in ("", "no", "yes"):
        raise ValueError("GATEWAY_WEBHOOK_LOOPBACK must be yes or no")
    pauses = settings.webhook_retry.split()
    number = re.compile(r"[0-9]{1,7}(\.[0-9]{1,3})?")
    if len(pauses) > MOST_PAUSES or not all(map(number.fullmatch, pauses)):
        raise ValueError(
            f"GATEWAY_WEBHOOK_RETRY_SECONDS must be up to {MOST_PAUSES} numbers of seconds, by space"
        )
    if any(float(one) > LONGEST_PAUSE_SECONDS for one in pauses):
        raise ValueError(f"GATEWAY_WEBHOOK_RETRY_SECONDS: each may be {LONGEST_PAUSE_SECONDS} at most")


def _check_operations(settings: Fields) -> None:
    if settings.worker_port and not (
        re.fullmatch("[0-9]{1,5}", settings.worker_port) and int(settings.worker_port) <= LAST_PORT
    ):
        raise ValueError(f"GATEWAY_WORKER_PORT must be a number of at most {LAST_PORT}")
    if settings.log_format not in ("text", "json"):
        raise ValueError("GATEWAY_LOG_FORMAT must be text or json")
    if settings.metrics not in ("", "prometheus"):
        raise ValueError("GATEWAY_METRICS must be prometheus, or empty")
    if settings.metrics_key and len(settings.metrics_key) < SHORTEST_SECRET:
        raise ValueError(f"GATEWAY_METRICS_KEY must have at least {SHORTEST_SECRET} characters")
    if settings.metrics and not settings.is_open and not settings.metrics_key:
        raise ValueError(f"GATEWAY_METRICS needs GATEWAY_METRICS_KEY where GATEWAY_AUTH={settings.auth} asks")


def _takes_tokens(url: str) -> bool:
    """Return whether a token may be sent to this URL.

    The connection must reach only the server itself, and nobody between may read it.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or not url:
        return False
    if parts.scheme == "rediss":
        return not parse_qs(parts.query).keys() & {"ssl_cert_reqs", "ssl_check_hostname"}
    return parts.scheme == "unix" or _is_loopback(parts.hostname or "")
