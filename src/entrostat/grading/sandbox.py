"""The isolation of a grading: what the fork server does to itself once, and each grading before it reads any code.

Once: a read-only root that holds nothing but Python's standard library and the shared libraries; user, process, mount,
message, network and host-name namespaces. As root, the fork server becomes user 65534 first.
Each grading: user, process and mount namespaces again (without the filter also message and network), a process group
and descriptors 0 to 2 of its own, an empty /tmp with a size limit, Landlock where the kernel has it, resource limits,
no core dumps, no capabilities, no new privileges, a seccomp filter.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import math
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from entrostat.grading import kernel
from entrostat.grading.interpreter import STREAM_FILE
from entrostat.grading.seccomp import grading_filter

NOBODY = 65534
_TMPS = ("/tmp", "/var/tmp", "/usr/tmp")
_DEVICES = ("/dev/null", "/dev/urandom")
_TIME_ZONES = "/usr/share/zoneinfo"
# Folders of third-party packages: they could contain the answers of public task sets.
_HIDDEN = ("*-packages", "*/*-packages")
# With less, an interpreter cannot run code at all.
_LEAST_DISK, _LEAST_DESCRIPTORS, _LEAST_THREADS = 1 << 20, 32, 2
_STACK = 8 << 20
_PENDING_SIGNALS = 64
# When the machine runs out of memory, the kernel is to take a grading, not the trainer or the fork server.
_FIRST_TO_GO = "1000"

# Access rights of Landlock (linux/landlock.h); its version 1 knows 13 of files, and so on.
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_FILE_RIGHTS = (13, 14, 15, 15, 16)
_NETWORK_RIGHTS, _SCOPES = 0b11, 0b11

# What each layer is for, and what to do about a kernel or container that refuses it.
_ALLOW_NAMESPACES = (
    "allow unprivileged user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or "
    "kernel.apparmor_restrict_unprivileged_userns; in a container, a seccomp profile that permits unshare and mount)"
)
REMEDIES = {
    "mount namespace": _ALLOW_NAMESPACES,
    "user namespace": _ALLOW_NAMESPACES,
    "pid namespace": _ALLOW_NAMESPACES,
    "ipc namespace": _ALLOW_NAMESPACES,
    "net namespace": _ALLOW_NAMESPACES,
    "uts namespace": _ALLOW_NAMESPACES,
    "unprivileged user": "install Python where user 65534 can read it, or do not run as root",
    "seccomp": "use a kernel built with CONFIG_SECCOMP_FILTER on x86-64 or aarch64",
}
_NAMESPACES = {
    "mount namespace": kernel.CLONE_NEWNS,
    "pid namespace": kernel.CLONE_NEWPID,
    "ipc namespace": kernel.CLONE_NEWIPC,
    "net namespace": kernel.CLONE_NEWNET,
    "uts namespace": kernel.CLONE_NEWUTS,
}


_SEALED_BY_NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET


@dataclass(frozen=True, slots=True)
class Limits:
    """What one grading may use: seconds of wall time, bytes of address space, of one answer, of files in /tmp."""

    timeout: float
    memory: int
    output: int
    disk: int = 16 << 20
    files: int = 256
    descriptors: int = 64
    threads: int = 32

    @property
    def cpu_seconds(self) -> int:
        """CPU time after which the kernel kills the grading, if the kill by wall time fails."""
        return math.ceil(self.timeout) + 1

    def within_hard_limits(self, workers: int) -> Limits:
        """These limits under the hard limits of this process, for `workers` gradings at once.

        What no setting names is made smaller where it must be: files, descriptors, threads. ValueError names a hard
        limit that leaves too little, or less than the settings ask for.
        """
        limits = replace(
            self,
            disk=min(self.disk, _hard_limit(resource.RLIMIT_FSIZE)),
            descriptors=min(self.descriptors, _hard_limit(resource.RLIMIT_NOFILE)),
            # The user's processes and threads, the trainer's among them, count together: code may take a quarter.
            threads=min(self.threads, _hard_limit(resource.RLIMIT_NPROC) // (4 * workers)),
        )
        needs = (
            ("RLIMIT_FSIZE", "-f", limits.disk, _LEAST_DISK, "bytes of file size are needed"),
            ("RLIMIT_NOFILE", "-n", limits.descriptors, _LEAST_DESCRIPTORS, "open files are needed"),
            ("RLIMIT_NPROC", "-u", limits.threads, _LEAST_THREADS, f"threads for each of {workers} workers are needed"),
            ("RLIMIT_CPU", "-t", _hard_limit(resource.RLIMIT_CPU), self.cpu_seconds, f"s for timeout {self.timeout:g}"),
            ("RLIMIT_AS", "-v", _hard_limit(resource.RLIMIT_AS), self.memory, "bytes, which is `memory`"),
            ("RLIMIT_DATA", "-d", _hard_limit(resource.RLIMIT_DATA), self.memory, "bytes, which is `memory`"),
        )
        for name, option, allowed, least, what in needs:
            if allowed < least:
                raise ValueError(
                    f"the hard limit {name} (ulimit {option}) leaves {allowed} to a grading; allowed: at least {least} "
                    f"{what}; raise the limit of this job, or ask the grader for less"
                )
        return limits


class Sandbox:
    """The fork server's side of isolation.

    library: folders of the standard library. packages: folders and files of third-party packages. `missing` names the
    layers that this machine refuses, with the kernel's reason.
    """

    def __init__(self, limits: Limits, library: Sequence[str], packages: Sequence[str]) -> None:
        self.limits = limits
        # In a container's user namespace, root may be the only user that there is.
        self._as_root = os.geteuid() == 0 and not _refusal(_become_nobody)
        self.missing = _missing_layers(self._as_root)
        self._namespaces = sum(flag for name, flag in _NAMESPACES.items() if name not in self.missing)
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self._pid_namespace: int | None = None
        self._kept_from = limits.descriptors
        self._filter = b"" if "seccomp" in self.missing else grading_filter()
        # With the filter no grading can make a socket or anything to share, so the worker's empty network and message
        # namespaces serve them all; a new network costs as much as a quarter of a grading.
        self._fresh = kernel.CLONE_NEWNS if self._filter else _SEALED_BY_NAMESPACES
        self._own_root = "mount namespace" not in self.missing
        self._interpreter = [*_interpreter_paths(library), *packages]
        # An empty /tmp would hide an interpreter or a package that is installed below it.
        self._tmp = next(tmp for tmp in _TMPS if not any(path.startswith(tmp + "/") for path in self._interpreter))

    def enter(self) -> None:
        """Isolate the fork server, which continues as a child of this process; this one waits for it and exits."""
        if self._own_root:
            self._build_root()
        if self._as_root and (reason := _refusal(_list_standard_library)):
            self.missing["unprivileged user"] = reason
        elif self._as_root:
            _become_nobody()
        self._unshare(self._namespaces, 0)
        if self._namespaces & kernel.CLONE_NEWUTS:
            socket.sethostname("sandbox")
        if server := os.fork():
            _, status = os.waitpid(server, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        kernel.die_with_parent(signal.SIGKILL)
        if "pid namespace" not in self.missing:
            self._pid_namespace = os.open("self/ns/pid", os.O_RDONLY, dir_fd=self._proc)
        if not self._own_root:
            self._tmp = tempfile.mkdtemp()
        self._limit_resources()
        kernel.forbid_new_privileges()

    def leave(self) -> None:
        """Remove what `enter` left on the machine's disk: nothing, unless the mount namespace is missing."""
        if not self._own_root:
            shutil.rmtree(self._tmp, ignore_errors=True)

    def fork(self) -> int:
        """Fork a process for one grading, the first one of a new process namespace; 0 in that process, as os.fork."""
        if self._pid_namespace is None:
            return kernel.fork()
        kernel.unshare(kernel.CLONE_NEWPID)
        child = -1
        try:
            child = kernel.fork()
        finally:
            if child:
                kernel.join_namespace(self._pid_namespace, kernel.CLONE_NEWPID)
        return child

    def keep(self, descriptors: Sequence[int]) -> list[int]:
        """Move the descriptors that a grading keeps to the last numbers, above all of the fork server's.

        Otherwise their numbers would depend on what the fork server holds, which no grading may learn.
        """
        first = self.limits.descriptors - len(descriptors)
        self._kept_from = first
        return [os.dup2(descriptor, number, False) for number, descriptor in enumerate(descriptors, first)]

    def seal(self) -> None:
        """Isolate the calling process, a fresh fork, for one grading. Of its descriptors it keeps what `keep` moved."""
        with contextlib.suppress(OSError):
            self._write_own_proc_file("oom_score_adj", _FIRST_TO_GO)
        self._unshare(self._namespaces & self._fresh, NOBODY)
        # A signal to the process group would reach the fork server. A session would cost a scheduling group as well.
        os.setpgid(0, 0)
        os.closerange(3, self._kept_from)
        if self._own_root:
            kernel.mount_tmpfs(self._tmp, self.limits.disk, self.limits.files)
        else:
            self._empty_tmp()
        os.chdir(self._tmp)
        _open_own_descriptors()
        for kind, limit in (
            (resource.RLIMIT_CPU, self.limits.cpu_seconds),
            (resource.RLIMIT_NPROC, self.limits.threads),
        ):
            resource.setrlimit(kind, (limit, limit))
        kernel.forbid_core_dumps()
        kernel.drop_capabilities()
        with contextlib.suppress(OSError):
            _restrict_by_landlock(["/"] if self._own_root else self._interpreter, [self._tmp])
        if self._filter:
            kernel.filter_system_calls(self._filter)

    def _unshare(self, namespaces: int, inside: int) -> None:
        """Enter new namespaces in a new user namespace where this user's number is `inside`."""
        if "user namespace" in self.missing:
            return
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER | namespaces)
        if inside == 0:
            # The fork server's namespace; those made in it begin with the same setting.
            self._write_own_proc_file("setgroups", "deny")
        self._write_own_proc_file("uid_map", f"{inside} {user} 1")
        self._write_own_proc_file("gid_map", f"{inside} {group} 1")

    def _write_own_proc_file(self, name: str, text: str) -> None:
        descriptor = os.open(f"self/{name}", os.O_WRONLY, dir_fd=self._proc)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def _build_root(self) -> None:
        if self._as_root:
            kernel.unshare(kernel.CLONE_NEWNS)
        else:
            self._unshare(kernel.CLONE_NEWNS, 0)
        kernel.make_mounts_private()
        # The new root is put together on top of /proc, where nothing that has to be shown in it can lie.
        root = "/proc"
        kernel.mount_tmpfs(root, 1 << 20, 4096)
        os.chmod(root, 0o755)
        for name in os.listdir("/"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.path.relpath(os.path.realpath(f"/{name}"), "/"), f"{root}/{name}")
        os.makedirs(root + self._tmp)
        for path in [*self._interpreter, *_DEVICES, *filter(os.path.isdir, [_TIME_ZONES])]:
            _show(path, root + path)
        for name in ("stdin", "stdout"):
            os.symlink(f"{self._tmp}/{STREAM_FILE.format(name)}", f"{root}/dev/{name}")
        kernel.make_read_only(root)
        kernel.change_root(root)

    def _empty_tmp(self) -> None:
        for entry in os.scandir(self._tmp):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)

    def _limit_resources(self) -> None:
        """Set the limits that hold for the fork server as well, and that its forks inherit."""
        limits = {
            resource.RLIMIT_AS: self.limits.memory,
            resource.RLIMIT_FSIZE: self.limits.disk,
            resource.RLIMIT_NOFILE: self.limits.descriptors,
            resource.RLIMIT_DATA: self.limits.memory,
            resource.RLIMIT_SIGPENDING: min(_PENDING_SIGNALS, _hard_limit(resource.RLIMIT_SIGPENDING)),
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
            resource.RLIMIT_CORE: 0,
        }
        for kind, limit in limits.items():
            resource.setrlimit(kind, (limit, limit))
        # Programs raise it first thing; the limit on address space bounds the stack as well.
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (min(_STACK, _hard_limit(resource.RLIMIT_STACK)), hard))


