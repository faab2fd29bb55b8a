/* threads.h - how many cores this process may use, and how many threads the numeric libraries in it take. */
#ifndef SX_THREADS_H
#define SX_THREADS_H

#include <stdint.h>

uint32_t sx_usable_cores(void); /* at least 1: by affinity, and by the quota of the cgroup and of each above it, rounded up */

/* Threads that each kind of library may take from now on; 0: as it is. */
typedef struct {
    int openblas, blis, mkl, openmp;
} sx_threads_t;

/* Tells those that are loaded; OpenMP's number is that of the calling thread. How many libraries were told. */
int sx_threads_limit(const sx_threads_t *threads);

#endif
