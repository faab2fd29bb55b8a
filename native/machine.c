/* machine.c - limits of this process, on Linux; see machine.h.
 *
 * Some facts: a control group is bound by its own limit and by those of all above it. Version 1 has a tree for each controller,
 * whose names stand in the line of the group, version 2 one for all, whose line names none.
 */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int sx_read_text(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    if (n < 0)
        return -EIO;
    text[n] = 0;
    return (int)n;
}

/* ---- control groups ------------------------------------------------------------------------------------------------------ */

/* The limit of one group, of version 2 or 1; NO_LIMIT: it has none. */
typedef double (*limit_of_t)(const char *group, int second);

#define NO_LIMIT 1e300

static int is_among(const char *name, const char *controllers) {
    size_t size = strlen(name);
    for (const char *at = controllers; (at = strstr(at, name)); at += size)
        if ((at == controllers || at[-1] == ',') && (at[size] == ',' || !at[size]))
            return 1;
    return 0;
}

/* The least of the limits of this process's group and of each above it. */
static double least_limit(const char *controller, limit_of_t limit_of) {
    char text[4096];
    double least = NO_LIMIT;
    if (sx_read_text("/proc/self/cgroup", text, sizeof text) < 0)
        return least;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        int second = controllers[1] == 0;
        if (!second && !is_among(controller, controllers + 1))
            continue;
        for (;;) {
            double here = limit_of(group, second);
            least = here < least ? here : least;
            char *up = strrchr(group, '/');
            if (!up || !group[0])
                break;
            *up = 0;
        }
    }
    return least;
}

static double memory_of(const char *group, int second) {
    char path[4600], text[64];
    snprintf(path, sizeof path, second ? "/sys/fs/cgroup%s/memory.max" : "/sys/fs/cgroup/memory%s/memory.limit_in_bytes", group);
    if (sx_read_text(path, text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9')
        return NO_LIMIT;
    return (double)strtoull(text, NULL, 10);
}

static double cores_of(const char *group, int second) {
    char path[4600], text[64];
    double quota, period;
    if (second) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
        if (sx_read_text(path, text, sizeof text) <= 0 || sscanf(text, "%lf %lf", &quota, &period) != 2)
            return NO_LIMIT;
    } else {
        snprintf(path, sizeof path, "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", group);
        if (sx_read_text(path, text, sizeof text) <= 0 || sscanf(text, "%lf", &quota) != 1)
            return NO_LIMIT;
        snprintf(path, sizeof path, "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", group);
        if (sx_read_text(path, text, sizeof text) <= 0 || sscanf(text, "%lf", &period) != 1)
            return NO_LIMIT;
    }
    return quota > 0 && period > 0 ? quota / period : NO_LIMIT;
}

/* ---- what the process may have ------------------------------------------------------------------------------------------- */

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
    double quota = least_limit("cpu", cores_of);
    if (quota < cores)
        cores = (uint32_t)quota + (quota > (uint32_t)quota);
    return cores ? cores : 1;
}

uint64_t sx_machine_memory(void) {
    uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    double limit = least_limit("memory", memory_of);
    return limit < (double)physical ? (uint64_t)limit : physical;
}

uint64_t sx_address_room(void) {
    struct rlimit limit;
    char text[256];
    if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY || sx_read_text("/proc/self/statm", text, sizeof text) < 0)
        return UINT64_MAX;
    uint64_t used = strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}
