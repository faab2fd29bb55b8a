/* segment.h - one kernel segment: made, mapped, populated, given back. The only file that knows which kind it is.
 *
 * The kinds to come (System V, POSIX) are further implementations of these functions, chosen by `kind`.
 *
 * Some facts about shared memory on Linux (each measured, see docs/internals/memory-map)
 *   - a memfd is not bound by the size of /dev/shm, and the kernel frees it when the last process that has it is gone
 *   - writing to a page that the kernel cannot provide ends in SIGBUS; pwrite() and fallocate() give an error instead
 *   - MADV_COLLAPSE (Linux 6.1) makes a 2 MiB page out of a range with one resident byte, though the system says
 *     shmem_enabled=never; the mapping must be congruent to the file offset modulo 2 MiB
 * What this means for us: pages are provided by pwrite and collapse before anybody writes to them, and memory that runs out is
 * an error code. Where collapse is refused, fallocate provides 4 KiB pages, with the same guarantee.
 */
#ifndef SX_SEGMENT_H
#define SX_SEGMENT_H

#include <stdint.h>

enum { SX_MEMFD = 1 };

typedef struct {
    int kind;
    int fd;
    uint64_t bytes;
    char *base;
} sx_segment_t;

int sx_segment_create(sx_segment_t *segment, uint64_t bytes);     /* made and mapped; 0 or -errno */
int sx_segment_attach(sx_segment_t *segment, int fd);             /* of another process; takes the descriptor over */
int sx_segment_map_private(sx_segment_t *segment);                /* a copy-on-write view in place of the mapping */
/* A copy-on-write view of [offset, offset + bytes), at an address congruent to the offset, so that 2 MiB pages stay whole until they
 * are written. NULL, or its start; *mapping and *mapped are what sx_segment_give_back() wants. */
char *sx_segment_borrow(const sx_segment_t *segment, uint64_t offset, uint64_t bytes, void **mapping, uint64_t *mapped);
void sx_segment_give_back(void *mapping, uint64_t mapped);
void sx_segment_close(sx_segment_t *segment);                     /* for a segment in which nothing was ever handed out */
uint64_t sx_segment_resident(const sx_segment_t *segment);        /* bytes that the kernel backs */
uint64_t sx_segment_inode(const sx_segment_t *segment);

/* Backs the 2 MiB page around `offset` with memory, as one page if *huge_pages is not 2 (it is set to 1 or 2 by the answer). No
 * byte of it has been handed out, except that the caller may write at `offset`. */
int sx_segment_populate(sx_segment_t *segment, uint64_t offset, uint32_t *huge_pages);
int sx_segment_remove(sx_segment_t *segment, uint64_t offset, uint64_t bytes); /* gives the pages back; they read as zero */

const char *sx_segment_kind_name(const sx_segment_t *segment);

#endif
