"""What a pickler writes to and an unpickler reads from: bytes, of which the bulk lies in shared memory.

CPython's C pickler hands over `bytes`, `bytearray`s and strings of 64 KiB and more as they are, in a `write` of their
own behind that of their opcode and length; the unpickler reads them with a `readinto` (or `read`) of their own. So
they are taken out of the stream here, and put back there, without a copy more than the one into shared memory and the
one out of it. A CPython that did otherwise would leave them in the stream, and nothing else would change.
"""

from collections.abc import Callable, Iterator

from shmexec import _core

# CPython's Modules/_pickle.c, FRAME_SIZE_TARGET: smaller ones are written with what surrounds them.
BULK = 64 << 10

# position in the stream, block, birth, bytes
Piece = tuple[int, int, int, int]

# How a string of bytes is announced: BINBYTES, BINUNICODE, and with eight bytes of length BINBYTES8, BINUNICODE8,
# BYTEARRAY8.
_SHORT, _LONG = b"BX", b"\x8e\x8d\x96"


class Writer:
    """The file of a pickler.

    Parameters
    ----------
    place : callable
        Copies bytes into shared memory; the block and its birth.
    """

    __slots__ = ("_parts", "_place", "_size", "pieces")

    def __init__(self, place: Callable[[bytes], tuple[int, int]]) -> None:
        self._place = place
        self._parts: list[bytes] = []
        self._size = 0
        self.pieces: list[Piece] = []

    def write(self, data: bytes) -> None:
        """The next of the stream."""
        if len(data) >= BULK and self._parts and _announces(self._parts[-1], len(data)):
            self.pieces.append((self._size, *self._place(data), len(data)))
        else:
            self._parts.append(data)
            self._size += len(data)

    def getvalue(self) -> bytes:
        """The stream, without its pieces."""
        return b"".join(self._parts)


def _announces(header: bytes, size: int) -> bool:
    return (header[-5:-4] in _SHORT and header[-4:] == size.to_bytes(4, "little") and len(header) >= 5) or (
        header[-9:-8] in _LONG and header[-8:] == size.to_bytes(8, "little") and len(header) >= 9
    )


class Reader:
    """The file of an unpickler: the stream with its pieces in it."""

    __slots__ = ("_left", "_parts")

    def __init__(self, data: memoryview, pieces: list[Piece]) -> None:
        self._parts = _parts(data, pieces)
        self._left = next(self._parts)

    def read(self, size: int) -> bytes | memoryview:
        """So many bytes; fewer only at the end. (A view where the pickler wrote them in one.)"""
        if size <= len(self._left):
            data, self._left = self._left[:size], self._left[size:]
            return data
        data = bytearray(size)  # type: ignore[assignment]
        return bytes(data[: self.readinto(data)])

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer; the bytes that there were."""
        view, done = memoryview(buffer), 0
        while done < len(view):
            if not self._left:
                following = next(self._parts, None)
                if following is None:
                    break
                self._left = following
                continue
            size = min(len(view) - done, len(self._left))
            view[done : done + size] = self._left[:size]
            self._left = self._left[size:]
            done += size
        return done

    def readline(self) -> bytes:
        """For opcodes that protocol 5 does not write."""
        raise NotImplementedError


def _parts(data: memoryview, pieces: list[Piece]) -> Iterator[memoryview]:
    begin = 0
    for position, block, birth, size in pieces:
        yield data[begin:position]
        yield memoryview(_core.hold(block, birth, True))[:size]
        begin = position
    yield data[begin:]
