"""Stand-ins for CANN's libraries, with which MindSpore's Ascend back end loads for a dry run on any Linux machine.

MindSpore's wheel holds its whole Ascend back end; only the libraries of CANN that it links against are missing where
CANN is not installed. The stand-ins are shared libraries that define every function that the wheel's symbol tables
ask for and return 0 from it ("success"); the few whose result is looked at are written out below. Nothing of CANN is
copied. MindSpore's own simulation (``MS_SIMULATION_LEVEL``) replaces the device calls.
https://www.mindspore.cn/tutorials/en/master/debug/dryrun.html
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mindcv_mnasnet.errors import UserError

SOC = "Ascend910B2"  # what the device says it is: an Atlas A2, 64 GB
CANN_VERSION = "8.5.0"
_OPENED_LATER = {
    "libacl_op_compiler.so",
    "libacl_tdt_channel.so",
    "libacl_tdt_queue.so",
}  # by dlopen, not by the linker
_MOST_SECONDS = 300

# Functions whose result MindSpore looks at. StatusFactory's methods are inlined into its libraries, which use this map.
_CODE = f"""
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
namespace ge {{
struct StatusFactory {{ std::map<uint32_t, std::string> names; static StatusFactory* Instance(); }};
StatusFactory* StatusFactory::Instance() {{ static auto* one = new StatusFactory; return one; }}
}}
struct CannVersion {{ char version[128], major[64], minor[64], release[64], patch[64]; }};
extern "C" {{
const char* aclrtGetSocName() {{ return "{SOC}"; }}
int rtGetSocVersion(char* name, unsigned size) {{ strncpy(name, "{SOC}", size); return 0; }}
int aclsysGetCANNVersion(int, CannVersion* v) {{
  strcpy(v->version, "{CANN_VERSION}"); strcpy(v->major, "8"); strcpy(v->minor, "5"); strcpy(v->release, "0");
  strcpy(v->patch, "0");
  return 0;
}}
}}
"""
_WRITTEN_OUT = re.compile(r"StatusFactory|^aclrtGetSocName$|^rtGetSocVersion$|^aclsysGetCANNVersion$")
_BY_VALUE = re.compile(r"CreateOperator|GetCompiledGraphSummary")  # return an object of up to 24 bytes
_HANDLE = re.compile(r"^_ZN2ge(?!.*RegisterC).*C[12]E")  # constructors of handles, 16 bytes; registrars are one byte

# Assembly of a function that returns 0, of one that returns a null object, and of a constructor of a null handle.
_BODIES = {
    "x86_64": (
        "  xorl %eax,%eax\n  ret",
        "  movq $0,(%rdi)\n  movq $0,8(%rdi)\n  movq $0,16(%rdi)\n  movq %rdi,%rax\n  ret",
        "  movq $0,(%rdi)\n  movq $0,8(%rdi)\n  ret",
    ),
    "aarch64": (
        "  mov x0,#0\n  ret",
        "  stp xzr,xzr,[x8]\n  str xzr,[x8,#16]\n  ret",
        "  stp xzr,xzr,[x0]\n  ret",
    ),
}


def build(cache: Path, compiler: Sequence[str]) -> Path:
    """The folder of the stand-ins for the installed MindSpore, built in ``cache`` if they are not there.

    It holds ``cann/latest`` (the libraries), ``python`` (a package ``hccl`` that knows its version).

    Args:
        compiler: the words of a C++ compiler's command.
    Raises:
        UserError: another machine than x86-64 or aarch64 Linux, no compiler, or a wheel that needs something unknown.
    """
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _BODIES:
        raise UserError(f"the dry run's stand-ins exist for Linux on x86_64 and aarch64, not for {machine}")
    for tool in (compiler[0], "nm", "ldd", "strings"):
        if shutil.which(tool) is None:
            raise UserError(
                f"the dry run needs {tool}, which is not here: install a C++ compiler and binutils "
                "(Debian, Ubuntu: apt install g++ binutils), or CANN"
            )
    folder = cache / f"stand-ins-{_identity(machine)}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "made"
            _write(made, folder, compiler, machine)
            if not folder.exists():
                made.rename(folder)
    return folder


def library_paths(folder: Path) -> list[Path]:
    """Where the dynamic linker has to look for the stand-ins and MindSpore's own libraries."""
    base = _wheel() / "lib"
    shmem = base / "plugin/ascend/ms_kernels_symmetric_memory/shmem"
    own = [base, base / "plugin", base / "plugin/ascend", shmem / "memfabric_hybrid/lib", shmem / "shmem/lib"]
    return [folder / "cann/latest/lib64", *own]


def _identity(machine: str) -> str:
    version = importlib.metadata.version("mindspore")
    record = importlib.metadata.distribution("mindspore").read_text("RECORD") or ""
    source = Path(__file__).read_bytes()
    digest = hashlib.sha256(b"\0".join([version.encode(), record.encode(), source, machine.encode()])).hexdigest()
    return f"{version}-{digest[:12]}"


