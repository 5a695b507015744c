"""A tool, not a check: a CUDA that computes on the CPU, so that CuPy runs where there is no GPU.

CuPy itself is the released one, its front end, its kernels' sources and its calls of CUDA unchanged. What lies under it
is replaced: ``device.cpp`` is the driver, the runtime, the compiler NVRTC and the products of cuBLAS; ``kernel.h`` lets
the C++ compiler take a kernel for an ordinary function. Device memory is host memory filled with NaN, so that a value
read before it was written is seen, and so is shared memory; every call is counted. A captured stream records kernels,
copies and products, and a graph runs them with what its arrays then hold; what a capture does not allow is an error, as
on a GPU. What this can show: which functions of CuPy exist and take what pmp_ref gives them, their dtypes and results,
launches and transfers. What it cannot: time, races, most limits of a GPU.

    python -m verification.cuda_on_cpu -- python -m pytest --backend cupy
    python -m verification.cuda_on_cpu --step

Linux on x86-64 with g++; the first call builds an environment in ``.venv/cuda-on-cpu`` (some minutes).
"""
