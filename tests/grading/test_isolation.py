"""What the sandbox shows and allows, seen from inside, and what the grader says where a layer is missing."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from entrostat.grading import CodeGrader, kernel
from entrostat.tasks import Call, Task

RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n"


def test_the_code_is_the_only_process_of_an_unprivileged_user(inside):
    assert inside("return [os.getpid(), os.getppid(), os.getuid(), os.getgid()]") == "[1,0,65534,65534]"


def test_the_code_has_a_process_group_of_its_own_in_a_session_that_it_cannot_name(inside):
    assert inside("return [os.getpgrp(), os.getsid(0)]") == "[1,0]"


def test_the_environment_is_empty_and_says_nothing_of_the_machine(inside):
    seen = inside("return [dict(os.environ), sys.argv, os.getcwd(), socket.gethostname(), os.listdir()]")
    assert seen == '[{"dict":[]},["solution.py"],"/tmp","sandbox",[]]'


def test_only_the_null_device_two_socket_pairs_and_the_channel_to_the_grader_are_open(inside):
    assert inside("return sum(ctypes.CDLL(None).fcntl(fd, 1) >= 0 for fd in range(1024))") == "8"
    assert (
        inside("return [os.fstat(fd).st_rdev == os.stat('/dev/null').st_rdev for fd in range(3)]") == "[true,true,true]"
    )


def test_the_root_holds_nothing_but_the_interpreter(inside):
    hidden = ["/proc", "/sys", "/home", "/var", "/dev/shm", "/etc/passwd", "/usr/bin"]
    assert inside(f"return [path for path in {hidden} if os.path.exists(path)]") == "[]"
    shown = '["ld.so.cache","null","stdin","stdout","urandom"]'
    assert inside("return sorted(os.listdir('/dev') + os.listdir('/etc'))") == shown
    assert (
        inside("return [os.readlink('/dev/' + name) for name in ('stdin', 'stdout')]")
        == '["/tmp/.stdin","/tmp/.stdout"]'
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import torch",
        "import entrostat.tasks",
        "os.listdir(os.path.dirname(os.__file__) + '/site-packages')[0]",
        "os.fork()",
        "os.execv(sys.executable, [sys.executable])",
        "subprocess.run([sys.executable])",
        "socket.socket()",
        "os.setsid()",
        "os.setuid(0)",
        "os.chroot('/')",
        "os.memfd_create('x')",
        "os.kill(os.getpid(), 9)",
        "os.sched_setaffinity(0, [0])",
        "os.setpriority(0, 0, 5)",
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
        "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "__import__('multiprocessing').Value('i')",
        "open(os.__file__, 'a')",
        "open('/x', 'w')",
        "os.mkdir('/dev/shm')",
        "os.mknod('/tmp/x', 0o20666, os.makedev(1, 1))",
    ],
)
def test_what_a_function_never_needs_is_refused(inside, statement):
    answer = inside(
        f"try:\n    {statement}\nexcept (OSError, ImportError, ValueError, IndexError):\n    return 'refused'"
    )
    assert answer == '"refused"'


@pytest.mark.parametrize(
    "call", ["ptrace", "unshare", "mount", "keyctl", "io_uring_setup", "bpf", "shmget", "process_vm_readv"]
)
def test_dangerous_system_calls_are_not_there(inside, call):
    x86_64 = {
        "ptrace": 101,
        "unshare": 272,
        "mount": 165,
        "keyctl": 250,
        "io_uring_setup": 425,
        "bpf": 321,
        "shmget": 29,
    }
    aarch64 = {
        "ptrace": 117,
        "unshare": 97,
        "mount": 40,
        "keyctl": 219,
        "io_uring_setup": 425,
        "bpf": 280,
        "shmget": 194,
    }
    x86_64["process_vm_readv"], aarch64["process_vm_readv"] = 310, 270
    number = (x86_64 if platform.machine() == "x86_64" else aarch64)[call]
    libc = "libc = ctypes.CDLL(None, use_errno=True)\n"
    assert inside(libc + f"return [libc.syscall({number}, 0, 0, 0, 0, 0), ctypes.get_errno()]") == "[-1,38]"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the x32 interface exists on x86-64 only")
def test_the_x32_interface_kills(inside):
    assert inside("return ctypes.CDLL(None).syscall(0x40000000 + 39)") == "the code ended its interpreter by signal 31"


def test_files_in_tmp_are_limited_in_size_and_number(judge):
    flood = """
