# NumPy arrays over blocks: made, found by address, rebuilt from a name.

from cpython.object cimport PyObject, PyTypeObject
from libc.string cimport memcpy

cimport numpy as cnp

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(PyTypeObject *subtype, cnp.dtype descr, int nd, cnp.npy_intp *dims, cnp.npy_intp *strides,
                                void *data, int flags, PyObject *obj)
    PyTypeObject PyArray_Type

cdef enum:
    MAXDIMS = 64


cdef extern from *:
    """
    /* Does an array of these dimensions, whose first element is at `offset`, lie in [0, size)? Nothing overflows on the way,
     * whatever the numbers. Without steps it is contiguous; an empty one touches nothing. */
    static int sx_reaches_no_further(uint64_t size, int64_t offset, int64_t item, int nd, const npy_intp *dims,
                                     const npy_intp *steps) {
        int64_t low = offset, high = offset, reach, bytes = item, count = item ? item : 1;
        int empty = 0;
        for (int i = 0; i < nd; i++) {
            if (dims[i] < 0)
                return 0;
            empty |= dims[i] == 0;
        }
        if (empty)
            return offset >= 0 && (uint64_t)offset <= size;
        for (int i = 0; i < nd; i++) {
            if (__builtin_mul_overflow(count, dims[i], &count)) /* NumPy multiplies them, too: steps may be 0 */
                return 0;
            bytes = item ? count : 0;
            if (steps && __builtin_mul_overflow(dims[i] - 1, steps[i], &reach))
                return 0;
            if (steps && (reach < 0 ? __builtin_add_overflow(low, reach, &low) : __builtin_add_overflow(high, reach, &high)))
                return 0;
        }
        return !__builtin_add_overflow(high, steps ? item : bytes, &high) && low >= 0 && high >= 0 && (uint64_t)high <= size;
    }
    """
    bint sx_reaches_no_further(uint64_t size, int64_t offset, int64_t item, int nd, const cnp.npy_intp *dims,
                               const cnp.npy_intp *steps)


cdef cnp.dtype dtype_of(dtype):
    """The type that a message says, if its elements may come from shared memory."""
    if type(dtype) is str:
        dtype = cnp.dtype(dtype)
    if not isinstance(dtype, cnp.dtype):
        raise TypeError(f"a dtype, not {type(dtype).__name__}")
    if dtype.hasobject or dtype.char == "T" or dtype.subdtype is not None:
        raise ValueError(f"no array in shared memory has the dtype {dtype!r}")
    return dtype


cdef object array_over(object owner, char *start, uint64_t size, Py_ssize_t offset, cnp.dtype dtype, tuple shape, tuple strides,
                       bint writeable, bint fortran):
    """An array in the memory [start, start + size), or ValueError."""
    cdef cnp.npy_intp dims[MAXDIMS]
    cdef cnp.npy_intp steps[MAXDIMS]
    cdef int nd = <int> len(shape), i
    cdef int flags = cnp.NPY_ARRAY_WRITEABLE if writeable else 0
    if nd > MAXDIMS:
        raise ValueError(f"an array has at most {MAXDIMS} dimensions, not {nd}")
    if strides is not None and len(strides) != nd:
        raise ValueError(f"an array of {nd} dimensions has not {len(strides)} strides")
    for i in range(nd):
        dims[i] = shape[i]
        if strides is not None:
            steps[i] = strides[i]
    if fortran:
        flags |= cnp.NPY_ARRAY_F_CONTIGUOUS
    if not sx_reaches_no_further(size, offset, dtype.itemsize, nd, dims, steps if strides is not None else NULL):
        raise ValueError("the name of a shared array reaches beyond its block")
    cnp.Py_INCREF(dtype)  # PyArray_NewFromDescr steals it
    array = PyArray_NewFromDescr(&PyArray_Type, dtype, nd, dims, steps if strides is not None else NULL, start + offset, flags,
                                 NULL)
    if owner is not None:
        cnp.set_array_base(array, owner)
    return array


def new_array(tuple shape, cnp.dtype dtype, bint fortran, bint zero, bint plain=False):
    """A new array in shared memory; `zero`: filled with zero bytes, else not initialised; `plain`: nobody asked for it."""
    cdef uint64_t bytes = dtype.itemsize
    for n in shape:
        bytes *= <uint64_t> n
    block = new_block(bytes, (SX_ZERO if zero else 0) | (SX_PLAIN if plain else 0))
    return array_over(block, block.place.start, block.place.size, 0, dtype, shape, None, True, fortran)


cdef void bounds(cnp.ndarray array, char **low, char **high) noexcept:
    """The first byte and the one behind the last that the elements touch; an empty array touches none."""
    cdef char *first = <char *> cnp.PyArray_DATA(array)
    cdef char *last = first
    cdef int i
    cdef cnp.npy_intp reach
    low[0] = high[0] = first
    for i in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIM(array, i) == 0:
            return
        reach = (cnp.PyArray_DIM(array, i) - 1) * cnp.PyArray_STRIDE(array, i)
        if reach < 0:
            first += reach
        else:
            last += reach
    low[0] = first
    high[0] = last + cnp.PyArray_ITEMSIZE(array)


