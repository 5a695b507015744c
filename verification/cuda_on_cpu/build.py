"""The environment with CuPy over ``device.cpp``: downloaded, compiled and put together once.

CuPy's extension modules load the driver, NVRTC and cuBLAS when they run; those are links to one library made here. The
runtime alone is linked into one of its modules; that module is compiled anew from CuPy's own source against the same
library.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pmp_ref.errors import InputError

HERE = Path(__file__).parent
CUPY = "14.2.0"  # what is compiled against it has no other versions
HEADERS = ("nvidia-cuda-runtime==13.0.*", "nvidia-cuda-crt==13.0.*", "nvidia-cuda-profiler-api==13.0.*")
NEEDED = (f"cupy-cuda13x=={CUPY}", *HEADERS, "Cython==3.2.*", "setuptools>=77", "wheel", "fastrlock")
LIBRARIES = (
    "libcuda.so.1",
    "libcudart.so.13",
    "libnvrtc.so.13",
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcurand.so.10",
    "libcusolver.so.12",
    "libcusparse.so.12",
    "libcufft.so.12",
)
KERNELS = ("-O1", "-w", "-fPIC", "-ffp-contract=off", "-fpermissive", "-std=c++17")


def environment(folder: Path, checkout: Path) -> dict[str, str]:
    """The variables under which CuPy finds the library in ``folder``; builds it if it is not there.

    Raises InputError where it cannot be built.
    """
    folder = folder.absolute()
    python = folder / "venv" / "bin" / "python"
    parts = {
        "build.py": (folder / "built", lambda: build(folder, checkout, python)),
        "device.cpp kernel.h": (folder / "library", lambda: library(folder)),
    }
    for sources, (stamp, make) in parts.items():
        text = b"".join((HERE / name).read_bytes() for name in sources.split())
        wanted = f"{folder} {hashlib.sha256(text).hexdigest()}"
        if holds(stamp, wanted):
            continue
        if reason := unavailable():
            raise InputError(f"{reason}; install it, or use a GPU")
        with alone(folder):
            if not holds(stamp, wanted):
                make()
                stamp.write_text(wanted, encoding="utf-8")
    site = site_packages(folder)
    blas = next((site / "numpy.libs").glob("libscipy_openblas64_*.so"))
    return {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "CUDA_PATH": str(site / "nvidia" / "cu13"),
        "CUPY_CACHE_DIR": str(folder / "cupy"),
        "CUPY_ACCELERATORS": "",
        "CUDA_ON_CPU": str(folder),
        "CUDA_ON_CPU_BLAS": str(blas),
        "CUDA_ON_CPU_COMPILER": " ".join(["g++", *KERNELS, *includes(site)]),
    }


def holds(stamp: Path, wanted: str) -> bool:
    """Whether a part was made from these sources."""
    return stamp.exists() and stamp.read_text(encoding="utf-8") == wanted


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process builds in ``folder`` at a time; others wait."""
    import fcntl  # not on Windows, where nothing is built

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unavailable() -> str | None:
    """Why it cannot be built here; None if it can."""
    here = sys.platform.startswith("linux") and os.uname().machine == "x86_64" and shutil.which("g++")
    return None if here else "CUDA on the CPU needs Linux on x86-64 with g++"


