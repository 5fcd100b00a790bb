"""The invocation requests that the host sends: HTTP, queue message, timer.

The shapes follow GrpcMessageConversionExtensions of azure-functions-host: a string travels
as string, everything that is neither text nor bytes as JSON (the dequeue count and the
times of a queue message too).

Invariant: what a handler sees of a message here is what it sees of it in Azure.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

from starlette.requests import Request

from .bindings import Function, QueueTrigger, TimerTrigger
from .protos import ParameterBinding, RpcHttp, TypedData
from .routes import Match

MESSAGE_TTL = timedelta(days=7)
VISIBILITY_TIMEOUT = timedelta(minutes=10)


def http_invocation(invocation_id: str, match: Match, request: Request) -> SimpleNamespace:
    """Return the invocation for an HTTP request, without the body: the host forwards it to the runtime's HTTP
    server."""
    http = RpcHttp(
        method=request.method,
        url=str(request.url),
        headers=dict(request.headers),
        query={key: value for key, value in request.query_params.items() if value},
        params=dict(match.params),
        body=TypedData(),
    )
    return _invocation(invocation_id, match.function, match.trigger.parameter, TypedData(http=http))


def queue_invocation(
    function: Function, trigger: QueueTrigger, text: str, dequeue_count: int
) -> SimpleNamespace:
    """Return the invocation for a message that was enqueued now and is hidden for the trigger's ten
    minutes."""
    now = datetime.now(UTC)
    metadata = {
        "QueueTrigger": TypedData(string=text),
        "Id": TypedData(string=str(uuid4())),
        "PopReceipt": TypedData(string=uuid4().hex),
        "DequeueCount": TypedData(json=str(dequeue_count)),
        "InsertionTime": _time(now),
        "ExpirationTime": _time(now + MESSAGE_TTL),
        "NextVisibleTime": _time(now + VISIBILITY_TIMEOUT),
    }
    data = TypedData(string=text)
    return _invocation(str(uuid4()), function, trigger.parameter, data, metadata)


def timer_invocation(function: Function, trigger: TimerTrigger) -> SimpleNamespace:
    now = datetime.now(UTC).isoformat()
    info = {
        "Schedule": {"AdjustForDST": True},
        "ScheduleStatus": {"Last": now, "LastUpdated": now, "Next": now},
        "IsPastDue": False,
    }
    return _invocation(str(uuid4()), function, trigger.parameter, TypedData(json=json.dumps(info)))


def _time(moment: datetime) -> TypedData:
    return TypedData(json=json.dumps(moment.isoformat(timespec="seconds")))


def _invocation(
    invocation_id: str,
    function: Function,
    parameter: str,
    data: TypedData,
    metadata: Mapping[str, TypedData] | None = None,
) -> SimpleNamespace:
    return SimpleNamespace(
        invocation_id=invocation_id,
        function_id=function.function_id,
        input_data=[ParameterBinding(name=parameter, data=data)],
        trigger_metadata=dict(metadata or {}),
        trace_context=SimpleNamespace(trace_parent="", trace_state="", attributes={}),
        retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
    )
