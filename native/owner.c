/* owner.c - processes, on Linux; see owner.h. */
#define _GNU_SOURCE
#include "owner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* The number of bytes, behind which a zero stands, or -errno. */
static int read_bytes(const char *path, char *text, size_t size) {
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

static int read_file(const char *path, char *text, size_t size) {
    int n = read_bytes(path, text, size);
    return n < 0 ? n : 0;
}

uint64_t sx_process_start_time(uint32_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    if (read_file(path, text, sizeof text))
        return 0;
    char *field = strrchr(text, ')'); /* the name may have spaces and brackets; field 22 counts from after it */
    for (int i = 2; field && i < 22; i++)
        field = strchr(field + 1, ' ');
    return field ? strtoull(field + 1, NULL, 10) : 0;
}

int sx_process_is_dead(uint32_t pid, uint64_t start_time) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0 && (errno == ESRCH || errno == EINVAL)) /* EINVAL: the pid is a thread of somebody else now */
        return 1;
    int dead = 0;
    if (fd >= 0) {
        struct pollfd waits = {.fd = fd, .events = POLLIN};
        dead = poll(&waits, 1, 0) == 1;
        close(fd); /* before /proc is opened: it may have been the last descriptor */
    } else if (kill((pid_t)pid, 0) && errno == ESRCH) /* no pidfds here, or no descriptor left */
        dead = 1;
    uint64_t now = dead ? 0 : sx_process_start_time(pid);
    return dead || (now && start_time && now != start_time); /* 0: not known, and what is not known is not certain */
}

int sx_process_command(uint32_t pid, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    int n = read_bytes(path, text, size);
    for (int i = 0; i < n - 1; i++)
        if (!text[i])
            text[i] = ' ';
    return n < 0 ? n : 0;
}

uint64_t sx_mapped_inode(const void *address) {
    char line[512];
    uint64_t found = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long begin, end, inode;
        if (sscanf(line, "%lx-%lx %*s %*x %*s %lu", &begin, &end, &inode) == 3 && (uintptr_t)address >= begin &&
            (uintptr_t)address < end)
            found = inode;
    }
    if (maps)
        fclose(maps);
    return found;
}

static uint64_t read_number(const char *path) {
    char text[64];
    if (read_file(path, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

/* The limits of the cgroup and of each above it: version 2 under its path, or version 1's memory controller. */
static uint64_t cgroup_limit(void) {
    char text[4096], path[4600];
    uint64_t limit = UINT64_MAX;
    if (read_file("/proc/self/cgroup", text, sizeof text))
        return limit;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        int second = controllers[1] == 0;
        if (!second && strcmp(controllers + 1, "memory"))
            continue;
        for (;;) {
            snprintf(path, sizeof path, second ? "/sys/fs/cgroup%s/memory.max" : "/sys/fs/cgroup/memory%s/memory.limit_in_bytes",
                     group);
            uint64_t here = read_number(path);
            limit = here < limit ? here : limit;
            char *up = strrchr(group, '/');
            if (!up || !group[0])
                break;
            *up = 0;
        }
    }
    return limit;
}

uint64_t sx_address_room(void) {
    struct rlimit limit;
    char text[256];
    if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY || read_file("/proc/self/statm", text, sizeof text))
        return UINT64_MAX;
    uint64_t used = strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

uint64_t sx_machine_memory(void) {
    uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t limit = cgroup_limit();
    return limit < physical ? limit : physical;
}
