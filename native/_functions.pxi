# Functions whose pickles are good for the next call, too, and what has to be looked at before that is believed.

import sys
import types

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject

cdef extern from "Python.h":
    PyObject *PyCell_GET(object cell)
    PyObject *PyFunction_GetCode(object function)
    PyObject *PyFunction_GetDefaults(object function)
    PyObject *PyFunction_GetKwDefaults(object function)

cdef object by_value_registry = None
cdef dict modules = sys.modules

cdef enum:
    LONGEST_FUNCTION = 1024  # bytes, of one that is known


cdef set by_value_modules():
    """Of the modules that are sent by value now; not to be kept.

    What `cloudpickle.list_registry_pickle_by_value` makes a copy of, in Python, which is as long as all the rest of a look.
    Loaded here: workers know no functions in this sense, and come up the sooner.
    """
    global by_value_registry
    if by_value_registry is None:
        import cloudpickle
        promised = cloudpickle.list_registry_pickle_by_value
        by_value_registry = getattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", promised)
    return <set> by_value_registry if type(by_value_registry) is set else by_value_registry()


MISSING = object()  # the value of a global that is not there


cdef class Known:
    """A function that workers know by a number, and what is shipped to those that do not yet."""
    cdef readonly uint64_t number
    cdef readonly Packed packed
    cdef set by_value  # the modules that cloudpickle was told to send by value

    def __cinit__(self):
        self.by_value = set(by_value_modules())

    @property
    def is_up_to_date(self):
        """Whether the same modules are sent by value now as when it was pickled."""
        return by_value_modules() == self.by_value

    @property
    def is_short(self):
        """Whether it is shipped with a call of atoms: in the ring, and without a hold on anything."""
        return len(self.packed.data) < LONGEST_FUNCTION and not len(self.packed.holds)

    cpdef bint is_current(self, function) except -1:
        """Whether its pickle would come out the same now."""
        return False


cdef class Imported(Known):
    """A function that workers import."""
    cdef object module, space, name

    def __init__(self, function, uint64_t number, Packed packed not None):
        self.number, self.packed = number, packed
        self.module, self.name = function.__module__, function.__qualname__
        self.space = sys.modules.get(self.module)

    cpdef bint is_current(self, function) except -1:
        cdef PyObject *module = PyDict_GetItem(modules, self.module)
        cdef PyObject *found
        if module == NULL or (<object> module) is not self.space or type(self.space) is not types.ModuleType:
            return False
        if by_value_modules() != self.by_value:
            return False
        found = PyDict_GetItem(self.space.__dict__, self.name)
        return found != NULL and (<object> found) is function


cdef class Fixed(Known):
    """A function by value, all of whose parts are immutable.

    Parameters
    ----------
    number : int
    packed : Packed
    functions : list of function
        It, and those that it names, which go with it.
    names : list of (dict, str, object)
        Namespace, name and value of each global that they name; the value is MISSING if there is none.
    cells : list of (cell, object)
        The cells of their closures, and the contents.
    """
    cdef list functions, names, cells
    cdef Py_ssize_t imported

    def __init__(self, uint64_t number, Packed packed not None, list functions, list names, list cells):
        self.number, self.packed = number, packed
        self.functions = [
            (function, function.__code__, function.__defaults__, function.__dict__) for function in functions
        ]
        self.names, self.cells = names, cells
        self.imported = len(modules)  # cloudpickle has a look at the submodules that are there

    cpdef bint is_current(self, function) except -1:
        cdef PyObject *found
        cdef tuple entry
        if self.imported != len(modules) or by_value_modules() != self.by_value:
            return False
        for item in self.functions:
            entry = <tuple> item
            if not self.is_same(entry[0], entry[1], entry[2]) or <dict> entry[3]:
                return False
        for item in self.names:
            entry = <tuple> item
            found = PyDict_GetItem(entry[0], entry[1])
            if found != <PyObject *> entry[2] and not (found == NULL and entry[2] is MISSING):
                return False
        for item in self.cells:
            entry = <tuple> item
            if PyCell_GET(entry[0]) != <PyObject *> entry[1]:
                return False
        return True

    cdef bint is_same(self, function, code, defaults):
        cdef PyObject *none = <PyObject *> None
        cdef PyObject *found = PyFunction_GetDefaults(function)
        if (none if found == NULL else found) != <PyObject *> defaults:
            return False
        found = PyFunction_GetKwDefaults(function)
        if found != NULL and found != none:
            return False
        return PyFunction_GetCode(function) == <PyObject *> code
