/* segment_sysv.c - the System V kind: a number, which the kernel frees with the last process that has attached it.
 *
 * Its kernel name is the id, and the identity in the heap's header, since an id may be used again: sysv-<id>:<identity>.
 *
 * Who may die where                               | what stands then                      | who mends it
 *   between shmget and IPC_RMID, not attached     | an id under our key, without memory   | sweep: the next heap, or `shmexec gc`
 *   between shmat and IPC_RMID                    | the same, attached by nobody any more | the same
 *   after IPC_RMID                                | nothing                               | the kernel
 *
 * The key says whose it is in between: its upper half is ours, the lower is random. After IPC_RMID it has none.
 *
 * Some facts about System V memory
 *   - MADV_COLLAPSE, MADV_REMOVE and MADV_POPULATE_WRITE work on it as on any tmpfs file
 *   - under vm.overcommit_memory=2 SHM_NORESERVE means nothing: the whole size is committed at once, or refused
 *   - kernel.shmmax, shmall and shmmni limit size, sum and number: EINVAL and ENOSPC
 * What this means for us: a size that is refused is halved (heap.c). What its pages come to stands in /proc/sysvipc/shm alone.
 */
#include "segment_kind.h"

#include "owner.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define KEY 0x53580000u /* "SX", and 16 random bits */
#define KEY_MASK 0xffff0000u
#define PREFIX "sysv-"

