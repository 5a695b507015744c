// CUDA on the CPU: as much of the driver, the runtime, NVRTC and cuBLAS as CuPy calls for pmp_ref. One device, one
// stream, everything done when the call returns. Functions not written here are made by build.py: they say their name
// and return an error.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>
#include <utility>

#define API extern "C" __attribute__((visibility("default")))
#undef cudaGetDeviceProperties

// ---- what was called -----------------------------------------------------------------------------------------------

static std::mutex lock;
static std::map<std::string, long> counts;

static void count(const std::string& what) {
  std::lock_guard<std::mutex> held(lock);
  counts[what]++;
}
API void counts_reset() {
  std::lock_guard<std::mutex> held(lock);
  counts.clear();
}
API const char* counts_text() {  // one line for each: name, blank, number
  static std::string text;
  std::lock_guard<std::mutex> held(lock);
  text.clear();
  for (const auto& one : counts) text += one.first + " " + std::to_string(one.second) + "\n";
  return text.c_str();
}

// ---- runtime -------------------------------------------------------------------------------------------------------

typedef cudaError_t E;
static const E OK = cudaSuccess;

static E allocated(void** p, size_t n) {
  if (posix_memalign(p, 512, n ? n : 1)) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xff, n);  // NaN
  return OK;
}
static E copied(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  static const char* names[] = {"copy host to host", "copy host to device", "copy device to host",
                                "copy device to device", "copy"};
  count(names[kind]);
  std::memmove(to, from, n);
  return OK;
}
static E token(void** handle) {
  *handle = std::malloc(1);
  return OK;
}

API const char* cudaGetErrorName(E) { return "cudaErrorOnCpu"; }
API const char* cudaGetErrorString(E) { return "CUDA on the CPU could not do this"; }
API E cudaGetLastError() { return OK; }
API E cudaDriverGetVersion(int* v) { *v = 13000; return OK; }
API E cudaRuntimeGetVersion(int* v) { *v = 13000; return OK; }
API E cudaGetDevice(int* d) { *d = 0; return OK; }
API E cudaGetDeviceCount(int* n) { *n = 1; return OK; }
API E cudaSetDevice(int d) { return d == 0 ? OK : cudaErrorInvalidDevice; }
API E cudaDeviceSynchronize() { count("synchronise"); return OK; }
API E cudaDeviceGetLimit(size_t* n, cudaLimit) { *n = 0; return OK; }
API E cudaDeviceGetPCIBusId(char* text, int n, int) { std::snprintf(text, n, "0000:00:00.0"); return OK; }
API E cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrMultiProcessorCount: *value = 100; break;
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    default: *value = 0;  // features: none
  }
  return OK;
}
API E cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::memset(p, 0, sizeof *p);
  std::strcpy(p->name, "CUDA on the CPU");
  p->totalGlobalMem = 8ull << 30;
  p->major = 9;
  p->warpSize = 32;
  p->multiProcessorCount = 100;
  p->maxThreadsPerBlock = 1024;
  return OK;
}
API E cudaMemGetInfo(size_t* free, size_t* total) { *free = *total = 8ull << 30; return OK; }
API E cudaMalloc(void** p, size_t n) { return allocated(p, n); }
API E cudaHostAlloc(void** p, size_t n, unsigned) { return allocated(p, n); }
API E cudaFree(void* p) { std::free(p); return OK; }
API E cudaFreeHost(void* p) { std::free(p); return OK; }
API E cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) { return copied(to, from, n, kind); }
API E cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t) {
  return copied(to, from, n, kind);
}
API E cudaMemset(void* p, int value, size_t n) { count("memset"); std::memset(p, value, n); return OK; }
API E cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t) { return cudaMemset(p, value, n); }
API E cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  std::memset(a, 0, sizeof *a);
  a->type = cudaMemoryTypeDevice;
  a->devicePointer = const_cast<void*>(p);
  return OK;
}
API E cudaStreamCreate(cudaStream_t* s) { return token(reinterpret_cast<void**>(s)); }
API E cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return cudaStreamCreate(s); }
API E cudaStreamDestroy(cudaStream_t s) { std::free(s); return OK; }
API E cudaStreamSynchronize(cudaStream_t) { count("synchronise"); return OK; }
API E cudaStreamQuery(cudaStream_t) { return OK; }
API E cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return OK; }
API E cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* s) { *s = cudaStreamCaptureStatusNone; return OK; }
API E cudaEventCreate(cudaEvent_t* e) { return token(reinterpret_cast<void**>(e)); }
API E cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return cudaEventCreate(e); }
API E cudaEventDestroy(cudaEvent_t e) { std::free(e); return OK; }
API E cudaEventRecord(cudaEvent_t, cudaStream_t) { return OK; }
API E cudaEventQuery(cudaEvent_t) { return OK; }
API E cudaEventSynchronize(cudaEvent_t) { count("synchronise"); return OK; }

