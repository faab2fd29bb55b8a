/* reports.c - a reader gets a whole report or none, and a writer that died in the middle holds nobody up. */
#include "harness.h"
#include "report.h"

static sx_report_t report;
static sx_atomic32_t is_over;

static sx_reported_t number(uint64_t n) {
    sx_reported_t said = {.call = n, .item = n + 1, .fraction = (double)n, .length = (uint32_t)(n % (SX_REPORT_BYTES + 1))};
    said.text_is_newer = n % 2;
    memset(said.text, (int)(n % 251), said.length);
    return said;
}

static void check_whole(const sx_reported_t *said) {
    uint64_t n = said->call;
    sx_reported_t wanted = number(n);
    CHECK(said->item == n + 1 && said->fraction == (double)n && said->text_is_newer == n % 2);
    CHECK(said->length == wanted.length && !memcmp(said->text, wanted.text, said->length));
}

static uint32_t seen_steps, last;

static void read_in_between(void) {
    sx_reported_t said;
    int code = sx_report_read(&report, &said);
    seen_steps++;
    CHECK(seen_steps == 1 ? code == 0 : code == -EAGAIN, "at step %u", seen_steps);
    if (!code)
        CHECK(said.call == last);
}

static void a_reader_in_the_middle_gets_nothing_half_written(void) {
    for (uint64_t n = 1; n < 400; n++) {
        sx_reported_t said = number(n);
        seen_steps = 0;
        on_step = n > 1 ? read_in_between : NULL;
        sx_report_write(&report, &said);
        on_step = NULL;
        CHECK(n == 1 || seen_steps == 6 + (number(n).length + 7) / 8); /* a step for each store */
        CHECK(sx_report_read(&report, &said) == 0 && said.call == n);
        check_whole(&said);
        last = (uint32_t)n;
    }
}

static void *write_many(void *unused) {
    for (uint64_t n = 1; !sx_load_relaxed(&is_over); n++) {
        sx_reported_t said = number(n);
        sx_report_write(&report, &said);
    }
    return unused;
}

static void readers_beside_a_writer_get_whole_reports(void) {
    pthread_t thread;
    double until = now() + seconds;
    uint64_t before = 0, read = 0;
    memset(&report, 0, sizeof report);
    CHECK(pthread_create(&thread, NULL, write_many, NULL) == 0);
    while (now() < until || !read) {
        sx_reported_t said;
        if (sx_report_read(&report, &said))
            continue;
        CHECK(said.call >= before, "an older one after a newer one");
        if (said.call) {
            check_whole(&said);
            read++;
        }
        before = said.call;
    }
    sx_store_relaxed(&is_over, 1);
    pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    a_reader_in_the_middle_gets_nothing_half_written();
    readers_beside_a_writer_get_whole_reports();
    return 0;
}
