/* threads.h - how many threads the numeric libraries in this process take. */
#ifndef SX_THREADS_H
#define SX_THREADS_H

/* Threads that each kind of library may take from now on; 0: as it is. */
typedef struct {
    int openblas, blis, mkl, openmp;
} sx_threads_t;

/* Tells those that are loaded; OpenMP's number is that of the calling thread. How many libraries were told. */
int sx_threads_limit(const sx_threads_t *threads);

#endif
