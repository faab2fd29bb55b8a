# NumPy's allocator over the heap, installed: for all threads of a worker, or for one context of any process.

import contextvars

cdef extern from "numpy_allocator.h" nogil:
    void sx_numpy_task(int change)
    uint64_t sx_numpy_refused()

cdef extern from *:
    """
    #include "numpy_allocator.h"
    #include <errno.h>
    #include <unistd.h>

    static PyDataMem_Handler sx_task_handler = {"shmexec", 1, {NULL, sx_numpy_malloc, sx_numpy_calloc, sx_numpy_realloc,
                                                               sx_numpy_free}};
    static PyDataMem_Handler sx_asked_handler = {"shmexec", 1, {sx_numpy_asked, sx_numpy_malloc, sx_numpy_calloc,
                                                                sx_numpy_realloc, sx_numpy_free}};
    static_assert(sizeof(PyDataMemAllocator) == sizeof(sx_allocator_t), "one layout");

    /* Written by the kernel for us: if the struct should be read-only in some NumPy this is EFAULT, no SIGSEGV. */
    static int sx_overwrite(void *at, const void *value, size_t bytes) {
        int ends[2];
        int done = 0;
        if (pipe(ends))
            return 0;
        done = write(ends[1], value, bytes) == (ssize_t)bytes && read(ends[0], at, bytes) == (ssize_t)bytes;
        close(ends[0]);
        close(ends[1]);
        return done;
    }

    static int sx_guard_numpy(sx_heap_t *heap, uint64_t threshold) {
        static int guarded;
        PyDataMem_Handler *numpy = (PyDataMem_Handler *)PyCapsule_GetPointer(PyDataMem_DefaultHandler, "mem_handler");
        void (*release)(void *, void *, size_t) = sx_numpy_free;
        void *(*resize)(void *, void *, size_t) = sx_numpy_guard_realloc;
        sx_allocator_t own;
        if (!numpy || numpy->version != 1)
            return -1;
        memcpy(&own, &numpy->allocator, sizeof own);
        sx_numpy_open(heap, &own, threshold);
        if (!guarded)
            guarded = sx_overwrite(&numpy->allocator.free, &release, sizeof release) &&
                      sx_overwrite(&numpy->allocator.realloc, &resize, sizeof resize);
        return guarded;
    }

    static PyObject *sx_numpy_handler(void) {
        Py_INCREF(PyDataMem_DefaultHandler);
        return PyDataMem_DefaultHandler;
    }

    /* Ours as the default of NumPy's context variable: it holds in all threads and contexts. The offset is CPython's private
     * affair (3.11 to 3.14: the second word of the object), so what lies there is looked at before it is replaced. */
    static int sx_replace_default(PyObject *variable, PyObject *capsule) {
        PyObject **word = (PyObject **)((char *)variable + sizeof(PyObject) + sizeof(void *));
        if (*word != PyDataMem_DefaultHandler)
            return 0;
        Py_INCREF(capsule);
        *word = capsule; /* NumPy keeps its own one by other references */
        return 1;
    }

    /* An array that owns its data: what `base` is to a view, the handler is to it. */
    static void sx_give_ownership(PyObject *array, PyObject *capsule) {
        Py_INCREF(capsule);
        ((PyArrayObject_fields *)array)->mem_handler = capsule;
        PyArray_ENABLEFLAGS((PyArrayObject *)array, NPY_ARRAY_OWNDATA);
    }

    static void sx_take_ownership(PyObject *array) {
        PyArray_CLEARFLAGS((PyArrayObject *)array, NPY_ARRAY_OWNDATA);
        Py_CLEAR(((PyArrayObject_fields *)array)->mem_handler);
    }
    """
    ctypedef struct PyDataMem_Handler:
        pass
    void sx_give_ownership(object array, object capsule)
    void sx_take_ownership(object array)
    PyDataMem_Handler sx_task_handler
    PyDataMem_Handler sx_asked_handler
    int sx_guard_numpy(sx_heap_t *heap, uint64_t threshold) except -1
    int sx_replace_default(object variable, object capsule)
    object sx_numpy_handler()

cdef extern from "numpy/arrayobject.h":
    object PyDataMem_SetHandler(object capsule)

cdef extern from "Python.h":
    object PyCapsule_New(void *pointer, const char *name, void *destructor)


def open_allocator(uint64_t threshold):
    """Make NumPy's own functions leave blocks of the heap alone. Before a handler of ours is set; may be repeated."""
    if not sx_guard_numpy(the_heap(), threshold):
        raise RuntimeError("this NumPy does not let its default allocator be guarded")


def set_handler(capsule):
    """NumPy's handler in the present context; the one before."""
    return PyDataMem_SetHandler(capsule)


def numpy_handler():
    """NumPy's own."""
    return sx_numpy_handler()


def asked_handler():
    """The handler of code that asked for shared memory: there, or MemoryError."""
    return PyCapsule_New(&sx_asked_handler, b"mem_handler", NULL)


def refused_bytes():
    """Bytes that NumPy asked for in vain in this thread since the last call."""
    return sx_numpy_refused()


def install_task_handler():
    """What NumPy allocates while a task runs lies in the heap: in all threads, or, where this CPython is laid out in another
    way, in the present one. True: in all."""
    capsule = PyCapsule_New(&sx_task_handler, b"mem_handler", NULL)
    context = contextvars.Context()
    context.run(set_handler, capsule)
    for variable in context:
        if sx_replace_default(variable, capsule):
            return True
    set_handler(capsule)
    return False


def task_allocation(bint on):
    """A task begins, or is over."""
    sx_numpy_task(1 if on else -1)


# ---- arrays that own a block as NumPy's own ones do ---------------------------------------------------------------------------

# None: not tried yet. False: this NumPy's default handler cannot be guarded, and received arrays have a base.
cdef object owners_capsule = None


cdef object handler_of_owners():
    global owners_capsule
    if owners_capsule is None:
        guarded = sx_guard_numpy(the_heap(), threshold())
        owners_capsule = PyCapsule_New(&sx_task_handler, b"mem_handler", NULL) if guarded else False
    return owners_capsule


def own_array(uint32_t number, uint64_t birth, dtype, tuple shape, bint fortran):
    """The array over a block that nobody else will use: it owns it, so that it can be resized in place, and NumPy may use it for
    what an expression comes to. Raises StaleName."""
    cdef Block block = hold_block(the_heap(), number, birth)
    cdef cnp.ndarray array
    capsule = handler_of_owners()
    if capsule is False:
        return rebuild(block, 0, dtype, shape, None, True, fortran)
    array = array_over(None, block.place.start, block.place.size, 0, dtype_of(dtype), shape, None, True, fortran)
    sx_give_ownership(array, capsule)
    block.heap = NULL  # its reference is the array's now
    return array


cpdef disown(cnp.ndarray array):
    """Others are about to know of this array in shared memory: it is no more used for temporary results, nor resized."""
    cdef sx_name_t name
    cdef Block block
    cdef char *start
    while not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_OWNDATA):
        base = cnp.get_array_base(array)
        if not isinstance(base, cnp.ndarray):
            return
        array = base
    start = <char *> cnp.PyArray_DATA(array)
    if own == NULL or not sx_heap_find(own, start, start, &name):
        return
    block = Block.__new__(Block)
    block.heap = own
    block.name = name
    sx_heap_place(own, name.block, &block.place)
    sx_take_ownership(array)
    cnp.set_array_base(array, block)
