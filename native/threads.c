/* threads.c - thread pools of numeric libraries, on Linux; see threads.h.
 *
 * Some facts: a library reads its environment variable when it is loaded, once. OpenBLAS makes its threads then; after a fork
 * the child has none, and the first call of anything that needs them, its setter too, makes as many as there were. A setter
 * that asks for more makes the rest.
 * What this means for us: a process that is to be forked loads OpenBLAS for one thread; the child asks for what it may have.
 */
#define _GNU_SOURCE
#include "threads.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *paths[32];
    int count;
} found_t;

static int note(struct dl_phdr_info *info, size_t size, void *of) {
    static const char *const names[] = {"openblas", "libblis", "libmkl_rt", "libgomp", "libiomp", "libomp"};
    found_t *found = of;
    const char *name = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;
    (void)size;
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (strstr(name, names[i]) && found->count < 32 && (found->paths[found->count] = strdup(info->dlpi_name))) {
            found->count++;
            break;
        }
    return 0;
}

static int tell(void *library, const char *setter, int threads) {
    void (*set)(int) = NULL;
    *(void **)&set = threads ? dlsym(library, setter) : NULL;
    if (set)
        set(threads);
    return set != NULL;
}

static int tell_openblas(void *library, int threads) {
    static const char *const setters[] = {
        "openblas_set_num_threads",        "openblas_set_num_threads64_",        "openblas_set_num_threads_64",
        "scipy_openblas_set_num_threads", "scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads_64",
    };
    for (size_t i = 0; i < sizeof setters / sizeof *setters; i++)
        if (tell(library, setters[i], threads))
            return 1;
    return 0;
}

int sx_threads_limit(const sx_threads_t *threads) {
    found_t found = {.count = 0};
    int told = 0;
    dl_iterate_phdr(note, &found); /* first all names: who is called from there must not load */
    for (int i = 0; i < found.count; i++) {
        void *library = dlopen(found.paths[i], RTLD_LAZY | RTLD_NOLOAD);
        if (library) {
            const char *name = strrchr(found.paths[i], '/');
            if (strstr(name, "openblas"))
                told += tell_openblas(library, threads->openblas);
            else if (strstr(name, "libblis"))
                told += tell(library, "bli_thread_set_num_threads", threads->blis);
            else if (strstr(name, "libmkl_rt"))
                told += tell(library, "MKL_Set_Num_Threads", threads->mkl);
            else
                told += tell(library, "omp_set_num_threads", threads->openmp);
            dlclose(library);
        }
        free(found.paths[i]);
    }
    return told;
}
