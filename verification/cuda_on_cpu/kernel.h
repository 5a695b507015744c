// What a CUDA kernel finds when the C++ compiler takes it for an ordinary function. Compiled once, before any kernel.
#pragma once
#include <math.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__ static __attribute__((section("cuda_shared")))  // blocks run one after another
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

static inline uint3 index_of(unsigned t) {
  return uint3{t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
}

// Shared memory: the linker knows where the section of the arrays begins and ends; launches say how much they want
// besides. Each block finds NaN in it.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_cuda_shared[], __stop_cuda_shared[];
alignas(128) static char dynamic_shared[232448];

static inline unsigned shared_size() { return __stop_cuda_shared - __start_cuda_shared; }

// Threads of a block are fibers where a kernel makes them wait for one another; each runs until it waits. Those that
// wait for their warp go on when all lanes that they name have come, those that wait for the block when nothing else
// can.
namespace fibers {
enum State : char { RUNS, WAITS_FOR_BLOCK, WAITS_FOR_WARP, DONE };
struct Fiber {
  char* stack;  // where it stopped
  State state;
  unsigned mask, group;  // the lanes it waits for; those that came
  char given[16], seen[16];  // what it shows to other lanes; the same when all had come
};
static Fiber all[1024];
static char* scheduler;
static unsigned count, current;  // none: threads do not wait
static void (*thread)();

// Puts the registers that a function must keep on this stack, notes it, and goes on where the other stack stopped.
__attribute__((naked, noipa)) static void go_on(char** from, char* to) {
  asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp, (%rdi)\n"
      "movq %rsi, %rsp\n popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
static inline void wait(State state) {
  const uint3 index = threadIdx;
  Fiber& me = all[current];
  me.state = state;
  go_on(&me.stack, scheduler);
  threadIdx = index;
}
static void run() {
  threadIdx = index_of(current);
  thread();
  wait(DONE);
}
static void begin(Fiber& fiber, char* end_of_stack) {
  void** top = reinterpret_cast<void**>(uintptr_t(end_of_stack) & ~uintptr_t(63));
  top[-2] = reinterpret_cast<void*>(run);  // where `ret` leads; six registers below, no way back above
  std::memset(top - 8, 0, 6 * sizeof *top);
  top[-1] = nullptr;
  fiber.stack = reinterpret_cast<char*>(top - 8);
  fiber.state = RUNS;
}

// Lets those go on that wait for lanes which have all come; where all that are left wait for the block, these.
static bool released() {
  bool any = false, block = true;
  for (unsigned t = 0; t < count; t++) {
    block = block && (all[t].state == DONE || all[t].state == WAITS_FOR_BLOCK);
    if (all[t].state != WAITS_FOR_WARP) continue;
    const unsigned mask = all[t].mask, first = t / 32 * 32;
    unsigned group = 0;
    bool complete = true;
    for (unsigned l = 0; l < 32 && first + l < count; l++) {
      const Fiber& lane = all[first + l];
      const bool came = lane.state == WAITS_FOR_WARP && lane.mask == mask;
      if (came) group |= 1u << l;
      complete = complete && (came || lane.state == DONE || !(mask >> l & 1));
    }
    for (unsigned l = 0; complete && l < 32; l++) {
      if (!(group >> l & 1)) continue;
      Fiber& lane = all[first + l];
      lane.group = group;
      std::memcpy(lane.seen, lane.given, sizeof lane.seen);
      lane.state = RUNS;
      any = true;
    }
  }
  for (unsigned t = 0; block && t < count; t++)
    if (all[t].state == WAITS_FOR_BLOCK) all[t].state = RUNS;
  return any || block;
}

static const char* block(unsigned threads, char* stacks, size_t size) {  // what went wrong, or null
  count = threads;
  for (unsigned t = 0; t < threads; t++) begin(all[t], stacks + (t + 1) * size);
  const char* wrong = nullptr;
  for (unsigned left = threads; left && !wrong;) {
    for (unsigned t = 0; t < threads; t++) {
      if (all[t].state != RUNS) continue;
      current = t;
      go_on(&scheduler, all[t].stack);
      left -= all[t].state == DONE;
    }
    if (left && !released()) wrong = "threads wait for lanes of their warp that do not come";
  }
  count = 0;
  return wrong;
}

static inline unsigned lane() { return current % 32; }
static inline unsigned exchanged(unsigned mask, const void* value, size_t size) {  // the lanes that took part
  Fiber& me = all[current];
  me.mask = mask;
  std::memcpy(me.given, value, size);
  wait(WAITS_FOR_WARP);
  return me.group;
}
template <class T>
static T taken_from(unsigned mask, T x, unsigned from) {
  static_assert(sizeof(T) <= 16);
  if (!count) return x;
  const unsigned group = exchanged(mask, &x, sizeof x);
  std::memset(&x, 0xff, sizeof x);  // NaN of a lane that has no part
  if (group >> from & 1) std::memcpy(&x, all[current / 32 * 32 + from].seen, sizeof x);
  return x;
}
}  // namespace fibers

static inline void __syncthreads() {
  if (fibers::count) fibers::wait(fibers::WAITS_FOR_BLOCK);
}
static inline void __syncwarp(unsigned mask = ~0u) {
  if (fibers::count) fibers::exchanged(mask, "", 1);
}
template <class T>
static T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
  return fibers::taken_from(mask, x, (fibers::lane() & ~(width - 1)) | (from & (width - 1)));
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T x, int by, int width = 32) {
  const unsigned lane = fibers::lane(), from = lane ^ by;
  return fibers::taken_from(mask, x, from <= (lane | (width - 1)) ? from : lane);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
  const unsigned lane = fibers::lane();
  return fibers::taken_from(mask, x, (lane & (width - 1)) >= by ? lane - by : lane);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
  const unsigned lane = fibers::lane();
  return fibers::taken_from(mask, x, (lane & (width - 1)) + by < unsigned(width) ? lane + by : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int yes) {
  if (!fibers::count) return yes != 0;
  const char mine = yes != 0;
  const unsigned group = fibers::exchanged(mask, &mine, 1);
  unsigned all = 0;
  for (unsigned l = 0; l < 32; l++)
    if (group >> l & 1 && fibers::all[fibers::current / 32 * 32 + l].seen[0]) all |= 1u << l;
  return all;
}
static inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
static inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, !yes) == 0; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Device functions that CuPy's headers and hand-written kernels use.
template <class To, class From>
static To bits_of(From from) {
  To to;
  static_assert(sizeof to == sizeof from);
  std::memcpy(&to, &from, sizeof to);
  return to;
}
static inline float __int_as_float(int i) { return bits_of<float>(i); }
static inline int __float_as_int(float x) { return bits_of<int>(x); }
static inline float __uint_as_float(unsigned i) { return bits_of<float>(i); }
static inline unsigned __float_as_uint(float x) { return bits_of<unsigned>(x); }
static inline double __longlong_as_double(long long i) { return bits_of<double>(i); }
static inline long long __double_as_longlong(double x) { return bits_of<long long>(x); }
static inline int __double2hiint(double x) { return int(bits_of<unsigned long long>(x) >> 32); }
static inline int __double2loint(double x) { return int(bits_of<unsigned long long>(x)); }
static inline double __hiloint2double(int high, int low) {
  return bits_of<double>((unsigned long long)(unsigned)high << 32 | (unsigned)low);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned long long)x * y >> 32; }
static inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fsqrt_rn(float x) { return std::sqrt(x); }
static inline float __expf(float x) { return std::exp(x); }
static inline float __logf(float x) { return std::log(x); }
static inline float __powf(float x, float y) { return std::pow(x, y); }
static inline float __saturatef(float x) { return std::fmin(std::fmax(x, 0.0f), 1.0f); }
static inline float __int2float_rn(int i) { return i; }
static inline int __float2int_rn(float x) { return std::lrint(x); }
static inline int __float2int_rz(float x) { return x; }
static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
static inline double rsqrt(double x) { return 1 / std::sqrt(x); }
template <class T>
static T __ldg(const T* p) { return *p; }

template <class T, class U>
static T atomicAdd(T* p, U x) { T old = *p; *p = old + T(x); return old; }
template <class T, class U>
static T atomicMax(T* p, U x) { T old = *p; if (T(x) > old) *p = T(x); return old; }
template <class T, class U>
static T atomicMin(T* p, U x) { T old = *p; if (T(x) < old) *p = T(x); return old; }
template <class T, class U>
static T atomicExch(T* p, U x) { T old = *p; *p = T(x); return old; }
template <class T>
static T atomicCAS(T* p, T expected, T x) { T old = *p; if (old == expected) *p = x; return old; }

template <class A, class B>
using Common = typename std::enable_if<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value,
                                       std::common_type<A, B>>::type::type;
