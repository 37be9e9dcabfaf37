"""The seccomp filter of a grading: a short list of system calls is allowed, all others answer "not implemented".

What a single interpreter needs is on the list: memory, files, time, threads, signals to itself, and talking over
descriptors that it already holds. Not on it: new processes and programs (so a grading is one process, and the limits
of one process are the limits of the grading), sockets to anywhere, shared memory and message queues, mounts and
namespaces, tracing, keys, io_uring, and any way to raise privileges. A grading can neither kill itself with SIGKILL
nor lower its own CPU limit, so that a SIGKILL which the limits do not explain came from outside and is the machine's
fault.

Nor is anything on it that another grading could notice, now or later: pipes and sockets (each takes a number from a
counter of the whole machine), epoll and pipe sizes (limited per user), the machine's load and free memory, space on a
disk, memory that is merged with equal memory. Locks on files, writing files to disk and futexes between processes
would reach what the whole machine shares (the inodes of the standard library among it); they succeed and do nothing,
which is right for one process with files of its own: nobody else could hold the lock or wait.

The filter is classic BPF over struct seccomp_data (number at byte 0, architecture at 4, arguments from 16, 8 bytes
each), as seccomp(2) describes it. A system call of another architecture or of the x32 interface kills the process.
The kernel runs the filter for every number when it is installed, so the numbers are searched by halves.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence

# name, number on x86-64, number on aarch64
_ALLOWED = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, open 2 -, openat 257 56,
    close 3 57, close_range 436 436, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, lseek 8 62,
    mmap 9 222, mprotect 10 226, munmap 11 215, brk 12 214, mremap 25 216, rt_sigaction 13 134,
    rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132,
    access 21 -, faccessat 269 48, faccessat2 439 439, select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73,
    sched_yield 24 124, dup 32 23, dup2 33 -, dup3 292 24, pause 34 -, nanosleep 35 101, clock_nanosleep 230 115,
    clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153, getpid 39 172,
    gettid 186 178, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getuid 102 174, geteuid 107 175,
    getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, uname 63 160,
    truncate 76 45, ftruncate 77 46, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -,
    renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35,
    link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, readlink 89 -, readlinkat 267 78, chmod 90 -,
    fchmod 91 52, fchmodat 268 53, utimensat 280 88, umask 95 166, getrlimit 97 163, getrusage 98 165,
    sched_getaffinity 204 123, set_robust_list 273 99, rseq 334 293, restart_syscall 219 128, getrandom 318 278,
    getitimer 36 102, setitimer 38 103, alarm 37 -, wait4 61 260, waitid 247 95, exit 60 93,
    exit_group 231 94
"""
_WITHOUT_EFFECT = "flock 73 32, fsync 74 82, fdatasync 75 83"
_BY_ARGUMENT = """
    clone 56 220, ioctl 16 29, fcntl 72 25, madvise 28 233, futex 202 98, kill 62 129, tgkill 234 131,
    prlimit64 302 261, sendto 44 206, recvfrom 45 207
"""

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000
_ALL_BITS = 0xFFFFFFFF
_SIGKILL, _RLIMIT_CPU = 9, 0
_CLONE_THREAD = 0x00010000
_FUTEX_PRIVATE = 0x80
# Peek, do not wait, wait for all, no signal. Not urgent data (MSG_OOB), where kernels had holes: CVE-2025-38236.
_MSG_FLAGS = 0x2 | 0x40 | 0x100 | 0x4000
_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x541B, 0x5421, 0x5450, 0x5451
_DUPFD, _GETFD, _SETFD, _GETFL, _SETFL, _DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
_SETLK, _SETLKW, _OFD_SETLK, _OFD_SETLKW = 6, 7, 37, 38
# Normal, random, sequential, will need, do not need, free; huge pages or not; in core dumps or not.
_ADVICE = [0, 1, 2, 3, 4, 8, 14, 15, 16, 17]

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_ERRNO, _EPERM, _ENOSYS = 0x00050000, 1, 38
_NO_EFFECT, _REFUSE, _UNKNOWN = _ERRNO, _ERRNO | _EPERM, _ERRNO | _ENOSYS


