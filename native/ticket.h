/* ticket.h - a name for a receiver that is not known (a pickle in any queue) keeps the block alive until it is first read.
 *
 * A ticket is one word [seq | block | OPEN]. Issue: set TICKETED and bump the epoch of the state word in one CAS; then take a
 * free entry by CAS; only then may the pickle leave. Read: hold the block, then CAS the whole entry to free; a second reading of
 * the same pickle finds another seq and claims nothing. try_free reads the entries, after the bits, of blocks that are TICKETED.
 *
 * A pickle that is never read keeps its block until sx_ticket_drop_all (trim(unclaimed=True)); so does one whose issuer or reader
 * is killed between the entry and the pipe, on either side, since nobody can tell it from one that is under way.
 *
 * Rejected: the entry first, then the mark. An issuer killed in between leaves an entry that no pickle has; no flag tells of it,
 * so the block is freed, and its next life, once it has a ticket of its own, is never freed. (tickets.pml, OPENFIRST.)
 */
#ifndef SX_TICKET_H
#define SX_TICKET_H

#include "heap.h"

/* For a block that this process holds. 0 and entry, seq; -ENOSPC: all entries are open. */
int sx_ticket_issue(sx_heap_t *heap, uint32_t block, uint32_t *entry, uint32_t *seq);
/* After a successful hold. 1: this reading was the first; 0: it was read before. */
int sx_ticket_claim(sx_heap_t *heap, uint32_t block, uint32_t entry, uint32_t seq);
uint32_t sx_ticket_count(const sx_heap_t *heap); /* open ones: pickles that nobody has read */
void sx_ticket_drop_all(sx_heap_t *heap);

#endif
