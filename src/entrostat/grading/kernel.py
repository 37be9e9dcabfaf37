"""The Linux system calls of the sandbox that Python's standard library does not wrap.

Every function raises OSError with the call's errno. Needs Linux 5.12 or later on x86-64 or aarch64.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_MS_NOSUID, _MS_NODEV = 2, 4
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 1, 2
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK_CREATE_RULESET, _SYS_LANDLOCK_ADD_RULE, _SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
# Calls into this one keep Python's lock, which the child of a fork would otherwise have to take in a copied state.
_python = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def fork() -> int:
    """Fork this process, which must have no other threads; 0 in the child, as os.fork.

    Python's own handlers are left out. They renew the locks of `threading`, which nobody holds in a process without
    other threads, and seed `random`, which a grading does itself; they take as long as a tenth of a grading.
    """
    return _check(_python.fork(), "fork")


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* flags for new ones."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def join_namespace(descriptor: int, kind: int) -> None:
    """Enter the namespace that a descriptor of /proc/PID/ns stands for."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def make_mounts_private() -> None:
    """Keep this mount namespace's changes out of the one that it was copied from."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)


def mount_tmpfs(target: str, size: int, files: int) -> None:
    """A memory file system of at most `size` bytes and `files` inodes."""
    options = f"size={size},nr_inodes={files},mode=0700"
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, options)


def bind(source: str, target: str) -> None:
    """Show the file or folder `source`, and all that is mounted below it, at `target` too."""
    _mount(source, target, None, _MS_BIND | _MS_REC, None)


def make_read_only(target: str) -> None:
    """Make the mount at `target` and every mount below it read-only, without set-user-id programs."""
    attributes = struct.pack("=4Q", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    _syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))


def change_root(target: str) -> None:
    """Make the mount at `target` the root and take the old root out of sight."""
    os.chdir(target)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", ctypes.c_int(_MNT_DETACH)), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def forbid_new_privileges() -> None:
    """Nothing that this process executes can gain privileges; cannot be undone."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def allow_own_proc_files() -> None:
    """After a change of user, let the process write its own files in /proc again."""
    _prctl(_PR_SET_DUMPABLE, 1)


def forbid_core_dumps() -> None:
    """No core dump of this process, not even for a crash handler that the machine pipes them to."""
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(signal: int) -> None:
    """Receive `signal` when the parent process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def filter_system_calls(program: bytes) -> None:
    """Install a seccomp filter: a classic BPF program, 8 bytes an instruction."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    header_buffer = ctypes.create_string_buffer(header, len(header))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header_buffer))


def landlock_version() -> int:
    """The kernel's Landlock version; OSError where there is none."""
    return _syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, 1)


def landlock_ruleset(attributes: bytes) -> int:
    """A descriptor of a new rule set (struct landlock_ruleset_attr)."""
    return _syscall(_SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)


def landlock_allow(ruleset: int, path: str, access: int) -> None:
    """Allow `access` to the file hierarchy below `path`."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def landlock_restrict(ruleset: int) -> None:
    """Bind this process to the rule set."""
    _syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _check(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount on {target}")


def _prctl(option: int, value: int, pointer: int = 0) -> None:
    arguments = [ctypes.c_ulong(word) for word in (value, pointer, 0, 0)]
    _check(_libc.prctl(ctypes.c_int(option), *arguments), f"prctl {option}")


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words), f"system call {number}")


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result
