# Arguments and results that take no pickle: short things, and arrays in shared memory by name.
#
# Some facts: NumPy's own types have one descriptor each, and a number, the same in every process of one executable.
# What this means for us: atoms, NumPy's scalars, small plain arrays, arrays by name, and lists, tuples, dicts and sets of all
# these are marshalled, as long as they are short and nothing that can be changed is met twice. (A tuple, a string or a number
# arrives as two.) What is marshalled is never what others can change: to make a tuple may start the collection of garbage, and
# with it anybody's code. Types have the number that their letters in a pickle stand for: `long long` is `long`. What marshal does
# not know becomes a tuple that begins with Ellipsis, which is no atom, so that no other tuple does:
#     (..., type, bytes)                                                  a scalar
#     (..., None, is frozen, elements)                                    a set, which marshal would sort
#     (..., type, shape, is Fortran, bytes)                               a small array
#     (..., block, birth, offset, type, shape, strides or None, FLAGS)    an array by name
# A result that is an array, whole, and that nobody else in its worker has, is given away as
#     (block, birth, type, shape, is Fortran)
# All other things (plain arrays that are not small, structured, byte-swapped, subclasses, those of other heaps; whatever
# else there is) are pickled: `shmexec.pickling.arrays` says how, and what is done here is what it does with these.

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object value)
    PyObject *PyTuple_GET_ITEM(object value, Py_ssize_t at)
    PyObject *PyList_GET_ITEM(object value, Py_ssize_t at)

cdef extern from "numpy/arrayobject.h":
    bint PyArray_CheckExact(object value)
    cnp.dtype PyArray_DescrFromType(int number)
    object PyArray_Scalar(void *data, cnp.dtype dtype, PyObject *base)
    void PyArray_ScalarAsCtype(object scalar, void *data)
    object PyArray_ToString(cnp.ndarray array, cnp.NPY_ORDER order)
    int NPY_CLONGDOUBLE, NPY_HALF

cdef enum:
    IS_WRITEABLE = 1
    IS_FORTRAN = 2     # and not C-contiguous
    MOST_PARTS = 256   # of one thing that is marshalled
    MOST_OBJECTS = 16  # of them with an identity: lists, dicts, sets, arrays
    DEEPEST_PART = 8
    NPY_NUMBERS = 32
    SCALAR_WORDS = 2   # long doubles, 32 bytes: of the largest

cdef struct walk_t:
    bint is_result
    int parts
    int objects
    PyObject *met[MOST_OBJECTS]
    uint64_t letters           # and bytes
    uint64_t by_name, copied   # bytes of arrays
    bint is_odd                # marshal does not know all of it

ctypedef struct cost_t:  # of an answer
    uint64_t bytes_by_name
    uint64_t bytes_copied
    double seconds

cdef object NOT_SHORT = object()
cdef int usual_numbers[NPY_NUMBERS]
cdef tuple NUMBERS = (*range(NPY_CLONGDOUBLE + 1), NPY_HALF)
cdef dict scalar_numbers = {(<object> PyArray_DescrFromType(number)).type: number for number in NUMBERS}
for number in NUMBERS:
    usual_numbers[number] = dtype_of((<object> PyArray_DescrFromType(number)).str).num


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


# ---- arrays by name

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
    number = usual_numbers[cnp.PyArray_TYPE(array)]
    return Ellipsis, name.block, name.birth, offset, number, shape_of(array), strides, flags


cdef object array_named(tuple name):
    if len(name) != 8 or not is_plain_number(name[4]):
        raise ValueError("no name of an array")
    cdef Block block = hold_block(the_heap(), name[1], name[2])
    return array_over(block, block.place.start, block.place.size, name[3], PyArray_DescrFromType(name[4]), name[5], name[6],
                      name[7] & IS_WRITEABLE, name[7] & IS_FORTRAN)


# ---- short things

cdef bint is_met(value, walk_t *walk):
    """Whether it was met before, and is to arrive as one object, or is one too many."""
    cdef int i
    for i in range(walk.objects):
        if walk.met[i] == <PyObject *> value:
            return True
    if walk.objects == MOST_OBJECTS:
        return True
    walk.met[walk.objects] = <PyObject *> value
    walk.objects += 1
    return False


