/* segment_memfd.c - the memfd kind: a file without a name, which the kernel frees with the last process that has it.
 *
 * Its kernel name is a descriptor of some process that has it, and the inode: /proc/<pid>/fd/<n>:<inode>. A pid and a descriptor may be
 * used again; the inode then differs.
 */
#include "segment_kind.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define NAME "shmexec"

static int create(sx_segment_t *segment) {
    segment->number = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (segment->number < 0 && errno == EINVAL) /* before Linux 6.3 */
        segment->number = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (segment->number >= 0 && segment->number <= STDERR_FILENO) { /* a daemon has closed these, and somebody prints */
        int high = fcntl(segment->number, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        close(segment->number);
        segment->number = high;
    }
    if (segment->number < 0)
        return -errno;
    if (!fchmod(segment->number, 0600) && !ftruncate(segment->number, (off_t)segment->bytes))
        return 0;
    int code = -errno;
    close(segment->number);
    segment->number = -1;
    return code;
}

/* Nobody may shorten it under our feet, which would be a SIGBUS; not all kernels know it, so no error. */
static int settle(const sx_segment_t *segment) {
    (void)!fcntl(segment->number, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return 0;
}

static int is_path(const char *where) {
    int pid, fd, end = 0;
    return sscanf(where, "/proc/%d/fd/%d%n", &pid, &fd, &end) == 2 && pid > 0 && fd >= 0 && !where[end] &&
           !strpbrk(where, "+- ");
}

static int open_name(sx_segment_t *segment, const char *name, int readonly) {
    char where[SX_NAME_BYTES];
    uint64_t inode, found;
    int code = sx_file_split(name, where, &inode);
    if (code || !is_path(where))
        return -EINVAL;
    int looked_at = open(where, O_PATH | O_CLOEXEC); /* opening a terminal, say, has effects: look first */
    if (looked_at < 0)
        return errno == ENOENT || errno == ESRCH || errno == ENOTDIR || errno == ENXIO ? -ESTALE : -errno;
    if (!(code = sx_file_inode(looked_at, &found)) && found == inode) {
        char again[64];
        snprintf(again, sizeof again, "/proc/self/fd/%d", looked_at);
        segment->number = open(again, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        code = segment->number < 0 ? -errno : 0;
        int seals = code ? -1 : fcntl(segment->number, F_GET_SEALS);
        if (seals >= 0 && !(seals & F_SEAL_SHRINK)) { /* not one of ours: reading what its owner cuts off would be a SIGBUS */
            close(segment->number);
            code = -EINVAL;
        }
    } else
        code = found != inode ? -ESTALE : code; /* somebody else's file there now is no news of ours */
    close(looked_at);
    return code;
}

static uint64_t room(const sx_segment_t *segment) {
    (void)segment;
    return UINT64_MAX;
}

static int name_of(const sx_segment_t *segment, char text[SX_NAME_BYTES]) {
    uint64_t inode;
    int code = sx_file_inode(segment->number, &inode);
    snprintf(text, SX_NAME_BYTES, "/proc/%d/fd/%d:%llu", (int)getpid(), segment->number, (unsigned long long)inode);
    return code;
}

static void unlink_nothing(const sx_segment_t *segment) {
    (void)segment;
}

static void each(sx_visit_t visit, void *context) {
    sx_file_each_open("/memfd:" NAME " (deleted)", SX_MEMFD, visit, context);
}

static void sweep(sx_visit_t visit, void *context) {
    (void)visit, (void)context;
}

const sx_kind_t sx_memfd_kind = {
    .name = "memfd",
    .prefix = "/proc/",
    .is_file = 1,
    .create = create,
    .settle = settle,
    .open = open_name,
    .peek = sx_file_peek,
    .map = sx_file_map,
    .touch = sx_file_touch,
    .reserve = sx_file_reserve,
    .resident = sx_file_resident,
    .room = room,
    .name_of = name_of,
    .unlink = unlink_nothing,
    .close = sx_file_close,
    .each = each,
    .sweep = sweep,
};
