"""Hostile pickles in a confined process. The scan is left out on purpose: this is what stands behind it."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from bartizan.adapters.convert import COMMAND, opened
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import ArtefactError, InputError, SandboxError
from bartizan.targets import file_access, isolated, system_calls
from bartizan.targets.confine import LAYERS
from bartizan.targets.isolated import Isolated, Limits, hand_over, required_layers

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has these layers")
LIMITS = Limits(memory_bytes=3 << 30, cpu_seconds=20, start_seconds=60, answer_seconds=60)
REFUSED = {1, 13, 38}
"""EPERM, EACCES, ENOSYS."""

TRY = """
import ctypes, os, signal, socket, sys, threading
LIBRARY = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    if LIBRARY.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
def attempt(deed):
    try:
        return f"done: {deed()!r}"[:200]
    except OSError as error:
        return error.errno
    except Exception as error:
        return type(error).__name__
RESULT = {name: attempt(deed) for name, deed in DEEDS.items()}
raise RuntimeError(repr(RESULT))
"""


class Code:
    """Unpickled, it runs."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return exec, (self.text, {})


def hostile(folder, text, name="model.pkl"):
    path = folder / name
    path.write_bytes(pickle.dumps(Code(text)))
    return path


@contextlib.contextmanager
def holding(path, limits=LIMITS):
    """A process that was handed a file, without any scan."""
    process = Isolated(COMMAND, "victim", limits)
    try:
        hand_over(process, path, digest_bytes(path.read_bytes()))
        yield process
    finally:
        process.close()


def tried(folder, deeds, limits=LIMITS):
    """What became of each deed, by name; the deeds are expressions."""
    listed = "{" + ", ".join(f"{name!r}: lambda: {deed}" for name, deed in deeds.items()) + "}"
    path = hostile(folder, TRY.replace("DEEDS", listed, 1))
    with holding(path, limits) as process:
        reply, _ = process.exchange({"do": "load"}, seconds=60)
    assert reply.error == "refused", reply
    # Long answers are cut, so the names are few enough for one message.
    assert len(reply.what) < 4000
    return eval(reply.what.partition("RuntimeError: ")[2].removesuffix(")"))


@linux
def test_every_layer_is_in_force_here_and_is_reported():
    process = Isolated(COMMAND, "victim", LIMITS)
    held = process.confinement()
    process.close()
    assert held.in_force == LAYERS
    assert held.missing == {}
    assert held.words == ", ".join(LAYERS)


@linux
def test_files_cannot_be_read_made_changed_or_removed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the parent")
    link = tmp_path / "lib"
    link.symlink_to("/")
    inside = str(Path(os.__file__).parent)
    deeds = {
        "secret": f"open({str(secret)!r}).read()",
        "passwd": "open('/etc/passwd').read()",
        "shadow through a descriptor": "open('/proc/self/root/etc/passwd').read()",
        "up from what is allowed": f"open({inside!r} + '/../../../../../../../../etc/passwd').read()",
        "through a link of ours": f"open({str(link / 'etc' / 'passwd')!r}).read()",
        "list": f"os.listdir({str(tmp_path)!r})",
        "write": f"open({str(tmp_path / 'new')!r}, 'w')",
        "append": f"open({str(secret)!r}, 'a')",
        "truncate by opening": f"os.open({str(secret)!r}, os.O_RDONLY | os.O_TRUNC)",
        "truncate": f"os.truncate({str(secret)!r}, 0)",
        "remove": f"os.unlink({str(secret)!r})",
        "rename": f"os.rename({str(secret)!r}, {str(tmp_path / 'moved')!r})",
        "link": f"os.link({str(secret)!r}, {str(tmp_path / 'linked')!r})",
        "symlink": f"os.symlink('/', {str(tmp_path / 'made')!r})",
        "folder": f"os.mkdir({str(tmp_path / 'folder')!r})",
        "rights": f"os.chmod({str(secret)!r}, 0o777)",
        "times": f"os.utime({str(secret)!r}, (0, 0))",
        "device": f"os.mknod({str(tmp_path / 'device')!r}, 0o20666, os.makedev(1, 3))",
        "pipe": f"os.mkfifo({str(tmp_path / 'pipe')!r})",
        "write into python": f"open({inside!r} + '/os.py', 'a')",
        "memory file": "os.memfd_create('x')",
        "terminal": "open('/dev/tty')",
        "disk": "open('/dev/vda')",
        "memory": "open('/dev/mem')",
        "shared memory": "open('/dev/shm/x', 'w')",
        "temporary": "open('/tmp/x', 'w')",
    }
    found = tried(tmp_path, deeds)
    assert {name: answer for name, answer in found.items() if answer not in REFUSED | {2}} == {}
    assert secret.read_text() == "of the parent"
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "lib", "model.pkl"}


