"""What exists in native/*.h, for the .pxi parts of _core."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "heap.h" nogil:
    ctypedef struct sx_identity_t:
        uint32_t slot
        uint32_t incarnation
    ctypedef struct sx_segment_t:
        int kind
        int number
        uint64_t bytes
        char *base
    ctypedef struct sx_header_t:
        uint64_t identity
        uint32_t creator_pid
        uint64_t bytes_limit
        uint32_t huge_pages
    ctypedef struct sx_slot_t:
        uint32_t bell
    ctypedef struct sx_heap_t:
        sx_segment_t segment
        sx_header_t *header
        sx_identity_t *me
        sx_slot_t *slots
        uint32_t extent_count
        int is_worker
        int is_private
    ctypedef struct sx_name_t:
        uint64_t birth
        uint32_t block
    ctypedef struct sx_heap_info_t:
        uint64_t bytes_in_use
        uint64_t bytes_resident
        uint64_t bytes_limit
        uint64_t bytes_virtual
        uint64_t blocks
        uint64_t holders
        uint64_t extents
        uint64_t processes
    ctypedef struct sx_block_t:
        uint32_t plain
    enum:
        SX_ZERO
        SX_PLAIN
        SX_PROCESSES
        SX_SLOTS
    sx_block_t *sx_block_of(const sx_heap_t *heap, uint32_t block)
    int sx_extent_is_mine(const sx_heap_t *heap, uint32_t extent)
    uint32_t sx_heap_count(sx_heap_t *heap, uint32_t block)
    int sx_heap_create(sx_heap_t *heap, int kind, uint64_t data_bytes)
    int sx_heap_attach(sx_heap_t *heap, int kind, int number, uint32_t reserved_slot)
    int sx_heap_open(sx_heap_t *heap, const char *name)
    int sx_heap_peek(sx_heap_t *heap, const char *name)
    void sx_heap_close(sx_heap_t *heap)
    uint32_t sx_heap_pids(const sx_heap_t *heap, uint32_t *pids)
    uint64_t sx_heap_default_limit(const sx_heap_t *heap)
    void sx_heap_unlink_at_exit(sx_heap_t *heap)
    int sx_heap_alloc(sx_heap_t *heap, uint64_t bytes, int flags, sx_name_t *name, char **start)
    int sx_heap_hold(sx_heap_t *heap, sx_name_t name)
    void sx_heap_hold_again(sx_heap_t *heap, uint32_t block)
    void sx_heap_release(sx_heap_t *heap, uint32_t block)
    int sx_heap_find(sx_heap_t *heap, const char *low, const char *high, sx_name_t *name)
    int sx_heap_has(const sx_heap_t *heap, const void *address)
    ctypedef struct sx_place_t:
        char *start
        uint64_t size
        uint64_t bytes
    int sx_heap_place(const sx_heap_t *heap, uint32_t block, sx_place_t *place)
    char *sx_heap_start(const sx_heap_t *heap, uint32_t block)
    uint64_t sx_heap_bytes(const sx_heap_t *heap, uint32_t block)
    uint64_t sx_heap_size(const sx_heap_t *heap, uint32_t block)
    void sx_heap_sweep(sx_heap_t *heap)
    void sx_heap_trim(sx_heap_t *heap)
    void sx_heap_answer_trim(sx_heap_t *heap)
    void sx_heap_info(sx_heap_t *heap, sx_heap_info_t *info)
    const char *sx_heap_check(sx_heap_t *heap, int quiet)
    uint64_t sx_load_relaxed(uint64_t *word)
    void sx_store_relaxed(uint64_t *word, uint64_t value)

cdef extern from "segment.h" nogil:
    char *sx_segment_borrow(const sx_segment_t *segment, uint64_t offset, uint64_t bytes, void **mapping, uint64_t *mapped)
    void sx_segment_give_back(void *mapping, uint64_t mapped)
    enum:
        SX_KINDS
        SX_POSIX
        SX_NAME_BYTES
    int sx_segment_name(const sx_segment_t *segment, char *text)
    int sx_segment_is(const sx_segment_t *segment, const char *name)
    int sx_segment_is_file(const sx_segment_t *segment)
    uint64_t sx_segment_resident(const sx_segment_t *segment)
    const char *sx_segment_kind_name(int kind)
    void sx_segment_each(void (*visit)(void *context, int kind, const char *name) noexcept, void *context)
    void sx_segment_sweep(int kind, void (*visit)(void *context, int kind, const char *name) noexcept, void *context)

cdef extern from "machine.h" nogil:
    uint32_t sx_usable_cores()
    uint64_t sx_machine_memory()

cdef extern from "owner.h" nogil:
    int sx_process_command(uint32_t pid, char *text, size_t size)
    uint64_t sx_mapped_inode(const void *address)

cdef extern from "slot.h" nogil:
    uint32_t sx_slot_reserve(sx_heap_t *heap, int guarded)
    int sx_slot_reap(sx_heap_t *heap, uint32_t slot)
    void sx_slot_unguard(sx_heap_t *heap, uint32_t slot)
    uint32_t sx_slot_reap_dead(sx_heap_t *heap)

cdef extern from "ticket.h" nogil:
    int sx_ticket_issue(sx_heap_t *heap, uint32_t block, uint32_t *entry, uint32_t *seq)
    int sx_ticket_claim(sx_heap_t *heap, uint32_t block, uint32_t entry, uint32_t seq)
    uint32_t sx_ticket_count(const sx_heap_t *heap)
    void sx_ticket_drop_all(sx_heap_t *heap)

cdef extern from "fork.h" nogil:
    void sx_fork_expect(sx_heap_t *heap, uint32_t slot)
    void sx_fork_before(sx_heap_t *heap)
    void sx_fork_after_in_parent(sx_heap_t *heap)
    int sx_fork_after_in_child(sx_heap_t *heap)
    void sx_fork_poll(sx_heap_t *heap)

cdef extern from "table.h" nogil:
    ctypedef struct sx_entry_t:
        uint32_t count
    ctypedef struct sx_table_t:
        uint32_t used
    sx_entry_t *sx_table_find(const sx_table_t *table, uint32_t block)
    sx_entry_t *sx_table_add(sx_table_t *table, uint32_t block)
    void sx_table_clear(sx_table_t *table)

cdef extern from "ring.h" nogil:
    ctypedef struct sx_ring_t:
        pass
    ctypedef struct sx_report_t:
        pass
    ctypedef struct sx_reported_t:
        uint64_t call
        uint64_t item
        double fraction
        uint32_t length
        uint32_t text_is_newer
        char *text
    enum:
        SX_REPORT_BYTES
    void sx_report_write(sx_report_t *report, const sx_reported_t *said)
    int sx_report_read(sx_report_t *report, sx_reported_t *said)
    ctypedef struct sx_channel_t:
        uint32_t worker_slot
        sx_ring_t tasks
        sx_ring_t answers
        sx_report_t report
    ctypedef struct sx_posted_name_t:
        uint64_t birth
        uint32_t block
        uint32_t lazy
    ctypedef struct sx_record_t:
        uint32_t bytes
        uint32_t kind
    ctypedef struct sx_message_t:
        uint32_t kind
        uint32_t flags
        uint32_t name_count
        uint32_t first_bytes
        uint64_t call
        uint64_t function
        uint64_t second_bytes
        const sx_posted_name_t *names
        const char *first
        const char *second
        sx_posted_name_t spill
        uint64_t position
        bint is_alone
        int woke
    enum:
        SX_SPILLED
        SX_TIMED
    int sx_ring_peek(sx_heap_t *heap, sx_ring_t *ring, sx_message_t *message)
    int sx_ring_is_empty(sx_ring_t *ring)
    void sx_ring_pop(sx_ring_t *ring, const sx_message_t *message)
    int sx_task_send(sx_heap_t *heap, sx_channel_t *channel, sx_message_t *message)
    void sx_task_note_time(sx_channel_t *channel)
    int sx_task_start(const sx_message_t *message)
    int sx_task_withdraw(sx_ring_t *ring, uint64_t position)
    int sx_task_was_started(sx_ring_t *ring, uint64_t position)
    uint64_t sx_task_begun(sx_channel_t *channel, uint64_t position)
    void sx_channel_ring_worker(sx_heap_t *heap, sx_channel_t *channel, int always)
    uint32_t sx_channel_slot(const sx_channel_t *channel)
    uint32_t sx_channel_bell(sx_heap_t *heap, sx_channel_t *channel)
    ctypedef struct sx_spin_t:
        uint64_t longest
        uint64_t extra
        uint32_t gives_way
        uint32_t hold
        uint32_t skip
    ctypedef struct sx_wait_t:
        sx_spin_t spin
    enum:
        SX_WAKE
        SX_WAS_AWAKE
        SX_WOKEN
        SX_WOKEN_AFTER_PAUSE
    uint64_t sx_now()
    bint sx_channel_is_awake(sx_heap_t *heap, const sx_channel_t *channel)
    int sx_channel_wait(sx_heap_t *heap, sx_channel_t *channel, sx_wait_t *how, uint32_t seen, int64_t nanoseconds)

cdef extern from "board.h" nogil:
    enum:
        SX_FUNCTION_NAME_BYTES
    ctypedef struct sx_worker_view_t:
        uint32_t pid
        uint32_t parent
        uint32_t hub
        bint sleeps
        uint64_t running
        uint64_t begun
        uint64_t ahead
        uint64_t waiting
        uint64_t since
        char *name
    void sx_board_begin(sx_channel_t *channel, uint64_t call, uint64_t function, uint64_t now)
    void sx_board_end(sx_channel_t *channel)
    void sx_board_name_function(sx_channel_t *channel, uint64_t function, const char *name, uint64_t bytes)
    void sx_board_introduce(sx_heap_t *heap, uint32_t slot, sx_name_t channel, sx_name_t hub)
    void sx_board_waiting(sx_hub_t *hub, uint64_t count)
    void sx_board_traffic(sx_heap_t *heap, uint64_t by_name, uint64_t copied)
    int sx_board_worker(const sx_heap_t *heap, uint32_t slot, sx_channel_t *room, sx_worker_view_t *view)
    uint32_t sx_board_counted(const sx_heap_t *heap, uint32_t slot, uint64_t *by_name, uint64_t *copied)

cdef extern from "hub.h" nogil:
    ctypedef struct sx_hub_t:
        pass
    ctypedef struct sx_crew_t:
        sx_heap_t *heap
        sx_channel_t **channels
        uint32_t count
    int sx_crew_has_answer(const sx_crew_t *crew)
    void sx_event_write(int event_fd)
    int sx_timer_create()
    void sx_timer_set(int timer_fd, uint64_t nanoseconds)
    enum:
        SX_AWAKE
        SX_COLLECTOR
    uint32_t sx_hub_ring(sx_hub_t *hub, int event_fd)
    void sx_hub_take(sx_hub_t *hub)
    void sx_hub_leave(sx_hub_t *hub, const sx_crew_t *crew, int event_fd)
    uint32_t sx_hub_turn(const sx_hub_t *hub)
    int sx_hub_spin(sx_hub_t *hub, sx_spin_t *spin, const sx_crew_t *crew, uint32_t cores, uint32_t seen)
    int sx_hub_begin_sleep(sx_hub_t *hub, const sx_crew_t *crew, uint32_t seen)
    int sx_hub_sleep(sx_hub_t *hub, uint32_t seen, int64_t nanoseconds)
    int sx_hub_leader_sleeps(const sx_hub_t *hub)
    void sx_hub_kick(sx_hub_t *hub)
    void sx_hub_pass(sx_hub_t *hub)

cdef extern from "place.h" nogil:
    ctypedef struct sx_sleepers_t:
        pass
    void sx_place_falls_asleep(sx_sleepers_t *sleepers)
    void sx_place_is_awake(sx_sleepers_t *sleepers)
    void sx_place_here(sx_sleepers_t *sleepers)

cdef extern from "outbox.h" nogil:
    ctypedef struct sx_outbox_t:
        pass
    int sx_outbox_publish(sx_heap_t *heap, sx_outbox_t *outbox, sx_ring_t *ring, sx_message_t *message,
                          sx_posted_name_t *names)
    void sx_outbox_settle(sx_heap_t *heap, sx_outbox_t *outbox, sx_ring_t *ring)
    int sx_outbox_consume(sx_heap_t *heap, sx_channel_t *channel, const sx_message_t *message)

cdef extern from "threads.h" nogil:
    ctypedef struct sx_threads_t:
        int openblas
        int blis
        int mkl
        int openmp
    int sx_threads_limit(const sx_threads_t *threads)
