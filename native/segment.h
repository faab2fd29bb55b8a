/* segment.h - one kernel segment: made, mapped, populated, given back. The only files that know which kind it is: segment_*.c.
 *
 * Some facts about shared memory on Linux (each measured, see docs/internals/memory-map)
 *   - a memfd is not bound by the size of /dev/shm, and the kernel frees it when the last process that has it is gone
 *   - a System V segment has no descriptor. Removed (IPC_RMID) while it is attached it lives on, others can still attach it by id,
 *     and the kernel frees it with the last of them; its key is nobody's from then on. Only root can open what it maps as a file
 *   - a POSIX segment is a file in /dev/shm: it stays when everybody is killed, and Docker gives it 64 MB
 *   - writing to a page that the kernel cannot provide ends in SIGBUS; pwrite(), fallocate() and MADV_POPULATE_WRITE (Linux 5.14)
 *     give an error instead, and so does a futex operation on the page
 *   - reading a page that nobody has written allocates it: that, too, can be a SIGBUS
 *   - MADV_COLLAPSE (Linux 6.1) makes a 2 MiB page out of a range with one resident byte, though the system says
 *     shmem_enabled=never; the mapping must be congruent to the file offset modulo 2 MiB
 * What this means for us: data pages are provided by one byte and collapse before anybody writes to them, the pages of tables by
 * sx_segment_reserve() before anybody looks at them, and memory that runs out is an error code. Where collapse is refused, 4 KiB
 * pages are provided, with the same guarantee.
 */
#ifndef SX_SEGMENT_H
#define SX_SEGMENT_H

#include "layout.h"
#include <stddef.h>
#include <stdint.h>

enum { SX_MEMFD = 1, SX_SYSV = 2, SX_POSIX = 3, SX_KINDS = 3 }; /* in the order in which they are tried */
#define SX_NAME_BYTES 96

typedef struct {
    int kind;
    int number; /* what a child of this process needs to attach it: a descriptor, or the id of a System V segment */
    uint64_t bytes;
    char *base;
} sx_segment_t;

int sx_segment_create(sx_segment_t *segment, int kind, uint64_t bytes);  /* made and mapped; 0 or -errno */
/* What this process was given by the one that has it; a descriptor is taken over, unless this fails. */
int sx_segment_attach(sx_segment_t *segment, int kind, int number);
/* By its kernel name, of whichever process of this user. -ESTALE: there is no such segment (any more); -EACCES: another user's;
 * -EINVAL: no name, or no heap; -EPROTO: a heap of another version of this library. */
int sx_segment_open(sx_segment_t *segment, const char *name, int readonly);
void sx_segment_close(sx_segment_t *segment);        /* for a segment in which nothing was ever handed out */
void sx_segment_unlink(const sx_segment_t *segment); /* its name goes, if it has one that outlives everybody */

/* The kernel name: where it is, and after the last colon what tells it from a later one that is there. */
int sx_segment_name(const sx_segment_t *segment, char text[SX_NAME_BYTES]);
int sx_segment_is(const sx_segment_t *segment, const char *name);
const char *sx_segment_kind_name(int kind); /* NULL: no such kind */

/* `number` is a descriptor, and the whole or a part can be mapped copy-on-write; else the next two give -ENOTSUP and NULL. */
int sx_segment_is_file(const sx_segment_t *segment);
int sx_segment_map_private(sx_segment_t *segment); /* a copy-on-write view in place of the mapping */
/* A copy-on-write view of [offset, offset + bytes), at an address congruent to the offset, so that 2 MiB pages stay whole until they
 * are written. NULL, or its start; *mapping and *mapped are what sx_segment_give_back() wants. */
char *sx_segment_borrow(const sx_segment_t *segment, uint64_t offset, uint64_t bytes, void **mapping, uint64_t *mapped);
void sx_segment_give_back(void *mapping, uint64_t mapped);

uint64_t sx_segment_resident(const sx_segment_t *segment); /* bytes that the kernel backs */
uint64_t sx_segment_room(const sx_segment_t *segment);     /* bytes that it can back at most, as far as that is known */

/* Backs the 2 MiB page around `offset` with memory, as one page if *huge_pages is not 2 (it is set to 1 or 2 by the answer). No
 * byte of it has been handed out, except that the caller may write at `offset`. */
int sx_segment_populate(sx_segment_t *segment, uint64_t offset, uint32_t *huge_pages);
/* Backs the small pages that have a byte of [offset, offset + bytes); what they hold stays. */
int sx_segment_reserve(const sx_segment_t *segment, uint64_t offset, uint64_t bytes);
int sx_segment_remove(sx_segment_t *segment, uint64_t offset, uint64_t bytes); /* gives the pages back; they read as zero */

/* Calls `visit` with the kernel name of each segment of this user that may be a heap: what it is, sx_segment_open() says. One that
 * several processes have may come several times. */
void sx_segment_each(void (*visit)(void *context, int kind, const char *name), void *context);
/* Removes what dead processes have left: POSIX names, and System V segments of processes that were killed between two system
 * calls, before anybody attached them. `visit` may be NULL. */
void sx_segment_sweep(int kind, void (*visit)(void *context, int kind, const char *name), void *context);

#endif
