"""The graphs of asking.py as chains of a gateway process: GATEWAY_CHAINS names this module there."""

from tests.support import asking

asking.register()
