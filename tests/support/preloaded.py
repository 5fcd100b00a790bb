"""Modules that gateway processes import. forked.py imports them once, in the process from which it forks."""

# ruff: noqa: E402
import gc

gc.disable()  # imported modules are never freed

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

# These are the modules that `gateway.process` imports, without those that are not deployed on Azure Functions
# (httptools, uvloop, and the modules that import them): a Functions host is forked from this process too.
# tests/test_preloaded.py checks the list.
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
