"""The steps of the demo's pipeline, and their way through an executor."""

import io
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from shmexec.demo import batch, pictures, pipeline
from shmexec.demo.progress import Progress


def test_no_step_writes_into_its_argument():
    value = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    for step in pipeline.STEPS:
        value.flags.writeable = False
        value = step(value)
    assert isinstance(value, pipeline.Summary)
    assert value.histogram.sum() == 200 * 300
    assert 0 < value.ink < 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
@pytest.mark.parametrize("fill", [0, 1])
def test_the_smallest_narrowest_and_flattest_pictures_pass_through(shape, fill):
    value = np.full((*shape, 3), fill, np.float32)
    for step in pipeline.STEPS:
        value = step(value)
    assert max(value.thumbnail.shape) <= pipeline.THUMBNAIL_SIDE
    assert value.thumbnail.size


def test_a_thumbnail_is_the_mean_of_boxes():
    picture = np.zeros((640, 1280, 3), np.uint8)
    picture[::2] = 200
    small = pipeline.thumbnail(picture)
    assert small.shape == (160, 320, 3)
    assert math.isclose(small.mean(), 100)


class CountingPool(ThreadPoolExecutor):
    """Notes how many calls are under way at most."""

    def __init__(self, workers):
        super().__init__(workers)
        self._count, self._lock, self.most = 0, threading.Lock(), 0

    def submit(self, function, /, *arguments, **keywords):
        with self._lock:
            self._count += 1
            self.most = max(self.most, self._count)
        future = super().submit(function, *arguments, **keywords)
        future.add_done_callback(self._end)
        return future

    def _end(self, _):
        with self._lock:
            self._count -= 1


def some_pictures(count):
    return [pictures.Picture(f"p{i}", np.full((20, 30, 3), i, np.uint8)) for i in range(count)]


def quiet():
    return Progress("", 1, io.StringIO())


def test_no_more_pictures_than_asked_are_in_flight():
    with CountingPool(2) as pool:
        outcomes = batch.Batch(pool, 3, quiet()).run(some_pictures(10))
    assert pool.most == 3
    assert [outcome.name for outcome in outcomes] == [f"p{i}" for i in range(10)]
    assert all(outcome.error is None for outcome in outcomes)


def test_a_broken_pool_fails_every_picture_and_does_not_hang():
    class Broken(ThreadPoolExecutor):
        def submit(self, *_, **__) -> Future:
            raise BrokenProcessPool("a worker died")

    with Broken(1) as pool:
        outcomes = batch.Batch(pool, 2, quiet()).run(some_pictures(3))
    assert [outcome.error for outcome in outcomes] == ["BrokenProcessPool: a worker died"] * 3


@pytest.mark.parametrize("change", [lambda a: a + 1, lambda a: a.astype(np.int16), lambda a: a.T])
def test_a_digest_tells_values_types_and_shapes_apart(change):
    array = (np.arange(1200) % 251).astype(np.uint8).reshape(30, 40)
    assert batch.digest(array) != batch.digest(change(array))
    assert batch.digest(array) == batch.digest(array.copy(order="F"))
