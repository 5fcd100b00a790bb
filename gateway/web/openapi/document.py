"""The OpenAPI 3.1 document: every endpoint, and every answer that a client may get there. No I/O.

A pure function of the settings and of the chains' input schemas. An operation names its problems' codes; the
rest comes from the error tree. Tests compare the document with the routes and the answers of both hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.protocol import VERSION
from gateway.relay.joint import MOST_STREAMS
from gateway.settings import Settings
from gateway.streams.rows import MOST_ROWS, ROWS, STATES
from gateway.streams.start import Bounds
from gateway.web.openapi import (
    basics,
    page,
    parameters,
    producers,
    responses,
    schemas,
    threads,
    webhooks,
)
from gateway.web.openapi.basics import Schema, ref
from gateway.web.openapi.responses import Answer

Operation = dict[str, Any]
_BODY = ("malformed", "too_large", "not_json", "encoded", "invalid")
_STORE = ("store_unavailable", "internal")
_START = (*_BODY, "over_quota", "queue_full", "too_many_readers", "queue_unavailable", *_STORE)
_THREAD = ("thread_busy", "thread_waiting")
_ONE = ("not_found", "no_route", "gone", *_STORE)  # no_route: a slash in the id makes another path
_METHODS = ("get", "post", "delete", "options")
_ABOUT = """LangChain answers as server-sent events that survive a cut connection.

