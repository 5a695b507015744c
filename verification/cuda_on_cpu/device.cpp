// CUDA on the CPU: as much of the driver, the runtime, NVRTC and cuBLAS as CuPy calls for pmp_ref. One device;
// everything is done when the call returns, but for what a captured stream records. Functions not written here are made
// by build.py: they say their name and return an error.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

// ---- streams, captures and graphs ----------------------------------------------------------------------------------

typedef cudaError_t E;
static const E OK = cudaSuccess;

struct Stream {
  unsigned flags;
};
struct Event {
  bool recorded, captured;
};
struct Node {
  std::string name;
  std::function<E()> run;
};
struct Graph {
  std::vector<Node> nodes;
};
struct Capture {
  cudaStream_t stream;
  cudaStreamCaptureMode mode;
  bool invalid;
  Graph graph;
  std::thread::id thread;
};
static Capture* capture = nullptr;  // one at a time

static bool is_legacy(cudaStream_t stream) { return !stream || stream == cudaStreamLegacy; }
static bool waits_for_legacy(cudaStream_t stream) {
  return stream == cudaStreamPerThread || !(reinterpret_cast<Stream*>(stream)->flags & cudaStreamNonBlocking);
}
static E refused(E error) {  // what a capture does not allow makes it invalid
  capture->invalid = true;
  return error;
}
// Whether work on this stream is recorded; an error where the capture allows neither.
static E recorded(cudaStream_t stream, bool* yes) {
  *yes = capture && stream == capture->stream;
  if (*yes) return capture->invalid ? cudaErrorStreamCaptureInvalidated : OK;
  const bool implicit = capture && is_legacy(stream) && waits_for_legacy(capture->stream);
  return implicit ? refused(cudaErrorStreamCaptureImplicit) : OK;
}
static bool is_kernel(const std::string& name) { return name.compare(0, 7, "kernel ") == 0; }

// Work on a stream: recorded or done. Kernels are named "kernel …"; they alone are counted as launches.
static E submitted(cudaStream_t stream, const std::string& name, std::function<E()> run) {
  bool record;
  if (E error = recorded(stream, &record)) return error;
  if (record) {
    capture->graph.nodes.push_back(Node{name, std::move(run)});
    return OK;
  }
  if (is_kernel(name)) count("launch");
  count(name);
  return run();
}
// Any waiting is refused to the thread that captures. (A GPU allows it for streams that have no part in the capture.)
static E synchronised() {
  if (capture && capture->thread == std::this_thread::get_id()) return refused(cudaErrorStreamCaptureUnsupported);
  count("synchronise");
  return OK;
}
static E only_relaxed(const char* what) {  // what a capture allows in relaxed mode, CuPy's default, and in no other
  if (!capture) return OK;
  if (capture->mode != cudaStreamCaptureModeRelaxed) return refused(cudaErrorStreamCaptureUnsupported);
  count(std::string(what) + " in capture");
  return OK;
}