@linux
def test_nothing_leaves_over_a_network_or_a_socket(tmp_path):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0bartizan-{os.getpid()}")
        abstract.listen()
        for each in (listener, abstract):
            each.settimeout(0.2)
        port = listener.getsockname()[1]
        deeds = {
            "tcp": f"socket.create_connection(('127.0.0.1', {port}), 2)",
            "listen": "socket.create_server(('127.0.0.1', 0))",
            "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
            "dns": "socket.create_connection(('example.org', 80), 2)",
            "abstract": f"socket.socket(socket.AF_UNIX).connect(chr(0) + 'bartizan-{os.getpid()}')",
            "raw": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
            "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
            "pair": "socket.socketpair()",
            "over ours": "socket.socket(fileno=os.dup(3)).sendmsg([b'x'], [(1, 1, bytes([1, 0, 0, 0]))])",
            "connect ours": f"socket.socket(fileno=os.dup(3)).connect(chr(0) + 'bartizan-{os.getpid()}')",
        }
        found = tried(tmp_path, deeds)
        for each in (listener, abstract):
            with contextlib.suppress(TimeoutError):
                heard.append(each.accept())
    assert heard == []
    assert {name: answer for name, answer in found.items() if answer not in {*REFUSED, "gaierror", -3, -2}} == {}


@linux
def test_no_process_is_made_reached_or_watched(tmp_path):
    me, numbers = os.getpid(), system_calls.machine()
    assert numbers is not None
    ptrace, writev, mount, bpf = {"x86_64": (101, 311, 165, 321), "aarch64": (117, 271, 40, 280)}[os.uname().machine]
    deeds = {
        "fork": "os.fork()",
        "shell": "os.execv('/bin/sh', ['/bin/sh'])",
        "spawn": "os.posix_spawn('/bin/sh', ['/bin/sh'], {})",
        "system": "__import__('subprocess').run(['/bin/sh'])",
        "kill": f"os.kill({me}, 9)",
        "kill all": "os.kill(-1, 9)",
        "signal": f"os.kill({me}, 0)",
        "by descriptor": f"os.pidfd_open({me})",
        "group": "os.killpg(0, 9)",
        "memory of the parent": f"open('/proc/{me}/mem', 'rb')",
        "environment of the parent": f"open('/proc/{me}/environ', 'rb').read()",
        "trace": f"call({ptrace}, 16, {me}, 0, 0)",
        "write into the parent": f"call({writev}, {me}, 0, 0, 0, 0, 0)",
        "mount": f"call({mount}, b'none', b'/tmp', b'tmpfs', 0, 0)",
        "bpf": f"call({bpf}, 0, 0, 0)",
        "io_uring": "call(425, 1, 0)",
        "clone3": "call(435, 0, 0)",
        "open tree": "call(428, -100, b'/', 0)",
        "namespace": "call({'x86_64': 272, 'aarch64': 97}[os.uname().machine], 0x10000000)",
        "unknown call": "call(9999)",
        "x32 call": "call(0x40000000 + 1, 1, 0, 0)",
        "more memory": "__import__('resource').setrlimit(7, (1000, 1000))",
        "become root": "os.setuid(0)",
        "priority": "os.nice(-5)",
        "affinity of the parent": f"os.sched_setaffinity({me}, [0])",
        "pages of the parent": f"call({writev - 1}, {me}, 0, 0, 0, 0, 0)",
    }
    found = tried(tmp_path, deeds)
    assert {name: answer for name, answer in found.items() if answer not in {*REFUSED, "ValueError"}} == {}


def test_the_process_has_nothing_that_it_was_not_given(tmp_path, monkeypatch):
    monkeypatch.setenv("BARTIZAN_PASSPHRASE", "of the parent")
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)  # noqa: FBT003 - not our signature
        deeds = {
            "environment": "sorted(os.environ)",
            "descriptors": "[n for n in range(64) if os.path.lexists(f'/proc/self/fd/{n}')]",
            "standard input": "os.read(0, 10)",
        }
        found = tried(tmp_path, deeds)
    assert "PASSPHRASE" not in found["environment"]
    assert found["descriptors"] == "done: [0, 1, 2, 3]"
    assert found["standard input"] == "done: b''"


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("while True: pass", "used more than 2 seconds of processor time"),
        ("import time; time.sleep(600)", "gave no answer within 4 seconds"),
        ("import os; os._exit(3)", r"died \(exit code 3\)"),
        ("import os; os.abort()", r"died \(SIG[A-Z]+\)"),
        ("import ctypes; ctypes.string_at(0)", r"died \(SIGSEGV\)"),
        ("import os; os.write(3, b'\\xff' * 100)", "broke the protocol"),
        ("import os; os.write(3, b'\\x00\\x00\\x00\\x01\\xc1')", "broke the protocol"),
        ("import os; os.close(3)", "closed its socket|died"),
        ("import os; os.dup2(0, 3)", "closed its socket|died"),
    ],
)
def test_whatever_the_model_does_the_parent_lives_and_says_so(tmp_path, program, fault):
    limits = msgspec.structs.replace(LIMITS, cpu_seconds=2)
    path = hostile(tmp_path, program)
    with holding(path, limits) as process, pytest.raises(SandboxError, match=fault):
        process.exchange({"do": "load"}, seconds=4 if "sleep" in program else 60)
    assert process._process.poll() is not None


