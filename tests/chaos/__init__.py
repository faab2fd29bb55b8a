"""Workers die at random while arrays of all kinds are in flight; afterwards everything has to be right.

    python -m tests.chaos --seconds 600 --seed 7

What has to hold is in `tests.chaos.checker`: no wrong value, no call lost that was not running on a dead worker, none
run twice, no hang, and nothing left in the heap, the kernel, or the process.
"""
