"""An additional chain for the pictures of the page: an answer that is written from right to left.

GATEWAY_CHAINS names this module in the gateway process of `tests/pictures.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.runnables import RunnableGenerator

from workers.chains.asked import ASKED
from workers.chains.registry import chain

QUESTION = "كيف لا يضيع الجواب إذا انقطع الاتصال؟"
ANSWER = """\
## الجواب محفوظ في البوابة

يُكتب الجواب في **سجل** قبل أن يُرسل، ولكل حدث فيه رقم. إذا انقطع الاتصال عاد المتصفح بآخر رقم رآه، \
فيأتيه ما بقي فقط.

1. لا يضيع حدث.
2. لا يأتي حدث مرتين.
3. إذا مات العامل أكمل غيره من حيث وقف.

| ما ينقطع | ما يراه القارئ |
|---|---|
| الاتصال | ما بقي من الجواب |
| العامل `worker` | وقفة قصيرة |

والأمر في الطرفية يُقرأ من اليسار إلى اليمين:

```sh
curl -N "$URL/stream/$ID" -H "Last-Event-ID: $LAST"
```
"""


@chain("arabic", input=ASKED, deployment="scripted")
def arabic(_: Any) -> Any:
    """Return the same answer each time, line by line."""

    async def say(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            for line in ANSWER.splitlines(keepends=True):
                yield line

    return RunnableGenerator(say)
