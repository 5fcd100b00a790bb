"""Test a chain: run it as a worker runs it, and check the events that its readers would get.

    result = await run("trip", user="Three days in Rome", model=Scripted("Day one …"))
    assert result.text == "Day one …"

The code of the workers runs the chain: stages, retries, the adapter of LangChain, the writer of the log. The
log is kept in memory, so no Redis, queue or web server is needed.
"""

from holdfast_gateway.extras import needs

with needs("worker", __name__):
    from holdfast_gateway.testing.running import Result, run, run_sync
    from holdfast_gateway.testing.scripted import Scripted, calls

__all__ = ["Result", "Scripted", "calls", "run", "run_sync"]
