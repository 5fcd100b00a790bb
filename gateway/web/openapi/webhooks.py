"""The part of the OpenAPI document about webhooks. No I/O."""

from __future__ import annotations

from typing import Any

from gateway.web.openapi import responses
from gateway.web.openapi.basics import exactly, ref
from gateway.webhooks import asked as hooks
from gateway.webhooks import urls


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of the webhook in a start, and of what its owner can read about it."""
    whole = exactly(
        url={
            "type": "string",
            "maxLength": urls.LONGEST,
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$",
            "description": "https, with a public address behind its name",
        },
        events={
            "type": "array",
            "items": {"enum": list(hooks.EVENTS)},
            "minItems": 1,
            "uniqueItems": True,
            "description": "all, where it is left out",
        },
        when={"const": hooks.UNSEEN, "description": "only where no reader has had the terminal event"},
        within_seconds={
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": hooks.LONGEST_SECONDS,
            "default": hooks.WITHIN_SECONDS,
            "description": "so long after the end",
        },
    )
    told = "whom to tell of the stream's end; 422 where the gateway has no GATEWAY_WEBHOOK_KEYS"
    needed = {"within_seconds": ["when"]}
    return {
        "Webhook": {**whole, "required": ["url"], "dependentRequired": needed, "description": told},
        "WebhookSecret": exactly(secret={"type": "string", "pattern": "^whsec_[A-Za-z0-9+/]+=*$"}),
    }


def secret() -> dict[str, Any]:
    """Return the good answer of GET /webhooks/secret."""
    return responses.json("with what the caller's webhooks are signed", ref("WebhookSecret"))
