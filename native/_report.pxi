# What a task says of how far it has come (report.h), on both sides.

from libc.math cimport NAN, isnan


cdef class Running:
    """What this worker runs now, and what that has reported. Of a process that is no worker: nothing."""
    cdef public uint64_t call   # 0: nothing
    cdef public uint64_t item   # of a chunk or a span
    cdef bint has_reported      # during this call
    cdef sx_reported_t said
    cdef Channel channel

    def begin(self, Channel channel, uint64_t call, uint64_t function=0):
        """A call."""
        self.channel = channel
        self.call = call
        self.item = 0
        if call:
            sx_board_begin(channel.channel, call, function, sx_now())

    def end(self):
        """The last report of the call that was begun, or None: what goes home with its answer."""
        self.call = 0
        if self.channel is not None:
            sx_board_end(self.channel.channel)
        return self.take() if self.has_reported else None

    cdef take(self):
        self.has_reported = False
        return newest(&self.said)

    def report(self, fraction, text):
        """Say a fraction, or a text; the other stays as it was. Nothing is running: nothing happens."""
        if self.call == 0 or self.channel is None:
            return
        if not self.has_reported or self.said.call != self.call or self.said.item != self.item:
            self.said.call, self.said.item = self.call, self.item
            self.said.fraction, self.said.length = NAN, 0
            self.has_reported = True
        self.said.text_is_newer = text is not None
        if text is None:
            self.said.fraction = fraction
        else:
            data = <bytes> text.encode("utf-8", "replace")[:SX_REPORT_BYTES]
            self.said.length = <uint32_t> len(data)
            memcpy(self.said.text, <const char *> data, len(data))
        sx_report_write(&self.channel.channel.report, &self.said)


cdef newest(sx_reported_t *said):
    if said.text_is_newer:
        return text_of(said)
    return said.fraction


cdef text_of(sx_reported_t *said):
    return said.text[:said.length].decode("utf-8", "ignore")  # it may have been cut within a character


cdef Running the_running = Running()
running = the_running


def read_report(Channel channel not None, uint64_t call):
    """What the worker of this channel has reported of this call: (items before it, fraction or None, text or None, which is
    newer: that), or None.
    """
    cdef sx_reported_t said
    memset(&said, 0, sizeof(said))
    if sx_report_read(&channel.channel.report, &said) or said.call != call or call == 0:
        return None
    return (said.item, None if isnan(said.fraction) else said.fraction, text_of(&said) if said.length else None, newest(&said))
