"""Register the graphs of asking.py as chains. GATEWAY_CHAINS names this module in a gateway process."""

from tests.support import asking

asking.register()
