"""One pipelined connection on a real Redis.

Checked: order, cancellation, loss of the connection, and the server's errors.
"""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from gateway.protocol.errors import StoreUnavailable
from gateway.store.log import Log
from tests.support.following import Stream, connected, following, until
from tests.support.proxy import Proxy

SHORT_SECONDS = 0.3


async def named(redis: Redis, name: str) -> int:
    """Return the number of connections with this name on the server."""
    return sum(client["name"] == name for client in await redis.client_list())


async def test_concurrent_calls_share_one_connection_and_answers_stay_in_order(
    redis_url: str, redis: Redis
) -> None:
    async with connected(redis_url) as connection:
        answers = await asyncio.gather(*(connection.call("ECHO", str(n)) for n in range(500)))
        assert answers == [str(n).encode() for n in range(500)]
        assert await named(redis, "holdfast-test") == 1


async def test_an_error_is_its_own_callers_alone(redis_url: str) -> None:
    async with connected(redis_url) as connection:
        wrong, right = await asyncio.gather(
            connection.call("GET"), connection.call("ECHO", "x"), return_exceptions=True
        )
        assert isinstance(wrong, ResponseError)
        assert right == b"x"


async def test_several_commands_go_together_and_the_first_error_is_raised(redis_url: str) -> None:
    async with connected(redis_url) as connection:
        assert await connection.call_all([("ECHO", "a"), ("ECHO", "b")]) == [b"a", b"b"]
        with pytest.raises(ResponseError):
            await connection.call_all([("ECHO", "a"), ("GET",), ("ECHO", "b")])
        assert await connection.call("ECHO", "c") == b"c"


async def test_no_commands_have_no_answers_and_shift_none(redis_url: str) -> None:
    async with connected(redis_url) as connection:
        none, said = await asyncio.gather(connection.call_all([]), connection.call("ECHO", "c"))
        assert (none, said) == ([], b"c")
        assert connection.post("key", ("PING",), lambda answer: None)  # The connection was not closed.


async def test_a_cancelled_caller_does_not_shift_answers(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url) as connection:
        await connection.call("PING")
        proxy.hold("commands", "answers")
        calls = [asyncio.create_task(connection.call("ECHO", str(n))) for n in range(10)]
        await asyncio.sleep(0)
        for number in (0, 3, 4, 9):
            calls[number].cancel()
        await asyncio.wait([calls[n] for n in (0, 3, 4, 9)])
        proxy.release()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [a for a in answers if isinstance(a, bytes)] == [b"1", b"2", b"5", b"6", b"7", b"8"]
        assert await connection.call("ECHO", "next") == b"next"
        assert proxy.accepted["commands"] == 1


async def test_a_command_that_cannot_be_packed_does_not_shift_answers(redis_url: str) -> None:
    async with connected(redis_url) as connection:
        with pytest.raises(TypeError):
            await connection.call_all([("ECHO", "a"), ("ECHO", None)])
        assert await connection.call("ECHO", "b") == b"b"


async def test_a_command_is_sent_again_once_after_a_connection_that_had_died(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url) as connection:
        await connection.call("PING")
        proxy.hold("commands", "answers")
        calls = [asyncio.create_task(connection.call("ECHO", str(n))) for n in range(5)]
        await asyncio.sleep(0)
        proxy.cut("commands")
        await until(lambda: proxy.accepted["commands"] == 2)
        proxy.release()
        assert await asyncio.gather(*calls) == [b"0", b"1", b"2", b"3", b"4"]
        assert proxy.accepted["commands"] == 2


async def test_a_connection_that_breaks_twice_fails_its_calls_and_the_next_call_reconnects(
    redis_url: str,
) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url) as connection:
        await connection.call("PING")
        proxy.hold("commands", "answers")
        call = asyncio.create_task(connection.call("ECHO", "x"))
        await asyncio.sleep(0)
        for number in (2, 3):
            proxy.cut("commands")
            if number == 2:
                await until(lambda: proxy.accepted["commands"] == 2)
        with pytest.raises(StoreUnavailable):
            await call
        proxy.release()
        assert await connection.call("ECHO", "y") == b"y"


async def test_a_half_open_connection_is_unavailable_in_time_and_is_replaced(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url, SHORT_SECONDS) as connection:
        await connection.call("PING")
        proxy.hold("commands")
        async with asyncio.timeout(3 * SHORT_SECONDS):
            with pytest.raises(StoreUnavailable):
                await connection.call("PING")
        async with asyncio.timeout(3 * SHORT_SECONDS):  # The handshake has a time limit, too.
            with pytest.raises(StoreUnavailable):
                await connection.call("PING")
        proxy.release()
        assert await connection.call("ECHO", "x") == b"x"


async def test_callers_whose_time_runs_out_leave_a_newer_connection_alone(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url, 1) as connection:
        await connection.call("PING")
        proxy.hold("commands")
        calls = []
        for _ in range(20):  # The time limits of the calls end one after the other.
            calls.append(asyncio.create_task(connection.call("PING")))
            await asyncio.sleep(0.04)
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        proxy.release()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[0], StoreUnavailable)
        assert answers[1:].count(b"PONG") > 0
        assert proxy.accepted["commands"] == 2
        assert await connection.call("PING") == b"PONG"
        assert proxy.accepted["commands"] == 2


