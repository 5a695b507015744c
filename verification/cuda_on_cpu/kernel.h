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
#include <ucontext.h>

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
#define __shared__ static  // blocks run one after another
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

// Threads of a block are fibers where a kernel makes them wait for one another; each runs until it waits.
namespace fibers {
static ucontext_t scheduler;
static std::vector<ucontext_t> all;
static std::vector<char> done, at_barrier;
static unsigned current;

static inline void wait(bool barrier) {
  if (all.empty()) return;
  const unsigned me = current;
  const uint3 index = threadIdx;
  at_barrier[me] = barrier;
  swapcontext(&all[me], &scheduler);
  threadIdx = index;
}

template <class T>
static T taken_from(T x, unsigned lane) {  // lanes of a warp wait equally often
  static char slots[1024][16];
  static_assert(sizeof(T) <= 16);
  std::memcpy(slots[current], &x, sizeof x);
  wait(false);
  std::memcpy(&x, slots[current / 32 * 32 + lane], sizeof x);
  wait(false);
  return x;
}
}  // namespace fibers

static inline void __syncthreads() { fibers::wait(true); }
static inline void __syncwarp(unsigned = 0) { fibers::wait(false); }
static inline void __threadfence() {}
template <class T>
static T __shfl_xor_sync(unsigned, T x, int mask, int = 32) {
  return fibers::taken_from(x, (fibers::current % 32) ^ mask);
}
template <class T>
static T __shfl_up_sync(unsigned, T x, unsigned by, int = 32) {
  const unsigned lane = fibers::current % 32;
  return fibers::taken_from(x, lane >= by ? lane - by : lane);
}
template <class T>
static T __shfl_down_sync(unsigned, T x, unsigned by, int = 32) {
  const unsigned lane = fibers::current % 32;
  return fibers::taken_from(x, lane + by < 32 ? lane + by : lane);
}

// Device functions that CuPy's headers use.
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
struct Kernel {
  static void (*function)(A...);
  static void** arguments;

  template <size_t... I>
  static void apply(std::index_sequence<I...>) {
    function(*static_cast<typename std::remove_reference<A>::type*>(arguments[I])...);
  }
  static void thread() { apply(std::index_sequence_for<A...>{}); }
  static void fiber() {
    thread();
    fibers::done[fibers::current] = 1;
  }
};
template <class... A>
void (*Kernel<A...>::function)(A...) = nullptr;
template <class... A>
void** Kernel<A...>::arguments = nullptr;

static inline uint3 index_of(unsigned t) {
  return uint3{t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
}

template <class K>
static void block_of_fibers(unsigned threads) {
  std::vector<std::vector<char>> stacks(threads, std::vector<char>(1 << 16));
  fibers::all.resize(threads);
  fibers::done.assign(threads, 0);
  fibers::at_barrier.assign(threads, 0);
  for (unsigned t = 0; t < threads; t++) {
    ucontext_t& fiber = fibers::all[t];
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stacks[t].data();
    fiber.uc_stack.ss_size = stacks[t].size();
    fiber.uc_link = &fibers::scheduler;
    makecontext(&fiber, K::fiber, 0);
  }
  for (bool left = true; left;) {
    bool ran = left = false;
    for (unsigned t = 0; t < threads; t++) {
      if (!fibers::done[t] && !fibers::at_barrier[t]) {
        fibers::current = t;
        threadIdx = index_of(t);
        swapcontext(&fibers::scheduler, &fibers::all[t]);
        ran = true;
      }
      left = left || !fibers::done[t];
    }
    if (!ran) std::fill(fibers::at_barrier.begin(), fibers::at_barrier.end(), 0);  // all have come to the barrier
  }
  fibers::all.clear();
}

template <Mode mode, class... A>
static void launch(void (*function)(A...), void** arguments, const unsigned* shape) {
  using K = Kernel<A...>;
  K::function = function;
  K::arguments = arguments;
  if (mode == SERIAL) {
    gridDim = blockDim = dim3(1, 1, 1);
    blockIdx = threadIdx = uint3{0, 0, 0};
    return K::thread();
  }
  gridDim = dim3(shape[0], shape[1], shape[2]);
  blockDim = dim3(shape[3], shape[4], shape[5]);
  const unsigned threads = shape[3] * shape[4] * shape[5];
  for (unsigned z = 0; z < shape[2]; z++)
    for (unsigned y = 0; y < shape[1]; y++)
      for (unsigned x = 0; x < shape[0]; x++) {
        blockIdx = uint3{x, y, z};
        if (mode == FIBERS) {
          block_of_fibers<K>(threads);
          continue;
        }
        for (unsigned t = 0; t < threads; t++) {
          threadIdx = index_of(t);
          K::thread();
        }
      }
}

#define __CUDACC_VER_MAJOR__ 13  // CuPy's half precision is CUDA's, not its own
#include <cupy/float16.cuh>
#undef __CUDACC_VER_MAJOR__
#include <cupy/complex.cuh>

#include <cupy/carray.cuh>

#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
