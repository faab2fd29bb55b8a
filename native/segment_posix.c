/* segment_posix.c - the POSIX kind: a file in /dev/shm, for systems where there is nothing better.
 *
 * Its kernel name is /shmexec-<pid>-<start time of that process>[-<n>], and the inode. It stays when everybody is killed. Who makes such
 * a heap first removes the names of dead owners; so does `shmexec gc`. An owner is dead when no process has its pid *and* start time,
 * and nobody has the file locked: a shared lock (flock) goes with the open file that the owner's workers and children inherit, and the
 * kernel drops it with the last of them. Nobody ever waits for that lock. It says that children of a dead owner live, and that the owner
 * is in another pid namespace that shares /dev/shm.
 *
 * Who may die where                               | what stands then                          | who mends it
 *   after open, before the lock                   | an empty file of a dead owner             | sweep
 *   anywhere after it                             | a file with pages, not locked by anybody  | sweep
 *
 * The file is as large as the heap is virtually and has no page that is not used; /dev/shm is often small (64 MB in Docker): room()
 * tells how large.
 */
#include "segment_kind.h"

#include "owner.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FOLDER "/dev/shm"
#define PREFIX "/shmexec-"

static void path_of(char path[SX_NAME_BYTES], const char *name) {
    snprintf(path, SX_NAME_BYTES, FOLDER "%.80s", name);
}

/* /shmexec-<pid>-<start time>[-<n>], and no more */
static int parse(const char *name, unsigned *pid, unsigned long long *start_time) {
    int end = 0;
    unsigned n;
    if (strlen(name) > 60 || strpbrk(name, "+ ") || sscanf(name, PREFIX "%u-%llu%n", pid, start_time, &end) != 2)
        return 0;
    if (name[end] == '-') {
        int more = 0;
        if (sscanf(name + end, "-%u%n", &n, &more) != 1)
            return 0;
        end += more;
    }
    return !name[end];
}

static int open_path(const char *path, int flags) {
    return open(path, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
}

static int create(sx_segment_t *segment) {
    char name[SX_NAME_BYTES], path[SX_NAME_BYTES];
    unsigned pid = (unsigned)getpid();
    unsigned long long start_time = sx_process_start_time(pid);
    segment->number = -1;
    for (int n = 0; segment->number < 0; n++) { /* n: this process has called exec, and children of what it was live */
        snprintf(name, sizeof name, n ? PREFIX "%u-%llu-%d" : PREFIX "%u-%llu", pid, start_time, n);
        path_of(path, name);
        segment->number = open_path(path, O_RDWR | O_CREAT | O_EXCL);
        if (segment->number < 0 && errno != EEXIST)
            return -errno;
    }
    int code = flock(segment->number, LOCK_SH | LOCK_NB) || fchmod(segment->number, 0600) ? -errno : 0;
    if (!code && ftruncate(segment->number, (off_t)segment->bytes))
        code = -errno;
    if (code) {
        unlink(path);
        close(segment->number);
        segment->number = -1;
    }
    return code;
}

static int settle(const sx_segment_t *segment) {
    (void)segment;
    return 0;
}

static int open_name(sx_segment_t *segment, const char *name, int readonly) {
    char where[SX_NAME_BYTES], path[SX_NAME_BYTES];
    unsigned pid;
    unsigned long long start_time;
    uint64_t inode, found = 0;
    int code = sx_file_split(name, where, &inode);
    if (code || !parse(where, &pid, &start_time))
        return -EINVAL;
    path_of(path, where);
    segment->number = open_path(path, readonly ? O_RDONLY : O_RDWR);
    if (segment->number < 0)
        return errno == ENOENT || errno == ELOOP || errno == ENXIO ? -ESTALE : -errno;
    code = sx_file_inode(segment->number, &found);
    if (!code && found != inode)
        code = -ESTALE;
    if (!code && !readonly)
        flock(segment->number, LOCK_SH | LOCK_NB); /* refused: somebody is removing the name, which harms nobody who has it open */
    if (code) {
        close(segment->number);
        segment->number = -1;
    }
    return code;
}

static uint64_t room(const sx_segment_t *segment) {
    struct statvfs status;
    if (fstatvfs(segment->number, &status) || !status.f_blocks)
        return UINT64_MAX; /* a tmpfs without a limit */
    return (uint64_t)status.f_blocks * status.f_frsize;
}

/* Which name the file has; 0 if it has none any more. */
static int find_name(const sx_segment_t *segment, char name[SX_NAME_BYTES]) {
    char link[64], target[SX_NAME_BYTES];
    unsigned pid;
    unsigned long long start_time;
    snprintf(link, sizeof link, "/proc/self/fd/%d", segment->number);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length <= 0)
        return 0;
    target[length] = 0;
    char *deleted = strstr(target, " (deleted)"), *base = strrchr(target, '/');
    if (deleted)
        *deleted = 0;
    if (!base || !parse(base, &pid, &start_time))
        return 0;
    strcpy(name, base);
    return !deleted;
}