// ---- driver: a module is a shared library, a kernel a function in it ---------------------------------------------------

typedef void (*Launch)(void** arguments, const unsigned* shape);
struct Function {
  Launch launch;
  std::string name;
};

API CUresult cuGetErrorName(CUresult, const char** text) { *text = "CUDA_ERROR_ON_CPU"; return CUDA_SUCCESS; }
API CUresult cuGetErrorString(CUresult, const char** text) { *text = "CUDA on the CPU could not do this"; return CUDA_SUCCESS; }
API CUresult cuCtxGetCurrent(CUcontext* c) { *c = reinterpret_cast<CUcontext>(&lock); return CUDA_SUCCESS; }
API CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice* d) { *d = 0; return CUDA_SUCCESS; }
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
API CUresult cuModuleLoadData(CUmodule* module, const void* image) {  // the image is the library's path
  void* library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    std::fprintf(stderr, "CUDA on the CPU: %s\n", dlerror());
    return CUDA_ERROR_INVALID_IMAGE;
  }
  *module = reinterpret_cast<CUmodule>(library);
  return CUDA_SUCCESS;
}
API CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
API CUresult cuModuleGetFunction(CUfunction* f, CUmodule module, const char* name) {
  void* launch = dlsym(module, (std::string("launch_") + name).c_str());
  if (!launch) return CUDA_ERROR_NOT_FOUND;
  *f = reinterpret_cast<CUfunction>(new Function{reinterpret_cast<Launch>(launch), name});
  return CUDA_SUCCESS;
}
API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned, CUstream, void** arguments, void**) {
  const Function* function = reinterpret_cast<Function*>(f);
  const unsigned shape[] = {gx, gy, gz, bx, by, bz};
  count("launch");
  count("kernel " + function->name);
  function->launch(arguments, shape);
  return CUDA_SUCCESS;
}
API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute a, CUfunction) {
  *value = a == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}
API CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction, int, size_t) { *n = 1; return CUDA_SUCCESS; }

// ---- NVRTC: the C++ compiler -----------------------------------------------------------------------------------------

struct Program {
  std::string source, log, path;
};

static std::string replaced(std::string text, const std::string& old, const std::string& now) {
  for (size_t at = 0; (at = text.find(old, at)) != std::string::npos; at += now.size()) text.replace(at, old.size(), now);
  return text;
}
static bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// CuPy's reductions for one thread: a block of one thread, each block one result.
static bool made_serial(std::string& source) {
  std::smatch found;
  if (!std::regex_search(source, found, std::regex("__shared__ char _sdata_raw\\[(\\d+) \\* sizeof"))) return false;
  const std::string size = found[1];
  const size_t body = found.position(0);
  std::string rest = source.substr(body);
  rest = replaced(rest, "__shared__ char _sdata_raw[" + size, "char _sdata_raw[1");
  rest = replaced(rest, "_J_stride = " + size + " >>", "_J_stride = 1 >>");
  rest = replaced(rest, "_block = " + size + " / 2", "_block = 0");
  rest = replaced(rest, "_block_stride", "1");
  source = source.substr(0, body) + rest;
  return true;
}

