"""Declare the settings of the product: the variable, the default and the meaning of each.

Each name here is also in docs/settings.md. A test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

UNDELIVERED_SECONDS = 7 * 86400.0  # how long a webhook is kept after its last try
# How long the keys of a stream are kept after its time is over, so that its end can still be written.
TELLING_SECONDS = 86400.0


def setting(name: str, default: Any, meaning: str, *, secret: bool = False) -> Any:
    """Return a field that is read from the environment variable `name`.

    The value of a `secret` is never shown.
    """
    return field(default=default, repr=not secret, metadata={"env": name, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Fields:
    """The settings of an operator. Durations are in seconds, sizes in bytes. `Settings` checks them."""

    host: str = setting("HOST", "127.0.0.1", "address that the web server listens on")
    port: int = setting("PORT", 7071, "its port; 0 takes a free one")
    worker_port: str = setting(
        "GATEWAY_WORKER_PORT", "", "port of a `worker` process's /health, /ready and /metrics; empty: none"
    )
    url: str = setting("GATEWAY_URL", "", "for `ask`: the gateway's address; empty: HOST and PORT here")
    key: str = setting("GATEWAY_KEY", "", "for `ask`: an API key or a JWT", secret=True)
    auth: str = setting(
        "GATEWAY_AUTH", "", "who may ask: none, keys, easyauth or jwt; empty: none, on loopback only"
    )
    open_to_all: str = setting(
        "GATEWAY_OPEN_TO_ALL", "", "yes, with GATEWAY_AUTH=none: everybody who reaches the port may ask"
    )
    keys_file: str = setting("GATEWAY_KEYS_FILE", "", "for keys: a file of `name sha256-hex` lines")
    jwt_issuer: str = setting("GATEWAY_JWT_ISSUER", "", "for jwt: the issuer, exactly")
    jwt_audience: str = setting("GATEWAY_JWT_AUDIENCE", "", "for jwt: this gateway's name there")
    jwt_jwks_url: str = setting("GATEWAY_JWT_JWKS_URL", "", "its keys; empty: as its discovery document says")
    jwt_owner_claim: str = setting("GATEWAY_JWT_OWNER_CLAIM", "sub", "the claim that names the caller")
    jwt_required_scope: str = setting(
        "GATEWAY_JWT_REQUIRED_SCOPE", "", "for jwt: a scope that each caller must have; empty: none"
    )
    jwt_required_role: str = setting(
        "GATEWAY_JWT_REQUIRED_ROLE", "", "for jwt: a role that each caller must have; empty: none"
    )
    chain_claims: str = setting(
        "GATEWAY_CHAIN_CLAIMS",
        "",
        "for jwt and easyauth: claims of the caller that chains are told, by comma",
    )
    website_auth: str = setting(
        "WEBSITE_AUTH_ENABLED", "", "for easyauth: True where the platform's sign-in is in front"
    )
    token_keys: str = setting(
        "GATEWAY_TOKEN_KEYS",
        "",
        "secrets for stream tokens, by space; the first signs, all verify",
        secret=True,
    )
    token_seconds: float = setting(
        "GATEWAY_TOKEN_SECONDS", 0.0, "how long a stream token holds; 0: as long as its stream may run"
    )
    webhook_keys: str = setting(
        "GATEWAY_WEBHOOK_KEYS",
        "",
        "secrets from which the owners' secrets of webhooks are derived, by space; empty: no webhooks",
        secret=True,
    )
    webhook_hosts: str = setting(
        "GATEWAY_WEBHOOK_HOSTS", "", "hosts that webhooks may be sent to, by space; empty: any public one"
    )
    webhook_loopback: str = setting(
        "GATEWAY_WEBHOOK_LOOPBACK", "", "yes: also to this machine, and by http; for development"
    )
    webhook_retry: str = setting(
        "GATEWAY_WEBHOOK_RETRY_SECONDS",
        "30 120 600 3600 14400 43200 86400 86400",
        "pauses between the tries of a webhook, by space",
    )
    cors_origins: str = setting("GATEWAY_CORS_ORIGINS", "", "origins of web pages that may ask, by space")
    hosts: str = setting(
        "GATEWAY_HOSTS", "", "names of this gateway beside loopback ones, by space, where nobody is asked"
    )
    redis_url: str = setting("REDIS_URL", "", "the store; empty: one of this machine's own", secret=True)
    store_dir: str = setting(
        "GATEWAY_STORE_DIR", "", "its folder, without REDIS_URL; empty: `.holdfast`, for `run` alone"
    )
    redis_auth: str = setting(
        "GATEWAY_REDIS_AUTH", "url", "who we are there: as the URL says, or `entra`: a managed identity"
    )
    azure_client_id: str = setting("AZURE_CLIENT_ID", "", "which user-assigned identity; empty: the system's")
    queue: str = setting("GATEWAY_QUEUE", "redis", "what carries the jobs")
    queue_name: str = setting("GATEWAY_QUEUE_NAME", "holdfast-jobs", "the queue's name")
    sweep_schedule: str = setting(
        "GATEWAY_SWEEP_SCHEDULE",
        "*/15 * * * * *",
        "on Functions, when the timer looks for jobs that nobody holds",
    )
    queue_poll: float = setting(
        "GATEWAY_QUEUE_POLL_SECONDS", 1.0, "a worker's longest pause between looks at an idle Storage queue"
    )
    direct_start: str = setting(
        "GATEWAY_DIRECT_START", "stream", "with a Storage queue, which POSTs' jobs their own process runs"
    )
    storage: str = setting(
        "AzureWebJobsStorage", "", "connection string of the account with the queue", secret=True
    )
    storage_queues: str = setting(
        "AzureWebJobsStorage__queueServiceUri", "", "instead, with an identity: its queue endpoint"
    )
    storage_account: str = setting("AzureWebJobsStorage__accountName", "", "or its name")
    storage_client_id: str = setting(
        "AzureWebJobsStorage__clientId", "", "user-assigned identity for it; empty: AZURE_CLIENT_ID"
    )
    model: str = setting("GATEWAY_MODEL", "gpt-4o-mini", "model, or deployment on Azure")
    chains: str = setting("GATEWAY_CHAINS", "", "modules to import, by comma: your own chains")
    default_chain: str = setting("GATEWAY_DEFAULT_CHAIN", "chat", "the chain of a request that names none")
    development: str = setting(
        "GATEWAY_DEVELOPMENT",
        "",
        "yes: a chain's own errors are shown, to its readers too; empty: with `all` on loopback",
    )
    documents: str = setting("GATEWAY_DOCUMENTS", "", "folder that `rag` and `agent` search; empty: our docs")
    embedding_model: str = setting(
        "GATEWAY_EMBEDDING_MODEL", "", "embeds them, a deployment on Azure; empty: by their words"
    )
    azure_openai_endpoint: str = setting("AZURE_OPENAI_ENDPOINT", "", "set: models of Azure OpenAI are used")
    azure_openai_version: str = setting(
        "OPENAI_API_VERSION", "", "of its API: v1, which has no dates, or a dated one"
    )
    openai_base_url: str = setting("OPENAI_BASE_URL", "", "an OpenAI-compatible server")
    openai_api_key: str = setting("OPENAI_API_KEY", "", "its key", secret=True)
    model_lacks: str = setting(
        "GATEWAY_MODEL_LACKS",
        "",
        "what the model's server cannot do, by space: stream_options, finish_reason",
    )
    lease: float = setting(
        "GATEWAY_LEASE_SECONDS", 15.0, "after this silence of a worker another takes its job"
    )
    heartbeat: float = setting("GATEWAY_HEARTBEAT_SECONDS", 15.0, "longest silence on a reader's connection")
    stream_max_age: float = setting(
        "GATEWAY_STREAM_MAX_AGE_SECONDS",
        200.0,
        "a connection is closed at 75-100 % of it; 0: never",
    )
    retention: float = setting("GATEWAY_RETENTION_SECONDS", 86400.0, "how long an ended stream is kept")
    tombstone: float = setting("GATEWAY_TOMBSTONE_SECONDS", 86400.0, "how long after that its id answers 410")
    thread_seconds: float = setting(
        "GATEWAY_THREAD_SECONDS", 2_592_000.0, "how long checkpoints are kept after their thread's last write"
    )
    max_body: int = setting("GATEWAY_MAX_BODY_BYTES", 262144, "largest request body")
    max_reader: int = setting(
        "GATEWAY_MAX_READER_BYTES", 262144, "held for a slow reader before it must read the log"
    )
    max_event: int = setting("GATEWAY_MAX_EVENT_BYTES", 1048576, "largest event of a chain")
    max_log: int = setting("GATEWAY_MAX_LOG_BYTES", 67108864, "largest log of a stream")
    max_depth: int = setting("GATEWAY_MAX_DEPTH", 32, "how deeply a request body may be nested")
    max_items: int = setting("GATEWAY_MAX_ITEMS", 10_000, "members of one list or object in it")
    max_messages: int = setting("GATEWAY_MAX_MESSAGES", 1000, "messages of one conversation")
    max_name: int = setting("GATEWAY_MAX_NAME_CHARS", 200, "longest name of an object's member in it")
    max_documents: int = setting(
        "GATEWAY_MAX_DOCUMENTS_BYTES",
        268_435_456,
        "memory of one process for documents that are made or sent",
    )
    max_projections: int = setting(
        "GATEWAY_MAX_PROJECTIONS_BYTES",
        67_108_864,
        "memory of one process for what readers of one stream share in other formats",
    )
    max_run: float = setting(
        "GATEWAY_MAX_RUN_SECONDS", 3600.0, "how long a stream may run, from its first attempt on"
    )
    max_wait: float = setting(
        "GATEWAY_MAX_WAIT_SECONDS", 7 * 86400.0, "how long a stream may wait for its first attempt"
    )
    producer_grace: float = setting(
        "GATEWAY_PRODUCER_GRACE_SECONDS", 60.0, "after this silence of a producer its stream has failed"
    )
    max_output_tokens: int = setting(
        "GATEWAY_MAX_OUTPUT_TOKENS", 16_384, "pieces of text that one attempt may say, a token each, or more"
    )
    max_owner_streams: int = setting("GATEWAY_MAX_OWNER_STREAMS", 8, "a caller's streams that are not ended")
    max_owner_starts: int = setting(
        "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE", 60, "streams that a caller may start in a minute"
    )
    max_owner_threads: int = setting("GATEWAY_MAX_OWNER_THREADS", 10_000, "threads that a caller may have")
    max_owner_bytes: int = setting(
        "GATEWAY_MAX_OWNER_BYTES", 268_435_456, "what Redis holds for a caller's ended streams"
    )
    owner_tokens_per_day: int = setting(
        "GATEWAY_MAX_OWNER_TOKENS_PER_DAY", 0, "tokens in and out of a caller's streams a day; 0: any"
    )
    owner_tokens_per_minute: int = setting(
        "GATEWAY_MAX_OWNER_TOKENS_PER_MINUTE", 0, "those of the last minute; 0: any"
    )
    plans_file: str = setting("GATEWAY_PLANS_FILE", "", "JSON: other limits than these, by caller")
    max_owner_webhooks: int = setting(
        "GATEWAY_MAX_OWNER_WEBHOOKS", 1000, "webhooks of a caller that are not delivered"
    )
    max_webhooks: int = setting("GATEWAY_MAX_WEBHOOKS", 100_000, "webhooks to be delivered, of all callers")
    list_metadata: str = setting(
        "GATEWAY_LIST_METADATA", "", "keys of metadata by which a caller may filter his streams, by space"
    )
    max_queue: int = setting("GATEWAY_MAX_QUEUE_DEPTH", 10_000, "jobs queued or running, of all callers")
    max_readers: int = setting("GATEWAY_MAX_READERS", 10_000, "connections of readers to one process")
    connections: int = setting(
        "GATEWAY_MAX_CONNECTIONS", 0, "connections to one process; 0: what `ulimit -n` leaves"
    )
    max_stream_readers: int = setting(
        "GATEWAY_MAX_STREAM_READERS", 5000, "those of one stream, to one process"
    )
    max_owner_readers: int = setting(
        "GATEWAY_MAX_OWNER_READERS", 5000, "those of all of one caller's streams, to one process"
    )
    max_attempts: int = setting("GATEWAY_MAX_ATTEMPTS", 50, "claims of one job in all")
    max_failures: int = setting(
        "GATEWAY_MAX_FAILURES", 3, "claims that ended without an event, or over a stage's limit"
    )
    max_checkpoints: int = setting(
        "GATEWAY_MAX_CHECKPOINT_BYTES", 1048576, "largest sum of a stream's checkpoints"
    )
    run_budget: float = setting(
        "GATEWAY_RUN_BUDGET_SECONDS",
        0.0,
        "a stage that ends after it is a worker's last: another goes on; 0: none",
    )
    stage_limit: float = setting(
        "GATEWAY_STAGE_LIMIT_SECONDS", 1140.0, "a stage, or a node of a graph, is stopped after it; 0: never"
    )
    stage_limit_tries: int = setting(
        "GATEWAY_STAGE_LIMIT_TRIES", 1, "how often a stage that passes its limit is run in all"
    )
    run_limit: float = setting(
        "GATEWAY_RUN_LIMIT_SECONDS", 0.0, "a worker stops a stream's run after it; 0: never"
    )
    function_timeout: str = setting(
        "AzureFunctionsJobHost__functionTimeout", "", "the Functions host's limit, before what host.json says"
    )
    stage_tries: int = setting("GATEWAY_STAGE_TRIES", 3, "tries of a stage that fails in a way that may pass")
    worker_concurrency: int = setting("GATEWAY_WORKER_CONCURRENCY", 16, "jobs that one process runs at once")
    blocked: float = setting(
        "GATEWAY_BLOCKED_SECONDS",
        60.0,
        "how long leases are kept while a chain blocks the event loop",
    )
    store_patience: float = setting(
        "GATEWAY_STORE_PATIENCE_SECONDS",
        120.0,
        "how long a worker waits for a store that is out of reach",
    )
    queue_grace: float = setting(
        "GATEWAY_QUEUE_GRACE_SECONDS",
        60.0,
        "how long a job may be queued before it is looked after",
    )
    drain: float = setting("GATEWAY_DRAIN_SECONDS", 10.0, "how long a stopping process lets go of its work")
    service_name: str = setting("OTEL_SERVICE_NAME", "holdfast", "this process's name in traces and metrics")
    otlp_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT", "", "where they go by OTLP over HTTP; empty: nowhere"
    )
    app_insights: str = setting(
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "",
        "or Application Insights, where they go instead",
        secret=True,
    )
    app_insights_auth: str = setting(
        "APPLICATIONINSIGHTS_AUTHENTICATION_STRING", "", "`Authorization=AAD`: by identity, not by key"
    )
    metrics: str = setting("GATEWAY_METRICS", "", "`prometheus`: this process shows its metrics at /metrics")
    metrics_key: str = setting(
        "GATEWAY_METRICS_KEY", "", "the bearer token that /metrics asks for", secret=True
    )
    log_level: str = setting("GATEWAY_LOG_LEVEL", "info", "debug, info, warning or error")
    log_format: str = setting(
        "GATEWAY_LOG_FORMAT", "text", "text, or json: an object a line; not on Functions"
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the web server."""
        return self.host == "localhost" or bool(re.fullmatch(r"127\.[0-9.]+|::1", self.host))

    @property
    def open_seconds(self) -> float:
        """How long the keys of an unfinished stream last after each check of the stream, in seconds.

        This is one day longer than the stream may wait and run, so that a process can still come and write
        its end.
        """
        return self.max_wait + self.max_run + TELLING_SECONDS

    @property
    def record_seconds(self) -> float:
        """The longest lifetime of a record: open, then stored or waiting for an answer, then a tombstone."""
        return self.open_seconds + max(self.retention, self.thread_seconds) + self.tombstone

    @property
    def webhook_pauses(self) -> tuple[float, ...]:
        """The pauses between the tries of a webhook, in seconds.

        There is one try more than there are pauses.
        """
        return tuple(map(float, self.webhook_retry.split()))

    @property
    def webhook_kept_ms(self) -> int:
        """How long a webhook is stored, in milliseconds: all its tries, and a week to send it again."""
        return round((sum(self.webhook_pauses) + UNDELIVERED_SECONDS) * 1000)

    @property
    def origins(self) -> frozenset[str]:
        """The origins whose web pages may send requests."""
        return frozenset(self.cors_origins.split())

    @property
    def is_development(self) -> bool:
        """Whether the text of a chain's exceptions is shown, in the log and to readers."""
        return self.development == "yes"

    @property
    def is_open(self) -> bool:
        """Whether every client that reaches the port may send requests."""
        return self.auth in ("", "none")

    @property
    def model_is_configured(self) -> bool:
        """Whether an operator has configured a model."""
        return bool(self.azure_openai_endpoint or self.openai_base_url or self.openai_api_key)
