"""The seccomp filter of a grading: a short list of system calls is allowed, all others answer "not implemented".

What a single interpreter needs is on the list: memory, files, time, threads, signals to itself, and talking over
descriptors that it already holds. Not on it: new processes and programs (so a grading is one process, and the limits
of one process are the limits of the grading), sockets to anywhere, shared memory and message queues, mounts and
namespaces, tracing, keys, io_uring, and any way to raise privileges. A grading can neither kill itself with SIGKILL
(directly or by asking for it as a file's signal) nor lower its own CPU limit, so that a SIGKILL which the limits do
not explain came from outside and is the machine's fault.

The filter is classic BPF over struct seccomp_data (number at byte 0, architecture at 4, arguments from 16, 8 bytes
each), as seccomp(2) describes it. A system call of another architecture or of the x32 interface kills the process.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence

# name, number on x86-64, number on aarch64
_ALLOWED = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, open 2 -, openat 257 56,
    close 3 57, close_range 436 436, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, lseek 8 62,
    mmap 9 222, mprotect 10 226, munmap 11 215, brk 12 214, mremap 25 216, madvise 28 233, rt_sigaction 13 134,
    rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132,
    access 21 -, faccessat 269 48, faccessat2 439 439, pipe 22 -, pipe2 293 59, select 23 -, pselect6 270 72, poll 7 -,
    ppoll 271 73, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19,
    sched_yield 24 124, dup 32 23, dup2 33 -, dup3 292 24, pause 34 -, nanosleep 35 101, clock_nanosleep 230 115,
    clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153, getpid 39 172,
    gettid 186 178, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getuid 102 174, geteuid 107 175,
    getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, uname 63 160,
    flock 73 32, fsync 74 82, fdatasync 75 83, truncate 76 45, ftruncate 77 46, getdents64 217 61,
    getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -,
    mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36,
    readlink 89 -, readlinkat 267 78, chmod 90 -, fchmod 91 52, fchmodat 268 53, utimensat 280 88, umask 95 166,
    statfs 137 43, fstatfs 138 44, getrlimit 97 163, getrusage 98 165, sysinfo 99 179, futex 202 98,
    sched_getaffinity 204 123, set_tid_address 218 96, set_robust_list 273 99, rseq 334 293, restart_syscall 219 128,
    membarrier 324 283, getrandom 318 278, getcpu 309 168, getitimer 36 102, setitimer 38 103, alarm 37 -,
    wait4 61 260, waitid 247 95, socketpair 53 199, sendto 44 206, recvfrom 45 207, shutdown 48 210, getsockopt 55 209,
    getsockname 51 204, getpeername 52 205, exit 60 93, exit_group 231 94
"""

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000
_SIGKILL, _RLIMIT_CPU, _F_SETSIG = 9, 0, 10
_CLONE_THREAD = 0x00010000
_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x541B, 0x5421, 0x5450, 0x5451

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_ERRNO, _EPERM, _ENOSYS = 0x00050000, 1, 38


def grading_filter(machine: str | None = None) -> bytes:
    """The filter as a BPF program for a machine as platform.machine() names it; OSError for an unknown one."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise OSError(f"no system call table for {machine}; x86_64 and aarch64 are supported")
    column, architecture = _MACHINES[machine]
    rows = [entry.split() for entry in _ALLOWED.split(",")]
    numbers = sorted(int(row[1 + column]) for row in rows if row[1 + column] != "-")
    clone, ioctl, fcntl, kill = ((56, 220), (16, 29), (72, 25), (62, 129))
    tgkill, prlimit = ((234, 131), (302, 261))
    return b"".join(
        [
            _instruction(_LOAD, 4),
            _instruction(_JUMP_EQUAL, architecture, 1, 0),
            _instruction(_RETURN, _KILL),
            _instruction(_LOAD, 0),
            _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
            _instruction(_RETURN, _KILL),
            *(_allow(number) for number in numbers),
            _when(clone[column], 0, [_instruction(_JUMP_ANY_BIT, _CLONE_THREAD, 0, 1)]),
            _when(ioctl[column], 1, _equals_any([_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX])),
            _when(fcntl[column], 1, _differs_from(_F_SETSIG)),
            _when(kill[column], 1, _differs_from(_SIGKILL)),
            _when(tgkill[column], 2, _differs_from(_SIGKILL)),
            _when(prlimit[column], 1, _differs_from(_RLIMIT_CPU)),
            _instruction(_RETURN, _ERRNO | _ENOSYS),
        ]
    )


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _allow(number: int) -> bytes:
    return _instruction(_JUMP_EQUAL, number, 0, 1) + _instruction(_RETURN, _ALLOW)


def _when(number: int, argument: int, test: Sequence[bytes]) -> bytes:
    """For call `number`: allowed if `test` over the argument's low half falls through, refused if it jumps over one."""
    body = [
        _instruction(_LOAD, 16 + 8 * argument),
        *test,
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ERRNO | _EPERM),
    ]
    return _instruction(_JUMP_EQUAL, number, 0, len(body)) + b"".join(body)


def _equals_any(values: Sequence[int]) -> list[bytes]:
    last = len(values) - 1
    return [_instruction(_JUMP_EQUAL, value, last - i, 0 if i < last else 1) for i, value in enumerate(values)]


def _differs_from(value: int) -> list[bytes]:
    return [_instruction(_JUMP_EQUAL, value, 1, 0)]
