"""The arguments of the command line. This module imports nothing else of the product, so `--help` is fast."""

from __future__ import annotations

import argparse
from collections.abc import Callable

SERVING = ("all", "web", "worker")
ASKING = ("ask", "follow", "cancel", "chains")
LOOKING = ("inspect", "ls", "retry", "purge", "usage", "webhooks")
MOST_LISTED = 10_000
STATES = ("queued", "running", "done", "failed", "cancelled", "waiting")
EXAMPLES = """\
examples:
  {prog} new trip                       a project of your own, in the folder trip
  {prog} run                            serve and work here; without a model the chain demo answers
  PORT=7072 {prog} run                  the same on another port
  {prog} ask "What holds?"              print an answer as it comes; Ctrl-C cancels it
  {prog} follow ID --after EVENT        the rest of a stream, from the event after this one
  {prog} key alice --json               an API key, and its line for GATEWAY_KEYS_FILE
  {prog} COMMAND --help                 what a command takes

Every setting is an environment variable, or a line of the file .env here: docs/settings.md.
"""


def parser(prog: str = "python -m gateway", version: str = "") -> argparse.ArgumentParser:
    """Return the parser of the command line. Without a command it is `run`, whose older name is `all`."""
    whole = argparse.ArgumentParser(
        prog=prog,
        description="Holdfast: streams of LangChain answers that no cut and no kill breaks",
        epilog=EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"holdfast {version}")
    whole.set_defaults(command="all")
    commands = whole.add_subparsers(metavar="COMMAND", title="commands")

    def command(name: str, meaning: str, *older: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=meaning, description=meaning, aliases=older)
        made.set_defaults(command=older[0] if older else name)
        return made

    command(
        "run",
        "serve HTTP and run jobs in one process (the default); without REDIS_URL with a store of its own",
        "all",
    )
    command("web", "serve HTTP")
    new = command("new", "make a small project of your own in a new folder")
    new.add_argument("name", metavar="NAME")
    told = "the folder dist/ of a checkout: its wheel is copied into the project, until it is published"
    new.add_argument("--wheels", metavar="DIR", default="", help=told)
    command("worker", "run jobs; GATEWAY_WORKER_PORT gives it probes")
    key = command("key", "make an API key, and its line for GATEWAY_KEYS_FILE")
    key.add_argument("name", metavar="NAME")
    key.add_argument("--json", action="store_true", help='for machines: {"key", "line"}')
    _asking(command)
    _looking(command)
    return whole


def _looking(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the commands that read the store."""
    inspect = command("inspect", "tell what is known of a stream: its state, and its events without content")
    inspect.add_argument("id", metavar="ID")
    inspect.add_argument(
        "--content", action="store_true", help="also what was answered, and what was asked until it ends"
    )
    ls = command(
        "ls", "list streams: open ones first, then ended ones, as many as are found with bounded work"
    )
    ls.add_argument("--owner", metavar="NAME", default="", help="only of this owner, as inspect names it")
    ls.add_argument("--status", default="", choices=STATES)
    ls.add_argument(
        "--limit", metavar="N", type=int, default=50, help=f"at most so many, up to {MOST_LISTED}"
    )
    retry = command("retry", "try a failed stream again, as its owner may; print the new stream's id")
    retry.add_argument("id", metavar="ID")
    retry.add_argument(
        "--from",
        dest="start",
        metavar="STAGE",
        default="",
        help="a stage, or the id of its first event",
    )
    purge = command("purge", "delete all that is kept of an owner's streams and threads")
    purge.add_argument("--owner", metavar="NAME", required=True, help="as ls names it")
    usage = command("usage", "tell what each owner's streams have taken today: tokens, a line an owner")
    hooks = command("webhooks", "list the webhooks that are not delivered, or send them again")
    hooks.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=["list", "redrive"])
    hooks.add_argument(
        "id",
        metavar="ID",
        nargs="?",
        default="",
        help="for redrive: of a webhook or a stream; none: all dead",
    )
    command("doctor", "check settings, chains, store, queue and model, and name what is wrong")
    for looks in (inspect, ls, usage, hooks):
        looks.add_argument("--json", action="store_true", help="for machines")


def _asking(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the commands that call a gateway over HTTP."""
    ask = command("ask", "ask a gateway, and print its tokens as they come")
    ask.add_argument("question", metavar="QUESTION", help="- reads it from stdin")
    ask.add_argument("--chain", metavar="NAME", default="", help="another chain than the gateway's default")
    ask.add_argument("--params", metavar="JSON", default="", help="an object, for the chain")
    follow = command("follow", "follow a stream of a gateway to its end, and print its tokens as they come")
    follow.add_argument("id", metavar="ID")
    follow.add_argument("--after", metavar="EVENT", default="", help="only what comes after this event's id")
    cancel = command("cancel", "end a stream of a gateway now")
    cancel.add_argument("id", metavar="ID")
    chains = command("chains", "list the chains of a gateway")
    for asks in (ask, follow, cancel, chains):
        asks.add_argument("--url", metavar="URL", default="", help="the gateway's address (GATEWAY_URL)")
        asks.add_argument("--key", metavar="KEY", default="", help="an API key or a JWT (GATEWAY_KEY)")
        told = "an object a line: id, type and data" if asks in (ask, follow) else "for machines"
        asks.add_argument("--json", action="store_true", help=told)
