"""Read one trigger for each function from the runtime's metadata.

The raw bindings are the function.json that the decorators stand for. The host, not the runtime, gives them
their meaning: the default route, the placeholders, the method filter.

Invariant: a function whose binding the host in Azure would refuse is an error here too.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_PLACEHOLDER = re.compile(r"%([^%]+)%")


class BindingError(ValueError):
    """A binding that the host in Azure would not accept."""


@dataclass(frozen=True, slots=True)
class HttpTrigger:
    """A route template without the app's prefix; no methods means every method."""

    parameter: str
    route: str
    methods: tuple[str, ...]
    auth_level: str


@dataclass(frozen=True, slots=True)
class QueueTrigger:
    parameter: str
    queue_name: str


@dataclass(frozen=True, slots=True)
class TimerTrigger:
    parameter: str
    schedule: str


@dataclass(frozen=True, slots=True)
class DurableTrigger:
    """A trigger of Durable Functions. This host lacks that extension: the function is indexed but never
    started."""

    parameter: str
    kind: str


Trigger = HttpTrigger | QueueTrigger | TimerTrigger | DurableTrigger


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    function_id: str
    trigger: Trigger


def read_function(
    name: str, function_id: str, raw_bindings: Iterable[str], settings: Mapping[str, str]
) -> Function:
    """Return the function with its placeholders resolved. Raises BindingError."""
    for raw in raw_bindings:
        binding: dict[str, Any] = json.loads(raw)
        if binding["type"].endswith("Trigger"):
            return Function(name, function_id, _read_trigger(name, binding, settings))
    raise BindingError(f"function {name} has no trigger")


def _read_trigger(name: str, binding: Mapping[str, Any], settings: Mapping[str, str]) -> Trigger:
    parameter = binding["name"]
    match binding["type"]:
        case "httpTrigger":
            return _read_http_trigger(name, binding)
        case "queueTrigger":
            return QueueTrigger(parameter, resolve(binding["queueName"], settings))
        case "timerTrigger":
            return TimerTrigger(parameter, resolve(binding["schedule"], settings))
        case "orchestrationTrigger" | "activityTrigger" | "entityTrigger" as kind:
            return DurableTrigger(parameter, kind)
        case other:
            raise BindingError(f"function {name} has a trigger this host does not know: {other}")


def _read_http_trigger(name: str, binding: Mapping[str, Any]) -> HttpTrigger:
    # The host gives a function whose route is empty its own name as route
    # (WebScriptHostHttpRoutesManager.InitializeHttpFunctionRoutes); "/" is the root.
    route = binding.get("route", "").strip() or name
    if route.strip("/").lower().startswith("admin"):
        raise BindingError(f"function {name}: routes that start with admin belong to the host")
    methods = tuple(method.upper() for method in binding.get("methods", ()))
    return HttpTrigger(binding["name"], route, methods, binding.get("authLevel", "").lower())


def resolve(text: str, settings: Mapping[str, str]) -> str:
    """Return the text with each %NAME% replaced by that setting. Raises BindingError."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in settings:
            raise BindingError(f"'{found[0]}' does not resolve to a value")
        return settings[found[1]]

    return _PLACEHOLDER.sub(value, text)