API E cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (is_legacy(stream)) return cudaErrorStreamCaptureUnsupported;
  if (capture && stream == capture->stream) return cudaErrorIllegalState;
  if (capture) {
    std::fprintf(stderr, "CUDA on the CPU captures one stream at a time\n");
    return cudaErrorNotSupported;
  }
  capture = new Capture{stream, mode, false, Graph{}, std::this_thread::get_id()};
  return OK;
}
API E cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!capture || stream != capture->stream) return cudaErrorIllegalState;
  const std::unique_ptr<Capture> ended(capture);
  capture = nullptr;
  if (ended->invalid) return cudaErrorStreamCaptureInvalidated;
  count("graph capture");
  *graph = reinterpret_cast<cudaGraph_t>(new Graph(ended->graph));
  return OK;
}
API E cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  if (!capture) return OK;
  if (is_legacy(stream) && waits_for_legacy(capture->stream)) return cudaErrorStreamCaptureImplicit;
  if (stream == capture->stream)
    *status = capture->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return OK;
}
API E cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return OK;
}
API E cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return OK; }
API E cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const std::vector<Node>& nodes = reinterpret_cast<Graph*>(executable)->nodes;
  bool record;
  if (E error = recorded(stream, &record)) return error;
  if (record) {  // a graph inside a graph
    capture->graph.nodes.insert(capture->graph.nodes.end(), nodes.begin(), nodes.end());
    return OK;
  }
  count("graph launch");
  for (const Node& node : nodes) {
    count("graph node");
    count("in graph " + node.name);
    if (is_kernel(node.name)) count(node.name);
    if (E error = node.run()) return error;
  }
  return OK;
}
API E cudaGraphDestroy(cudaGraph_t graph) { delete reinterpret_cast<Graph*>(graph); return OK; }
API E cudaGraphExecDestroy(cudaGraphExec_t executable) { delete reinterpret_cast<Graph*>(executable); return OK; }
API E cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned) {
  std::ofstream file(path);
  file << "digraph {\n";
  const std::vector<Node>& nodes = reinterpret_cast<Graph*>(graph)->nodes;
  for (size_t i = 0; i < nodes.size(); i++) {
    file << i << " [label=\"" << nodes[i].name << "\"]\n";
    if (i) file << i - 1 << " -> " << i << "\n";
  }
  file << "}\n";
  return file ? OK : cudaErrorOperatingSystem;
}

// ---- runtime -------------------------------------------------------------------------------------------------------

static E allocated(void** p, size_t n) {
  if (posix_memalign(p, 512, n ? n : 1)) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xff, n);  // NaN
  return OK;
}
static E freed(void* p) {
  if (p) std::memset(p, 0xff, malloc_usable_size(p));  // NaN for whoever still reads it
  std::free(p);
  return OK;
}
static E copied(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t stream) {
  static const char* names[] = {"copy host to host", "copy host to device", "copy device to host",
                                "copy device to device", "copy"};
  return submitted(stream, names[kind], [=] { std::memmove(to, from, n); return OK; });
}
static E filled(void* p, int value, size_t n, cudaStream_t stream) {
  return submitted(stream, "memset", [=] { std::memset(p, value, n); return OK; });
}

// Errors that a user of graphs or of hand-written kernels meets, by their numbers; the driver has the same.
struct Message {
  const char *name, *text;
};
static Message message(int error) {
  switch (error) {
    case cudaErrorInvalidValue: return {"InvalidValue", "invalid argument"};
    case cudaErrorIllegalState: return {"IllegalState", "the operation cannot be performed in the present state"};
    case cudaErrorLaunchOutOfResources: return {"LaunchOutOfResources", "too many resources requested for launch"};
    case cudaErrorLaunchFailure: return {"LaunchFailure", "unspecified launch failure"};
    case cudaErrorStreamCaptureUnsupported:
      return {"StreamCaptureUnsupported", "operation not permitted when stream is capturing"};
    case cudaErrorStreamCaptureInvalidated:
      return {"StreamCaptureInvalidated", "operation failed due to a previous error during capture"};
    case cudaErrorStreamCaptureIsolation:
      return {"StreamCaptureIsolation", "dependency created on uncaptured work in another stream"};
    case cudaErrorStreamCaptureImplicit:
      return {"StreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"};
    case cudaErrorCapturedEvent:
      return {"CapturedEvent", "operation not permitted on an event last recorded in a capturing stream"};
    default: return {"OnCpu", "CUDA on the CPU could not do this"};
  }
}

