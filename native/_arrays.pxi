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


cdef object array_over(object owner, char *data, cnp.dtype dtype, tuple shape, tuple strides, bint writeable, bint fortran):
    cdef cnp.npy_intp dims[MAXDIMS]
    cdef cnp.npy_intp steps[MAXDIMS]
    cdef int nd = <int> len(shape), i
    cdef int flags = cnp.NPY_ARRAY_WRITEABLE if writeable else 0
    if nd > MAXDIMS:
        raise ValueError(f"an array has at most {MAXDIMS} dimensions, not {nd}")
    for i in range(nd):
        dims[i] = shape[i]
        if strides is not None:
            steps[i] = strides[i]
    if fortran:
        flags |= cnp.NPY_ARRAY_F_CONTIGUOUS
    cnp.Py_INCREF(dtype)  # PyArray_NewFromDescr steals it
    array = PyArray_NewFromDescr(&PyArray_Type, dtype, nd, dims, steps if strides is not None else NULL, data, flags, NULL)
    if owner is not None:
        cnp.set_array_base(array, owner)
    return array


def new_array(tuple shape, cnp.dtype dtype, bint fortran, bint zero, bint plain=False):
    """A new array in shared memory; `zero`: filled with zero bytes, else not initialised; `plain`: nobody asked for it."""
    cdef uint64_t bytes = dtype.itemsize
    for n in shape:
        bytes *= <uint64_t> n
    block = new_block(bytes, (SX_ZERO if zero else 0) | (SX_PLAIN if plain else 0))
    return array_over(block, sx_heap_start(block.heap, block.name.block), dtype, shape, None, True, fortran)


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


def locate(cnp.ndarray array):
    """(block, birth, offset of the first element) if the array lies in this tree's shared memory, else None."""
    cdef char *low
    cdef char *high
    cdef sx_name_t name
    if own == NULL:
        return None
    bounds(array, &low, &high)
    if not sx_heap_find(own, low, high, &name):
        return None
    return name.block, name.birth, <Py_ssize_t> (<char *> cnp.PyArray_DATA(array) - sx_heap_start(own, name.block))


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
    cdef char *low
    cdef char *high
    cdef char *start = sx_heap_start(block.heap, block.name.block)
    descr = cnp.dtype(dtype) if type(dtype) is str else dtype
    array = array_over(block, start + offset, descr, shape, strides, writeable, fortran)
    bounds(array, &low, &high)
    if low < start or high > start + sx_heap_size(block.heap, block.name.block):
        raise ValueError("the name of a shared array reaches beyond its block")
    return array


def array(uint32_t number, uint64_t birth, Py_ssize_t offset, dtype, tuple shape, tuple strides, bint writeable, bint fortran):
    """The array of this name: what a pickle of an array in shared memory calls. Raises StaleName."""
    return rebuild(hold_block(the_heap(), number, birth), offset, dtype, shape, strides, writeable, fortran)


def borrowed_array(uint32_t number, uint64_t birth, dtype, tuple shape, bint fortran):
    """An array over a copy-on-write view of a whole block: writeable, and nobody else sees it. Raises StaleName."""
    cdef Block block = hold_block(the_heap(), number, birth)
    cdef Borrowed made = borrow_block(block)
    descr = cnp.dtype(dtype) if type(dtype) is str else dtype
    if made is None:
        return rebuild(block, 0, descr, shape, None, True, fortran).copy("K")
    return array_over(made, made.start, descr, shape, None, True, fortran)


def foreign_array(str path, uint64_t inode, uint32_t number, uint64_t birth, Py_ssize_t offset, dtype, tuple shape,
                  tuple strides, bint writeable, bint fortran):
    """The array of this name in the segment of whichever process tree. Raises StaleName, FileNotFoundError, PermissionError."""
    cdef sx_heap_t *heap = NULL
    cdef Heap opened
    if own != NULL and sx_segment_inode(&own.segment) == inode:
        heap = own
    for other in foreign:
        if (<Heap> other).inode == inode:
            heap = (<Heap> other).heap
    if heap == NULL:
        opened = Heap(path, inode)
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
    cdef cnp.dtype descr = cnp.dtype(dtype) if type(dtype) is str else dtype
    if len(shape) > MAXDIMS:
        raise ValueError(f"an array has at most {MAXDIMS} dimensions")
    for i in range(len(shape)):
        dims[i] = shape[i]
    cnp.Py_INCREF(descr)
    return PyArray_NewFromDescr(&PyArray_Type, descr, <int> len(shape), dims, NULL, NULL,
                                cnp.NPY_ARRAY_F_CONTIGUOUS if fortran else 0, NULL)
