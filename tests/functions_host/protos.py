"""Stand-ins for the messages that the runtime exchanges with the host.

In Azure these are protobuf classes. The runtime only builds them with keywords, reads
their fields and asks `WhichOneof`, so plain namespaces serve, and a test needs no gRPC.
The runtime receives this module as its `protos`.

Invariant: a `TypedData` holds at most one value, named by its kind.
"""

from types import SimpleNamespace


class TypedData(SimpleNamespace):
    """One value on the wire: TypedData(string=…), (json=…), (bytes=…) or (http=RpcHttp(…))."""

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - protobuf's own spelling
        return next(iter(vars(self)), None)


class ParameterBinding(SimpleNamespace):
    """One argument of an invocation: name and data."""

    def WhichOneof(self, _group: str) -> str:  # noqa: N802 - protobuf's own spelling
        return "data"


class StatusResult(SimpleNamespace):
    """The result of a request to the runtime: the status, and the exception of a failure."""

    Failure = 0
    Success = 1


class BindingInfo(SimpleNamespace):
    """Type, data type and direction of one binding; the constants are the wire's."""

    undefined = 0
    out = 1
    inout = 2


class RpcHttp(SimpleNamespace):
    """Method, url, headers, query, route parameters and body of an HTTP trigger."""


class RpcException(SimpleNamespace):
    """`message` is "TypeName: text"; `stack_trace` is the formatted traceback."""


class RpcFunctionMetadata(SimpleNamespace):
    """The runtime's description of one function; `raw_bindings` are JSON texts."""


class RpcRetryOptions(SimpleNamespace):
    """A function's retry policy; the host obeys it in Azure, this one does not."""


class FunctionMetadataResponse(SimpleNamespace):
    """All functions that the runtime has indexed."""


class FunctionLoadResponse(SimpleNamespace):
    """The answer to loading one function."""


class WorkerInitResponse(SimpleNamespace):
    """Capabilities of the runtime, among them `HttpUri`, or why it could not index."""


class WorkerMetadata(SimpleNamespace):
    """Name and version of the runtime."""


class InvocationResponse(SimpleNamespace):
    """The result of one invocation; the body of an HTTP answer is not in it."""
