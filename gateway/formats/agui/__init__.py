"""AG-UI 1.0."""

from gateway.formats.agui import runs
from gateway.formats.agui.told import refused

ROUTES = (*runs.ROUTES,)
__all__ = ["ROUTES", "refused"]
