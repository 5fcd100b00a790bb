"""The field `webhook` of a request that starts a stream. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.errors import Invalid
from gateway.webhooks.urls import Rules

FIELD = "webhook"
EVENTS = ("done", "failed", "cancelled", "interrupted")
UNSEEN = "unseen"
WITHIN_SECONDS, LONGEST_SECONDS = 30.0, 86_400.0
_FIELDS = ("url", "events", "when", "within_seconds")


@dataclass(frozen=True, slots=True)
class Webhook:
    """The URL of a webhook, and the events that it reports.

    `unseen`: send it only if no reader has received the event within this number of seconds.
    """

    url: str = field(repr=False)
    events: tuple[str, ...] = EVENTS
    unseen: float | None = None

    def fields(self, keep_ms: int) -> dict[str, Any]:
        """Return the fields of the stream's record.

        `keep_ms`: how long an undelivered webhook is kept, in milliseconds.
        """
        if not self.url:
            return {}
        kept = {
            "webhook": self.url,
            "webhook_events": f" {' '.join(self.events)} ",
            "webhook_ms": keep_ms,
        }
        return kept if self.unseen is None else kept | {"webhook_unseen_ms": round(self.unseen * 1000)}

    def told(self) -> list[Any]:
        """Return all values, to compare them with those of another request."""
        return [self.url, list(self.events), self.unseen]


# For a stream that continues another stream: it has no webhook, even if the other stream has one.
NONE = Webhook("")


def instead(body: Mapping[str, Any], rules: Rules) -> Webhook | None:
    """Return the webhook for a stream that continues another stream.

    None means: the same webhook as the other stream. Raises Invalid.
    """
    if FIELD not in body:
        return None
    return NONE if body[FIELD] is None else parse(body[FIELD], rules)


def parse(value: Any, rules: Rules) -> Webhook:
    """Read the object that a client sent. Raises Invalid, which names `webhook` or the wrong field in it."""
    if isinstance(value, Mapping):
        for name in value:
            if name not in _FIELDS:
                raise Invalid(FIELD, f"may have {', '.join(_FIELDS)} alone")
    if not isinstance(value, Mapping) or not isinstance(value.get("url"), str):
        raise Invalid(FIELD, "must be an object with a url")
    checked = of_url(value["url"], rules)
    return Webhook(checked.url, _events(value), _unseen(value))


def of_url(url: Any, rules: Rules) -> Webhook:
    """Return a webhook for all events. Raises Invalid."""
    if not isinstance(url, str):
        raise Invalid(FIELD, "must be a URL")
    if not rules.is_on:
        raise Invalid(FIELD, "is not to be had here: the gateway has no GATEWAY_WEBHOOK_KEYS")
    try:
        rules.place(url)
    except ValueError as error:
        raise Invalid(FIELD, str(error)) from None
    return Webhook(url)


def _events(value: Mapping[str, Any]) -> tuple[str, ...]:
    given = value.get("events", list(EVENTS))
    known = isinstance(given, list) and all(isinstance(one, str) and one in EVENTS for one in given)
    if not known or not given or len(set(given)) < len(given):
        raise Invalid(f"{FIELD}.events", f"must be some of {', '.join(EVENTS)}, each once")
    return tuple(given)


def _unseen(value: Mapping[str, Any]) -> float | None:
    if "when" not in value:
        if "within_seconds" in value:
            raise Invalid(f"{FIELD}.within_seconds", f'needs "when": "{UNSEEN}"')
        return None
    if value["when"] != UNSEEN:
        raise Invalid(f"{FIELD}.when", f"must be {UNSEEN}, or left out")
    seconds = value.get("within_seconds", WITHIN_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise Invalid(f"{FIELD}.within_seconds", "must be a number")
    if not 0 < seconds <= LONGEST_SECONDS:
        raise Invalid(f"{FIELD}.within_seconds", f"must be more than 0 and at most {LONGEST_SECONDS:g}")
    return float(seconds)
