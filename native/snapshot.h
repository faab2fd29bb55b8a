/* snapshot.h - what a private child gets of a heap that cannot be mapped copy-on-write.
 *
 * Some facts about System V memory
 *   - it has no descriptor; /proc/self/map_files would be one, for root alone. So there is no MAP_PRIVATE of it
 *   - a fork shares it, always
 * What this means for us: a fork that is to see a private heap copies what its process holds, before the system call and under the
 * heap's mutex, so that the copy is of one moment; the child lays it over the mapping. It costs the time and the memory of a copy, where
 * a memfd costs a call. Rejected: to copy in the child, since its parent goes on, and may free and write what is being copied.
 *
 * In the child the descriptors of all other blocks read as IDLE.
 */
#ifndef SX_SNAPSHOT_H
#define SX_SNAPSHOT_H

#include "heap.h"

typedef struct sx_snapshot sx_snapshot_t;

sx_snapshot_t *sx_snapshot_take(sx_heap_t *heap); /* the caller holds the mutex; NULL: no memory */
int sx_snapshot_lay(const sx_snapshot_t *snapshot, sx_heap_t *heap); /* in the child, in place of the mapping; 0, -ENOMEM */
void sx_snapshot_drop(sx_snapshot_t *snapshot);

#endif
