"""Run examples/durable/steps.py in durabletask's own worker on its in-memory backend, and print the result.

It runs in its own process, whose PYTHONPATH has build/durable: these packages are not dependencies of the
project.
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/durable"))

import grpc
import steps
from durabletask.client import TaskHubGrpcClient
from durabletask.testing import create_test_backend
from durabletask.worker import TaskHubGrpcWorker


def activity(name):
    def run(ctx, given):
        return asyncio.run(getattr(steps, name)(given))

    run.__name__ = name
    return run


def telling(made, ports):
    """Wrap `grpc.server`. The servers store the port that they got, because the backend drops it."""

    def server(*given, **named):
        one = made(*given, **named)
        add = one.add_insecure_port
        one.add_insecure_port = lambda address: ports.append(add(address))
        return one

    return server


def main(instance, topic):
    ports = []
    grpc.server = telling(grpc.server, ports)
    backend = create_test_backend(port=0)
    address = f"127.0.0.1:{ports[0]}"
    try:
        with TaskHubGrpcWorker(host_address=address) as worker:
            worker.add_orchestrator(steps.report)
            for name in ("write_outline", "write_text", "give_up", "address"):
                worker.add_activity(activity(name))
            worker.start()
            client = TaskHubGrpcClient(host_address=address)
            client.schedule_new_orchestration(steps.report, input=topic, instance_id=instance)
            state = client.wait_for_orchestration_completion(instance, timeout=90)
            print(state.runtime_status.name, state.serialized_output, flush=True)
    finally:
        backend.stop()


main(*sys.argv[1:])