`POST /stream` starts a stream; `GET /stream/{id}` follows it, and goes on after a `Last-Event-ID`. An error
is an RFC 9457 problem with a stable `code`. What is at no path here is answered as
`#/components/responses/NoRoute`, a method that a path does not take as `NoMethod`; on Azure Functions the
platform answers both itself, by 404 without a body. Where nobody is asked who he is, a Host that is not the
gateway's is answered as `WrongHost`, at every path. HEAD is answered wherever GET is, as GET without
the body."""


def document(
    settings: Settings, chains: Mapping[str, Schema | None], *, base: str = "", function_key: bool = False
) -> dict[str, Any]:
    """Return the document. `base`: the path below which the gateway is reached (`gateway.web.where`).

    `function_key`: the platform requires a function key to start or end work.
    """
    contract = _Contract(settings, function_key)
    paths = contract.paths()
    if settings.origins:
        for path in paths.values():
            for method in path.keys() & set(_METHODS):
                responses.give_leave(path[method]["responses"], preflight=method == "options")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": str(VERSION), "description": _ABOUT},
        "servers": [{"url": base or "/"}],
        "paths": paths,
        "components": {
            "schemas": {
                **schemas.components(chains, Bounds.of(settings), base, settings.default_chain),
                **producers.components(Bounds.of(settings), base),
            },
            "headers": responses.headers(base),
            "securitySchemes": contract.schemes(),
            "responses": {
                "NoRoute": responses.problems(["no_route"])["404"],
                "NoMethod": responses.problems(["method_not_allowed"])["405"],
                "WrongHost": responses.problems(["misdirected"])["421"],
            },
        },
    }


@dataclass(frozen=True, slots=True)
class _Contract:
    settings: Settings
    function_key: bool

    def paths(self) -> dict[str, dict[str, Any]]:
        stream, any_stream = parameters.stream(basics.ID), parameters.stream(basics.ANY_ID)
        return {
            "/stream": {"post": self._create(), "options": _preflight("stream")},
            "/stream/{id}": {
                "parameters": [stream],
                "get": self._follow(),
                "delete": self._cancel(),
                "options": {**_preflight("one", "no_route"), "parameters": [any_stream]},
            },
            "/stream/{id}/retry": {
                "parameters": [stream],
                "post": self._retry(),
                "options": {**_preflight("retry", "no_route"), "parameters": [any_stream]},
            },
            "/stream/{id}/resume": {
                "parameters": [stream],
                "post": self._resume(),
                "options": {**_preflight("resume", "no_route"), "parameters": [any_stream]},
            },
            "/stream/{id}/token": {
                "parameters": [stream],
                "post": self._token(),
                "delete": self._token_end(),
                "options": {**_preflight("token", "no_route"), "parameters": [any_stream]},
            },
            "/stream/{id}/events": {
                "parameters": [stream],
                "post": self._produce(),
                "options": {**_preflight("produce", "no_route"), "parameters": [any_stream]},
            },
            "/streams": {"get": self._mine(), "options": _preflight("streams")},
            "/streams/events": {
                "get": self._joint(),
                "post": self._joint(by_body=True),
                "options": _preflight("joint"),
            },
            "/api/http_trigger": {"post": self._sample(), "options": _preflight("sample")},
            "/usage": {"get": self._usage(), "options": _preflight("usage")},
            **threads.paths(self.thread),
            "/webhooks/secret": {"get": self._secret()},
            "/chains": {"get": self._chains(), "options": _preflight("chains")},
            "/health": {"get": _open("health", "Is it alive?", responses.json("yes", ref("Health")))},
            "/ready": {"get": self._ready()},
            "/metrics": {"get": self._metrics()},
            "/openapi.json": {"get": _open("openapi", "This", responses.json("it", {"type": "object"}))},
            **page.paths(),
        }

    def thread(self, name: str, summary: str, told: dict[str, Answer], *codes: str) -> Operation:
        """Return an operation on the caller's threads."""
        return {
            **_named(name, summary),
            "security": self._asked(),
            "responses": {**told, **self._refused(*codes, *self._apart(), "invalid", *_STORE)},
        }

    def _apart(self) -> tuple[str, ...]:
        """Return the extra problem of threads if everybody may use the gateway without authentication."""
        settings = self.settings
        return ("no_owner",) if settings.is_open and settings.open_to_all == "yes" else ()

    def schemes(self) -> dict[str, Schema]:
        """Return all ways in which a caller can authenticate."""
        key = {"type": "apiKey", "in": "header"}
        bearer = {"type": "http", "scheme": "bearer"}
        told = "of POST /stream/{id}/token; looked at where no Authorization and no X-API-Key is sent"
        schemes: dict[str, Schema] = {
            "writeToken": producers.WRITE_TOKEN,
            "streamToken": {"type": "apiKey", "in": "query", "name": "token", "description": told},
        }
        match self.settings.auth:
            case "keys":
                schemes |= {"apiKey": {**key, "name": "X-API-Key"}, "bearer": bearer}
            case "jwt":
                schemes["bearer"] = {**bearer, "bearerFormat": "JWT"}
            case "easyauth":
                schemes["signIn"] = {"type": "apiKey", "in": "cookie", "name": "AppServiceAuthSession"}
        if self.settings.metrics_key:
            schemes["metricsKey"] = bearer
        if self.function_key:
            schemes["functionKey"] = {**key, "name": "x-functions-key"}
        return schemes

    def _asked(self) -> list[dict[str, list[str]]]:
        """Return the security of operations that start, end or share a stream: one of these is required."""
        others = {"streamToken", "writeToken", "metricsKey"}
        return [{name: []} for name in self.schemes() if name not in others] or [{}]

    def _refused(self, *codes: str) -> dict[str, Answer]:
        """Return the problems of an operation that authenticates its caller."""
        told = responses.problems((*codes, *self._strangers()))
        if self.function_key:
            told["401"] = {"description": "From the platform: it asks for a function key.", "headers": {}}
        return told

    def _strangers(self) -> tuple[str, ...]:
        """Return the problems that only a gateway with authentication has."""
        settings = self.settings
        required = settings.jwt_required_scope or settings.jwt_required_role
        codes = {
            "unauthorized": not settings.is_open,
            "forbidden": bool(required or settings.chain_claims),  # too many claims are refused
            "auth_unavailable": settings.auth in ("jwt", "keys"),
        }
        return tuple(code for code, told in codes.items() if told)

    def _body(self, schema: str) -> dict[str, Any]:
        bound = self.settings.max_body
        return {
            "required": True,
            "description": f"At most {bound} bytes.",
            "x-max-bytes": bound,
            "content": {"application/json": {"schema": ref(schema)}},
        }

    def _create(self) -> Operation:
        follow = responses.events("with `Accept: text/event-stream`: the events themselves", created=True)
        return {
            **_named("create", "Start a stream; with `Accept: text/event-stream`, and follow it"),
            "security": self._asked(),
            "parameters": [
                parameters.idempotency_key(),
                *parameters.cursor(),
                parameters.traceparent(),
            ],
            "requestBody": self._body("Start"),
            "responses": {
                "200": follow,
                "201": producers.opened(),
                "202": {**responses.created(), "links": _links()},
                "204": responses.seen(created=True),
                **self._refused(*_START, *_THREAD, "idempotency_key_reused", *self._apart()),
            },
        }

    def _mine(self) -> Operation:
        told = responses.events_or("the newest first, or what becomes of them", ref("Streams"), "FeedEvent")
        codes = ("not_acceptable", "malformed", "too_many_readers")
        asked = self.thread("streams", "The caller's own streams, as a page or a feed", {"200": told}, *codes)
        given = [*parameters.mine(MOST_ROWS, ROWS, [*STATES]), *parameters.cursor()]
        return {**asked, "parameters": given}

    def _usage(self) -> Operation:
        told = {"200": responses.json("today's (UTC), and the last minute's", ref("OwnUsage"))}
        return self.thread("usage", "Tokens that the caller's streams have taken", told, "not_acceptable")

    def _secret(self) -> Operation:
        return {
            **_named("webhook_secret", "The secret of the caller's webhooks"),
            "security": self._asked(),
            "responses": {"200": webhooks.secret(), **self._refused("no_webhooks", *self._apart())},
        }

    def _joint(self, *, by_body: bool = False) -> Operation:
        codes = {"malformed", "invalid", "not_acceptable", "too_many_readers", *_ONE} - {"no_route"}
        refused = codes | set(_BODY) if by_body else codes
        given = {"requestBody": self._body("Joint")} if by_body else {}
        return {
            **_named("follow_many_by_body" if by_body else "follow_many", "Follow several streams at once"),
            "security": self._asked(),
            "parameters": [*([] if by_body else [parameters.ids(MOST_STREAMS)]), *parameters.position()],
            **given,
            "responses": {
                "200": responses.events("their events, interleaved", event="JointEvent"),
                "204": responses.seen(),
                **self._refused(*sorted(refused)),
            },
        }

    def _chains(self) -> Operation:
        return {
            **_named(
                "chains", "What runs here: names, stages, and the JSON Schemas of each one's input and params"
            ),
            "security": self._asked(),
            "responses": {"200": responses.json("by name", ref("Chains")), **self._refused("internal")},
        }

    def _follow(self) -> Operation:
        who: list[dict[str, list[str]]] = [{}] if self.settings.is_open else self._asked()
        codes = {"malformed", "unauthorized", "not_acceptable", "too_many_readers", *_ONE, *self._strangers()}
        return {
            **_named("follow", "Follow a stream; with `Accept: application/json`, see how it stands"),
            "security": [*who, {"streamToken": []}],
            "parameters": parameters.cursor(),
            "responses": {
                "200": responses.events_or("the events, or the status document", ref("Status")),
                "204": responses.seen(),
                **responses.problems(sorted(codes)),
            },
        }

    def _cancel(self) -> Operation:
        seen = {"id": "$request.path.id", "header.Last-Event-ID": "$response.body#/last_event_id"}
        links = {"seen": {"operationId": "follow", "parameters": seen}}
        return {
            **_named("cancel", "End a stream now; it can be read as before, unless it is purged"),
            "security": self._asked(),
            "parameters": [parameters.purge()],
            "responses": {
                "200": {**responses.json("as it ended", ref("Status")), "links": links},
                "204": responses.empty("with `purge=true`: it is deleted"),
                **self._refused(*_ONE, "invalid"),
            },
        }

    def _retry(self) -> Operation:
        codes = (*_START, *_ONE, "idempotency_key_reused", "running", "not_failed", "chain_changed")
        return {
            **_named("retry", "Try a failed stream again, from the stage that has failed"),
            "security": self._asked(),
            "parameters": [
                parameters.idempotency_key(),
                *parameters.cursor(),
                parameters.traceparent(),
            ],
            "requestBody": {**self._body("Retry"), "required": False},
            "responses": {
                "200": responses.events("with `Accept: text/event-stream`: the events", created=True),
                "202": {**responses.created("Retried"), "links": _links()},
                "204": responses.seen(created=True),
                **self._refused(*dict.fromkeys((*codes, *self._apart()))),
            },
        }

    def _resume(self) -> Operation:
        follow = responses.events("with `Accept: text/event-stream`: the events themselves", created=True)
        codes = {"not_waiting", "already_answered", "unknown_interrupt", "unanswered_interrupts"}
        codes |= {*_START, *_ONE, *self._apart()} - {"queue_unavailable"}
        return {
            **_named("resume", "Answer what a stream has asked; a new stream goes on with it"),
            "security": self._asked(),
            "parameters": [parameters.traceparent()],
            "requestBody": self._body("Resume"),
            "responses": {
                "200": follow,
                "202": {**responses.created("Resumed"), "links": _links()},
                **self._refused(*sorted(codes)),
            },
        }

    def _token(self) -> Operation:
        seconds = self.settings.token_seconds
        life = f"for {seconds:g} seconds" if seconds else "for as long as it may run, and some minutes more"
        return {
            **_named("token", f"A token that lets its bearer read this stream, {life}"),
            "security": self._asked(),
            "responses": {
                "201": responses.json("to be shown as `?token=`", ref("Token")),
                **self._refused(*_ONE, "encoded"),
            },
        }

    def _token_end(self) -> Operation:
        return {
            **_named("token_end", "End all tokens of this stream that were given so far"),
            "security": self._asked(),
            "responses": {"204": responses.empty("they are ended"), **self._refused(*_ONE)},
        }

    def _produce(self) -> Operation:
        return producers.produce(Bounds.of(self.settings), responses.problems(producers.REFUSALS))

    def _sample(self) -> Operation:
        return {
            **_named("http_trigger", "The original sample's endpoint: text events, and the terminal one"),
            "security": self._asked(),
            "parameters": [parameters.traceparent()],
            "requestBody": self._body("SampleStart"),
            "responses": {
                "200": responses.events("the texts", created=True, event="SampleEvent"),
                **self._refused(*_START),
            },
        }

    def _ready(self) -> Operation:
        told = _open("ready", "Can this process serve?", responses.json("it can", ref("Ready")))
        again = {"Retry-After": "RetryAfter"}
        told["responses"]["503"] = responses.json("it cannot now", ref("Ready"), again)
        return told

    def _metrics(self) -> Operation:
        told = _open("metrics", "What this process counts, for Prometheus", responses.text("text/plain"))
        codes = {"internal", "no_route"}  # no_route: metrics are turned off
        if self.settings.metrics_key:
            codes.add("unauthorized")
            told["security"] = [{"metricsKey": []}]
        told["responses"] |= responses.problems(sorted(codes))
        return told


def _named(name: str, summary: str) -> Operation:
    return {"operationId": name, "summary": summary}


def _open(name: str, summary: str, told: Answer) -> Operation:
    """Return an operation that does not authenticate its caller."""
    return {**_named(name, summary), "responses": {"200": told, **responses.problems(["internal"])}}


def _preflight(name: str, *codes: str) -> Operation:
    told = {"204": responses.empty("whether a page of another origin may ask")}
    summary = "May a page of another origin ask?"
    return {
        **_named(f"preflight_{name}", summary),
        "responses": told | responses.problems([*codes, "internal"]),
    }


def _links() -> dict[str, Any]:
    """Return links to the operations on a stream that was just made."""
    here = {"id": "$response.body#/id"}
    return {name: {"operationId": name, "parameters": here} for name in ("follow", "cancel", "token")}
