"""What the parent does while its workers die: each action sends some calls, in one of the ways in which users do."""

import itertools
import time
from concurrent import futures

import numpy as np

import shmexec
from shmexec import WorkerDied
from shmexec.errors import TaskTimeout
from tests.chaos import things, work
from tests.chaos.checker import Sent
from tests.chaos.work import Burning, Fuse, Order


class Actor:
    """One thread of the parent's. What it does depends on its seed alone; when, on the machine."""

    def __init__(self, executor, checker, rng):
        self.executor = executor
        self.checker = checker
        self.rng = rng
        self.pending = []

    # ---- parts

    def number(self, below):
        return int(self.rng.integers(below))

    def fuse(self, stages=("begin", "checked", "end"), *, chance=0.25):
        if self.rng.random() > chance:
            return Fuse()
        if self.rng.random() < 0.7:
            return Fuse("timer", float(10 ** self.rng.uniform(-5, -1.5)), stages[self.number(len(stages))])
        return Fuse(work.MEANS[self.number(len(work.MEANS))], 0.0, stages[self.number(len(stages))])

    def thing(self):
        name, seed = things.pick(self.rng), self.number(1 << 30)
        return things.make(name, seed), name, seed

    def order(self, values, *, result=None, fuse=None):
        """What to do with these, and the digest of what comes back; None: the board is full."""
        call = self.checker.next_call()
        if call is None:
            return None
        expected = tuple(map(things.digest, values))
        if result is None:
            result = ("echo", 0), ("sum", 0), (things.pick(self.rng), self.number(1 << 30))
            result = result[self.number(3)]
        if result[0] == "echo":
            want = things.digest(list(values))
        elif result[0] == "sum":
            want = things.digest(list(expected))
        else:
            want = things.digest(things.make(*result))
        seconds = float(10 ** self.rng.uniform(-5, -2)) if self.rng.random() < 0.3 else 0.0
        return Order(call, self.fuse() if fuse is None else fuse, expected, result, seconds), want

    def send(self, what, order, want, function, *args, needs=(), **kwargs):
        future = self.executor.submit(function, *args, **kwargs)
        one = self.checker.sent(Sent(order.call if isinstance(order, Order) else order, future, want, what, needs))
        self.pending.append(one)
        return one

    # ---- actions

    def submit_things(self):
        for _ in range(1 + self.number(4)):
            values = [self.thing()[0] for _ in range(self.number(4))]
            if (made := self.order(values)) is None:
                return
            order, want = made
            if self.rng.random() < 0.2:
                stage = "unpickling" if self.rng.random() < 0.5 else "pickling"
                fuse = self.fuse((stage,), chance=1)
                order = Order(order.call, fuse if stage == "pickling" else Fuse(), order.expected, order.result)
                burning = Burning(fuse, stage, order.call)
                self.send(f"burning {stage}", order, want, work.run_burning, order, burning, *values)
            else:
                self.send("submit", order, want, work.run, order, *values)

    def submit_atoms(self):
        for _ in range(1 + self.number(60)):
            call = self.checker.next_call()
            if call is None:
                return
            seconds = float(10 ** self.rng.uniform(-5, -2)) if self.rng.random() < 0.02 else 0.0
            x = self.number(1000)
            self.send("atom", call, things.digest(3 * x + 1), work.atom, call, seconds, x)

    def chain(self):
        """A result goes on to other calls, unread or read."""
        name, seed = things.pick(self.rng), self.number(1 << 30)
        if (made := self.order([], result=(name, seed))) is None:
            return
        first = self.send("first of a chain", *made, work.run, made[0])
        expected = things.digest((things.make(name, seed), None))
        links = [first]
        for _ in range(1 + self.number(3)):
            if (made := self.order([], result=("sum", 0))) is None:
                return
            order = Order(made[0].call, made[0].fuse, (expected,), ("sum", 0))
            if self.rng.random() < 0.3:
                self.settle(first)
            if first.future is None:
                return
            want = things.digest([expected])
            links.append(self.send("link of a chain", order, want, work.run, order, first.future, needs=(first,)))
        if self.rng.random() < 0.2 and first.future.cancel():
            first.cancelled = True

    def write(self):
        """Calls that write into shared memory, one after the other."""
        array = shmexec.zeros(1 + self.number(100_000))
        for _ in range(1 + self.number(3)):
            call = self.checker.next_call()
            if call is None:
                return
            before, amount = float(array[0]), 1 + self.number(9)
            order = Order(call, self.fuse(("begin", "checked")), (), ("", 0))
            one = self.send("write", order, None, work.add_to, order, array, amount)
            self.settle(one)
            if one.error is None and not (array == before + amount).all():
                self.checker.wrong(f"write {call} is not seen, or not everywhere")
            array[:] = array[0]

    def map(self):
        count = 1 + self.number(40)
        wants, orders, values = [], [], []
        fuses = [Fuse()] * count
        if self.rng.random() < 0.5:
            fuses[self.number(count)] = self.fuse(chance=1)
        for fuse in fuses:
            value = self.thing()[0] if self.rng.random() < 0.3 else self.number(1000)
            if (made := self.order([value], fuse=fuse)) is None:
                return
            orders.append(made[0])
            wants.append(made[1])
            values.append(value)
        options = [{}, {"chunksize": 1 + self.number(7)}, {"buffersize": 1 + self.number(9)}][self.number(3)]
        results = self.executor.map(work.item, orders, values, **options)
        what = f"map {' '.join(options)}"
        stop = self.number(count) if self.rng.random() < 0.2 else count
        for order, want in itertools.islice(zip(orders, wants, strict=True), stop):
            one = self.checker.sent(Sent(order.call, None, want, what))
            try:
                value = next(results)
            except WorkerDied as error:
                self.checker.charge_any(orders, one, error)
                break
            except Exception as error:
                self.checker.failed(one, error)
                break
            self.checker.returned(one, value)
        results.close() if hasattr(results, "close") else None

    def retry(self):
        """A call that may be run three times."""
        seconds = float(10 ** self.rng.uniform(-4, -2))
        fuse = Fuse("timer", seconds) if self.rng.random() < 0.5 else Fuse()
        value = self.thing()[0]
        if (made := self.order([value], result=("sum", 0), fuse=fuse)) is None:
            return
        future = self.executor.options(timeout=100, retries=2).submit(work.run, made[0], value)
        self.pending.append(self.checker.sent(Sent(made[0].call, future, made[1], "retry", attempts=3)))

    def end_running(self):
        """A call that would take too long: its time is up, or it is cancelled while it runs."""
        if (made := self.order([], result=("sum", 0), fuse=Fuse())) is None:
            return
        order = Order(made[0].call, Fuse(), (), ("sum", 0), 1000.0)
        if self.rng.random() < 0.5:
            future = self.executor.options(timeout=0.05).submit(work.run, order)
            self.settle(self.checker.sent(Sent(order.call, future, None, "timeout", may_end=(TaskTimeout,))))
            return
        one = Sent(order.call, self.executor.submit(work.run, order), None, "cancel", may_end=(futures.CancelledError,))
        self.checker.sent(one)
        while not self.checker.board.begun[order.call] and not one.future.done():
            time.sleep(0.001)
        if not self.executor.cancel(one.future) and not one.future.done():
            self.checker.wrong(f"call {order.call} runs, and is not cancelled")
        self.settle(one)

    def callbacks(self):
        seen = futures.Future()
        if (made := self.order([self.thing()[0]][:0])) is None:
            return
        one = self.send("callback", *made, work.run, made[0])
        one.future.add_done_callback(lambda future: seen.set_result(future))
        if seen.result() is not one.future:
            self.checker.wrong("a callback got another future")
        self.settle(one)

    def as_completed(self):
        some = self.some(8)
        waited = {one.future: one for one in some}
        for future in futures.as_completed(list(waited)):
            self.settle(waited.pop(future))
        if waited:
            self.checker.wrong("as_completed left some out")

    def wait_first(self):
        some = [one.future for one in self.some(5)]
        if some:
            done, _ = futures.wait(some, return_when=futures.FIRST_COMPLETED)
            if not done:
                self.checker.wrong("wait returned without any")

    def cancel(self):
        for one in self.some(4):
            if one.future.cancel():
                one.cancelled = True

    def drop(self):
        """Nobody asks for these."""
        for one in self.some(4):
            if one.what != "first of a chain":  # others look back at that
                self.pending.remove(one)
                one.future = None

    def exceptions(self):
        for one in self.some(3):
            try:
                one.future.exception(0.001 if self.rng.random() < 0.5 else None)
            except (TimeoutError, futures.CancelledError):
                pass

    # ---- all

    WEIGHTS = (
        (submit_things, 8),
        (submit_atoms, 4),
        (chain, 3),
        (write, 1),
        (map, 3),
        (callbacks, 1),
        (retry, 2),
        (end_running, 1),
        (as_completed, 2),
        (wait_first, 1),
        (cancel, 1),
        (drop, 1),
        (exceptions, 1),
    )

    def act(self):
        """One action, and then settle what has piled up."""
        kinds = [kind for kind, weight in self.WEIGHTS for _ in range(weight)]
        kinds[self.number(len(kinds))](self)
        most = self.number(40)
        while len(self.pending) > most:
            self.settle(self.pending[self.number(len(self.pending))])

    def settle(self, one):
        self.checker.settle(one)
        if one in self.pending:
            self.pending.remove(one)

    def settle_all(self):
        while self.pending:
            self.settle(self.pending[-1])

    def some(self, most):
        self.pending = [one for one in self.pending if not one.is_over]
        if not self.pending:
            return []
        count = min(len(self.pending), 1 + self.number(most))
        places = self.rng.choice(len(self.pending), count, replace=False)
        return [self.pending[int(i)] for i in np.sort(places)]