cdef object shorten(value, walk_t *walk, Holds holds, int depth):
    """What is marshalled in its place; NOT_SHORT: it has to be pickled."""
    cdef PyObject *number
    kind = type(value)
    walk.parts += 1
    if is_short_atom(value):
        if kind is str or kind is bytes:
            walk.letters += <uint64_t> len(value)
        return value
    if depth == DEEPEST_PART:
        return NOT_SHORT
    if kind is tuple:
        return shorten_items(value, len(<tuple> value), walk, holds, depth)
    if kind is list:
        return NOT_SHORT if is_met(value, walk) else shorten_items(value, len(<list> value), walk, holds, depth)
    if kind is dict:
        return NOT_SHORT if is_met(value, walk) else shorten_dict(<dict> value, walk, holds, depth)
    if PyArray_CheckExact(value):
        return NOT_SHORT if is_met(value, walk) else shorten_array(value, walk, holds)
    if kind is set or kind is frozenset:
        return NOT_SHORT if is_met(value, walk) else shorten_set(value, walk)
    number = PyDict_GetItem(scalar_numbers, kind)
    return NOT_SHORT if number == NULL else shorten_scalar(value, <object> number, walk)


cdef object shorten_items(value, Py_ssize_t count, walk_t *walk, Holds holds, int depth):
    """Of a tuple or a list."""
    cdef bint is_tuple = type(value) is tuple
    cdef list made = None if is_tuple else []
    cdef Py_ssize_t i
    if count > MOST_PARTS - walk.parts:
        return NOT_SHORT
    for i in range(count):
        if not is_tuple and i >= len(<list> value):  # it has been changed meanwhile
            return NOT_SHORT
        item = <object> (PyTuple_GET_ITEM(value, i) if is_tuple else PyList_GET_ITEM(value, i))
        short = shorten(item, walk, holds, depth + 1)
        if short is NOT_SHORT:
            return NOT_SHORT
        if short is not item and made is None:
            made = list(value[:i])
        if made is not None:
            made.append(short)
    return value if made is None else tuple(made) if is_tuple else made


cdef object shorten_dict(dict value, walk_t *walk, Holds holds, int depth):
    cdef dict made = {}
    if len(value) > MOST_PARTS - walk.parts:
        return NOT_SHORT
    for key, item in value.items():
        short = shorten(item, walk, holds, depth + 1)
        if short is NOT_SHORT or not is_short_key(key, walk):
            return NOT_SHORT
        made[key] = short
    return made


cdef object shorten_set(value, walk_t *walk):
    cdef tuple elements
    if len(value) > MOST_PARTS - walk.parts:
        return NOT_SHORT
    elements = tuple(value)
    for element in elements:
        if not is_short_key(element, walk):
            return NOT_SHORT
    walk.is_odd = True
    return Ellipsis, None, type(value) is frozenset, elements


cdef bint is_short_key(key, walk_t *walk):
    walk.parts += 1
    if type(key) is str or type(key) is bytes:
        walk.letters += <uint64_t> len(key)
    return is_short_atom(key)


cdef object shorten_array(cnp.ndarray array, walk_t *walk, Holds holds):
    cdef uint64_t size = <uint64_t> cnp.PyArray_NBYTES(array)
    cdef bint is_fortran = cnp.PyArray_IS_F_CONTIGUOUS(array) and not cnp.PyArray_IS_C_CONTIGUOUS(array)
    cdef tuple name = name_array(array, holds, walk.is_result)
    walk.is_odd = True
    if name is not None:
        walk.by_name += size
        return name
    if size > LONGEST_ANSWER or size >= threshold() or not is_by_number(array) or foreign:
        return NOT_SHORT
    walk.copied += size
    walk.letters += size
    data = PyArray_ToString(array, cnp.NPY_FORTRANORDER if is_fortran else cnp.NPY_CORDER)
    return Ellipsis, usual_numbers[cnp.PyArray_TYPE(array)], shape_of(array), is_fortran, data


cdef object shorten_scalar(value, int number, walk_t *walk):
    cdef long double place[SCALAR_WORDS]
    cdef Py_ssize_t size = PyArray_DescrFromType(number).itemsize
    PyArray_ScalarAsCtype(value, place)
    walk.is_odd = True
    walk.letters += <uint64_t> size
    return Ellipsis, usual_numbers[number], (<char *> place)[:size]


cdef object scalar_of(int number, bytes data):
    cdef long double place[SCALAR_WORDS]
    if not is_plain_number(number):
        raise ValueError("no type of a scalar")
    dtype = PyArray_DescrFromType(number)
    if len(data) != dtype.itemsize:
        raise ValueError("the bytes of a scalar do not fit its type")
    memcpy(place, <const char *> data, len(data))
    return PyArray_Scalar(place, dtype, NULL)


