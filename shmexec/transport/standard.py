"""Standard descriptors for processes that have none, such as daemons: the next files would get their numbers."""

import os


def open_standard_descriptors() -> None:
    """Open /dev/null for each that is closed; in programs that this process starts they are closed as before.

    Else whatever is printed, by C code say, would go into a socket of ours, or into the heap.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