def site_packages(folder: Path) -> Path:
    """Where the environment's packages lie."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")}))


def includes(site: Path) -> list[str]:
    """Folders of headers, CuPy's and CUDA's."""
    cupy = site / "cupy" / "_core" / "include"
    parts = [*(cupy / "cupy" / "_cccl" / name for name in ("cub", "thrust", "libcudacxx")), cupy]
    return [f"-I{path}" for path in (*parts, site / "nvidia" / "cu13" / "include")]


def build(folder: Path, checkout: Path, python: Path) -> None:
    """The environment, from an empty folder. Removes what an earlier build left, and nothing else."""
    mark = folder / "cuda-on-cpu"
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise InputError(f"{folder} holds other files; give an empty folder, or one that is not there")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()
    for name in ("lib", "source"):
        (folder / name).mkdir(parents=True)
    say("environment with CuPy")
    run(sys.executable, "-m", "venv", folder / "venv")
    pip = (python, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "install", *NEEDED, f"{checkout}[test]")
    say("CuPy's source")
    source = folder / "source"
    run(
        *pip,
        "download",
        "--no-deps",
        "--no-binary",
        "cupy",
        "--no-build-isolation",
        "-d",
        source,
        f"cupy=={CUPY}",
        READTHEDOCS="True",
    )  # so that asking for its metadata does not look for CUDA
    with tarfile.open(next(source.glob("cupy-*.tar.gz"))) as archive:
        archive.extractall(source, filter="data")
    say("CuPy's module for the runtime")
    site = site_packages(folder)
    module = runtime_module(source / f"cupy-{CUPY}", python, compiler(site))
    shutil.copy(module, next((site / "cupy_backends" / "cuda" / "api").glob("runtime.*.so")))
    for name in LIBRARIES[1:]:
        (folder / "lib" / name).symlink_to(LIBRARIES[0])


def library(folder: Path) -> None:
    """The library and the header of kernels, in an environment that ``build`` made; kernels compiled earlier go."""
    say("library")
    site, source = site_packages(folder), folder / "source"
    device, stubs, made = source / "device.o", source / "absent.c", source / "made.so"
    run(*compiler(site), "-c", HERE / "device.cpp", "-o", device)
    backends = site / "cupy_backends" / "cuda"
    users = [
        *(backends / "api").glob("runtime.*.so"),
        *(backends / "libs").glob("cu*.so"),
        *(site / "cupy" / "cuda").glob("*.so"),
    ]
    called = set().union(*(symbols(path, "U", "-D") for path in users))
    absent = sorted(name for name in called - symbols(device, "T") if name.startswith(("cuda", "cu", "nvrtc")))
    stubs.write_text(
        "#include <stdio.h>\n"
        + "".join(
            f'int {name}(void) {{ fprintf(stderr, "CUDA on the CPU has no {name}\\n"); return 801; }}\n'
            for name in absent
        ),
        encoding="utf-8",
    )
    run("gcc", "-c", "-fPIC", stubs, "-o", stubs.with_suffix(".o"))
    run(*compiler(site), device, stubs.with_suffix(".o"), "-o", made, "-ldl")
    made.replace(folder / "lib" / LIBRARIES[0])  # programs that use the old one keep it
    for cache in ("kernels", "cupy"):  # CuPy's cache holds paths of the kernels
        shutil.rmtree(folder / cache, ignore_errors=True)
    (folder / "kernels").mkdir()
    shutil.copy(HERE / "kernel.h", folder / "kernel.h")
    run("g++", *KERNELS, *includes(site), "-x", "c++-header", folder / "kernel.h", "-o", folder / "kernel.h.gch")


def compiler(site: Path) -> list[str | Path]:
    """The command for a library of the device or of CuPy."""
    return ["g++", "-O1", "-w", "-fPIC", "-shared", "-std=c++17", *includes(site)]


def runtime_module(cupy: Path, python: Path, compiler: list[str | Path]) -> Path:
    """CuPy's module for the runtime, linked to whatever library of that name is found when it is loaded."""
    cpp, module = cupy / "runtime.cpp", cupy / "runtime.so"
    options = {
        "CUPY_USE_CUDA_PYTHON": False,
        "CUPY_CUDA_VERSION": 13000,
        "CUPY_HIP_VERSION": 0,
        "CUPY_CUFFT_STATIC": False,
        "CUPY_CYTHON_VERSION": "3.2",
    }
    run(
        python,
        "-m",
        "cython",
        "-3",
        "--cplus",
        "-X",
        "binding=False",
        "-X",
        "c_api_binop_methods=True",
        "-E",
        ",".join(f"{k}={v}" for k, v in options.items()),
        "cupy_backends/cuda/api/runtime.pyx",
        "-o",
        cpp,
        cwd=cupy,
    )
    run(
        *compiler,
        f"-I{sysconfig.get_path('include')}",
        f"-I{cupy / 'cupy_backends' / 'cuda' / 'api'}",
        "-DNPY_TARGET_VERSION=NPY_2_0_API_VERSION",
        '-DCYTHON_EXTERN_C=extern "C"',
        cpp,
        "-o",
        module,
    )
    return module


def symbols(path: Path, kind: str, *options: str) -> set[str]:
    """Symbols of a library (``-D``) or an object, undefined ("U") or its own ("T")."""
    listing = subprocess.run(["nm", *options, path], check=True, capture_output=True, text=True).stdout
    fields = [line.split() for line in listing.splitlines()]
    return {parts[-1].partition("@")[0] for parts in fields if len(parts) > 1 and parts[-2] == kind}


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> None:
    """Run a command; raises InputError with the end of its output if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise InputError(f"{Path(command[0]).name} failed while CUDA on the CPU was built:\n{done.stdout[-3000:]}")


def say(what: str) -> None:
    """One line on standard error."""
    print(f"CUDA on the CPU: {what} …", file=sys.stderr, flush=True)
