/* table.c - open addressing with linear probing, at most half full; removal shifts back, so there are no tombstones. */
#include "table.h"

#include <stdlib.h>
#include <string.h>

static uint32_t home(const sx_table_t *table, uint32_t key) {
    return (uint32_t)((key * (uint64_t)0x9e3779b97f4a7c15ull) >> 32) & (table->capacity - 1);
}

sx_entry_t *sx_table_find(const sx_table_t *table, uint32_t block) {
    if (!table->capacity)
        return NULL;
    for (uint32_t i = home(table, block + 1);; i = (i + 1) & (table->capacity - 1)) {
        if (table->entries[i].key == block + 1)
            return &table->entries[i];
        if (!table->entries[i].key)
            return NULL;
    }
}

static sx_entry_t *place(sx_table_t *table, uint32_t key) {
    uint32_t i = home(table, key);
    while (table->entries[i].key)
        i = (i + 1) & (table->capacity - 1);
    table->entries[i].key = key;
    table->used++;
    return &table->entries[i];
}

static int grow(sx_table_t *table) {
    sx_table_t wider = {.capacity = table->capacity ? table->capacity * 2 : 256};
    wider.entries = calloc(wider.capacity, sizeof(sx_entry_t));
    if (!wider.entries)
        return 0;
    for (uint32_t i = 0; i < table->capacity; i++)
        if (table->entries[i].key) {
            sx_entry_t *entry = place(&wider, table->entries[i].key);
            entry->count = table->entries[i].count;
            entry->birth = table->entries[i].birth;
        }
    free(table->entries);
    *table = wider;
    return 1;
}

sx_entry_t *sx_table_add(sx_table_t *table, uint32_t block) {
    if (table->used * 2 >= table->capacity && !grow(table))
        return NULL;
    return place(table, block + 1);
}

void sx_table_remove(sx_table_t *table, sx_entry_t *entry) {
    uint32_t mask = table->capacity - 1, hole = (uint32_t)(entry - table->entries);
    for (uint32_t i = (hole + 1) & mask; table->entries[i].key; i = (i + 1) & mask) {
        uint32_t want = home(table, table->entries[i].key);
        if (((i - want) & mask) >= ((i - hole) & mask)) { /* its way from home leads over the hole */
            table->entries[hole] = table->entries[i];
            hole = i;
        }
    }
    memset(&table->entries[hole], 0, sizeof(sx_entry_t));
    table->used--;
}

void sx_table_clear(sx_table_t *table) {
    free(table->entries);
    memset(table, 0, sizeof *table);
}
