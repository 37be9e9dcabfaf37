"""The system call filter: its table against the kernel's headers, its program against an interpreter of BPF."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from entrostat.grading import seccomp

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, NOT_IMPLEMENTED, NOT_PERMITTED = 0x7FFF0000, 0x80000000, 0x00050026, 0x00050001
SUCCESS_WITHOUT_EFFECT = 0x00050000


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter answers to a system call, by running its program."""
    data = struct.pack("=IIQ", number, ARCHITECTURES[machine] if architecture is None else architecture, 0)
    data += struct.pack("=6Q", *(arguments + (0,) * 6)[:6])
    program = list(struct.iter_unpack("=HBBI", seccomp.grading_filter(machine)))
    accumulator = position = 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            position += if_true if holds else if_false


def allowed_numbers(machine: str) -> set[int]:
    return {n for n in range(600) if verdict(machine, n) == ALLOW}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_table_agrees_with_the_kernel_headers(machine):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text()
    defined = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)}
    column = 1 if machine == "x86_64" else 2
    tables = (seccomp._ALLOWED, seccomp._WITHOUT_EFFECT, seccomp._BY_ARGUMENT)
    rows = [row.split() for table in tables for row in table.split(",")]
    assert len(rows) > 80
    for row in rows:
        if row[column] == "-":
            assert row[0] not in defined
        else:
            name = {"newfstatat": "fstatat", "fstat": "fstat"}.get(row[0], row[0]) if machine == "aarch64" else row[0]
            assert defined[name] == int(row[column]), row


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_another_architecture_and_the_x32_interface_are_killed(machine):
    assert verdict(machine, 0, architecture=0x40000003) == KILL
    assert verdict(machine, 0x40000000) == KILL
    assert verdict(machine, 0xFFFFFFFF) == KILL


@pytest.mark.parametrize(("machine", "clone", "fork_like"), [("x86_64", 56, (57, 58, 435)), ("aarch64", 220, (435,))])
def test_threads_may_start_and_processes_may_not(machine, clone, fork_like):
    assert verdict(machine, clone, 0x003D0F00) == ALLOW
    assert verdict(machine, clone, 17) == NOT_PERMITTED
    assert verdict(machine, clone, 0x10000000 | 17) == NOT_PERMITTED
    assert {verdict(machine, number) for number in fork_like} == {NOT_IMPLEMENTED}


@pytest.mark.parametrize(
    ("machine", "kill", "tgkill", "prlimit", "ioctl"), [("x86_64", 62, 234, 302, 16), ("aarch64", 129, 131, 261, 29)]
)
def test_arguments_decide_where_they_must(machine, kill, tgkill, prlimit, ioctl):
    assert [verdict(machine, kill, 1, number) for number in (9, 14)] == [NOT_PERMITTED, ALLOW]
    assert [verdict(machine, tgkill, 1, 1, number) for number in (9, 14)] == [NOT_PERMITTED, ALLOW]
    assert [verdict(machine, prlimit, 0, kind) for kind in (0, 3)] == [NOT_PERMITTED, ALLOW]
    answers = [verdict(machine, ioctl, 0, request) for request in (0x5401, 0x541B, 0x5421, 0x5450, 0x5451, 0x5412)]
    assert answers == [ALLOW] * 5 + [NOT_PERMITTED]


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_gets_the_answer_of_its_table(machine):
    """The search by halves says what the tables say, for each number that there is and some that are not."""
    column = list(ARCHITECTURES).index(machine)
    allowed, without_effect = (
        set(seccomp._numbers(table, column).values()) for table in (seccomp._ALLOWED, seccomp._WITHOUT_EFFECT)
    )
    by_argument = set(seccomp._numbers(seccomp._BY_ARGUMENT, column).values())
    for number in set(range(1000)) - by_argument:
        expected = (
            ALLOW if number in allowed else SUCCESS_WITHOUT_EFFECT if number in without_effect else NOT_IMPLEMENTED
        )
        assert verdict(machine, number) == expected, number


