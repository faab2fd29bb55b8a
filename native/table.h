/* table.h - a process's private count of its own references to each block: a hash table, block number -> (count, birth).
 *
 * The caller holds the process-private mutex. One entry a block, not a name: if the block is held under another birth, a name
 * with this number is stale.
 */
#ifndef SX_TABLE_H
#define SX_TABLE_H

#include <stdint.h>

typedef struct {
    uint32_t key; /* block number + 1; 0 is an empty place */
    uint32_t count;
    uint64_t birth;
} sx_entry_t;

typedef struct {
    sx_entry_t *entries;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t used;
} sx_table_t;

sx_entry_t *sx_table_find(const sx_table_t *table, uint32_t block); /* NULL: not there */
sx_entry_t *sx_table_add(sx_table_t *table, uint32_t block);        /* must not be there; count 0; NULL: no memory */
void sx_table_remove(sx_table_t *table, sx_entry_t *entry);
void sx_table_clear(sx_table_t *table);

#endif
