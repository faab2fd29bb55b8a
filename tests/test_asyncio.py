"""Calls from event loops: asyncio's own ways to executors, task groups, cancellation; trio by a thread."""

import asyncio
import functools
import os
import threading

import faults
import numpy as np
import pytest
import tasks

import shmexec
from shmexec import WorkerDied


def run(work):
    """In a loop that tells of what is never awaited, of slow callbacks, and of calls from wrong threads."""
    with asyncio.Runner(debug=True) as runner:
        failures = []
        runner.get_loop().set_exception_handler(lambda loop, context: failures.append(context))
        runner.get_loop().slow_callback_duration = 1000
        result = runner.run(work)
    assert not failures
    return result


def test_run_in_executor_passes_arrays_by_name(executor):
    given = shmexec.ones(100_000)

    async def work():
        loop = asyncio.get_running_loop()
        made = [loop.run_in_executor(executor, np.multiply, given, i) for i in range(10)]
        bad = loop.run_in_executor(executor, faults.throw, faults.Boom, "there")
        keyword = loop.run_in_executor(executor, functools.partial(np.sum, given, keepdims=True))
        with pytest.raises(faults.Boom, match="there"):
            await bad
        assert (await keyword).tolist() == [100_000]
        return await asyncio.gather(*made)

    results = run(work())
    assert [result[0] for result in results] == list(range(10))
    assert all(map(shmexec.is_shared, results))
    stats = executor.stats()
    assert (stats.bytes_copied_in, stats.bytes_by_name_out) == (0, 10 * given.nbytes)


def test_a_task_group_gets_all_results(executor):
    async def work():
        wrap = asyncio.wrap_future
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(asyncio.wait_for(wrap(executor.submit(tasks.double, i)), 100)) for i in range(50)]
        return [task.result() for task in made]

    assert run(work()) == list(range(0, 100, 2))


def test_a_failure_in_a_task_group_cancels_the_calls_that_wait(lonely, gate):
    say, wait = gate("say"), gate("wait")
    running = lonely.submit(tasks.pass_gates, say, wait, "went on")
    say.wait_open()
    waiting = [lonely.submit(tasks.double, i) for i in range(5)]

    async def follow(future):
        await asyncio.wrap_future(future)

    async def fail():
        raise faults.Boom("here")

    async def work():
        async with asyncio.TaskGroup() as group:
            for future in running, *waiting:
                group.create_task(follow(future))
            await asyncio.sleep(0)
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        run(work())
    assert caught.group_contains(faults.Boom)
    assert [future.cancelled() for future in waiting][1:] == [True] * 4  # the first may be in the worker's ring
    assert not running.cancelled()
    wait.open()
    assert running.result() == "went on"


def test_a_wait_that_is_over_leaves_a_running_call_and_cancels_a_waiting_one(lonely, gate):
    say, wait = gate("say"), gate("wait")

    async def work():
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(lonely, tasks.pass_gates, say, wait)
        await asyncio.to_thread(say.wait_open)
        waiting = [loop.run_in_executor(lonely, tasks.double, i) for i in range(3)]
        for future in running, *waiting:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(future, 0.001)
        wait.open()
        return await loop.run_in_executor(lonely, tasks.double, 4)

    assert run(work()) == 8
    assert lonely.stats().calls_waiting == lonely.stats().calls_running == 0


def test_the_death_of_a_worker_is_an_exception_in_its_task_alone(executor):
    async def work():
        loop = asyncio.get_running_loop()
        made = [loop.run_in_executor(executor, os._exit if i == 5 else tasks.double, i) for i in range(10)]
        return await asyncio.gather(*made, return_exceptions=True)

    results = run(work())
    assert isinstance(results.pop(5), WorkerDied)
    assert results == [0, 2, 4, 6, 8, 12, 14, 16, 18]


def test_a_loop_that_ends_before_its_calls_harms_nobody(executor, gate):
    say, wait = gate("say"), gate("wait")

    async def work():
        future = executor.submit(tasks.pass_gates, say, wait, "late")
        asyncio.wrap_future(future)
        await asyncio.to_thread(say.wait_open)
        return future

    future = run(work())
    wait.open()
    assert future.result() == "late"
    assert run(work_again(executor)) == [0, 2, 4]


async def work_again(executor):
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(executor, tasks.double, i) for i in range(3)))


def test_two_loops_in_two_threads_use_one_pool(executor):
    results = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: run(work_again(executor))})) for n in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"one": [0, 2, 4], "two": [0, 2, 4]}


def test_an_async_with_of_the_users_own_need_not_block_the_loop(make_executor):
    async def work():
        executor = make_executor(1)
        try:
            return await asyncio.wrap_future(executor.submit(tasks.double, 3))
        finally:
            await asyncio.to_thread(executor.shutdown)

    assert run(work()) == 6


TRIO = """
import operator, time
import shmexec, trio

async def call(function, *args):
    future = ex.submit(function, *args)
    try:
        return await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
    finally:
        future.cancel()

async def work():
    results = []
    async def one(i):
        results.append(await call(operator.mul, i, 2))
    async with trio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(one, i)
    assert sorted(results) == list(range(0, 20, 2))
    try:
        await call(operator.truediv, 1, 0)
    except ZeroDivisionError as error:
        assert "Traceback" in str(error.__cause__)
    else:
        raise AssertionError
    with trio.move_on_after(0.01) as scope:
        await call(wait_for, flag)
    assert scope.cancelled_caught
    flag[0] = 1

def wait_for(flag):
    while not flag[0]:
        time.sleep(0.001)

flag = shmexec.zeros(1)
with shmexec.SharedExecutor(1) as ex:
    trio.run(work)
    assert ex.submit(abs, -1).result() == 1
print("fine")
"""


def test_trio_waits_in_a_thread(script):
    pytest.importorskip("trio")
    assert script(TRIO).stdout == "fine\n"
