# Atoms: numbers, short strings and bytes, bools and None, which most calls of little work are called with and return.
#
# Some facts (3.11, nanoseconds): `pickle` writes ((7,), {}) in 244 and reads it in 225, `marshal` in 95 and 136. After a pause of
# 20 ms, when no cache has the code any more, pickle takes some 20 us for each. A pool and its workers run the same executable.
# What this means for us: atoms go marshalled, everything else pickled. Reading them runs nobody's code.
# Version 2 of the format has no references, which small things do not need and whose table costs as much as the rest.

cdef extern from "marshal.h":
    object PyMarshal_WriteObjectToString(object value, int version)
    object PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size)

cdef enum:
    LONGEST_ATOMS = 2048   # bytes of arguments, letters of a string
    LONGEST_ANSWER = 3072  # bytes, with which an answer stays in its ring
    FORMAT = 2
    ATOMS_TAG = 40    # "(": a marshalled tuple, where a pickle might stand
    ARRAYS_TAG = 65   # "A": the same behind it, of arguments and keywords, among them what marshal does not know
    SHORT_TAG = 80    # "P": a result with such things in it
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


cdef object read_atoms(const char *data, uint64_t size):
    cdef const unsigned char *count = <const unsigned char *> data + 1
    # a tuple of as many would be made before the first is looked for
    if size >= 5 and data[0] == ATOMS_TAG and (count[3] or count[2] or <uint64_t> (count[0] + 256 * count[1]) > size):
        raise ValueError("bad marshal data (more items than bytes)")
    return PyMarshal_ReadObjectFromString(data, <Py_ssize_t> size)