template <class A, class B>
static inline Common<A, B> max(A a, B b) {
  using C = Common<A, B>;
  if constexpr (std::is_floating_point<C>::value) return std::fmax(C(a), C(b));
  else return C(a) > C(b) ? C(a) : C(b);
}
template <class A, class B>
static inline Common<A, B> min(A a, B b) {
  using C = Common<A, B>;
  if constexpr (std::is_floating_point<C>::value) return std::fmin(C(a), C(b));
  else return C(a) < C(b) ? C(a) : C(b);
}

// Launches. SERIAL: kernels whose loop strides over the grid, so that one thread does all of it. THREADS: every thread
// of every block in turn. FIBERS: the same for kernels that make threads wait.
enum Mode { SERIAL, THREADS, FIBERS };

template <class... A>
static const size_t* sizes(void (*)(A...)) {  // how many arguments, and the bytes of each
  static const size_t all[] = {sizeof...(A), sizeof(A)...};
  return all;
}
static inline unsigned bound(unsigned threads, unsigned = 0, unsigned = 0) { return threads; }  // __launch_bounds__

template <class... A>
struct Kernel {
  static void (*function)(A...);
  static void** arguments;

  template <size_t... I>
  static void apply(std::index_sequence<I...>) {
    function(*static_cast<typename std::remove_reference<A>::type*>(arguments[I])...);
  }
  static void thread() { apply(std::index_sequence_for<A...>{}); }
};
template <class... A>
void (*Kernel<A...>::function)(A...) = nullptr;
template <class... A>
void** Kernel<A...>::arguments = nullptr;

template <Mode mode, class... A>
static const char* launch(void (*function)(A...), void** arguments, const unsigned* shape, char* stacks, size_t size) {
  using K = Kernel<A...>;
  K::function = function;
  K::arguments = arguments;
  if (mode == SERIAL) {
    gridDim = blockDim = dim3(1, 1, 1);
    blockIdx = threadIdx = uint3{0, 0, 0};
    K::thread();
    return nullptr;
  }
  gridDim = dim3(shape[0], shape[1], shape[2]);
  blockDim = dim3(shape[3], shape[4], shape[5]);
  fibers::thread = K::thread;
  const unsigned threads = shape[3] * shape[4] * shape[5];
  for (unsigned z = 0; z < shape[2]; z++)
    for (unsigned y = 0; y < shape[1]; y++)
      for (unsigned x = 0; x < shape[0]; x++) {
        blockIdx = uint3{x, y, z};
        std::memset(__start_cuda_shared, 0xff, shared_size());
        std::memset(dynamic_shared, 0xff, shape[6]);
        if (mode == FIBERS) {
          if (const char* wrong = fibers::block(threads, stacks, size)) return wrong;
          continue;
        }
        for (unsigned t = 0; t < threads; t++) {
          threadIdx = index_of(t);
          K::thread();
        }
      }
  return nullptr;
}

#define __CUDACC_VER_MAJOR__ 13  // CuPy's half precision is CUDA's, not its own
#include <cupy/float16.cuh>
#undef __CUDACC_VER_MAJOR__
#include <cupy/complex.cuh>

#include <cupy/carray.cuh>

#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