cdef object restored(value):
    """What `shorten` was given."""
    cdef Py_ssize_t i
    kind = type(value)
    if kind is tuple:
        if not value or (<tuple> value)[0] is not Ellipsis:
            return tuple([restored(item) for item in <tuple> value])
        if len(<tuple> value) == 3:
            return scalar_of(value[1], <bytes?> value[2])
        if len(<tuple> value) == 4:
            return (frozenset if value[2] else set)(<tuple?> value[3])
        if len(<tuple> value) != 5:
            return array_named(<tuple> value)
        if not is_plain_number(value[1]):
            raise ValueError("no type of an array")
        return small_array(<bytes?> value[4], PyArray_DescrFromType(value[1]), <tuple?> value[2], value[3])
    if kind is list:
        for i in range(len(<list> value)):
            (<list> value)[i] = restored((<list> value)[i])
    elif kind is dict:
        for key in list(<dict> value):
            (<dict> value)[key] = restored((<dict> value)[key])
    return value


# ---- arguments

cdef bytes dump_arguments(tuple args, dict keywords, Holds holds, walk_t *walk):
    """None: some have to be pickled."""
    try:
        short = shorten_items(args, len(args), walk, holds, 0)
        named = None if short is NOT_SHORT or not keywords else shorten_dict(keywords, walk, holds, 0)
        if short is NOT_SHORT or named is NOT_SHORT or walk.letters > LONGEST_ATOMS:
            return None
        if named is None and not walk.is_odd:
            return dump_atoms(short)
        return b"A" + dump_atoms((short, named))
    except Exception:  # it has been changed meanwhile
        return None


cdef tuple read_arguments(const char *data, uint64_t size):
    """(args, keywords or None)"""
    if size == 0 or data[0] != ARRAYS_TAG:
        return <tuple?> read_atoms(data, size), None
    args, keywords = <tuple?> read_atoms(data + 1, size - 1)
    return <tuple?> restored(args), None if keywords is None else <dict?> restored(keywords)


def load_arguments(const unsigned char[::1] data not None):
    """What `Desk.submit` has marshalled: arguments and keywords."""
    if data.shape[0] == 0:
        raise ValueError("no bytes")
    args, keywords = read_arguments(<const char *> &data[0], <uint64_t> data.shape[0])
    return args, keywords or {}


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
    number = usual_numbers[cnp.PyArray_TYPE(array)]
    return b"G" + dump_atoms((name.block, name.birth, number, shape_of(array), not is_c))


cdef bytes dump_result(cnp.ndarray array, Holds holds, bint is_alone):
    """`is_alone`: nobody else here has it. None: it has to be pickled."""
    cdef bytes given = give_array(array, holds) if is_alone else None
    cdef tuple name = None
    if given is None:
        name = name_array(array, holds, True)
    return given if name is None else b"N" + dump_atoms(name)


cdef bytes dump_short(value, Holds holds, cost_t *cost):
    """None: it has to be pickled."""
    cdef walk_t walk
    cdef bytes data
    memset(&walk, 0, sizeof(walk))
    walk.is_result = True
    try:
        short = shorten(value, &walk, holds, 0)
        if short is NOT_SHORT or walk.letters > LONGEST_ANSWER:
            return None
        data = dump_atoms(short)
    except Exception:  # it has been changed meanwhile
        return None
    if len(data) >= LONGEST_ANSWER:
        return None
    cost.bytes_by_name, cost.bytes_copied = walk.by_name, walk.copied
    return b"P" + data if walk.is_odd else data


cdef bint is_result_tag(bytes data):
    """Whether `load_result` reads it."""
    cdef int tag = data[0] if len(data) else 0
    return tag == SHORT_TAG or tag == NAME_TAG or tag == GIVEN_TAG


cdef object read_short(const char *data, uint64_t size):
    """What `dump_short` has written, or `dump_atoms`."""
    if size and data[0] == SHORT_TAG:
        return restored(read_atoms(data + 1, size - 1))
    return read_atoms(data, size)


def load_result(const unsigned char[::1] data not None, bint is_owner):
    """What `dump_result` or `dump_short` has written; `is_owner`: if it was given away, then to this process, and nobody else."""
    if data.shape[0] == 0:
        raise ValueError("no bytes")
    cdef const char *text = <const char *> &data[0]
    if data[0] == SHORT_TAG:
        return read_short(text, <uint64_t> data.shape[0])
    cdef tuple name = <tuple?> read_atoms(text + 1, <uint64_t> data.shape[0] - 1)
    if data[0] != GIVEN_TAG:
        return array_named(name)
    if len(name) != 5 or not is_plain_number(name[2]):
        raise ValueError("no name of an array")
    dtype = PyArray_DescrFromType(name[2])
    if is_owner:
        return own_array(name[0], name[1], dtype, name[3], name[4])
    return rebuild(hold_block(the_heap(), name[0], name[1]), 0, dtype, name[3], None, True, name[4])
