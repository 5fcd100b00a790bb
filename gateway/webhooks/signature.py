"""Signatures in the format of Standard Webhooks, with a separate secret for each owner. No I/O, no clock.

https://www.standardwebhooks.com: `webhook-signature` contains one signature for each key, separated by
spaces. So keys can be rotated without a change at the receivers.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

_PURPOSE = b"holdfast webhook "


class Secrets:
    """The secrets of the owners.

    Each secret is derived from a key of the operator. `told` returns the secret of the first key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def told(self, owner: str) -> str:
        """Return an owner's secret in the form that receivers use: `whsec_` and base64."""
        return "whsec_" + base64.b64encode(_secret(self._keys[0], owner)).decode()

    def headers(self, owner: str, webhook_id: str, seconds: int, body: bytes) -> dict[str, str]:
        """Return the three headers of one try. `seconds` is the present time since the epoch."""
        signed = f"{webhook_id}.{seconds}.".encode() + body
        macs = (hmac.digest(_secret(key, owner), signed, "sha256") for key in self._keys)
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join("v1," + base64.b64encode(mac).decode() for mac in macs),
        }


def _secret(key: bytes, owner: str) -> bytes:
    return hmac.digest(key, _PURPOSE + owner.encode(), "sha256")
