"""What one grading does, no other one sees: not the next of its worker, not one of another worker or trainer."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import threading

import pytest

from entrostat.grading import CodeGrader
from entrostat.tasks import Call, Task

PROBE = Task("probe", "", "solve", (Call((), None),))

# All that a grading can read of its surroundings, as plain data. Times of use and numbers that the kernel gives to
# objects made before the code came are left out: no grading can move them.
SNAPSHOT = """
import ctypes, fcntl, os, random, resource, signal, sys, threading, time

def attempt(function, *arguments):
    try: return repr(function(*arguments))
    except BaseException as error: return repr(error)

def snapshot():
    seen = {}
    for fd in range(64):
        seen["flags", fd] = attempt(fcntl.fcntl, fd, fcntl.F_GETFL)
        for command in (fcntl.F_GETOWN, 11, 1032, 1025, 1035, 1037):
            seen["fcntl", fd, command] = attempt(fcntl.fcntl, fd, command)
        seen["lock", fd] = attempt(fcntl.fcntl, fd, 36, bytes(32))
        seen["place", fd] = attempt(os.lseek, fd, 0, os.SEEK_CUR)
        seen["stat", fd] = attempt(lambda: (lambda s: (s.st_mode, s.st_uid, s.st_nlink, s.st_size))(os.fstat(fd)))
    for path in ("/dev/null", "/dev/urandom", os.__file__, "/"):
        seen["times", path] = attempt(lambda: (lambda s: (s.st_mtime, s.st_ctime, s.st_mode))(os.stat(path)))
    for kind in range(16):
        seen["limit", kind] = attempt(resource.getrlimit, kind)
    for number in range(1, 65):
        seen["signal", number] = attempt(signal.getsignal, number)
    seen["blocked"] = attempt(signal.pthread_sigmask, signal.SIG_BLOCK, [])
    seen["pending"] = attempt(signal.sigpending)
    seen["timers"] = [attempt(signal.getitimer, which) for which in range(3)]
    seen["files"] = {folder: attempt(lambda: sorted(os.listdir(folder))) for folder in ("/", "/dev", "/etc", "/tmp")}
    seen["umask"] = attempt(os.umask, 0o22)
    for name in ("getpid", "getppid", "getpgrp", "getcwd", "getuid", "getgid"):
        seen[name] = attempt(getattr(os, name))
    seen["session"] = attempt(os.getsid, 0)
    seen["affinity"] = attempt(os.sched_getaffinity, 0)
    seen["environment"] = attempt(dict, os.environ)
    seen["random"] = random.random()
    seen["threads"] = threading.active_count()
    seen["modules"] = sorted(sys.modules)
    machine = ctypes.create_string_buffer(128)
    seen["machine"] = [ctypes.CDLL(None).sysinfo(machine), machine.raw.hex()]
    seen["disk"] = attempt(os.statvfs, "/")
    return sorted(map(repr, seen.items()))

def solve(): return snapshot()
"""

# Each tries to leave something: on what it was given, on what the machine shares, and in numbers that only grow.
LEAVINGS = {
    "flags and places of the descriptors": """
for fd in range(64):
    for flags in (os.O_NONBLOCK, os.O_APPEND, 0o1000000, 0o20000, os.O_NONBLOCK | os.O_APPEND):
        attempt(fcntl.fcntl, fd, fcntl.F_SETFL, flags)
    attempt(os.lseek, fd, 7, os.SEEK_SET); attempt(os.ftruncate, fd, 9)
""",
    "owners, signals, leases, sizes and hints of the descriptors": """
for fd in range(64):
    for command in (8, 10, 15, 1024, 1026, 1031, 1033, 1034, 1036, 1038):
        for value in (1, 9, -1, 1 << 20): attempt(fcntl.fcntl, fd, command, value)
        attempt(fcntl.fcntl, fd, command, struct.pack("q", 5))
""",
    "locks of every kind": """
files = [os.open(path, os.O_RDONLY) for path in ("/dev/null", "/dev/urandom", os.__file__, "/")]
for fd in [*range(64), *files]:
    attempt(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for command in (6, 37):
        for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK):
            attempt(fcntl.fcntl, fd, command, struct.pack("hhqqi", kind, 0, 7, 1, 0))
