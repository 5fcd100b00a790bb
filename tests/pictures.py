"""`make pictures`: write docs/images/page-*.png, screenshots of the page in Chromium for the documentation.

Each picture shows the running product: a separate gateway whose chain is the demo. Check the pictures before
you commit them. A test checks that they exist, and their size.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.person import Person, browser, visit
from tests.support.pictured import QUESTION
from tests.support.processes import REPOSITORY, GatewayProcess

IMAGES = REPOSITORY / "docs/images"
ASKED = "What happens to my answer when the connection is lost?"
EARLIER = ("Explain server-sent events in three short paragraphs.", "What is a holdfast, and what holds it?")
# Name, then width, colours, height and scale of the window. 400 % of 1280 by 1024 is a window of 320 by 256.
WINDOWS = {
    "desk": (1280, "light", 860, 1),
    "phone": (390, "light", 844, 2),
    "dark": (1280, "dark", 860, 1),
    "400": (320, "light", 256, 4),
    "rtl": (1280, "light", 860, 1),
}
SOME_TEXT = "document.querySelectorAll('.answer').length > {blocks}"


async def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    environment = {"GATEWAY_CHAINS": "tests.support.pictured", "GATEWAY_DEVELOPMENT": "yes"}
    async with GatewayProcess("all", environment, anew=True) as gateway, browser() as driver:
        async with visit(driver, gateway.url) as person:
            for question in EARLIER:
                await asks(person, question)
                await person.does("press", "Stop")
                await person.sees("state", "Stopped")
                await person.does("press", "New conversation")
        for name, window in WINDOWS.items():
            async with visit(driver, gateway.url, *window) as person:
                await TAKES.get(name, live)(person)
                await person.does("picture", str(IMAGES / f"page-{name}.png"))
                print(Path("docs/images") / f"page-{name}.png")


async def asks(person: Person, question: str, blocks: int = 0) -> None:
    """Ask the default chain, and wait until the answer has this number of blocks."""
    await person.does("until", "document.querySelector('#chain').value !== ''")
    await person.does("ask", question)
    await person.does("until", SOME_TEXT.format(blocks=blocks))


async def live(person: Person) -> None:
    """Show an answer in progress, just after its connection was cut and reopened."""
    await asks(person, ASKED, 4)
    await person.does("press", "Cut the connection")
    await person.does("until", "document.querySelector('#losing .lost').textContent.startsWith('Back')")
    await person.does("until", SOME_TEXT.format(blocks=5))


async def zoomed(person: Person) -> None:
    """Show the same page in a window at 400 % zoom."""
    await asks(person, ASKED, 3)


async def phone(person: Person) -> None:
    """Show the page on a phone, after a worker was killed."""
    await asks(person, ASKED, 2)
    await person.does("click", "#losing .kill")
    await person.sees("state", "The worker is dead")


async def right_to_left(person: Person) -> None:
    """Show a whole answer in Arabic, and how it arrived."""
    await person.does("until", "document.querySelector('#chain option[value=arabic]') !== null")
    await person.does("choose", "Chain", "arabic")
    await person.does("ask", QUESTION)
    await person.sees("state", "Done")
    await person.does("until", "document.querySelector('#history .busy') === null")


TAKES = {"400": zoomed, "phone": phone, "rtl": right_to_left}

if __name__ == "__main__":
    asyncio.run(main())
