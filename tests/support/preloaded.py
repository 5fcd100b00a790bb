"""What gateway processes import, for forked.py: imported once, in the process that they are forked from."""

# ruff: noqa: E402
import gc

gc.disable()  # what is imported stays

import sys

import langchain.agents  # noqa: F401
import langchain_openai  # noqa: F401
import langgraph.graph  # noqa: F401

import workers.delivery.consumer
import workers.delivery.runner
import workers.delivery.sweeper  # noqa: F401

if sys.version_info >= (3, 13):
    import azure_functions_runtime  # noqa: F401
    import azurefunctions.extensions.http.fastapi  # noqa: F401
gc.freeze()
gc.enable()
