/* ticket.h - a name for a receiver that is not known (a pickle in any queue) keeps the block alive until it is first read.
 *
 * A ticket is one word [seq | block | OPEN]. Issue: take a free entry by CAS, then set TICKETED and bump the epoch of the state
 * word in one CAS; only then may the pickle leave. Read: hold the block, then CAS the whole entry to free; a second reading of
 * the same pickle finds another seq and claims nothing. try_free reads the entries, after the bits, of blocks that are TICKETED.
 * A pickle that is never read keeps its block until sx_ticket_drop_all (trim(unclaimed=True)).
 */
#ifndef SX_TICKET_H
#define SX_TICKET_H

#include "heap.h"

/* For a block that this process holds. 0 and entry, seq; -ENOSPC: all entries are open. */
int sx_ticket_issue(sx_heap_t *heap, uint32_t block, uint32_t *entry, uint32_t *seq);
/* After a successful hold. 1: this reading was the first; 0: it was read before. */
int sx_ticket_claim(sx_heap_t *heap, uint32_t block, uint32_t entry, uint32_t seq);
void sx_ticket_drop_all(sx_heap_t *heap);

#endif
