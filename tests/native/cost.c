/* cost.c - what an allocation costs does not depend on how many blocks live, counted in stores to shared memory; and the search
 * among the free runs looks at a bounded number of them.
 */
#include "harness.h"

enum { MANY = 100000 };
static sx_heap_t heap;

static uint64_t steps_of(uint64_t bytes) {
    uint64_t most = 0;
    for (int i = 0; i < 50; i++) {
        steps = 0;
        on_step = count_steps;
        sx_name_t name = alloc(&heap, bytes);
        sx_heap_release(&heap, name.block);
        on_step = NULL;
        most = steps > most ? steps : most;
    }
    return most;
}

int main(int argc, char **argv) {
    static sx_name_t names[MANY];
    static const uint64_t sizes[] = {1, 500, 3000, 40000, 600000};
    begin(argc, argv);
    create(&heap, 64);
    uint64_t with_few[5], with_many[5], with_holes[5];
    for (int i = 0; i < 10; i++)
        names[i] = alloc(&heap, 200);
    for (int s = 0; s < 5; s++)
        steps_of(sizes[s]), with_few[s] = steps_of(sizes[s]);
    for (int i = 10; i < MANY; i++)
        names[i] = alloc(&heap, 1 + rnd(1500));
    CHECK(living(&heap) == MANY);
    for (int s = 0; s < 5; s++)
        steps_of(sizes[s]), with_many[s] = steps_of(sizes[s]);
    for (int i = 0; i < MANY; i += 2)
        sx_heap_release(&heap, names[i].block);
    for (int s = 0; s < 5; s++)
        steps_of(sizes[s]), with_holes[s] = steps_of(sizes[s]);
    for (int s = 0; s < 5; s++) {
        printf("%llu bytes: %llu, %llu, %llu\n", (unsigned long long)sizes[s], (unsigned long long)with_few[s],
               (unsigned long long)with_many[s], (unsigned long long)with_holes[s]);
        CHECK(with_many[s] <= with_few[s] + 8 && with_holes[s] <= with_few[s] + 8, "size %llu", (unsigned long long)sizes[s]);
    }
    for (int i = 1; i < MANY; i += 2)
        sx_heap_release(&heap, names[i].block);
    expect_quiet(&heap, 0);
    return 0;
}