static int create(sx_segment_t *segment) {
    for (int tries = 0; tries < 64; tries++) {
        uint16_t random = 0;
        if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
            random = (uint16_t)((uint32_t)getpid() * 2654435761u >> 16) ^ (uint16_t)tries;
        segment->number = shmget((key_t)(KEY | random), segment->bytes, IPC_CREAT | IPC_EXCL | SHM_NORESERVE | 0600);
        if (segment->number >= 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    return -errno;
}

static void unlink_id(const sx_segment_t *segment) {
    shmctl(segment->number, IPC_RMID, NULL);
}

/* It is attached: from here on the kernel frees it with the last who is. */
static int settle(const sx_segment_t *segment) {
    return shmctl(segment->number, IPC_RMID, NULL) ? -errno : 0;
}

static int peek(sx_segment_t *segment, sx_header_t *header) {
    struct shmid_ds status;
    if (shmctl(segment->number, IPC_STAT, &status))
        return errno == EIDRM || errno == EINVAL ? -ESTALE : -errno;
    segment->bytes = status.shm_segsz;
    if (segment->bytes < sizeof *header)
        return -EINVAL;
    if (status.shm_perm.uid != geteuid())
        return -EACCES;
    void *mapped = shmat(segment->number, NULL, SHM_RDONLY);
    if (mapped == (void *)-1)
        return errno == EIDRM || errno == EINVAL ? -ESTALE : -errno;
    memcpy(header, mapped, sizeof *header);
    shmdt(mapped);
    return 0;
}

static int open_name(sx_segment_t *segment, const char *name, int readonly) {
    unsigned long long identity;
    int end = 0;
    sx_header_t header;
    (void)readonly;
    if (sscanf(name, PREFIX "%d:%llu%n", &segment->number, &identity, &end) != 2 || name[end] || strpbrk(name, "+ ") ||
        segment->number < 0)
        return -EINVAL;
    int code = peek(segment, &header);
    if (code == -EINVAL || code == -EACCES) /* a segment of somebody's: the id has gone on to others */
        return -ESTALE;
    return code ? code : header.identity != identity ? -ESTALE : 0;
}

static int map(const sx_segment_t *segment, char *at, int readonly) {
    void *mapped = shmat(segment->number, at, SHM_REMAP | (readonly ? SHM_RDONLY : 0));
    return mapped == (void *)-1 ? -errno : 0;
}

static int reserve(const sx_segment_t *segment, uint64_t offset, uint64_t bytes) {
    uint64_t small = (uint64_t)sysconf(_SC_PAGESIZE), from = offset / small * small;
    int code;
    do
        code = madvise(segment->base + from, SX_ALIGN(offset + bytes - from, small), MADV_POPULATE_WRITE) ? -errno : 0;
    while (code == -EINTR || code == -EAGAIN);
    if (code == -EINVAL) /* before Linux 5.14 */
        return sx_touch_mapped(segment, offset, bytes);
    return code == -EFAULT ? -ENOMEM : code; /* a write would have been a SIGBUS */
}

static int touch(const sx_segment_t *segment, uint64_t offset) {
    return reserve(segment, offset, 1);
}

/* ---- the table of all segments ----------------------------------------------------------------------------------------- */

typedef struct {
    int key, id, creator;
    unsigned mode, owner;
    unsigned long long bytes, attached, resident;
} row_t;

/* Calls `see` with each row until it says 1. */
static void each_row(int (*see)(void *context, const row_t *row), void *context) {
    char line[512];
    row_t row;
    FILE *table = fopen("/proc/sysvipc/shm", "re");
    while (table && fgets(line, sizeof line, table))
        if (sscanf(line, "%d %d %o %llu %d %*d %llu %u %*u %*u %*u %*u %*u %*u %llu", &row.key, &row.id, &row.mode, &row.bytes,
                   &row.creator, &row.attached, &row.owner, &row.resident) == 8 &&
            see(context, &row))
            break;
    if (table)
        fclose(table);
}

typedef struct {
    int id;
    uint64_t bytes;
} looks_for_t;

static int see_resident(void *context, const row_t *row) {
    looks_for_t *one = context;
    if (row->id == one->id)
        one->bytes = row->resident;
    return row->id == one->id;
}

static uint64_t resident(const sx_segment_t *segment) {
    looks_for_t one = {segment->number, 0};
    each_row(see_resident, &one);
    return one.bytes;
}

static uint64_t room(const sx_segment_t *segment) {
    return segment->bytes;
}

static int name_of(const sx_segment_t *segment, char text[SX_NAME_BYTES]) {
    const sx_header_t *header = (const sx_header_t *)segment->base;
    snprintf(text, SX_NAME_BYTES, PREFIX "%d:%llu", segment->number, (unsigned long long)header->identity);
    return 0;
}

static void close_nothing(const sx_segment_t *segment) {
    (void)segment;
}

typedef struct {
    sx_visit_t visit;
    void *context;
} visitor_t;

/* What was removed while it is attached, and is mine. Whether it is a heap only its header says. */
static int see_removed(void *context, const row_t *row) {
    visitor_t *visitor = context;
    sx_segment_t segment = {.kind = SX_SYSV, .number = row->id};
    sx_header_t header;
    char name[SX_NAME_BYTES];
    if (row->owner != geteuid() || !(row->mode & SHM_DEST) || row->bytes < SX_SEGMENT_BYTES(2) || peek(&segment, &header))
        return 0;
    if ((header.magic ^ SX_MAGIC) << 8)
        return 0; /* some other program's */
    snprintf(name, sizeof name, PREFIX "%d:%llu", row->id, (unsigned long long)header.identity);
    visitor->visit(visitor->context, SX_SYSV, name);
    return 0;
}

static void each(sx_visit_t visit, void *context) {
    visitor_t visitor = {visit, context};
    each_row(see_removed, &visitor);
}

/* Under our key, attached by nobody, and its maker is dead: it was killed before it could remove the id. */
static int see_left(void *context, const row_t *row) {
    visitor_t *visitor = context;
    char name[SX_NAME_BYTES];
    if (((uint32_t)row->key & KEY_MASK) != KEY || row->owner != geteuid() || row->attached || (row->mode & SHM_DEST) ||
        row->creator <= 0 || /* of another pid namespace */
        !sx_process_is_dead((uint32_t)row->creator, 0) || shmctl(row->id, IPC_RMID, NULL))
        return 0;
    snprintf(name, sizeof name, PREFIX "%d", row->id);
    if (visitor->visit)
        visitor->visit(visitor->context, SX_SYSV, name);
    return 0;
}

static void sweep(sx_visit_t visit, void *context) {
    visitor_t visitor = {visit, context};
    each_row(see_left, &visitor);
}

const sx_kind_t sx_sysv_kind = {
    .name = "sysv",
    .prefix = PREFIX,
    .is_file = 0,
    .create = create,
    .settle = settle,
    .open = open_name,
    .peek = peek,
    .map = map,
    .touch = touch,
    .reserve = reserve,
    .resident = resident,
    .room = room,
    .name_of = name_of,
    .unlink = unlink_id,
    .close = close_nothing,
    .each = each,
    .sweep = sweep,
};
