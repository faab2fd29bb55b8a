"""Dask's collections on our pool, as the scheduler: equal results, and blocks that go between tasks by name."""

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed

import shmexec
from shmexec import WorkerDied


def test_blocks_of_arrays_go_between_tasks_by_name(executor):
    x = da.arange(1_000_000, chunks=250_000).reshape(1000, 1000).rechunk((500, 500)) / 7.0
    y = (x - x.mean(axis=0)) @ x.T
    found, top = dask.compute(y, y.max(), scheduler=executor)
    plain = np.arange(1_000_000).reshape(1000, 1000) / 7.0
    expected = (plain - plain.mean(axis=0)) @ plain.T
    assert np.allclose(found, expected)
    assert np.isclose(top, expected.max())
    stats = executor.stats()
    assert stats.bytes_by_name_out > 4 * plain.nbytes  # of each step
    assert stats.bytes_by_name_in > 4 * plain.nbytes
    assert stats.bytes_copied_in < 200_000  # sums of columns, and the like
    assert stats.bytes_copied_out < stats.bytes_by_name_out / 8  # those, and what a worker keeps a view of


def test_inputs_that_stand_in_many_tasks_are_copied_once_or_not_at_all(executor):
    plain = np.random.default_rng(1).random((800, 800))
    x = da.from_array(plain, chunks=400)
    with dask.config.set(scheduler=executor.options(copy_once=True)):
        assert np.allclose((x + x.T + x.sum()).compute(), plain + plain.T + plain.sum())
    assert executor.stats().bytes_copied_in < 2.1 * plain.nbytes
    before = executor.stats().bytes_copied_in
    with shmexec.shared_allocation():
        x = da.from_array(plain, chunks=400)  # which copies each block
        blocks = delayed([shmexec.share(plain[:400]), shmexec.share(plain[400:])])
    total = dask.compute((x + x.T).sum(), delayed(sum_all)(blocks), scheduler=executor)
    assert np.allclose(total, (2 * plain.sum(), plain.sum()))
    assert executor.stats().bytes_copied_in - before < plain.nbytes // 10


def sum_all(blocks):
    return sum(block.sum() for block in blocks)


def test_data_frames_give_what_pandas_gives(executor):
    frame = pd.DataFrame({"key": np.arange(60_000) % 7, "value": np.arange(60_000.0), "text": ["a", "bc"] * 30_000})
    parts = dd.from_pandas(frame, npartitions=4)
    with dask.config.set(scheduler=executor):
        grouped = parts.groupby("key").value.mean().compute().sort_index()
        texts = parts.text.value_counts().compute().sort_index()
        moved = parts.set_index("value", sort=True).key.sum().compute()
        joined = parts.merge(frame[["key", "value"]].head(7), on="key").value_y.sum().compute()
    pd.testing.assert_series_equal(grouped, frame.groupby("key").value.mean())
    assert list(texts) == [30_000, 30_000]
    assert moved == frame.key.sum()
    assert joined == frame.merge(frame[["key", "value"]].head(7), on="key").value_y.sum()


def test_bags_and_delayed_calls(executor):
    bag = db.from_sequence(range(1000), npartitions=5).map(lambda i: i**2).filter(lambda i: i % 3)
    parts = [delayed(np.full)((300, 300), i, float) for i in range(8)]
    total = delayed(sum_all)([part * 2 for part in parts])
    squares, value = dask.compute(bag.sum(), total, scheduler=executor)
    assert squares == sum(i**2 for i in range(1000) if i**2 % 3)
    assert value == 300 * 300 * 2 * sum(range(8))


def test_what_goes_wrong_in_a_task_comes_out_and_the_pool_goes_on(executor):
    with pytest.raises(ZeroDivisionError):
        dask.compute(delayed(divmod)(1, 0), scheduler=executor)
    with pytest.raises(WorkerDied):
        dask.compute(delayed(end)(), scheduler=executor)
    assert dask.compute(delayed(divmod)(7, 2), scheduler=executor) == ((3, 1),)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        dask.compute(delayed(divmod)(7, 2), scheduler=executor)


def end():
    import os

    os._exit(3)
