"""The gateway in an Azure Functions app that has other functions (Python v2 model, FastAPI extension).

import chains                                # your chains
from holdfast_gateway.functions import register

app = func.FunctionApp()
...                                          # your own functions
streams = register(app)                      # after them
"""

from __future__ import annotations

from holdfast_gateway.extras import needs

with needs("azure", __name__):
    from holdfast_gateway.classic import classic
    from holdfast_gateway.registered import register

__all__ = ["classic", "register"]
