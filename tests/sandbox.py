"""What programs begin with: `refuse("memfd_create", ...)` makes system calls fail, as a container's filter does."""

REFUSE = """
import ctypes, errno, os, platform, struct

_NUMBERS = {
    "x86_64": (0xC000003E, {"memfd_create": 319, "shmget": 29}),
    "aarch64": (0xC00000B7, {"memfd_create": 279, "shmget": 194}),
}

def refuse(*names, code=errno.EPERM):
    architecture, numbers = _NUMBERS[platform.machine()]
    wanted = [numbers[name] for name in names]
    program = [(0x20, 0, 0, 4), (0x15, 0, len(wanted) + 1, architecture), (0x20, 0, 0, 0)]  # architecture, then number
    program += [(0x15, len(wanted) - i, 0, number) for i, number in enumerate(wanted)]
    program += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | code)]  # allow; refuse
    program[1] = (0x15, 0, len(wanted) + 1, architecture)
    code_bytes = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    filter = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code_bytes))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.create_string_buffer(filter), 0, 0) == 0, os.strerror(ctypes.get_errno())
"""
