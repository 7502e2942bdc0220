"""What the names that a Python program uses would do: the tables behind ``python_code``.

A module of the standard library that can do harm is *watched*: a few of its names are let through, every
other name counts as what the module is watched for. Modules of the standard library that are not here
only compute, or only do what a program that handles a model has to do inside its functions. Packages
from elsewhere are judged by the names that are known to do harm.
"""

from __future__ import annotations

from typing import NamedTuple

PROCESS, DYNAMIC, ESCAPE = "code/process", "code/dynamic", "code/escape"
NETWORK, UNPICKLES, NATIVE, SYSTEM = "code/network", "code/unpickles", "code/native", "code/system"
FILES = ""
"""Changes files: fine inside a function, not while the module is imported."""


class Watched(NamedTuple):
    """What a module is watched for, and its names that are fine."""

    rule: str
    allowed: frozenset[str] = frozenset()


def _watch(rule: str, allowed: str = "") -> Watched:
    return Watched(rule, frozenset(allowed.split()))


WATCHED: dict[str, Watched] = {
    "os": _watch(
        PROCESS,
        "path environ environb getenv makedirs mkdir listdir walk fwalk scandir sep altsep linesep "
        "pathsep curdir pardir "
        "extsep devnull cpu_count getcwd getcwdb getpid getppid getuid getgid geteuid getlogin stat lstat fstat fspath "
        "fsencode fsdecode PathLike name error strerror access R_OK W_OK X_OK F_OK uname urandom get_terminal_size "
        "terminal_size times umask utime readlink read write open close fdopen fsync dup O_RDONLY O_WRONLY O_CREAT "
        "isatty getpgid sched_getaffinity sched_setaffinity process_cpu_count supports_follow_symlinks stat_result "
        "DirEntry get_exec_path getloadavg sysconf nice lseek SEEK_SET SEEK_END SEEK_CUR truncate ftruncate "
        "remove unlink rmdir removedirs rename renames replace chmod chdir link symlink putenv unsetenv _exit abort",
    ),
    "posix": _watch(PROCESS),
    "nt": _watch(PROCESS),
    "subprocess": _watch(
        PROCESS, "PIPE DEVNULL STDOUT CalledProcessError TimeoutExpired SubprocessError CompletedProcess"
    ),
    "_posixsubprocess": _watch(PROCESS),
    "pty": _watch(PROCESS),
    "commands": _watch(PROCESS),
    "popen2": _watch(PROCESS),
    "webbrowser": _watch(PROCESS),
    "antigravity": _watch(PROCESS),
    "pip": _watch(PROCESS, "__version__"),
    "ensurepip": _watch(PROCESS, "version"),
    "venv": _watch(PROCESS),
    "idlelib": _watch(PROCESS),
    "turtledemo": _watch(PROCESS),
    "mailcap": _watch(PROCESS),
    "pydoc": _watch(DYNAMIC),
    "sh": _watch(PROCESS),
    "plumbum": _watch(PROCESS),
    "pexpect": _watch(PROCESS),
    "platform.popen": _watch(PROCESS),
    "asyncio.create_subprocess_exec": _watch(PROCESS),
    "asyncio.create_subprocess_shell": _watch(PROCESS),
    "asyncio.subprocess": _watch(PROCESS, "PIPE DEVNULL STDOUT"),
    "asyncio.unix_events": _watch(PROCESS),
    "asyncio.base_subprocess": _watch(PROCESS),
    "multiprocessing.util": _watch(PROCESS),
    "multiprocessing.popen_fork": _watch(PROCESS),
    "multiprocessing.popen_spawn_posix": _watch(PROCESS),
    "multiprocessing.connection": _watch(NETWORK, "wait Connection"),
    "multiprocessing.managers": _watch(NETWORK, "SharedMemoryManager"),
    "torch.utils.collect_env": _watch(PROCESS, "get_pretty_env_info"),
    "torch.utils.bottleneck": _watch(DYNAMIC),
    "torch._inductor.codecache": _watch(PROCESS),
    "numpy.f2py": _watch(DYNAMIC),
    "numpy.distutils": _watch(PROCESS),
    "numpy.testing._private": _watch(DYNAMIC),
    "distutils.spawn": _watch(PROCESS, "find_executable"),
    "distutils.file_util": _watch(SYSTEM),
    "setuptools._distutils": _watch(PROCESS),
    "win32com": _watch(PROCESS),
    "win32api": _watch(PROCESS),
    "keras.config.enable_unsafe_deserialization": _watch("code/remote-code"),
    "keras.saving.enable_unsafe_deserialization": _watch("code/remote-code"),
    "builtins.eval": _watch(DYNAMIC),
    "builtins.exec": _watch(DYNAMIC),
    "builtins.compile": _watch(DYNAMIC),
    "builtins.__import__": _watch(DYNAMIC),
    "builtins.execfile": _watch(DYNAMIC),
    "builtins.breakpoint": _watch(DYNAMIC),
    "builtins.__dict__": _watch(ESCAPE),
    "builtins.get_ipython": _watch(PROCESS),
    "IPython.get_ipython": _watch(PROCESS),
    "IPython.core": _watch(DYNAMIC, "display magic"),
    "importlib": _watch(
        DYNAMIC, "metadata resources import_module reload abc invalidate_caches __version__ util machinery"
    ),
    "importlib.util": _watch(DYNAMIC, "find_spec resolve_name LazyLoader"),
    "importlib.machinery": _watch(DYNAMIC, "ModuleSpec PathFinder all_suffixes"),
    "_frozen_importlib": _watch(DYNAMIC),
    "_frozen_importlib_external": _watch(DYNAMIC),
    "imp": _watch(DYNAMIC, "reload"),
    "runpy": _watch(DYNAMIC),
    "pkgutil": _watch(DYNAMIC, "iter_modules walk_packages get_data extend_path ModuleInfo find_loader"),
    "zipimport": _watch(DYNAMIC),
    "code": _watch(DYNAMIC),
    "codeop": _watch(DYNAMIC),
    "marshal": _watch(DYNAMIC, "dump dumps"),
    "py_compile": _watch(DYNAMIC),
    "compileall": _watch(DYNAMIC),
    "bdb": _watch(DYNAMIC),
    "pdb": _watch(DYNAMIC),
    "trace": _watch(DYNAMIC),
    "doctest": _watch(DYNAMIC, "testmod ELLIPSIS NORMALIZE_WHITESPACE OutputChecker"),
    "cProfile": _watch(DYNAMIC, "Profile"),
    "profile": _watch(DYNAMIC, "Profile"),
    "timeit": _watch(DYNAMIC, "default_timer timeit repeat Timer"),
    "types": _watch(
        ESCAPE,
        "SimpleNamespace ModuleType MethodType NoneType GeneratorType UnionType GenericAlias LambdaType "
        "BuiltinFunctionType "
        "MappingProxyType TracebackType EllipsisType NotImplementedType DynamicClassAttribute new_class coroutine "
        "CoroutineType AsyncGeneratorType BuiltinMethodType FrameType resolve_bases prepare_class FunctionType",
    ),
    "types.FunctionType": _watch(ESCAPE),
    "types.CodeType": _watch(ESCAPE),
    "sys": _watch(
        ESCAPE,
        "path version version_info argv exit stdout stderr stdin __stdout__ __stderr__ platform maxsize "
        "byteorder float_info "
        "executable getsizeof exc_info getrecursionlimit setrecursionlimit flags hexversion implementation modules "
        "getdefaultencoding getfilesystemencoding maxunicode prefix base_prefix exec_prefix "
        "builtin_module_names intern "
        "stdlib_module_names getrefcount float_repr_style int_info orig_argv warnoptions is_finalizing "
        "set_int_max_str_digits "
        "dont_write_bytecode getswitchinterval thread_info api_version copyright exception last_value excepthook "
        "getwindowsversion ps1 hash_info _MEIPASS",
    ),
    "gc": _watch(
        ESCAPE, "collect disable enable freeze unfreeze get_threshold set_threshold isenabled get_count get_stats"
    ),
    "inspect.currentframe": _watch(ESCAPE),
    "inspect.stack": _watch(ESCAPE),
    "inspect.getouterframes": _watch(ESCAPE),
    "_testcapi": _watch(ESCAPE),
    "_xxsubinterpreters": _watch(DYNAMIC),
    "socket": _watch(NETWORK, "gethostname error timeout gaierror herror getfqdn"),
    "_socket": _watch(NETWORK),
    "ssl": _watch(NETWORK, "SSLError"),
    "http": _watch(NETWORK, "HTTPStatus HTTPMethod"),
    "urllib": _watch(NETWORK, "parse error"),
    "urllib2": _watch(NETWORK),
    "ftplib": _watch(NETWORK),
    "smtplib": _watch(NETWORK),
    "poplib": _watch(NETWORK),
    "imaplib": _watch(NETWORK),
    "nntplib": _watch(NETWORK),
    "telnetlib": _watch(NETWORK),
    "socketserver": _watch(NETWORK),
    "xmlrpc": _watch(NETWORK),
    "wsgiref": _watch(NETWORK),
    "asyncio.open_connection": _watch(NETWORK),
    "asyncio.start_server": _watch(NETWORK),
    "asyncio.open_unix_connection": _watch(NETWORK),
    "logging.config": _watch(DYNAMIC, "dictConfig fileConfig"),
    "logging.handlers": _watch(
        NETWORK, "RotatingFileHandler TimedRotatingFileHandler QueueHandler QueueListener MemoryHandler"
    ),
    "requests": _watch(NETWORK, "exceptions RequestException ConnectionError HTTPError __version__ Response"),
    "httpx": _watch(NETWORK, "HTTPError TimeoutException __version__ Response"),
    "aiohttp": _watch(NETWORK, "ClientError"),
    "urllib3": _watch(NETWORK, "exceptions disable_warnings"),
    "websocket": _watch(NETWORK),
    "websockets": _watch(NETWORK),
    "paramiko": _watch(NETWORK),
    "fabric": _watch(PROCESS),
    "pycurl": _watch(NETWORK),
    "wget": _watch(NETWORK),
    "scapy": _watch(NETWORK),
    "dns": _watch(NETWORK),
    "telebot": _watch(NETWORK),
    "discord": _watch(NETWORK),
    "pynput": _watch(SYSTEM),
    "pyautogui": _watch(SYSTEM),
    "pyperclip": _watch(SYSTEM),
    "keyring": _watch(SYSTEM),
    "keyboard": _watch(SYSTEM),
    "browser_cookie3": _watch(SYSTEM),
    "win32crypt": _watch(SYSTEM),
    "winreg": _watch(SYSTEM),
    "_winreg": _watch(SYSTEM),
    "crontab": _watch(SYSTEM),
    "netrc": _watch(SYSTEM),
    "pwd": _watch(SYSTEM, "getpwuid"),
    "spwd": _watch(SYSTEM),
    "site": _watch(SYSTEM, "getsitepackages getusersitepackages"),
    "ctypes": _watch(NATIVE),
    "_ctypes": _watch(NATIVE),
    "cffi": _watch(NATIVE),
    "cppyy": _watch(NATIVE),
    "_winapi": _watch(PROCESS),
    "pyximport": _watch(NATIVE),
    "torch.utils.cpp_extension": _watch(NATIVE, "BuildExtension CUDAExtension CppExtension CUDA_HOME include_paths"),
    "torch.ops.load_library": _watch(NATIVE),
    "torch.classes.load_library": _watch(NATIVE),
    "tensorflow.load_library": _watch(NATIVE),
    "tensorflow.load_op_library": _watch(NATIVE),
    "numpy.ctypeslib": _watch(NATIVE),
    "pickle": _watch(
        UNPICKLES,
        "dump dumps HIGHEST_PROTOCOL DEFAULT_PROTOCOL Pickler PickleError PicklingError UnpicklingError "
        "PickleBuffer",
    ),
    "_pickle": _watch(UNPICKLES, "dump dumps"),
    "cPickle": _watch(UNPICKLES, "dump dumps"),
    "dill": _watch(UNPICKLES, "dump dumps"),
    "cloudpickle": _watch(UNPICKLES, "dump dumps register_pickle_by_value"),
    "shelve": _watch(UNPICKLES),
    "jsonpickle": _watch(UNPICKLES, "encode"),
    "joblib.load": _watch(UNPICKLES),
    "pandas.read_pickle": _watch(UNPICKLES),
    "torch.hub": _watch(UNPICKLES, "get_dir set_dir"),
    "torch.package": _watch(UNPICKLES),
    "yaml.unsafe_load": _watch(UNPICKLES),
    "yaml.full_load": _watch(UNPICKLES),
    "yaml.UnsafeLoader": _watch(UNPICKLES),
    "yaml.Loader": _watch(UNPICKLES),
    "shutil.rmtree": _watch(FILES),
    "os.remove": _watch(FILES),
    "os.unlink": _watch(FILES),
    "os.rmdir": _watch(FILES),
    "os.removedirs": _watch(FILES),
    "os.rename": _watch(FILES),
    "os.renames": _watch(FILES),
    "os.replace": _watch(FILES),
    "os.chmod": _watch(FILES),
    "os.link": _watch(FILES),
    "os.symlink": _watch(FILES),
    "os.abort": _watch(FILES),
    "os._exit": _watch(FILES),
}  # fmt: skip
"""By dotted name; the longest that fits counts."""