static int name_of(const sx_segment_t *segment, char text[SX_NAME_BYTES]) {
    char name[SX_NAME_BYTES] = PREFIX "gone";
    uint64_t inode;
    int code = sx_file_inode(segment->number, &inode);
    find_name(segment, name);
    snprintf(text, SX_NAME_BYTES, "%.60s:%llu", name, (unsigned long long)inode);
    return code;
}

static void unlink_name(const sx_segment_t *segment) {
    char name[SX_NAME_BYTES], path[SX_NAME_BYTES];
    if (segment->number < 0 || !find_name(segment, name))
        return;
    path_of(path, name);
    unlink(path);
}

/* ---- all of them -------------------------------------------------------------------------------------------------------- */

static void each_name(void (*see)(const char *name, sx_visit_t visit, void *context), sx_visit_t visit, void *context) {
    char name[SX_NAME_BYTES];
    unsigned pid;
    unsigned long long start_time;
    DIR *folder = opendir(FOLDER);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        snprintf(name, sizeof name, "/%.80s", entry->d_name);
        if (parse(name, &pid, &start_time))
            see(name, visit, context);
    }
    if (folder)
        closedir(folder);
}

static void see(const char *name, sx_visit_t visit, void *context) {
    char path[SX_NAME_BYTES], text[SX_NAME_BYTES];
    struct stat status;
    path_of(path, name);
    if (lstat(path, &status) || status.st_uid != geteuid() || !S_ISREG(status.st_mode))
        return;
    snprintf(text, sizeof text, "%.60s:%llu", name, (unsigned long long)status.st_ino);
    visit(context, SX_POSIX, text);
}

static void each(sx_visit_t visit, void *context) {
    each_name(see, visit, context);
}

static void see_dead(const char *name, sx_visit_t visit, void *context) {
    char path[SX_NAME_BYTES];
    unsigned pid;
    unsigned long long start_time;
    uint64_t inode;
    if (!parse(name, &pid, &start_time) || (pid != (unsigned)getpid() && !sx_process_is_dead(pid, start_time)))
        return; /* a name of this very process that is not locked: of what it was before it called exec */
    path_of(path, name);
    int fd = open_path(path, O_RDONLY);
    if (fd < 0)
        return;
    if (!sx_file_inode(fd, &inode) && !flock(fd, LOCK_EX | LOCK_NB) && !unlink(path) && visit)
        visit(context, SX_POSIX, name);
    close(fd);
}

static void sweep(sx_visit_t visit, void *context) {
    each_name(see_dead, visit, context);
}

const sx_kind_t sx_posix_kind = {
    .name = "posix",
    .prefix = PREFIX,
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
    .unlink = unlink_name,
    .close = sx_file_close,
    .each = each,
    .sweep = sweep,
};
