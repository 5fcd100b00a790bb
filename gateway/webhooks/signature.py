"""Signatures as Standard Webhooks has them, with a secret of each owner's own. Pure; no I/O, no clock.

https://www.standardwebhooks.com: `webhook-signature` holds one signature for each key, by space, so that keys
are rotated without a receiver noticing.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

_PURPOSE = b"holdfast webhook "


class Secrets:
    """The owners' secrets, each derived from a key of the operator's. The first key's is what is told."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def told(self, owner: str) -> str:
        """An owner's secret as receivers take it: `whsec_` and base64."""
        return "whsec_" + base64.b64encode(_secret(self._keys[0], owner)).decode()

    def headers(self, owner: str, webhook_id: str, seconds: int, body: bytes) -> dict[str, str]:
        """The three headers of one try, at this time since the epoch."""
        signed = f"{webhook_id}.{seconds}.".encode() + body
        macs = (hmac.digest(_secret(key, owner), signed, "sha256") for key in self._keys)
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join("v1," + base64.b64encode(mac).decode() for mac in macs),
        }


def _secret(key: bytes, owner: str) -> bytes:
    return hmac.digest(key, _PURPOSE + owner.encode(), "sha256")