def test_too_much_memory_is_an_answer_and_ends_the_process(tmp_path):
    with (
        holding(hostile(tmp_path, "held = bytearray(8 << 30)")) as process,
        pytest.raises(SandboxError, match="needs more than its 3072 MiB of memory"),
    ):
        process.exchange({"do": "load"}, seconds=60)


def test_an_answer_of_any_size_is_refused_before_it_is_read(tmp_path):
    text = "import sys; host = sys.modules['bartizan.adapters.convert_host']\n"
    # The commands are bound already; the model changes what they call.
    text += "host._write_npz = lambda *_: type('Long', (bytes,), {'__len__': lambda self: 1 << 50})()"
    text += "\nhost.Host._tensors = lambda self: iter(())"
    path = hostile(tmp_path, text)
    with opened(path, digest_bytes(path.read_bytes()), LIMITS) as converting:
        converting.load("")
        with pytest.raises(SandboxError, match="wants to answer with 1125899906842624 bytes"):
            converting.write("npz")


def test_a_thread_bomb_ends_with_its_process(tmp_path):
    text = "import threading, time\n"
    text += "try:\n  while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    text += "except (RuntimeError, MemoryError) as error: raise RuntimeError('stopped')"
    limits = msgspec.structs.replace(LIMITS, memory_bytes=1 << 30)
    with holding(hostile(tmp_path, text), limits) as process, contextlib.suppress(SandboxError):
        process.exchange({"do": "load"}, seconds=30)
    assert process._process.poll() is not None
    assert threading.active_count() < 10


# ---- what is loaded is what was scanned


def test_a_file_that_was_exchanged_after_its_scan_is_not_loaded(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([1]))
    scanned = digest_bytes(path.read_bytes())
    mark = tmp_path / "ran"
    hostile(tmp_path, f"open({str(mark)!r}, 'w')")
    process = Isolated(COMMAND, "victim", LIMITS)
    with pytest.raises(ArtefactError, match="has changed since it was digested"):
        hand_over(process, path, scanned)
    with pytest.raises(SandboxError, match="has been ended"):
        process.exchange({"do": "load"}, seconds=5)
    assert not mark.exists()


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = Isolated(COMMAND, "victim", LIMITS)
    with pytest.raises(ArtefactError, match="no regular file"):
        hand_over(process, tmp_path / "pipe", digest_bytes(b""))
    process.close()


# ---- requirements


@pytest.mark.parametrize("layer", LAYERS)
def test_a_required_layer_that_is_missing_keeps_everything_from_being_loaded(tmp_path, monkeypatch, layer):
    without = (
        "import sys; from bartizan.targets import hosting; real = hosting.confine\n"
        f"hosting.confine = lambda *given: real(*given) | {{{layer!r}: 'switched off'}}\n"
        "hosting.run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
    )
    mark = hostile(tmp_path, "raise RuntimeError('loaded')")
    monkeypatch.setattr(isolated, "PROCESS", (sys.executable, "-I", "-c", without))
    command = (*isolated.PROCESS, "bartizan.adapters.convert_host")
    process = Isolated(command, "victim", msgspec.structs.replace(LIMITS, require=(layer,)))
    fault = rf"not be confined as required: {layer} \(switched off\)"
    with pytest.raises(SandboxError, match=fault):
        hand_over(process, mark, digest_bytes(mark.read_bytes()))
    assert process._process.poll() is not None
    lax = Isolated(command, "victim", msgspec.structs.replace(LIMITS, require=()))
    assert lax.confinement().missing[layer] == "switched off"
    assert f"not in force: {layer} (switched off)" in lax.confinement().words
    lax.close()


def test_layers_are_named_in_settings():
    assert required_layers("all") == LAYERS
    assert required_layers(" calls, files,calls") == ("calls", "files")
    assert required_layers("") == ()
    with pytest.raises(InputError, match="no layer of confinement called 'landlock'"):
        required_layers("landlock")


def test_whole_disks_and_home_folders_are_never_readable(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "site").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", ["/", str(tmp_path), str(tmp_path / "home"), str(tmp_path / "home" / "site"), ""])
    paths = file_access.readable_paths()
    assert tmp_path / "home" / "site" in paths
    assert not {tmp_path, tmp_path / "home", Path("/")} & set(paths)