def _hard_limit(kind: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def _open_own_descriptors() -> None:
    """Make 0 to 2 this grading's own: what is set on an inherited one, a flag or a lock, would stay for the next."""
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        null = os.open(os.devnull, flags)
        os.dup2(null, descriptor)
        os.close(null)


def _restrict_by_landlock(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Reading below `readable`, everything but devices below `writable`, nothing else; no TCP; OSError without
    Landlock.
    """
    version = kernel.landlock_version()
    everything = (1 << _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]) - 1
    attributes = struct.pack("=3Q", everything, _NETWORK_RIGHTS if version >= 4 else 0, _SCOPES if version >= 6 else 0)[
        : 8 if version < 4 else 16 if version < 6 else 24
    ]
    ruleset = kernel.landlock_ruleset(attributes)
    try:
        for path in readable:
            kernel.landlock_allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in writable:
            kernel.landlock_allow(ruleset, path, everything & ~(_MAKE_CHAR | _MAKE_BLOCK))
        kernel.landlock_allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.allow_own_proc_files()


def _interpreter_paths(library: Sequence[str]) -> list[str]:
    """The folders of the standard library and of the shared libraries in use, and the linker's index of libraries."""
    folders = {os.path.abspath(path) for path in library if os.path.isdir(path)}
    with open("/proc/self/maps", encoding="utf-8") as maps:
        mapped = {line.split(maxsplit=5)[-1].strip() for line in maps}
    libraries = {os.path.dirname(path) for path in mapped if path.startswith("/") and ".so" in os.path.basename(path)}
    paths = sorted(folders | {folder for folder in libraries if not _holds_packages(folder)})
    outermost = [p for p in paths if not any(p != other and p.startswith(other + "/") for other in paths)]
    return outermost + [path for path in ("/etc/ld.so.cache",) if os.path.exists(path)]


def _holds_packages(folder: str) -> bool:
    return folder.endswith("-packages")


def _show(source: str, target: str) -> None:
    """Bind `source` to `target` without the third-party packages in it."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY, 0o644))
    kernel.bind(source, target)
    for pattern in _HIDDEN:
        for folder in glob.glob(os.path.join(glob.escape(target), pattern)):
            kernel.mount_tmpfs(folder, 1 << 20, 1024)


def _missing_layers(as_root: bool) -> dict[str, str]:
    trials: dict[str, Callable[[], None]] = {"user namespace": lambda: kernel.unshare(kernel.CLONE_NEWUSER)}
    for name, flag in _NAMESPACES.items():
        trials[name] = functools.partial(kernel.unshare, kernel.CLONE_NEWUSER | flag)
    trials["mount namespace"] = _try_mounting
    trials["seccomp"] = _try_filtering
    first = [_become_nobody] if as_root else []
    return {name: reason for name, trial in trials.items() if (reason := _refusal(*first, trial))}


def _list_standard_library() -> None:
    _become_nobody()
    os.listdir(os.path.dirname(os.__file__))


def _try_mounting() -> None:
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    kernel.make_mounts_private()
    kernel.mount_tmpfs("/proc", 4096, 16)
    kernel.make_read_only("/proc")


def _try_filtering() -> None:
    kernel.forbid_new_privileges()
    kernel.filter_system_calls(grading_filter())


def _refusal(*trials: Callable[[], None]) -> str:
    """Try steps in a forked process; why the kernel refused one, or nothing."""
    child = os.fork()
    if child == 0:
        status = 0
        try:
            for trial in trials:
                trial()
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0 and code != -signal.SIGSYS:
        raise OSError(f"a trial of the sandbox was killed by signal {-code}")
    return "" if code == 0 else os.strerror(code) if code > 0 else "killed for a system call"
