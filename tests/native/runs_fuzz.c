/* runs_fuzz.c - the free runs against a model that marks granules one by one: nothing is handed out twice, nothing is lost, and
 * a run of a whole extent is there again when all of it came back. */
#include "harness.h"

enum { EXTENTS = 3, OUT = 3000 };

static uint8_t used[EXTENTS][SX_EXTENT_GRANULES];
static struct {
    uint32_t extent, first, granules;
} out[OUT];
static uint32_t out_count;
static uint64_t visited;

static void visit(void *context, uint32_t extent, uint32_t first, uint32_t granules) {
    (void)context;
    for (uint32_t g = first; g < first + granules; g++)
        CHECK(!used[extent][g], "a free run has a granule that is out");
    visited += granules;
}

static void check_all(sx_runs_t *runs) {
    uint64_t free = 0;
    const char *wrong = sx_runs_check(runs);
    CHECK(!wrong, "%s", wrong);
    for (int e = 0; e < EXTENTS; e++)
        for (uint32_t g = 0; g < SX_EXTENT_GRANULES; g++)
            free += !used[e][g];
    visited = 0;
    sx_runs_each(runs, visit, NULL);
    CHECK(visited == free, "%llu granules are free, %llu are in runs", (unsigned long long)free, (unsigned long long)visited);
}

static uint32_t some_size(uint32_t mode) {
    switch (mode) {
    case 0:
        return 1 + rnd(15);
    case 1:
        return 16u << rnd(11);
    case 2: /* sizes that share a list, so that the list of this very size holds runs that are too short */
        return 64 + rnd(4);
    case 3:
        return 1024 + rnd(64);
    default:
        return 1 + rnd(SX_HUGE_GRANULES >> rnd(15));
    }
}

static int take(sx_runs_t *runs, uint32_t granules) {
    uint32_t extent, first;
    if (sx_runs_take(runs, granules, &extent, &first))
        return 0;
    CHECK(extent < EXTENTS && first + granules <= SX_EXTENT_GRANULES);
    for (uint32_t g = first; g < first + granules; g++) {
        CHECK(!used[extent][g], "granule %u was handed out twice", g);
        used[extent][g] = 1;
    }
    out[out_count].extent = extent;
    out[out_count].first = first;
    out[out_count++].granules = granules;
    return 1;
}

static void give(sx_runs_t *runs, uint32_t which) {
    CHECK(sx_runs_give(runs, out[which].extent, out[which].first, out[which].granules) == 0);
    memset(&used[out[which].extent][out[which].first], 0, out[which].granules);
    out[which] = out[--out_count];
}

static void start(sx_runs_t *runs) {
    CHECK(sx_runs_init(runs, EXTENTS) == 0);
    for (uint32_t e = 0; e < EXTENTS; e++)
        CHECK(sx_runs_add_extent(runs, e) == 0 && sx_runs_give(runs, e, 0, SX_EXTENT_GRANULES) == 0);
    memset(used, 0, sizeof used);
    out_count = 0;
}

/* Holes a little too short for what is asked, more of them than one looks at. */
static void a_list_of_runs_that_are_too_short_is_passed_over(void) {
    sx_runs_t runs;
    start(&runs);
    for (int i = 0; i < 20; i++)
        CHECK(take(&runs, 64) && take(&runs, 1));
    for (uint32_t i = 0; i < out_count;)
        if (out[i].granules == 64)
            give(&runs, i);
        else
            i++;
    CHECK(take(&runs, 67));
    check_all(&runs);
}

static void a_run_fits_if_one_of_that_size_is_free(void) {
    sx_runs_t runs;
    start(&runs);
    while (take(&runs, SX_HUGE_GRANULES))
        ;
    CHECK(out_count == 2 * EXTENTS, "two halves in each extent");
    give(&runs, 3);
    CHECK(take(&runs, SX_HUGE_GRANULES));
    check_all(&runs);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    a_list_of_runs_that_are_too_short_is_passed_over();
    a_run_fits_if_one_of_that_size_is_free();
    do {
        sx_runs_t runs;
        start(&runs);
        uint32_t mode = rnd(6), fill = 1 + rnd(OUT - 1), rounds = 2000 + rnd(4000);
        for (uint32_t i = 0; i < rounds; i++) {
            if (out_count < fill && rnd(5) < 3)
                take(&runs, some_size(mode < 5 ? mode : rnd(5)));
            else if (out_count)
                give(&runs, rnd(out_count));
            if (rnd(1000) == 0)
                check_all(&runs);
        }
        check_all(&runs);
        if (rnd(4) == 0) {
            uint32_t dropped = rnd(EXTENTS);
            for (uint32_t i = 0; i < out_count;)
                if (out[i].extent == dropped)
                    give(&runs, i);
                else
                    i++;
            CHECK(runs.arenas[dropped]->free == SX_EXTENT_GRANULES);
            sx_runs_drop_extent(&runs, dropped);
            memset(used[dropped], 1, SX_EXTENT_GRANULES);
            check_all(&runs);
            CHECK(sx_runs_add_extent(&runs, dropped) == 0 && sx_runs_give(&runs, dropped, 0, SX_EXTENT_GRANULES) == 0);
            memset(used[dropped], 0, SX_EXTENT_GRANULES);
        }
        while (out_count)
            give(&runs, rnd(out_count));
        check_all(&runs);
        for (uint32_t e = 0; e < EXTENTS; e++)
            CHECK(runs.arenas[e]->free == SX_EXTENT_GRANULES && runs.arenas[e]->edge[0] == runs.arenas[e]->edge[SX_EXTENT_GRANULES - 1]);
        for (uint32_t e = 0; e < EXTENTS; e++)
            sx_runs_drop_extent(&runs, e);
        sx_runs_forget(&runs);
    } while (time_left());
    return 0;
}