def grading_filter(machine: str | None = None) -> bytes:
    """The filter as a BPF program for a machine as platform.machine() names it; OSError for an unknown one."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise OSError(f"no system call table for {machine}; x86_64 and aarch64 are supported")
    column, architecture = _MACHINES[machine]
    allowed = _numbers(_ALLOWED, column)
    answers = dict.fromkeys(allowed.values(), _ALLOW)
    answers |= dict.fromkeys(_numbers(_WITHOUT_EFFECT, column).values(), _NO_EFFECT)
    special = _numbers(_BY_ARGUMENT, column)
    return b"".join(
        [
            _instruction(_LOAD, 4),
            _instruction(_JUMP_EQUAL, architecture, 1, 0),
            _instruction(_RETURN, _KILL),
            _instruction(_LOAD, 0),
            _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
            _instruction(_RETURN, _KILL),
            _when(special["clone"], 0, _if_any_bit(_CLONE_THREAD, _ALLOW) + _otherwise(_REFUSE)),
            _when(
                special["ioctl"],
                1,
                _if_among([_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX], _ALLOW) + _otherwise(_REFUSE),
            ),
            _when(
                special["fcntl"],
                1,
                _if_among([_DUPFD, _GETFD, _SETFD, _GETFL, _SETFL, _DUPFD_CLOEXEC], _ALLOW)
                + _if_among([_SETLK, _SETLKW, _OFD_SETLK, _OFD_SETLKW], _NO_EFFECT)
                + _otherwise(_REFUSE),
            ),
            _when(special["madvise"], 2, _if_among(_ADVICE, _ALLOW) + _otherwise(_REFUSE)),
            _when(special["futex"], 1, _if_any_bit(_FUTEX_PRIVATE, _ALLOW) + _otherwise(_NO_EFFECT)),
            _when(special["kill"], 1, _if_among([_SIGKILL], _REFUSE) + _otherwise(_ALLOW)),
            _when(special["tgkill"], 2, _if_among([_SIGKILL], _REFUSE) + _otherwise(_ALLOW)),
            _when(special["prlimit64"], 1, _if_among([_RLIMIT_CPU], _REFUSE) + _otherwise(_ALLOW)),
            *(
                _when(special[name], 3, _if_any_bit(_ALL_BITS ^ _MSG_FLAGS, _REFUSE) + _otherwise(_ALLOW))
                for name in ("sendto", "recvfrom")
            ),
            _search(_ranges(answers)),
        ]
    )


def _numbers(table: str, column: int) -> dict[str, int]:
    """The numbers of the system calls that a machine has, by name."""
    rows = [entry.split() for entry in table.split(",")]
    return {row[0]: int(row[1 + column]) for row in rows if row[1 + column] != "-"}


def _ranges(answers: dict[int, int]) -> list[tuple[int, int]]:
    """(first number, answer) of the ranges of numbers with one answer; each ends where the next one begins."""
    ranges = [(0, answers.get(0, _UNKNOWN))]
    for number in range(1, max(answers) + 2):
        answer = answers.get(number, _UNKNOWN)
        if answer != ranges[-1][1]:
            ranges.append((number, answer))
    return ranges


def _search(ranges: Sequence[tuple[int, int]]) -> bytes:
    """Return the answer of the range that the loaded number is in."""
    if len(ranges) == 1:
        return _otherwise(ranges[0][1])
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return _instruction(_JUMP_AT_LEAST, ranges[middle][0], len(below) // 8, 0) + below + above


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _when(number: int, argument: int, body: bytes) -> bytes:
    """For call `number`, do `body` with the argument's low half loaded; others continue with the number loaded."""
    body = _instruction(_LOAD, 16 + 8 * argument) + body
    return _instruction(_JUMP_EQUAL, number, 0, len(body) // 8) + body


def _if_among(values: Sequence[int], answer: int) -> bytes:
    """Return `answer` if what is loaded is one of the values, else continue."""
    last = len(values) - 1
    tests = [_instruction(_JUMP_EQUAL, value, last - i, 0 if i < last else 1) for i, value in enumerate(values)]
    return b"".join(tests) + _otherwise(answer)


def _if_any_bit(bits: int, answer: int) -> bytes:
    """Return `answer` if what is loaded has one of the bits, else continue."""
    return _instruction(_JUMP_ANY_BIT, bits, 0, 1) + _otherwise(answer)


def _otherwise(answer: int) -> bytes:
    return _instruction(_RETURN, answer)
