# Atoms: numbers, short strings and bytes, bools and None, which most calls of little work are called with and return.
#
# Some facts (3.11, nanoseconds): `pickle` writes ((7,), {}) in 244 and reads it in 225, `marshal` in 95 and 136. After a pause of
# 20 ms, when no cache has the code any more, pickle takes some 20 us for each. A pool and its workers run the same executable.
# What this means for us: atoms go marshalled, everything else pickled. Reading them runs nobody's code.
# Version 2 of the format has no references, which small things do not need and whose table costs as much as the rest.
# The reader of the standard library trusts what it reads: it makes a tuple of as many as the bytes say, objects that contain
# themselves, and code. So the bytes are looked through first: they are of the types below, and no longer than they are.

cdef extern from "marshal.h":
    object PyMarshal_WriteObjectToString(object value, int version)
    object PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size)

cdef enum:
    LONGEST_ATOMS = 2048   # bytes of arguments, letters of a string
    LONGEST_ANSWER = 3072  # bytes, with which an answer stays in its ring
    FORMAT = 2
    DEEPEST_READ = 24
    ATOMS_TAG = 40    # "(": a marshalled tuple, where a pickle might stand
    ARRAYS_TAG = 65   # "A": the same behind it, of arguments and keywords, among them what marshal does not know
    SHORT_TAG = 80    # "P": a result with such things in it
    NAME_TAG = 78     # "N": a marshalled tuple behind it, the name of an array
    GIVEN_TAG = 71    # "G": a marshalled tuple behind it, of an array that is given away
    BUFFERS_TAG = 66  # "B": `shmexec.pickling.pickler` knows how to read it


cdef inline bint is_short_atom(value):
    kind = type(value)
    if kind is int or kind is float or value is None or kind is bool or kind is complex:
        return True
    return kind is str and len(<str> value) <= LONGEST_ATOMS or kind is bytes and len(<bytes> value) <= LONGEST_ATOMS


cdef bint are_atoms(tuple values):
    """Whether all of these are, each short; many are found out afterwards."""
    for value in values:
        if not is_short_atom(value):
            return False
    return True


def are_short_items(tuple items not None):
    """Whether the arguments of all these calls are atoms, and short."""
    for item in items:
        if not are_atoms(<tuple> item):
            return False
    return True


cdef bytes dump_atoms(value):
    """Of an atom, or a tuple of atoms."""
    return <bytes> PyMarshal_WriteObjectToString(value, FORMAT)


cdef int64_t after_one(const unsigned char *data, int64_t size, int64_t at, int depth) noexcept:
    """Where what follows the thing at this place begins; -1: there is none, or not all of it."""
    cdef unsigned char kind
    cdef int64_t count = 0
    if at >= size or depth > DEEPEST_READ:
        return -1
    kind = data[at]
    at += 1
    if kind == c"N" or kind == c"T" or kind == c"F" or kind == c".":
        return at
    if kind == c"{":
        while 0 <= at < size and data[at] != c"0":
            at = after_one(data, size, at, depth + 1)
            at = -1 if at < 0 else after_one(data, size, at, depth + 1)
        return at + 1 if 0 <= at < size else -1
    if kind == c"g" or kind == c"y":
        count = 8 if kind == c"g" else 16
    else:  # four bytes, which of all but the first say how many follow
        if size - at < 4:
            return -1
        count = <int32_t> (data[at] | data[at + 1] << 8 | data[at + 2] << 16 | <uint32_t> data[at + 3] << 24)
        at += 4
        if kind == c"i":
            return at
        if kind == c"(" or kind == c"[":
            if count < 0 or count > size - at:  # each has a byte at least
                return -1
            while count and at >= 0:
                at = after_one(data, size, at, depth + 1)
                count -= 1
            return at
        if kind == c"l":
            count = 2 * (count if count >= 0 else -count)
        elif kind != c"s" and kind != c"u" and kind != c"t":
            return -1
    return -1 if count < 0 or count > size - at else at + count


cdef object read_atoms(const char *data, uint64_t size):
    if after_one(<const unsigned char *> data, <int64_t> size, 0, 0) < 0:
        raise ValueError("bytes that nobody has marshalled here")
    return PyMarshal_ReadObjectFromString(data, <Py_ssize_t> size)