@pytest.mark.parametrize(("machine", "fcntl"), [("x86_64", 72), ("aarch64", 25)])
def test_a_descriptor_is_copied_and_its_flags_set_and_locks_do_nothing(machine, fcntl):
    answers = {command: verdict(machine, fcntl, 3, command) for command in [*range(64), *range(1020, 1050)]}
    assert {command for command, answer in answers.items() if answer == ALLOW} == {0, 1, 2, 3, 4, 1030}
    assert {command for command, answer in answers.items() if answer == SUCCESS_WITHOUT_EFFECT} == {6, 7, 37, 38}
    assert set(answers.values()) == {ALLOW, SUCCESS_WITHOUT_EFFECT, NOT_PERMITTED}


@pytest.mark.parametrize(("machine", "calls"), [("x86_64", (44, 45)), ("aarch64", (206, 207))])
def test_what_is_sent_and_received_has_no_flag_but_four(machine, calls):
    """Urgent data (MSG_OOB is 1), fast open and the like are parts of the kernel that nothing here needs."""
    for number in calls:
        allowed = {bit for bit in range(32) if verdict(machine, number, 3, 0, 1, 1 << bit) == ALLOW}
        assert allowed == {1, 6, 8, 14}
        assert verdict(machine, number, 3, 0, 1, 0x4042) == ALLOW
        assert verdict(machine, number, 3, 0, 1, 0x4043) == NOT_PERMITTED


@pytest.mark.parametrize(("machine", "futex"), [("x86_64", 202), ("aarch64", 98)])
def test_no_futex_reaches_another_process(machine, futex):
    for operation in range(14):
        assert verdict(machine, futex, 0x1000, operation) == SUCCESS_WITHOUT_EFFECT
        assert verdict(machine, futex, 0x1000, operation | 128) == ALLOW
        assert verdict(machine, futex, 0x1000, operation | 256) == SUCCESS_WITHOUT_EFFECT


@pytest.mark.parametrize(("machine", "madvise"), [("x86_64", 28), ("aarch64", 233)])
def test_memory_is_not_merged_with_others_nor_pages_pushed_out(machine, madvise):
    answers = {advice: verdict(machine, madvise, 0x1000, 4096, advice) for advice in (4, 8, 12, 20, 21, 100, 101)}
    assert {advice for advice, answer in answers.items() if answer == ALLOW} == {4, 8}


def test_everything_that_reaches_beyond_the_process_is_missing():
    forbidden = {
        "execve": (59, 221),
        "execveat": (322, 281),
        "socket": (41, 198),
        "connect": (42, 203),
        "bind": (49, 200),
        "sendmsg": (46, 211),
        "recvmsg": (47, 212),
        "ptrace": (101, 117),
        "process_vm_writev": (311, 271),
        "unshare": (272, 97),
        "setns": (308, 268),
        "mount": (165, 40),
        "chroot": (161, 51),
        "prctl": (157, 167),
        "seccomp": (317, 277),
        "bpf": (321, 280),
        "keyctl": (250, 219),
        "io_uring_setup": (425, 425),
        "userfaultfd": (323, 282),
        "memfd_create": (319, 279),
        "shmget": (29, 194),
        "mq_open": (240, 180),
        "setsid": (112, 157),
        "setuid": (105, 146),
        "perf_event_open": (298, 241),
        "open_by_handle_at": (304, 265),
        "pidfd_getfd": (438, 438),
        "sched_setaffinity": (203, 122),
        "pipe2": (293, 59),
        "socketpair": (53, 199),
        "getsockopt": (55, 209),
        "epoll_create1": (291, 20),
        "eventfd2": (290, 19),
        "inotify_init1": (294, 26),
        "timer_create": (222, 107),
        "rt_sigqueueinfo": (129, 138),
        "mincore": (27, 232),
        "fadvise64": (221, 223),
        "sysinfo": (99, 179),
        "fstatfs": (138, 44),
        "membarrier": (324, 283),
        "sync": (162, 81),
        "memfd_secret": (447, 447),
        "cachestat": (451, 451),
        "kcmp": (312, 272),
    }
    for column, machine in enumerate(ARCHITECTURES):
        assert not {numbers[column] for numbers in forbidden.values()} & allowed_numbers(machine)


def test_an_unknown_machine_is_named():
    with pytest.raises(OSError, match="riscv64"):
        seccomp.grading_filter("riscv64")