BUILTINS = frozenset(
    {"eval", "exec", "compile", "__import__", "execfile", "breakpoint", "get_ipython", "getattr", "vars", "globals"}
)
"""Builtin names that mean something here."""

INNER = frozenset(
    {
        "__globals__", "__builtins__", "__loader__", "__import__", "f_globals", "f_builtins", "f_locals", "f_back",
        "gi_frame", "cr_frame", "ag_frame", "tb_frame", "gi_code", "func_globals", "co_consts", "__reduce_ex__",
    }
)  # fmt: skip
"""Attributes that lead from any object to the interpreter's inner parts."""

BASES = frozenset({"__base__", "__bases__", "__mro__", "mro"})
"""Together with ``__subclasses__`` they lead to every class."""

CALLS_ANYWHERE = {
    **dict.fromkeys(
        ("system", "popen", "Popen", "check_output", "check_call", "getoutput", "getstatusoutput", "execv", "execve",
         "execvp", "execvpe", "execl", "execle", "execlp", "spawnl", "spawnle", "spawnv", "spawnve", "spawnlp",
         "spawnvp", "posix_spawn", "posix_spawnp", "fork_exec", "startfile",
         "create_subprocess_exec", "create_subprocess_shell"),
        PROCESS,
    ),
    **dict.fromkeys(
        ("__import__", "exec_module", "load_module", "runcode", "runsource", "run_path", "run_module", "exec_code"),
        DYNAMIC,
    ),
    **dict.fromkeys(("get_objects", "get_referrers"), ESCAPE),
    **dict.fromkeys(("enable_load_extension", "load_extension", "register_custom_ops_library"), NATIVE),
    "enable_unsafe_deserialization": "code/remote-code",
}  # fmt: skip
"""Methods that do harm on whatever object they are called when that object cannot be told."""

KEYWORDS = {
    ("trust_remote_code", True): "code/remote-code",
    ("allow_pickle", True): UNPICKLES,
    ("weights_only", False): UNPICKLES,
}
"""Arguments of any call that switch a safeguard off."""

PLACES = (
    "/etc/passwd", "/etc/shadow", "/etc/cron", "/etc/ld.so.preload", "/etc/sudoers", "/etc/profile", ".ssh/", "id_rsa",
    "authorized_keys", ".aws/credentials", ".kube/config", ".bashrc", ".bash_profile", ".zshrc", ".netrc", "/dev/tcp/",
    "/proc/self/mem", "/proc/self/environ", ".docker/config.json", "/var/run/docker.sock", ".git-credentials",
    "LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PYTHONSTARTUP", "@__import__(",
    "\\CurrentVersion\\Run", "Login Data", ".config/autostart", "LaunchAgents", "169.254.169.254",
)  # fmt: skip
"""Places of secrets, and of programs that start by themselves."""