def _wheel() -> Path:
    spec = importlib.util.find_spec("mindspore")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("mindspore is not installed here: pip install mindspore")
    return Path(spec.submodule_search_locations[0])


def _write(made: Path, final: Path, compiler: Sequence[str], machine: str) -> None:
    wanted, operators, libraries = _asked_for()
    root = made / "cann/latest"
    for folder in (root / "lib64", root / "opp", made / "python/hccl"):
        folder.mkdir(parents=True)
    (made / "cann/lib64").symlink_to("latest/lib64")  # where MindSpore 2.7 looks: it cuts the path after "cann"
    (made / "python/hccl/__init__.py").touch()
    (made / "python/hccl/sys_version.py").write_text(f'__sys_version__ = "{CANN_VERSION}"\n')
    (made / "all.s").write_text(_assembly({name for name in wanted if not _WRITTEN_OUT.search(name)}, machine))
    (made / "operators.s").write_text(_assembly(operators, machine))
    (made / "code.cc").write_text(_CODE)
    shared = [*compiler, "-shared", "-fPIC"]
    lib = root / "lib64"
    _run(*shared, "-D_GLIBCXX_USE_CXX11_ABI=0", "-o", lib / "libascendcl.so", made / "all.s", made / "code.cc")
    _run(*shared, "-o", lib / "libopapi.so", made / "operators.s")
    (made / "empty.cc").touch()
    for name in sorted(libraries - {"libascendcl.so", "libopapi.so"}):
        link = f"-Wl,-soname,{name},--no-as-needed"
        _run(*shared, made / "empty.cc", "-o", lib / name, link, f"-L{lib}", "-lascendcl")


def _asked_for() -> tuple[set[str], set[str], set[str]]:
    """Functions and operators that the wheel's Ascend libraries ask for, and the names of the missing libraries."""
    base = _wheel() / "lib"
    plugin = base / "plugin"
    found = [*plugin.glob("libmindspore_*ascend.so*"), *(plugin / "ascend").rglob("*.so")]
    loaded = [path for path in found if not re.search(r"dvpp|atb|custom_", str(path))]
    if not loaded:
        raise UserError(
            f"the installed mindspore has no Ascend back end below {plugin}; its dry run needs a Linux wheel"
        )
    linked = "".join(_output("ldd", path) for path in loaded)
    system = {Path(path) for path in re.findall(r"=> (/\S+) \(", linked)}
    missing = {name for name in re.findall(r"(\S+) => not found", linked) if not any(base.rglob(name))}
    defined: set[str] = set()
    for path in {*system, *loaded, *base.glob("*.so*")}:
        defined |= _symbols(path, "--defined-only")
    wanted = {name for path in loaded for name in _symbols(path, "--undefined-only")} - defined
    wanted = {name for name in wanted if not re.match(r"_?Py", name)}
    text = "\n".join(_output("strings", "-n", "4", path) for path in loaded)
    wanted |= set(re.findall(r"^(?:acl[a-z]*[A-Z]\w+|rt[A-Z]\w+)$", text, re.MULTILINE))
    operators = set(re.findall(r"^aclnn\w+$", text, re.MULTILINE))
    operators |= {f"{name}GetWorkspaceSize" for name in operators} | {"aclnnInit", "aclnnFinalize"}
    return wanted, operators, missing | _OPENED_LATER


def _assembly(names: set[str], machine: str) -> str:
    zero, by_value, handle = _BODIES[machine]
    kind = "@function" if machine == "x86_64" else "%function"
    section = "@progbits" if machine == "x86_64" else "%progbits"
    parts = []
    for name in sorted(names):
        body = by_value if _BY_VALUE.search(name) else handle if _HANDLE.search(name) else zero
        parts.append(f".globl {name}\n.type {name},{kind}\n{name}:\n{body}")
    return ".text\n" + "\n".join(parts) + f'\n.section .note.GNU-stack,"",{section}\n'


def _symbols(library: Path, flag: str) -> set[str]:
    rows = [line.split() for line in _output("nm", "-D", flag, library).splitlines()]
    weak = flag == "--undefined-only"
    return {row[-1].split("@")[0] for row in rows if len(row) > 1 and not (weak and row[-2] in "wv")}


def _output(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=_MOST_SECONDS)
    return done.stdout


def _run(*words: str | Path) -> None:
    try:
        subprocess.run([*map(str, words)], capture_output=True, text=True, check=True, timeout=_MOST_SECONDS)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "no reason given").strip().splitlines()[0]
        raise UserError(f"the dry run's stand-ins for CANN cannot be built with {words[0]}: {reason}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"the dry run's stand-ins for CANN cannot be built with {words[0]}: {error}") from None
