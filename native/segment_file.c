/* segment_file.c - what the kinds have in common that are files of tmpfs; see segment_kind.h. */
#include "segment_kind.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int sx_file_peek(sx_segment_t *segment, sx_header_t *header) {
    struct stat status;
    if (fstat(segment->number, &status))
        return -errno;
    segment->bytes = (uint64_t)status.st_size;
    ssize_t got = pread(segment->number, header, sizeof *header, 0); /* a hole reads as zero, and stays one */
    return got < 0 ? -errno : got == sizeof *header ? 0 : -EINVAL;
}

int sx_file_map(const sx_segment_t *segment, char *at, int readonly) {
    int protection = readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    void *mapped = mmap(at, segment->bytes, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, segment->number, 0);
    return mapped == MAP_FAILED ? -errno : 0;
}

int sx_file_touch(const sx_segment_t *segment, uint64_t offset) {
    ssize_t written;
    do
        written = pwrite(segment->number, "", 1, (off_t)offset);
    while (written < 0 && errno == EINTR);
    return written == 1 ? 0 : written < 0 ? -errno : -ENOSPC;
}

int sx_file_reserve(const sx_segment_t *segment, uint64_t offset, uint64_t bytes) {
    int code;
    do
        code = fallocate(segment->number, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) ? -errno : 0;
    while (code == -EINTR);
    return code == -EOPNOTSUPP || code == -ENOSYS || code == -EPERM ? sx_touch_mapped(segment, offset, bytes) : code;
}

uint64_t sx_file_resident(const sx_segment_t *segment) {
    struct stat status;
    return fstat(segment->number, &status) ? 0 : (uint64_t)status.st_blocks * 512;
}

void sx_file_close(const sx_segment_t *segment) {
    if (segment->number >= 0)
        close(segment->number);
}

int sx_file_inode(int fd, uint64_t *inode) {
    struct stat status;
    if (fstat(fd, &status))
        return -errno;
    *inode = (uint64_t)status.st_ino;
    return !S_ISREG(status.st_mode) ? -ESTALE : status.st_uid != geteuid() ? -EACCES : 0;
}

int sx_file_split(const char *name, char where[SX_NAME_BYTES], uint64_t *inode) {
    const char *colon = strrchr(name, ':');
    char *end;
    if (!colon || colon - name >= SX_NAME_BYTES || !isdigit((unsigned char)colon[1]))
        return -EINVAL;
    errno = 0;
    *inode = strtoull(colon + 1, &end, 10);
    if (*end || errno)
        return -EINVAL;
    memcpy(where, name, (size_t)(colon - name));
    where[colon - name] = 0;
    return 0;
}

int sx_touch_mapped(const sx_segment_t *segment, uint64_t offset, uint64_t bytes) {
    uint64_t small = (uint64_t)sysconf(_SC_PAGESIZE), end = offset + bytes;
    uint32_t nobody = 0;
    for (uint64_t at = offset / small * small; at < end; at += small)
        if (syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, NULL, segment->base + at,
                    FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_LT, 0)) < 0)
            return -ENOMEM;
    return 0;
}

static void each_descriptor(const char *pid, const char *link, int kind, sx_visit_t visit, void *context) {
    char folder[64], path[128], target[128], name[SX_NAME_BYTES];
    snprintf(folder, sizeof folder, "/proc/%.20s/fd", pid);
    DIR *descriptors = opendir(folder); /* another user's: it may not be opened */
    for (struct dirent *entry; descriptors && (entry = readdir(descriptors));) {
        struct stat status;
        snprintf(path, sizeof path, "%s/%.20s", folder, entry->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length < 0 || (target[length] = 0, strncmp(target, link, strlen(link))))
            continue;
        if (stat(path, &status) || status.st_uid != geteuid())
            continue;
        if (snprintf(name, sizeof name, "%s:%llu", path, (unsigned long long)status.st_ino) < (int)sizeof name)
            visit(context, kind, name);
    }
    if (descriptors)
        closedir(descriptors);
}

void sx_file_each_open(const char *link, int kind, sx_visit_t visit, void *context) {
    DIR *processes = opendir("/proc");
    for (struct dirent *entry; processes && (entry = readdir(processes));)
        if (isdigit((unsigned char)entry->d_name[0]))
            each_descriptor(entry->d_name, link, kind, visit, context);
    if (processes)
        closedir(processes);
}
