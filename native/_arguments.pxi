# Arguments and results that take no pickle: atoms, and arrays in shared memory by name.
#
# Some facts: NumPy's own types have one descriptor each, and a number, the same in every process of one executable.
# What this means for us: an array of such a type becomes a tuple among the atoms, which are never tuples:
#     (block, birth, offset, type, shape, strides or None, FLAGS)
# A result that is such an array, whole, and that nobody else in its worker has, is given away as
#     (block, birth, type, shape, is Fortran)
# All other arrays (plain ones, structured, byte-swapped, subclasses, those of other heaps) are pickled:
# `shmexec.pickling.arrays` says how, and what is done here is what it does with these.

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object value)

cdef extern from "numpy/arrayobject.h":
    bint PyArray_CheckExact(object value)
    cnp.dtype PyArray_DescrFromType(int number)
    int NPY_CLONGDOUBLE, NPY_HALF

cdef enum:
    IS_WRITEABLE = 1
    IS_FORTRAN = 2  # and not C-contiguous


cdef inline bint is_plain_number(int number):
    """A bool, an integer, a float or a complex number."""
    return 0 <= number <= NPY_CLONGDOUBLE or number == NPY_HALF


cdef bint is_by_number(cnp.ndarray array):
    """Whether its type is one of NumPy's own, as it is on this machine."""
    cdef int number = cnp.PyArray_TYPE(array)
    if not is_plain_number(number):
        return False
    descriptor = PyArray_DescrFromType(number)
    return <PyObject *> descriptor == <PyObject *> cnp.PyArray_DESCR(array)


cdef tuple shape_of(cnp.ndarray array):
    return tuple([cnp.PyArray_DIM(array, i) for i in range(cnp.PyArray_NDIM(array))])


# ---- arguments

cdef tuple name_array(cnp.ndarray array, Holds holds, bint is_result=False):
    """Its name, which `holds` holds; None: it has to be pickled."""
    cdef sx_name_t name
    cdef Py_ssize_t offset
    cdef bint is_c = cnp.PyArray_IS_C_CONTIGUOUS(array), is_f = cnp.PyArray_IS_F_CONTIGUOUS(array)
    if not is_by_number(array) or not cnp.PyArray_SIZE(array) or not find_array(array, &name, &offset):
        return None
    if is_plain(name.block) if is_result else is_own_plain(name.block):
        return None
    if not is_result:
        disown(array)
    holds.add(name.block, name.birth)
    strides = None
    if not (is_c or is_f):
        strides = tuple([cnp.PyArray_STRIDE(array, i) for i in range(cnp.PyArray_NDIM(array))])
    flags = (IS_WRITEABLE if cnp.PyArray_ISWRITEABLE(array) else 0) | (IS_FORTRAN if is_f and not is_c else 0)
    return name.block, name.birth, offset, cnp.PyArray_TYPE(array), shape_of(array), strides, flags


cdef object array_named(tuple name):
    if len(name) != 7 or not is_plain_number(name[3]):
        raise ValueError("no name of an array")
    cdef Block block = hold_block(the_heap(), name[0], name[1])
    return array_over(block, block.place.start, block.place.size, name[2], PyArray_DescrFromType(name[3]), name[4], name[5],
                      name[6] & IS_WRITEABLE, name[6] & IS_FORTRAN)


cdef bytes dump_arguments(tuple args, Holds holds, uint64_t *by_name):
    """None: some have to be pickled. `by_name`: the bytes of the arrays that `holds` holds."""
    cdef list parts = []
    cdef Py_ssize_t i, j
    for i in range(len(args)):
        value = args[i]
        if PyArray_CheckExact(value):
            for j in range(i):
                if args[j] is value:  # it is to arrive as one object
                    return None
            by_name[0] += <uint64_t> cnp.PyArray_NBYTES(value)
            value = name_array(value, holds)
            if value is None:
                return None
        elif not is_short_atom(value):
            return None
        parts.append(value)
    return b"A" + dump_atoms(tuple(parts))


cdef tuple read_arguments(const char *data, uint64_t size):
    if size == 0 or data[0] != ARRAYS_TAG:
        return <tuple?> read_atoms(data, size)
    args = <tuple?> read_atoms(data + 1, size - 1)
    return tuple([array_named(<tuple> value) if type(value) is tuple else value for value in args])


def load_arguments(const unsigned char[::1] data not None):
    """What `Desk.submit` has marshalled: a tuple of arguments."""
    return read_arguments(<const char *> &data[0], <uint64_t> data.shape[0])


# ---- results

cdef bytes give_array(cnp.ndarray array, Holds holds):
    """In a worker, the only reference to a result: it is given away, and `holds` holds its block. None: it has to be pickled.

    Its memory is NumPy's, so a view of it, or whoever exports its bytes, would have a reference to it.
    """
    cdef uint64_t size = <uint64_t> cnp.PyArray_NBYTES(array)
    cdef bint is_c = cnp.PyArray_IS_C_CONTIGUOUS(array)
    cdef sx_name_t name
    cdef Py_ssize_t offset
    if not (cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_OWNDATA) and cnp.PyArray_ISWRITEABLE(array)
            and (is_c or cnp.PyArray_IS_F_CONTIGUOUS(array)) and is_by_number(array)):
        return None
    if size < threshold() or not find_array(array, &name, &offset) or offset or is_sparse(size, name.block):
        return None
    if not is_own_plain(name.block) or sx_heap_count(own, name.block) != 1:
        return None
    holds.add(name.block, name.birth)
    return b"G" + dump_atoms((name.block, name.birth, cnp.PyArray_TYPE(array), shape_of(array), not is_c))


cdef bytes dump_result(cnp.ndarray array, Holds holds, bint is_alone):
    """`is_alone`: nobody else here has it. None: it has to be pickled."""
    cdef bytes given = give_array(array, holds) if is_alone else None
    cdef tuple name = None
    if given is None:
        name = name_array(array, holds, True)
    return given if name is None else b"N" + dump_atoms(name)


def load_result(const unsigned char[::1] data not None, bint is_owner):
    """The array of which `dump_result` has written; `is_owner`: if it was given away, then to this process, and nobody else."""
    cdef tuple name = <tuple?> read_atoms(<const char *> &data[1], <uint64_t> data.shape[0] - 1)
    if data[0] != GIVEN_TAG:
        return array_named(name)
    if len(name) != 5 or not is_plain_number(name[2]):
        raise ValueError("no name of an array")
    dtype = PyArray_DescrFromType(name[2])
    if is_owner:
        return own_array(name[0], name[1], dtype, name[3], name[4])
    return rebuild(hold_block(the_heap(), name[0], name[1]), 0, dtype, name[3], None, True, name[4])