cdef bint find_array(cnp.ndarray array, sx_name_t *name, Py_ssize_t *offset) noexcept:
    """Whether it lies in this tree's shared memory: where, and the offset of its first element."""
    cdef char *low
    cdef char *high
    if own == NULL:
        return False
    bounds(array, &low, &high)
    if not sx_heap_find(own, low, high, name):
        return False
    offset[0] = <Py_ssize_t> (<char *> cnp.PyArray_DATA(array) - sx_heap_start(own, name.block))
    return True


def locate(cnp.ndarray array):
    """(block, birth, offset of the first element) if the array lies in this tree's shared memory, else None."""
    cdef sx_name_t name
    cdef Py_ssize_t offset
    return (name.block, name.birth, offset) if find_array(array, &name, &offset) else None


def locate_buffer(const unsigned char[::1] view):
    """(block, birth, offset) of contiguous bytes, or None."""
    cdef sx_name_t name
    cdef const char *low
    if own == NULL or view.shape[0] == 0:
        return None
    low = <const char *> &view[0]
    if not sx_heap_find(own, low, low + view.shape[0], &name):
        return None
    return name.block, name.birth, <Py_ssize_t> (low - sx_heap_start(own, name.block))


def locate_foreign(cnp.ndarray array):
    """As locate(), and the kernel name of the segment: also in heaps of other trees."""
    cdef char *low
    cdef char *high
    cdef sx_name_t name
    cdef sx_heap_t *heap
    bounds(array, &low, &high)
    heaps = list(foreign)
    for i in range(-1, len(heaps)):
        heap = own if i < 0 else (<Heap> heaps[i]).heap
        if heap != NULL and sx_heap_find(heap, low, high, &name):
            return (kernel_name(heap), name.block, name.birth,
                    <Py_ssize_t> (<char *> cnp.PyArray_DATA(array) - sx_heap_start(heap, name.block)))
    return None


cdef object rebuild(Block block, Py_ssize_t offset, dtype, tuple shape, tuple strides, bint writeable, bint fortran):
    return array_over(block, block.place.start, block.place.size, offset, dtype_of(dtype), shape, strides, writeable, fortran)


def array(uint32_t number, uint64_t birth, Py_ssize_t offset, dtype, tuple shape, tuple strides, bint writeable, bint fortran):
    """The array of this name: what a pickle of an array in shared memory calls. Raises StaleName."""
    return rebuild(hold_block(the_heap(), number, birth), offset, dtype, shape, strides, writeable, fortran)


def borrowed_array(uint32_t number, uint64_t birth, dtype, tuple shape, bint fortran):
    """An array over a copy-on-write view of a whole block: writeable, and nobody else sees it. Raises StaleName."""
    cdef Block block = hold_block(the_heap(), number, birth)
    cdef Borrowed made = borrow_block(block)
    if made is None:
        return rebuild(block, 0, dtype, shape, None, True, fortran).copy("K")
    return array_over(made, made.start, block.place.size, 0, dtype_of(dtype), shape, None, True, fortran)


def private_array(uint32_t number, uint64_t birth, Py_ssize_t offset, dtype, tuple shape, tuple strides, bint fortran):
    """A copy-on-write view of a part of a block; a copy, where the kernel cannot make one. Raises StaleName."""
    cdef Block block = hold_block(the_heap(), number, birth)
    cdef Borrowed made = borrow_block(block)
    if made is None:
        return rebuild(block, offset, dtype, shape, strides, True, fortran).copy("K")
    return array_over(made, made.start, block.place.size, offset, dtype_of(dtype), shape, strides, True, fortran)


def foreign_array(str segment, uint32_t number, uint64_t birth, Py_ssize_t offset, dtype, tuple shape, tuple strides,
                  bint writeable, bint fortran):
    """The array of this name in the segment of whichever process tree. Raises StaleName, PermissionError."""
    cdef sx_heap_t *heap = NULL
    cdef Heap opened
    name = segment.encode()
    if own != NULL and sx_segment_is(&own.segment, name):
        heap = own
    for other in foreign:
        if sx_segment_is(&(<Heap> other).heap.segment, name):
            heap = (<Heap> other).heap
    if heap == NULL:
        opened = Heap(segment)
        foreign.append(opened)
        heap = opened.heap
    return rebuild(hold_block(heap, number, birth), offset, dtype, shape, strides, writeable, fortran)


def small_array(bytes data, dtype, tuple shape, bint fortran):
    """A plain, writeable array with these bytes: what a pickle of a small array calls."""
    cdef cnp.ndarray array = new_plain(dtype, shape, fortran)
    if cnp.PyArray_NBYTES(array) != len(data):
        raise ValueError("the bytes of a small array do not fit its shape")
    memcpy(cnp.PyArray_DATA(array), <const char *> data, len(data))
    return array


cdef cnp.ndarray new_plain(dtype, tuple shape, bint fortran):
    cdef cnp.npy_intp dims[MAXDIMS]
    cdef int i
    cdef cnp.dtype descr = dtype_of(dtype)
    if len(shape) > MAXDIMS:
        raise ValueError(f"an array has at most {MAXDIMS} dimensions")
    for i in range(len(shape)):
        dims[i] = shape[i]
    cnp.Py_INCREF(descr)
    return PyArray_NewFromDescr(&PyArray_Type, descr, <int> len(shape), dims, NULL, NULL,
                                cnp.NPY_ARRAY_F_CONTIGUOUS if fortran else 0, NULL)
