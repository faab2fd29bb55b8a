# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=False
"""shmexec._core: the thin skin over native/*.c. One part per concept; the C holds the algorithms."""

cimport cython

include "_heap.pxi"
include "_segments.pxi"
include "_arrays.pxi"
include "_tickets.pxi"
include "_numpy_allocator.pxi"
include "_channel.pxi"
include "_report.pxi"
include "_calls.pxi"
include "_ledger.pxi"
include "_waiting.pxi"
include "_future.pxi"
include "_functions.pxi"
include "_baton.pxi"
include "_sending.pxi"
include "_desk.pxi"
include "_serve.pxi"
include "_futex.pxi"
include "_process.pxi"
include "_threads.pxi"