API const char* nvrtcGetErrorString(int error) { return error ? "NVRTC_ERROR_COMPILATION" : "NVRTC_SUCCESS"; }
API int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
API int nvrtcGetNumSupportedArchs(int* n) { *n = 1; return 0; }
API int nvrtcGetSupportedArchs(int* a) { *a = 90; return 0; }
API int nvrtcCreateProgram(Program** p, const char* source, const char*, int, const char* const*, const char* const*) {
  *p = new Program{source, "", ""};
  return 0;
}
API int nvrtcDestroyProgram(Program** p) { delete *p; *p = nullptr; return 0; }
API int nvrtcCompileProgram(Program* p, int, const char* const*) {
  std::string source = p->source;
  const bool serial = made_serial(source) || !has(source, "threadIdx");
  const char* mode = serial ? "SERIAL" : has(source, "__sync") || has(source, "__shfl") ? "FIBERS" : "THREADS";
  const std::regex kernel("__global__\\s+void\\s+(\\w+)\\s*\\(");
  std::string launchers;
  for (std::sregex_iterator k(source.begin(), source.end(), kernel), end; k != end; ++k) {
    const std::string name = (*k)[1];
    launchers += "extern \"C\" void launch_" + name + "(void** a, const unsigned* s) { launch<" + mode + ">(&" + name + ", a, s); }\n";
  }
  const std::string text = source + "\n" + launchers, folder = std::getenv("CUDA_ON_CPU");
  const std::string stem = folder + "/kernels/" + std::to_string(std::hash<std::string>()(text));
  p->path = stem + ".so";
  struct stat status;
  if (stat(p->path.c_str(), &status) == 0) return 0;
  const std::string mine = stem + "." + std::to_string(getpid());
  std::ofstream(mine + ".cpp") << text;
  const std::string command = std::string(std::getenv("CUDA_ON_CPU_COMPILER")) + " -shared -include '" + folder +
                              "/kernel.h' '" + mine + ".cpp' -o '" + mine + ".so' 2> '" + mine + ".log'";
  const int failed = std::system(command.c_str());
  std::ostringstream log;
  log << std::ifstream(mine + ".log").rdbuf();
  p->log = log.str();
  if (failed) return 6;
  rename((mine + ".so").c_str(), p->path.c_str());
  unlink((mine + ".cpp").c_str());
  unlink((mine + ".log").c_str());
  return 0;
}
static int given(const std::string& text, char* out) { std::strcpy(out, text.c_str()); return 0; }
static int sized(const std::string& text, size_t* n) { *n = text.size() + 1; return 0; }
API int nvrtcGetPTXSize(Program* p, size_t* n) { return sized(p->path, n); }
API int nvrtcGetPTX(Program* p, char* out) { return given(p->path, out); }
API int nvrtcGetCUBINSize(Program* p, size_t* n) { return sized(p->path, n); }
API int nvrtcGetCUBIN(Program* p, char* out) { return given(p->path, out); }
API int nvrtcGetProgramLogSize(Program* p, size_t* n) { return sized(p->log, n); }
API int nvrtcGetProgramLog(Program* p, char* out) { return given(p->log, out); }

// ---- cuBLAS: the products of NumPy's OpenBLAS, column by column ---------------------------------------------------------

template <class T>
using Gemm = void (*)(const char*, const char*, const long*, const long*, const long*, const T*, const T*, const long*,
                      const T*, const long*, const T*, T*, const long*);