async def test_a_server_that_is_away_sees_no_storm_of_connects(redis_url: str) -> None:
    async with Proxy(f"{redis_url}.not-there") as proxy, connected(proxy.url) as connection:
        answers = await asyncio.gather(*(connection.call("PING") for _ in range(300)), return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        assert proxy.accepted["commands"] <= 4


async def test_close_answers_those_who_wait_and_stays_closed(redis_url: str, redis: Redis) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url) as connection:
        await connection.call("PING")
        proxy.hold("commands", "answers")
        calls = [asyncio.create_task(connection.call("PING")) for _ in range(3)]
        await asyncio.sleep(0)
        await connection.close()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        with pytest.raises(StoreUnavailable):
            await connection.call("PING")
        assert proxy.accepted["commands"] == 1
        await until(lambda: proxy.connections("commands") == 0)


async def test_close_also_ends_a_connect_that_is_under_way(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url) as connection:
        proxy.hold("commands", "answers")
        call = asyncio.create_task(connection.call("PING"))
        await until(lambda: proxy.accepted["commands"] == 1)
        await connection.close()
        proxy.release()
        with pytest.raises(StoreUnavailable):
            await call
        await until(lambda: proxy.connections("commands") == 0)


async def test_closing_does_not_wait_for_bytes_that_nobody_takes(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url) as connection:
        await connection.call("PING")
        proxy.hold("commands")
        call = asyncio.create_task(connection.call("ECHO", b"x" * 50_000_000))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await connection.close()
            with pytest.raises(StoreUnavailable):
                await call
        proxy.release()
        await until(lambda: proxy.connections("commands") == 0)


async def test_a_script_that_the_server_forgot_is_sent_whole(redis_url: str, redis: Redis) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        await redis.script_flush()
        await stream.texts("a")
        await redis.script_flush()
        with pytest.raises(NoScriptError):
            await f.redis.call("EVALSHA", "0" * 40, 0)
        assert b'"a"' in await stream.log_bytes(redis)


async def test_a_log_over_a_cut_connection_goes_on_without_a_double(redis_url: str, redis: Redis) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url) as connection:
        stream = await Stream.create(Log(connection))
        await stream.texts("first")  # The server now has the script.
        proxy.hold("commands", "answers")
        write = asyncio.create_task(stream.texts("a"))
        async with asyncio.timeout(5):
            while b'"a"' not in await stream.log_bytes(redis):
                pass
        proxy.cut("commands")  # The command was executed, but its answer is lost.
        proxy.release()
        await write
        assert (await stream.log_bytes(redis)).count(b'"a"') == 1


async def test_a_posted_command_takes_its_turn_among_the_calls(redis_url: str) -> None:
    async with connected(redis_url) as connection:
        heard: list[object] = []
        assert not connection.post("k", ("ECHO", "early"), heard.append)  # No connection is open yet.
        await connection.call("PING")
        first = asyncio.create_task(connection.call("ECHO", "1"))
        await asyncio.sleep(0)
        assert connection.post("k", ("ECHO", "2"), heard.append)
        assert connection.post("k", ("GET",), heard.append)
        with pytest.raises(TypeError):
            connection.post("k", ("ECHO", None), heard.append)
        assert await connection.call("ECHO", "3") == b"3"
        assert await first == b"1"
        assert heard[0] == b"2"
        assert isinstance(heard[1], ResponseError)
        assert len(heard) == 2


async def test_a_posted_command_hears_that_its_connection_has_ended_and_is_not_sent_again(
    redis_url: str,
) -> None:
    async with Proxy(redis_url) as proxy, connected(proxy.url, SHORT_SECONDS) as connection:
        heard: list[object] = []
        await connection.call("PING")
        proxy.hold("commands", "answers")
        assert connection.post("k", ("ECHO", "cut"), heard.append)
        proxy.cut("commands")
        await until(lambda: len(heard) == 1)
        assert isinstance(heard[0], RedisConnectionError)
        assert not connection.post("k", ("ECHO", "none"), heard.append)
        proxy.release()
        await connection.call("PING")
        proxy.hold("commands")
        assert connection.post("k", ("ECHO", "late"), heard.append)
        await until(lambda: len(heard) == 2)
        assert isinstance(heard[1], TimeoutError)
        proxy.release()
        assert await connection.call("ECHO", "x") == b"x"
        assert len(heard) == 2


async def test_what_a_callback_raises_is_told_and_ends_the_connection_for_all_who_wait(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(redis_url) as connection:
        heard: list[object] = []
        await connection.call("PING")
        assert connection.post("k", ("ECHO", "1"), _raises)
        assert connection.post("k", ("ECHO", "2"), heard.append)
        await until(lambda: len(heard) == 1)
        assert isinstance(heard[0], RedisConnectionError)
        assert "ZeroDivisionError" in caplog.text
        assert await connection.call("ECHO", "3") == b"3"


def _raises(_: object) -> None:
    raise ZeroDivisionError
