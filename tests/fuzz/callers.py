"""Properties that must hold for all credentials: bearer headers, keys and the tokens of streams."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from tempfile import NamedTemporaryFile

from starlette.datastructures import Headers

from gateway.callers.auth import Keys, new_key
from gateway.callers.bearer import bearer
from gateway.protocol.errors import Unauthorized
from gateway.streams.stream_tokens import StreamTokens
from tests.fuzz.source import Source, at_once

KEYS = ("k" * 32, "l" * 32)
LIFETIME_SECONDS = 60
LONGEST_REFUSAL = 200  # characters: a refusal quotes no line of the file
PLACE, ELSEWHERE = "00" + "a" * 22, "00" + "b" * 22
KEY, LINE = new_key("alice")


def tokens(data: bytes) -> None:
    """An issued token is valid until it expires, for its stream; no other token is ever valid."""
    source = Source(data)
    now_ms = int.from_bytes(source.take(5)) + 1_000_000_000_000
    at, bit = source.byte(), source.byte()
    text = source.text()
    ours, rotated = StreamTokens(KEYS[:1], LIFETIME_SECONDS), StreamTokens(KEYS[::-1], LIFETIME_SECONDS)
    token, expires_ms = ours.issue(PLACE, now_ms)
    for verifier in (ours, rotated):
        assert verifier.holds(PLACE, token, now_ms)
        assert verifier.holds(PLACE, token, expires_ms - 1)
        assert not verifier.holds(PLACE, token, expires_ms)
        assert not verifier.holds(ELSEWHERE, token, now_ms)
    assert not StreamTokens(KEYS[1:], LIFETIME_SECONDS).holds(PLACE, token, now_ms)
    at %= len(token)
    changed = token[:at] + chr(ord(token[at]) ^ (1 << bit % 7)) + token[at + 1 :]
    for other in (
        text,
        changed,
        token[:at] + text + token[at:],
        text + token,
        token + text,
        text + token[at:],
    ):
        assert ours.holds(PLACE, other, now_ms) == (other == token), other


def authorization(data: bytes) -> None:
    """A bearer is one run of printable ASCII after one `Bearer`; every other header gives nothing."""
    given = data.split(b"\0")[:3]
    found = bearer(Headers(raw=[(b"authorization", value) for value in given]))
    assert not found or (found.isascii() and found.isprintable() and " " not in found)
    assert len(found) <= 8192
    if found:
        [value] = given
        assert value[:7].lower() == b"bearer "
        assert value[7:].lstrip(b" ") == found.encode()
    shown = data.decode("latin-1").lstrip(" ")
    spelled = re.fullmatch(r"[!-~]{1,8192}", shown, re.ASCII)
    assert bearer(Headers({"authorization": f"bEARER  {shown}"})) == (shown if spelled else "")


def keys(data: bytes) -> None:
    """A file of keys is refused with ValueError, or admits exactly the callers that it names."""
    source = Source(data)
    shown = source.field()
    text = source.rest()
    for lines in (text, LINE.encode() + b"\n" + text):
        known = _read(lines)
        if known is None:
            continue
        for key in (shown, KEY.encode(), b"", b"hf_"):
            digest = hashlib.sha256(key.decode("latin-1").encode()).hexdigest().encode()
            for header, value in ((b"x-api-key", key), (b"authorization", b"Bearer " + key)):
                let_in = _shows(known, header, value)
                assert digest in lines or not let_in
                assert let_in or key != KEY.encode() or lines == text


def _read(lines: bytes) -> Keys | None:
    with NamedTemporaryFile() as file:
        file.write(lines)
        file.flush()
        try:
            return Keys(Path(file.name))
        except ValueError as error:
            refusal = str(error)
    assert len(refusal) < LONGEST_REFUSAL
    return None


def _shows(known: Keys, header: bytes, value: bytes) -> bool:
    known._file._looked_at = float("inf")  # the file is gone: do not look for it again
    try:
        owner = at_once(known.owner(Headers(raw=[(header, value)])))
    except Unauthorized:
        return False
    assert re.fullmatch(r"key:[A-Za-z0-9._-]{1,64}", owner)
    return True
