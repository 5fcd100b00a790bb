"""Bicep's functions that the check knows: the number of arguments and the result type of each."""

from __future__ import annotations

from tests.infra.types import ANY, BOOL, INT, STRING, Type, array, record

MANY = 99
SCOPE = record(dict.fromkeys(("id", "name", "location", "tenantId", "subscriptionId"), (STRING, 0)))
SUBSCRIPTION = record(dict.fromkeys(("id", "subscriptionId", "tenantId", "displayName"), (STRING, 0)))

# name: fewest arguments, most arguments, result type; None: it depends on the arguments
FUNCTIONS: dict[str, tuple[int, int, Type | None]] = {
    "concat": (1, MANY, None),
    "contains": (2, 2, BOOL),
    "deployment": (0, 0, ANY),
    "empty": (1, 1, BOOL),
    "endsWith": (2, 2, BOOL),
    "environment": (0, 0, ANY),
    "filter": (2, 2, None),
    "format": (1, MANY, STRING),
    "guid": (1, MANY, STRING),
    "int": (1, 1, INT),
    "items": (1, 1, array(record({"key": (STRING, 0), "value": (ANY, 0)}))),
    "join": (2, 2, STRING),
    "length": (1, 1, INT),
    "map": (2, 2, None),
    "max": (1, MANY, INT),
    "min": (1, MANY, INT),
    "range": (2, 2, array(INT)),
    "replace": (3, 3, STRING),
    "resourceGroup": (0, 2, SCOPE),
    "resourceId": (2, MANY, STRING),
    "split": (2, 2, array(STRING)),
    "startsWith": (2, 2, BOOL),
    "string": (1, 1, STRING),
    "subscription": (0, 1, SUBSCRIPTION),
    "subscriptionResourceId": (2, MANY, STRING),
    "substring": (2, 3, STRING),
    "take": (2, 2, None),
    "tenant": (0, 0, ANY),
    "toLower": (1, 1, STRING),
    "toUpper": (1, 1, STRING),
    "union": (1, MANY, None),
    "uniqueString": (1, MANY, STRING),
    "uri": (2, 2, STRING),
}

DECORATORS = {
    "allowed",
    "description",
    "export",
    "maxLength",
    "maxValue",
    "metadata",
    "minLength",
    "minValue",
    "secure",
}
