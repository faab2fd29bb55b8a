/* threads.c - cores and thread pools, on Linux; see threads.h.
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
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- cores -------------------------------------------------------------------------------------------------------------- */

static int read_text(const char *path, char *text, int bytes) {
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    size_t count = fread(text, 1, (size_t)bytes - 1, file);
    fclose(file);
    text[count] = 0;
    return count > 0;
}

static double quota_of(const char *group, int second) {
    char path[4600], text[64];
    double quota, period;
    if (second) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
        return read_text(path, text, sizeof text) && sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0 ? quota / period : 0;
    }
    snprintf(path, sizeof path, "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", group);
    if (!read_text(path, text, sizeof text) || sscanf(text, "%lf", &quota) != 1 || quota <= 0)
        return 0;
    snprintf(path, sizeof path, "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", group);
    return read_text(path, text, sizeof text) && sscanf(text, "%lf", &period) == 1 && period > 0 ? quota / period : 0;
}

static int names_cpu(const char *controllers) {
    for (const char *at = controllers; (at = strstr(at, "cpu")); at += 3)
        if ((at == controllers || at[-1] == ',') && (at[3] == ',' || !at[3]))
            return 1;
    return 0;
}

/* In cores; 0: there is none. */
static double cgroup_quota(void) {
    char text[4096];
    double least = 0;
    if (!read_text("/proc/self/cgroup", text, sizeof text))
        return 0;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        int second = controllers[1] == 0;
        if (!second && !names_cpu(controllers + 1))
            continue;
        for (;;) {
            double here = quota_of(group, second);
            least = here > 0 && (!least || here < least) ? here : least;
            char *up = strrchr(group, '/');
            if (!up || !group[0])
                break;
            *up = 0;
        }
    }
    return least;
}

uint32_t sx_usable_cores(void) {
    uint32_t cores = 1;
    for (int wide = 1024; wide <= 1 << 20; wide *= 4) { /* the set has to be as large as the kernel's */
        cpu_set_t *set = CPU_ALLOC((size_t)wide);
        if (!set)
            break;
        int known = !sched_getaffinity(0, CPU_ALLOC_SIZE((size_t)wide), set);
        if (known)
            cores = (uint32_t)CPU_COUNT_S(CPU_ALLOC_SIZE((size_t)wide), set);
        CPU_FREE(set);
        if (known)
            break;
    }
    double quota = cgroup_quota();
    if (quota > 0 && quota < cores)
        cores = (uint32_t)quota + (quota > (uint32_t)quota);
    return cores ? cores : 1;
}

/* ---- libraries ----------------------------------------------------------------------------------------------------------- */

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