""",
    "times, modes and owners of what is shared": """
for target in (*range(64), "/dev/null", "/dev/urandom", os.__file__, "/"):
    attempt(os.utime, target); attempt(os.utime, target, (1, 1)); attempt(os.chmod, target, 0o777)
    attempt(os.chown, target, 1, 1)
""",
    "files wherever they can be": """
for folder in ("/", "/dev", "/etc", "/tmp", "/dev/shm", os.path.dirname(os.__file__)):
    attempt(lambda: open(folder + "/left", "w").write("x")); attempt(os.mkdir, folder + "/left too")
""",
    "handlers, masks, timers and pending signals": """
for number in range(1, 65): attempt(signal.signal, number, signal.SIG_IGN)
attempt(signal.pthread_sigmask, signal.SIG_BLOCK, range(1, 65))
for number in range(34, 65):
    for _ in range(1000): attempt(os.kill, 1, number)
for number in (1, 2, 15, 40): attempt(os.kill, 0, number); attempt(os.kill, -1, number)
for which in range(3): attempt(signal.setitimer, which, 50)
""",
    "limits, places, masks and priorities": """
for kind in range(16): attempt(resource.setrlimit, kind, (0, 0) if kind not in (2, 9) else (1 << 28, 1 << 28))
attempt(os.umask, 0o777); attempt(os.chdir, "/dev"); attempt(os.nice, 5); attempt(os.setsid); attempt(os.setpgid, 0, 0)
""",
    "modules, builtins and the state of random": """
import builtins, string
builtins.left = string.left = sys.left = 1; sys.modules["left"] = sys; random.seed(5); os.environ["LEFT"] = "1"
""",
    "threads and memory": """
for _ in range(40): attempt(threading.Thread(target=time.sleep, args=(9,), daemon=True).start)
ballast = bytearray(b"x" * (100 << 20))
""",
    "messages to the fork server": """
libc = ctypes.CDLL(None)
for fd in range(64): attempt(os.write, fd, b'{"start": 1}\\n' * 9)
attempt(os.close, 0); attempt(os.dup2, 4, 0)
""",
}


def seen(grader: CodeGrader, code: str) -> str:
    return grader.grade([(PROBE, code)])[0].detail


@pytest.fixture(scope="module")
def one_worker():
    with CodeGrader(workers=1, timeout=5.0, memory=512 << 20) as grader:
        yield grader


def snapshot_after(grader: CodeGrader, leaving: str) -> str:
    """The hash of what a grading sees after another one that leaves something."""
    left = f"{SNAPSHOT}\nimport struct\n{leaving}\ndef solve(): return 'left'"
    assert grader.grade([(PROBE, left)])[0].reward == 0.0
    hashed = "import hashlib\ndef solve(): return hashlib.sha256(repr(snapshot()).encode()).hexdigest()"
    snapshot = seen(grader, f"{SNAPSHOT}\n{hashed}")
    assert re.search("answered .[0-9a-f]{64}", snapshot)
    return snapshot


@pytest.fixture(scope="module")
def untouched(one_worker):
    return snapshot_after(one_worker, "")


@pytest.mark.parametrize("leaving", LEAVINGS)
def test_the_next_grading_sees_what_it_would_have_seen(one_worker, untouched, leaving):
    assert snapshot_after(one_worker, LEAVINGS[leaving]) == untouched


def test_a_grading_holds_no_lock_that_the_machine_can_see():
    """On the standard library's files, the null device and what it was given: they are the machine's."""
    hold = """
import fcntl, os, struct, time
files = [0, 1, 2] + [os.open(path, os.O_RDONLY) for path in ("/dev/null", os.__file__)]
def solve():
    for fd in files:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for command, kind in ((6, fcntl.F_RDLCK), (37, fcntl.F_RDLCK), (6, fcntl.F_WRLCK), (37, fcntl.F_WRLCK)):
            fcntl.fcntl(fd, command, struct.pack("hhqqi", kind, 0, 0, 0, 0))
    time.sleep(1)
