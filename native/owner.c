/* owner.c - processes, on Linux; see owner.h. */
#define _GNU_SOURCE
#include "owner.h"

#include "machine.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

uint64_t sx_process_start_time(uint32_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    if (sx_read_text(path, text, sizeof text) < 0)
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
    int n = sx_read_text(path, text, size);
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
