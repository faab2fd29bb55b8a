# Cores, and the thread pools of numeric libraries (threads.h).


def usable_cores():
    """CPUs that this process may use, by affinity and by the control group's quota."""
    return sx_usable_cores()


def limit_threads(int openblas, int blis, int mkl, int openmp):
    """How many threads the loaded libraries of each kind may take, 0: as it is; how many libraries were told."""
    cdef sx_threads_t threads
    threads.openblas, threads.blis, threads.mkl, threads.openmp = openblas, blis, mkl, openmp
    return sx_threads_limit(&threads)