"""
    with CodeGrader(workers=1) as grader:
        held = threading.Thread(target=lambda: verdicts.extend(grader.grade([(PROBE, hold)])))
        verdicts: list = []
        held.start()
        for _ in range(20):
            for path in (os.devnull, os.__file__):
                with open(path, "r+" if path == os.devnull else "r") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    asked = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
                    kind = struct.unpack("hhqqi", fcntl.fcntl(file, 36, asked))[0]
                    assert kind == fcntl.F_UNLCK
            held.join(0.05)
        held.join()
    assert verdicts[0].passed


def test_the_time_of_the_null_device_stays(one_worker):
    before = os.stat(os.devnull).st_mtime_ns
    seen(
        one_worker, "import os\nfor fd in range(3):\n    try: os.utime(fd)\n    except OSError: pass\ndef solve(): pass"
    )
    assert os.stat(os.devnull).st_mtime_ns == before


def test_gradings_at_once_cannot_wake_one_another():
    """A futex on a page of a shared library would be one for all processes of the machine."""
    wait = """
import ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
address = ctypes.cast(libc.getpid, ctypes.c_void_p).value & ~3
word = ctypes.c_int.from_address(address).value
def solve():
    begun, woken = time.monotonic(), 0
    while time.monotonic() < begun + 1:
        pause = (ctypes.c_long * 2)(0, 20_000_000)
        {do}
    return woken
"""
    waits = wait.format(do="libc.syscall(NUMBER, ctypes.c_long(address), 0, word, pause, None, 0)")
    wakes = wait.format(do="woken += libc.syscall(NUMBER, ctypes.c_long(address), 1, 99, None, None, 0)")
    number = {"x86_64": "202", "aarch64": "98"}[os.uname().machine]
    counts = Task("count", "", "solve", (Call((), 0),))
    with CodeGrader(workers=2, timeout=5.0) as grader:
        verdicts = grader.grade([(counts, code.replace("NUMBER", number)) for code in (waits, wakes)])
    assert [v.outcome for v in verdicts] == ["passed", "passed"], verdicts


def test_no_system_call_counts_on_where_another_grading_stopped(one_worker):
    """Pipes and sockets are numbered by a counter of the machine, which one grading could move and another read."""
    numbers = """
import os, socket
def solve():
    made = []
    for make in (os.pipe, lambda: os.memfd_create("x"), lambda: os.eventfd(0), lambda: socket.socket()):
        try: made.append(repr(make()))
        except (OSError, AttributeError): pass
    pairs = [end for _ in range(9) for end in socket.socketpair()]
    return [made, len({os.fstat(end.fileno()).st_ino for end in pairs})]
"""
    assert seen(one_worker, numbers).endswith("answered [[],4]")


def test_an_event_loop_runs_on_the_socket_pairs_that_are_lent():
    code = """
import asyncio, threading
async def late(x):
    await asyncio.sleep(0.001)
    return await asyncio.to_thread(lambda: x + 1)
def solve(x):
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    other = asyncio.run_coroutine_threadsafe(late(x), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    return [other, *(asyncio.run(late(i)) for i in range(9))]
"""
    task = Task("loop", "", "solve", (Call((1,), [2, *range(1, 10)]), Call((4,), [5, *range(1, 10)])))
    with CodeGrader(workers=1) as grader:
        assert grader.grade([(task, code)])[0].passed


def test_files_of_its_own_can_be_locked_and_written_to_disk():
    code = """
import fcntl, os, sqlite3, tempfile
def solve():
    with tempfile.NamedTemporaryFile("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        os.fsync(file.fileno())
    base = sqlite3.connect("/tmp/base")
    base.execute("create table t (x)")
    base.execute("insert into t values (4)")
    base.commit()
    return [x for x, in sqlite3.connect("/tmp/base").execute("select x from t")]
"""
    with CodeGrader(workers=1) as grader:
        assert grader.grade([(Task("own", "", "solve", (Call((), [4]),)), code)])[0].passed