def solve(numbers):
    written = 0
    try:
        for i in range(10_000):
            with open(f"/tmp/{i}", "wb") as file:
                written += file.write(b"x" * 1_000_000)
    except OSError:
        return [written < 20_000_000, i < 300]
"""
    assert judge(flood).detail == "test 1 of 5: answered [true,true]"
    many = flood.replace('b"x" * 1_000_000', 'b""')
    assert judge(many).detail == "test 1 of 5: answered [true,true]"


def test_nothing_stays_for_the_next_grading(grader, task):
    leave = """
import os, sys, builtins
def solve(numbers):
    try:
        with open("/tmp/left", "x") as file: file.write("x")
    except FileExistsError:
        return [2 * n for n in numbers if n % 2 == 0]
    builtins.left = 1
    sys.modules["left"] = sys
    return None
"""
    assert not any(v.passed for v in grader.grade([(task, leave)] * 6))


def as_a_plain_user() -> None:
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    kernel.drop_capabilities()


def without_unshare() -> None:
    number = {"x86_64": 272, "aarch64": 97}[platform.machine()]
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    kernel.forbid_new_privileges()
    kernel.filter_system_calls(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))


@pytest.fixture
def run_under(package_alone) -> Callable[[Callable[[], None], str], str]:
    """What grading a few codes prints in a process under a restriction, which a fresh interpreter puts on: this one may
    have loaded a library that starts threads in its forks, and the kernel gives no user namespace to threads.
    """

    def run(restriction: Callable[[], None], isolation: str) -> str:
        grade = [sys.executable, "-c", f"{package_alone}ISOLATION = {isolation!r}\n{GRADE}"]
        here = Path(__file__)
        restrict = f"import os, sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as tests; "
        restrict += f"tests.{restriction.__name__}(); os.execv({grade[0]!r}, {grade!r})"
        command = [sys.executable, "-c", restrict]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    return run


GRADE = """
import os
from entrostat.grading import CodeGrader
from entrostat.tasks import Call, Task
task = Task(id="t", prompt="", entry_point="solve", tests=(Call((1,), 2),))
codes = ["def solve(x): return x + 1", "def solve(x): return x", "import os; os._exit(0)\\ndef solve(x): pass"]
codes += ["def solve(x):\\n    open('left', 'x')\\n    return x + 1"] * 2
with CodeGrader(workers=1, isolation=ISOLATION, timeout=2) as grader:
    print([str(verdict.outcome) for verdict in grader.grade([(task, code) for code in codes])])
"""
OUTCOMES = "['passed', 'wrong', 'runtime error', 'passed', 'passed']"


def test_a_plain_user_grades_in_full_isolation(run_under):
    assert OUTCOMES in run_under(as_a_plain_user, "full")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="needs a system call table")
def test_a_missing_layer_is_refused_with_its_name_and_the_remedy(run_under):
    said = run_under(without_unshare, "full")
    assert "IsolationError" in said
    for part in (
        "user namespace (Operation not permitted)",
        "Remedy: allow unprivileged user namespaces",
        "best-effort",
    ):
        assert part in said


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="needs a system call table")
def test_best_effort_says_once_what_is_missing_and_grades(run_under):
    said = run_under(without_unshare, "best-effort")
    assert OUTCOMES in said
    assert said.count("UserWarning") == 1
    assert "pid namespace" in said


def test_a_named_package_is_there_wherever_it_lies_and_its_neighbours_are_not(tmp_path, monkeypatch):
    for name, source in (("wanted", "from wanted import part\n"), ("neighbour", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
    (tmp_path / "wanted" / "part.py").write_text("answer = 42\n")
    (tmp_path / "wanted" / "later.py").write_text("answer = 43\n")
    monkeypatch.syspath_prepend(tmp_path)
    task = Task(id="t", prompt="", entry_point="solve", tests=(Call((), [42, 43, True]),))
    code = """
import wanted, wanted.later, tempfile
def solve():
    try:
        import neighbour
    except ImportError:
        return [wanted.part.answer, wanted.later.answer, bool(tempfile.mkdtemp())]
"""
    with CodeGrader(workers=1, packages=["wanted"]) as grader:
        verdict = grader.grade([(task, code)])[0]
    assert verdict.passed, verdict


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(ValueError, match="packages names 'nothing_of_this_name'"):
        CodeGrader(packages=["nothing_of_this_name"])
