"""Host 1: Azure Functions. The gateway alone; an app of yours does the same behind its own functions."""

import azure.functions as func

from holdfast_gateway.functions import register

app = func.FunctionApp()
streams = register(app)
