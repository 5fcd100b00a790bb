"""What gateway processes import, for forked.py: imported once, in the process that they are forked from."""

# ruff: noqa: E402
import gc

gc.disable()  # what is imported stays

import sys

# ruff: noqa: F401
import azure.storage.queue.aio
import httpcore2
import httpx2
import langchain.agents
import langchain_openai
import langgraph.graph
import openai.resources.chat.chat
import uvicorn.lifespan.on

# What `gateway.process` imports, but for what is not deployed on Azure Functions (httptools, uvloop, and who
# imports them): a Functions host is forked from here as well. tests/test_preloaded.py holds it against that.
import gateway.cli.commands
import gateway.cli.doctor
import gateway.cli.purge
import gateway.cli.starting
import gateway.cli.usage
import gateway.cli.webhooks
import gateway.hosts.asgi
import gateway.observe.configure
import gateway.observe.telemetry
import gateway.outbox.deliverer
import gateway.runtime.settled
import gateway.web.kill_worker
import holdfast_gateway.new
import workers.chains.checking
import workers.chains.drawn
import workers.chains.own
import workers.delivery.consumer
import workers.delivery.runner
import workers.delivery.shift
import workers.delivery.sweeper
import workers.development.local_model
import workers.development.reload
import workers.threads.states

if sys.version_info >= (3, 13):
    import azure.functions
    import azure_functions_runtime
    import azurefunctions.extensions.http.fastapi
gc.freeze()
gc.enable()