API const char* cudaGetErrorName(E error) {
  static thread_local std::string name;
  return (name = std::string("cudaError") + message(error).name).c_str();
}
API const char* cudaGetErrorString(E error) { return message(error).text; }
API E cudaGetLastError() { return OK; }
API E cudaDriverGetVersion(int* v) { *v = 13000; return OK; }
API E cudaRuntimeGetVersion(int* v) { *v = 13000; return OK; }
API E cudaGetDevice(int* d) { *d = 0; return OK; }
API E cudaGetDeviceCount(int* n) { *n = 1; return OK; }
API E cudaSetDevice(int d) { return d == 0 ? OK : cudaErrorInvalidDevice; }
API E cudaDeviceSynchronize() { return synchronised(); }
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
API E cudaMalloc(void** p, size_t n) {
  const E error = only_relaxed("malloc");
  return error ? error : allocated(p, n);
}
API E cudaHostAlloc(void** p, size_t n, unsigned) {
  const E error = only_relaxed("host malloc");
  return error ? error : allocated(p, n);
}
API E cudaFree(void* p) {
  const E error = only_relaxed("free");
  return error ? error : freed(p);
}
API E cudaFreeHost(void* p) {
  const E error = only_relaxed("host free");
  return error ? error : freed(p);
}
API E cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  return capture ? refused(cudaErrorStreamCaptureImplicit) : copied(to, from, n, kind, nullptr);
}
API E cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t stream) {
  return copied(to, from, n, kind, stream);
}
API E cudaMemset(void* p, int value, size_t n) {
  return capture ? refused(cudaErrorStreamCaptureImplicit) : filled(p, value, n, nullptr);
}
API E cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t stream) { return filled(p, value, n, stream); }
API E cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return submitted(stream, "host function", [=] { function(data); return OK; });
}
API E cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  std::memset(a, 0, sizeof *a);
  a->type = cudaMemoryTypeDevice;
  a->devicePointer = const_cast<void*>(p);
  return OK;
}
API E cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
  *s = reinterpret_cast<cudaStream_t>(new Stream{flags});
  return OK;
}
API E cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int) { return cudaStreamCreateWithFlags(s, flags); }
API E cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithFlags(s, cudaStreamDefault); }
API E cudaStreamDestroy(cudaStream_t s) {
  if (capture && capture->stream == s) {
    delete capture;
    capture = nullptr;
  }
  delete reinterpret_cast<Stream*>(s);
  return OK;
}
API E cudaStreamSynchronize(cudaStream_t) { return synchronised(); }
API E cudaStreamQuery(cudaStream_t stream) {
  bool record;
  const E error = recorded(stream, &record);
  return error ? error : record ? refused(cudaErrorStreamCaptureUnsupported) : OK;
}
API E cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  *e = reinterpret_cast<cudaEvent_t>(new Event{false, false});
  return OK;
}
API E cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
API E cudaEventDestroy(cudaEvent_t e) { delete reinterpret_cast<Event*>(e); return OK; }
API E cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  bool record;
  if (E error = recorded(stream, &record)) return error;
  *reinterpret_cast<Event*>(e) = Event{true, record};
  return OK;
}
API E cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned) {
  const Event& event = *reinterpret_cast<Event*>(e);
  bool record;
  if (E error = recorded(stream, &record)) return error;
  if (record && event.recorded && !event.captured) return refused(cudaErrorStreamCaptureIsolation);
  if (!record && capture && event.captured) {
    std::fprintf(stderr, "CUDA on the CPU captures one stream at a time\n");
    return refused(cudaErrorNotSupported);
  }
  return OK;
}
API E cudaEventQuery(cudaEvent_t e) { return reinterpret_cast<Event*>(e)->captured ? cudaErrorCapturedEvent : OK; }
API E cudaEventSynchronize(cudaEvent_t e) {
  if (!reinterpret_cast<Event*>(e)->captured) return synchronised();
  return capture ? refused(cudaErrorCapturedEvent) : cudaErrorCapturedEvent;
}

// ---- driver: a module is a shared library, a kernel a function in it -----------------------------------------------

