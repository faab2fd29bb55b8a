"""The ways in which a user gets at what a call returns, or raises."""

import asyncio
from concurrent import futures


def by_submit(executor, function, *args):
    future = executor.submit(function, *args)
    return future.exception() or future.result()


def by_map(executor, function, *args):
    try:
        return next(executor.map(function, *([value] for value in args or [1])))
    except Exception as error:
        return error


def by_callback(executor, function, *args):
    seen = futures.Future()
    executor.submit(function, *args).add_done_callback(seen.set_result)
    done = seen.result()
    return done.exception() or done.result()


def by_asyncio(executor, function, *args):
    async def work():
        try:
            return await asyncio.wrap_future(executor.submit(function, *args))
        except Exception as error:
            return error

    return asyncio.run(work())


WAYS = {"submit": by_submit, "map": by_map, "callback": by_callback, "asyncio": by_asyncio}
