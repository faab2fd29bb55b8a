/* table_fuzz.c - the table of counts against an array that is indexed by the key. */
#include "harness.h"

enum { KEYS = 4096 };
static sx_entry_t model[KEYS];

/* Keys near and far, among them those whose homes collide. */
static uint32_t block_of_key(uint32_t key) {
    return key < KEYS / 2 ? key : key * SX_EXTENT_BLOCKS + key % 7;
}

static void check_all(const sx_table_t *table) {
    uint32_t used = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        sx_entry_t *entry = sx_table_find(table, block_of_key(key));
        CHECK(!entry == !model[key].key, "key %u", key);
        if (!entry)
            continue;
        used++;
        CHECK(entry->key == block_of_key(key) + 1 && entry->count == model[key].count && entry->birth == model[key].birth);
    }
    CHECK(used == table->used && used * 2 <= table->capacity + 2);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    do {
        sx_table_t table = {0};
        memset(model, 0, sizeof model);
        CHECK(!sx_table_find(&table, 0));
        uint32_t keys = 1 + rnd(KEYS), base = rnd(KEYS), rounds = rnd(20000);
        for (uint32_t i = 0; i < rounds; i++) {
            uint32_t key = (base + rnd(keys)) % KEYS;
            sx_entry_t *entry = sx_table_find(&table, block_of_key(key));
            CHECK(!entry == !model[key].key);
            if (entry && rnd(2)) {
                sx_table_remove(&table, entry);
                model[key].key = 0;
            } else if (!entry) {
                entry = sx_table_add(&table, block_of_key(key));
                CHECK(entry && entry->count == 0);
                entry->count = rnd(1000);
                entry->birth = i;
                model[key] = *entry;
            }
            if (rnd(500) == 0)
                check_all(&table);
        }
        check_all(&table);
        sx_table_clear(&table);
        CHECK(!table.entries && !sx_table_find(&table, 5));
    } while (time_left());
    return 0;
}