// What a kernel's library offers, made by nvrtcCompileProgram.
typedef const char* (*Launch)(void** arguments, const unsigned* shape, char* stacks, size_t size);  // an error, or null
typedef const size_t* (*Sizes)();  // how many arguments, and the bytes of each
typedef unsigned (*Number)();
struct Function {
  std::string name;
  Launch launch;
  Sizes sizes;
  unsigned most_threads, static_shared, most_shared;
};

API CUresult cuGetErrorName(CUresult error, const char** text) {
  *text = cudaGetErrorName(E(error));
  return CUDA_SUCCESS;
}
API CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = message(error).text;
  return CUDA_SUCCESS;
}
API CUresult cuCtxGetCurrent(CUcontext* c) { *c = reinterpret_cast<CUcontext>(&lock); return CUDA_SUCCESS; }
API CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice* d) { *d = 0; return CUDA_SUCCESS; }
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
API CUresult cuModuleLoadData(CUmodule* module, const void* image) {  // the image is the library's path
  if (E error = only_relaxed("module load")) return CUresult(error);
  void* library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    std::fprintf(stderr, "CUDA on the CPU: %s\n", dlerror());
    return CUDA_ERROR_INVALID_IMAGE;
  }
  *module = reinterpret_cast<CUmodule>(library);
  return CUDA_SUCCESS;
}
API CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
template <class F>
static F entry(CUmodule module, const std::string& name) {
  return reinterpret_cast<F>(dlsym(module, name.c_str()));
}
API CUresult cuModuleGetFunction(CUfunction* f, CUmodule module, const char* name) {
  const std::string kernel = name;
  const Launch launch = entry<Launch>(module, "launch_" + kernel);
  if (!launch) return CUDA_ERROR_NOT_FOUND;
  const Number bound = entry<Number>(module, "bound_" + kernel), shared = entry<Number>(module, "shared_bytes");
  *f = reinterpret_cast<CUfunction>(
      new Function{kernel, launch, entry<Sizes>(module, "sizes_" + kernel), bound(), shared(), 49152});
  return CUDA_SUCCESS;
}

static const size_t STACK = (1 << 16) + 320;  // not a power of two, lest all stacks lie on the same lines of the cache
static char* stacks() {  // of the threads of a block: allocated once, touched where used
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  static void* all = mmap(nullptr, 1024 * STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
  return static_cast<char*>(all);
}
API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned shared, CUstream stream, void** arguments, void**) {
  const Function* function = reinterpret_cast<Function*>(f);
  const unsigned long long blocks = 1ull * gx * gy * gz, threads = 1ull * bx * by * bz;
  if (!blocks || !threads || gx > 2147483647 || gy > 65535 || gz > 65535 || bz > 64 || threads > 1024 ||
      shared > function->most_shared)
    return CUDA_ERROR_INVALID_VALUE;
  if (threads > function->most_threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  const size_t* sizes = function->sizes();
  std::vector<std::string> values;  // copies, for a graph runs the kernel with them later
  for (size_t i = 0; i < sizes[0]; i++) values.emplace_back(static_cast<char*>(arguments[i]), sizes[i + 1]);
  const auto run = [=]() mutable -> E {
    const unsigned shape[] = {gx, gy, gz, bx, by, bz, shared};
    std::vector<void*> pointers;
    for (std::string& value : values) pointers.push_back(&value[0]);
    static std::mutex device;  // kernels run one after another, whatever thread launches them
    std::lock_guard<std::mutex> held(device);
    const char* wrong = function->launch(pointers.data(), shape, stacks(), STACK);
    if (wrong) std::fprintf(stderr, "CUDA on the CPU: %s: %s\n", function->name.c_str(), wrong);
    return wrong ? cudaErrorLaunchFailure : OK;
  };
  return CUresult(submitted(stream, "kernel " + function->name, run));
}
API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute a, CUfunction f) {
  const Function* function = reinterpret_cast<Function*>(f);
  switch (a) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = function->most_threads; break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = function->static_shared; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = function->most_shared; break;
    default: *value = 0;
  }
  return CUDA_SUCCESS;
}
API CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int value) {
  if (a != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
  if (value < 0 || value > 232448) return CUDA_ERROR_INVALID_VALUE;  // 227 KiB, as on an H100
  reinterpret_cast<Function*>(f)->most_shared = value;
  return CUDA_SUCCESS;
}
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction, int, size_t) {
  *n = 1;
  return CUDA_SUCCESS;
}