static void* blas(const char* name) {
  static void* library = dlopen(std::getenv("CUDA_ON_CPU_BLAS"), RTLD_NOW);
  void* function = library ? dlsym(library, name) : nullptr;
  if (!function) {
    std::fprintf(stderr, "CUDA on the CPU: no %s in NumPy's BLAS\n", name);
    std::abort();
  }
  return function;
}
template <class T>
static void gemm(int ta, int tb, long m, long n, long k, T alpha, const T* a, long la, const T* b, long lb, T beta, T* c,
                 long lc) {
  static const Gemm<T> f = reinterpret_cast<Gemm<T>>(blas(sizeof(T) == 8 ? "scipy_dgemm_64_" : "scipy_sgemm_64_"));
  const char x = ta ? 'T' : 'N', y = tb ? 'T' : 'N';
  if (!m || !n) return;
  for (long j = 0; beta == 0 && j < n; j++) std::memset(c + j * lc, 0, m * sizeof(T));  // 0·NaN
  f(&x, &y, &m, &n, &k, &alpha, a, &la, b, &lb, &beta, c, &lc);
}
static int typed(int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int la, const void* b, int lb,
                 const void* beta, void* c, int lc, int type, long i, long sa, long sb, long sc) {
  count("product");
  typedef const float* F;
  typedef const double* D;
  if (type == 0)
    gemm<float>(ta, tb, m, n, k, *F(alpha), F(a) + i * sa, la, F(b) + i * sb, lb, *F(beta), (float*)c + i * sc, lc);
  else if (type == 1)
    gemm<double>(ta, tb, m, n, k, *D(alpha), D(a) + i * sa, la, D(b) + i * sb, lb, *D(beta), (double*)c + i * sc, lc);
  else
    return 15;  // not supported
  return 0;
}
API int cublasCreate_v2(void** h) { token(h); return 0; }
API int cublasDestroy_v2(void*) { return 0; }
API int cublasSetStream_v2(void*, void*) { return 0; }
API int cublasSetWorkspace_v2(void*, void*, size_t) { return 0; }
API int cublasSetMathMode(void*, int) { return 0; }
API int cublasGetMathMode(void*, int* mode) { *mode = 0; return 0; }
API int cublasSetPointerMode_v2(void*, int) { return 0; }
API int cublasGetPointerMode_v2(void*, int* mode) { *mode = 0; return 0; }
API int cublasGetVersion_v2(void*, int* v) { *v = 130000; return 0; }
API int cublasDgemm_v2(void*, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int la,
                       const double* b, int lb, const double* beta, double* c, int lc) {
  return typed(ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, 1, 0, 0, 0, 0);
}
API int cublasSgemm_v2(void*, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int la,
                       const float* b, int lb, const float* beta, float* c, int lc) {
  return typed(ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, 0, 0, 0, 0, 0);
}
API int cublasSgemmEx(void*, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int at, int la,
                      const void* b, int bt, int lb, const float* beta, void* c, int ct, int lc) {
  return at || bt || ct ? 15 : typed(ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, 0, 0, 0, 0, 0);
}
API int cublasGemmEx(void*, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int at, int la,
                     const void* b, int bt, int lb, const void* beta, void* c, int ct, int lc, int, int) {
  return at != bt || at != ct ? 15 : typed(ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, at, 0, 0, 0, 0);
}
API int cublasGemmStridedBatchedEx(void*, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int at,
                                   int la, long long sa, const void* b, int bt, int lb, long long sb, const void* beta,
                                   void* c, int ct, int lc, long long sc, int batch, int, int) {
  for (long i = 0; i < batch; i++)
    if (at != bt || at != ct || typed(ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, at, i, sa, sb, sc)) return 15;
  return 0;
}
API int cublasDgemmBatched(void*, int ta, int tb, int m, int n, int k, const double* alpha, const double* const* a, int la,
                           const double* const* b, int lb, const double* beta, double* const* c, int lc, int batch) {
  for (int i = 0; i < batch; i++) typed(ta, tb, m, n, k, alpha, a[i], la, b[i], lb, beta, c[i], lc, 1, 0, 0, 0, 0);
  return 0;
}
API int cublasSgemmBatched(void*, int ta, int tb, int m, int n, int k, const float* alpha, const float* const* a, int la,
                           const float* const* b, int lb, const float* beta, float* const* c, int lc, int batch) {
  for (int i = 0; i < batch; i++) typed(ta, tb, m, n, k, alpha, a[i], la, b[i], lb, beta, c[i], lc, 0, 0, 0, 0, 0);
  return 0;
}