// ---- NVRTC: the C++ compiler ---------------------------------------------------------------------------------------

struct Program {
  std::string source, log, path;
};

static std::string replaced(std::string text, const std::string& old, const std::string& now) {
  for (size_t at = 0; (at = text.find(old, at)) != std::string::npos; at += now.size())
    text.replace(at, old.size(), now);
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
  static const std::string bounds = "(?:__launch_bounds__\\s*\\(([^;{]*?)\\)\\s*)?";
  static const std::regex kernel("__global__\\s+" + bounds + "void\\s+" + bounds + "(\\w+)\\s*\\(");
  static const std::string alignment = "(?:__align__\\s*\\(\\d+\\)\\s*)?";
  static const std::regex dynamic("extern\\s+__shared__\\s+" + alignment + "([^;\\[]+?)\\s*(\\w+)\\s*\\[\\s*\\]");
  std::string source = std::regex_replace(p->source, dynamic, "$1* const $2 = reinterpret_cast<$1*>(dynamic_shared)");
  const bool serial = made_serial(source) || !(has(source, "threadIdx") || has(source, "blockIdx"));
  const char* mode = serial ? "SERIAL" : has(source, "__sync") || has(source, "_sync(") ? "FIBERS" : "THREADS";
  std::string launchers = "extern \"C\" unsigned shared_bytes() { return shared_size(); }\n";
  for (std::sregex_iterator k(source.begin(), source.end(), kernel), end; k != end; ++k) {
    const std::string name = (*k)[3], bounds_given = (*k)[1].length() ? (*k)[1] : (*k)[2];
    const std::string bound = bounds_given.empty() ? "1024" : bounds_given, c = "extern \"C\" ";
    launchers += c + "const size_t* sizes_" + name + "() { return sizes(&" + name + "); }\n";
    launchers += c + "unsigned bound_" + name + "() { return bound(" + bound + "); }\n";
    launchers += c + "const char* launch_" + name + "(void** a, const unsigned* s, char* stacks, size_t size) { ";
    launchers += std::string("return launch<") + mode + ">(&" + name + ", a, s, stacks, size); }\n";
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

// ---- cuBLAS: the products of NumPy's OpenBLAS, column by column ----------------------------------------------------

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
static void gemm(int ta, int tb, long m, long n, long k, T alpha, const T* a, long la, const T* b, long lb, T beta,
                 T* c, long lc) {
  static const Gemm<T> f = reinterpret_cast<Gemm<T>>(blas(sizeof(T) == 8 ? "scipy_dgemm_64_" : "scipy_sgemm_64_"));
  const char x = ta ? 'T' : 'N', y = tb ? 'T' : 'N';
  if (!m || !n) return;
  for (long j = 0; beta == 0 && j < n; j++) std::memset(c + j * lc, 0, m * sizeof(T));  // 0·NaN
  f(&x, &y, &m, &n, &k, &alpha, a, &la, b, &lb, &beta, c, &lc);
}
struct Handle {
  cudaStream_t stream;
};
template <class T>
static int product(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int la,
                   const void* b, int lb, const void* beta, void* c, int lc, long i, long sa, long sb, long sc) {
  const T x = *static_cast<const T*>(alpha), y = *static_cast<const T*>(beta);
  const T *p = static_cast<const T*>(a) + i * sa, *q = static_cast<const T*>(b) + i * sb;
  T* r = static_cast<T*>(c) + i * sc;
  return submitted(static_cast<Handle*>(h)->stream, "product", [=] {
    gemm<T>(ta, tb, m, n, k, x, p, la, q, lb, y, r, lc);
    return OK;
  }) ? 14 : 0;  // internal error
}
static int typed(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int la, const void* b,
                 int lb, const void* beta, void* c, int lc, int type, long i, long sa, long sb, long sc) {
  if (type == 0) return product<float>(h, ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, i, sa, sb, sc);
  if (type == 1) return product<double>(h, ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, i, sa, sb, sc);
  return 15;  // not supported
}
API int cublasCreate_v2(void** h) { *h = new Handle{nullptr}; return 0; }
API int cublasDestroy_v2(void* h) { delete static_cast<Handle*>(h); return 0; }
API int cublasSetStream_v2(void* h, cudaStream_t stream) { static_cast<Handle*>(h)->stream = stream; return 0; }
static bool captures(void* h) { return capture && static_cast<Handle*>(h)->stream == capture->stream; }
API int cublasSetWorkspace_v2(void*, void*, size_t) { return 0; }
API int cublasSetMathMode(void*, int) { return 0; }
API int cublasGetMathMode(void*, int* mode) { *mode = 0; return 0; }
API int cublasSetPointerMode_v2(void*, int) { return 0; }
API int cublasGetPointerMode_v2(void*, int* mode) { *mode = 0; return 0; }
API int cublasGetVersion_v2(void*, int* v) { *v = 130000; return 0; }
API int cublasDgemm_v2(void* h, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int la,
                       const double* b, int lb, const double* beta, double* c, int lc) {
  return typed(h, ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, 1, 0, 0, 0, 0);
}
API int cublasSgemm_v2(void* h, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int la,
                       const float* b, int lb, const float* beta, float* c, int lc) {
  return typed(h, ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, 0, 0, 0, 0, 0);
}
API int cublasSgemmEx(void* h, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int at, int la,
                      const void* b, int bt, int lb, const float* beta, void* c, int ct, int lc) {
  return at || bt || ct ? 15 : typed(h, ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, 0, 0, 0, 0, 0);
}
API int cublasGemmEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int at, int la,
                     const void* b, int bt, int lb, const void* beta, void* c, int ct, int lc, int, int) {
  return at != bt || at != ct ? 15 : typed(h, ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, at, 0, 0, 0, 0);
}
API int cublasGemmStridedBatchedEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a,
                                   int at, int la, long long sa, const void* b, int bt, int lb, long long sb,
                                   const void* beta, void* c, int ct, int lc, long long sc, int batch, int, int) {
  if (at != bt || at != ct) return 15;
  for (long i = 0; i < batch; i++)
    if (int error = typed(h, ta, tb, m, n, k, alpha, a, la, b, lb, beta, c, lc, at, i, sa, sb, sc)) return error;
  return 0;
}
API int cublasDgemmBatched(void* h, int ta, int tb, int m, int n, int k, const double* alpha, const double* const* a,
                           int la, const double* const* b, int lb, const double* beta, double* const* c, int lc,
                           int batch) {
  if (captures(h)) return 15;  // the pointers are read here
  for (int i = 0; i < batch; i++) typed(h, ta, tb, m, n, k, alpha, a[i], la, b[i], lb, beta, c[i], lc, 1, 0, 0, 0, 0);
  return 0;
}
API int cublasSgemmBatched(void* h, int ta, int tb, int m, int n, int k, const float* alpha, const float* const* a,
                           int la, const float* const* b, int lb, const float* beta, float* const* c, int lc,
                           int batch) {
  if (captures(h)) return 15;
  for (int i = 0; i < batch; i++) typed(h, ta, tb, m, n, k, alpha, a[i], la, b[i], lb, beta, c[i], lc, 0, 0, 0, 0, 0);
  return 0;
}
