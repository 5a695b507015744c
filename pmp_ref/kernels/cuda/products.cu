// C[m, n] = Σ_k A(m, k) B(k, n): the products of a convolution or a dense stage; A and B are read where they lie.
//
// What A, B and C are is said by one of the defines below. A block makes BM × BN entries of C, BK steps of k at a time:
// its threads load both tiles into registers while they compute with those in shared memory. A thread is at (slice,
// row, column) of SLICES × RM × RN threads and adds up TM × TN entries: rows row·TM … (neighbours, read as one vector),
// columns column, column + RN, … (neighbouring threads at neighbouring columns). Slices share the steps of a tile; they
// are added in fixed order at the end. With SPLIT, blocks share the k axis too, `chunk` steps each, and C is a partial
// sum in the workspace `out`, for partials.cu. Nothing depends on the order in which blocks run.

typedef unsigned int u32;

#define BM (RM * TM)
#define BN (RN * TN)
#define THREADS (RM * RN * SLICES)

#if defined(CONVOLUTION_APPLY) || defined(CONVOLUTION_STATE) || defined(CONVOLUTION_KERNEL)
#define TAPS (KERNEL_ROWS * KERNEL_COLUMNS)
#define INPUTS (IN_CHANNELS / GROUPS)
#define OUTPUTS (OUT_CHANNELS / GROUPS)
#define IN_PIXELS (IN_ROWS * IN_COLUMNS)
#define OUT_PIXELS (OUT_ROWS * OUT_COLUMNS)

// x[b, i, r·stride + s·dilation − padding, …] of the group, k = (i, s, t), n = (b, r, c); 0 in the padding.
__device__ __forceinline__ REAL patch(const REAL* x, u32 group, u32 k, u32 n) {
  const u32 b = n / OUT_PIXELS, pixel = n % OUT_PIXELS, i = k / TAPS, tap = k % TAPS;
  const int row = int(pixel / OUT_COLUMNS * ROW_STRIDE + tap / KERNEL_COLUMNS * ROW_DILATION) - ROW_PADDING;
  const int column = int(pixel % OUT_COLUMNS * COLUMN_STRIDE + tap % KERNEL_COLUMNS * COLUMN_DILATION) - COLUMN_PADDING;
  if (ROW_PADDING && (row < 0 || row >= IN_ROWS)) return 0;
  if (COLUMN_PADDING && (column < 0 || column >= IN_COLUMNS)) return 0;
  const REAL* sample = x + (size_t)b * (IN_CHANNELS * IN_PIXELS);
  return sample[int((group * INPUTS + i) * IN_PIXELS) + row * IN_COLUMNS + column];
}
#endif

#if defined(CONVOLUTION_APPLY)  // y[b, o, r, c] = Σ_{i, s, t} kernel[o, i, s, t] · patch + bias[o]; m = o
#define M_SIZE OUTPUTS
#define N_SIZE (batch * OUT_PIXELS)
#define K_SIZE (INPUTS * TAPS)
__device__ __forceinline__ REAL left(const REAL* kernel, u32 group, u32 m, u32 k) {
  return kernel[(group * OUTPUTS + m) * K_SIZE + k];
}
__device__ __forceinline__ REAL right(const REAL* x, u32 group, u32 k, u32 n) { return patch(x, group, k, n); }
__device__ __forceinline__ void store(REAL* y, REAL*, const REAL* bias, u32 group, u32 m, u32 n, REAL value) {
  const u32 b = n / OUT_PIXELS, o = group * OUTPUTS + m;
#if BIAS && !SPLIT
  value += bias[o];
#endif
  y[(size_t)b * (OUT_CHANNELS * OUT_PIXELS) + (o * OUT_PIXELS + n % OUT_PIXELS)] = value;
}
#endif

#if defined(CONVOLUTION_STATE)  // x̄[b, i, h, w] = Σ_{o, s, t} kernel[o, i, s, t] · p[b, o, r, c]; m = i, n = (b, h, w)
#define M_SIZE INPUTS
#define N_SIZE (batch * IN_PIXELS)
#define K_SIZE (OUTPUTS * TAPS)
__device__ __forceinline__ REAL left(const REAL* kernel, u32 group, u32 m, u32 k) {
  return kernel[((group * OUTPUTS + k / TAPS) * INPUTS + m) * TAPS + k % TAPS];
}
// The window whose tap (s, t) lies on the pixel: r·stride = h + padding − s·dilation, if there is one.
__device__ __forceinline__ REAL right(const REAL* p, u32 group, u32 k, u32 n) {
  const u32 b = n / IN_PIXELS, pixel = n % IN_PIXELS, o = k / TAPS, tap = k % TAPS;
  const int above = int(pixel / IN_COLUMNS) + ROW_PADDING - int(tap / KERNEL_COLUMNS * ROW_DILATION);
  const int before = int(pixel % IN_COLUMNS) + COLUMN_PADDING - int(tap % KERNEL_COLUMNS * COLUMN_DILATION);
  if (above < 0 || before < 0) return 0;
  if (u32(above) % ROW_STRIDE != 0 || u32(before) % COLUMN_STRIDE != 0) return 0;
  const u32 r = u32(above) / ROW_STRIDE, c = u32(before) / COLUMN_STRIDE;
  if (r >= OUT_ROWS || c >= OUT_COLUMNS) return 0;
  const REAL* sample = p + (size_t)b * (OUT_CHANNELS * OUT_PIXELS);
  return sample[(group * OUTPUTS + o) * OUT_PIXELS + r * OUT_COLUMNS + c];
}
__device__ __forceinline__ void store(REAL* x, REAL*, const REAL*, u32 group, u32 m, u32 n, REAL value) {
  const u32 b = n / IN_PIXELS, i = group * INPUTS + m;
  x[(size_t)b * (IN_CHANNELS * IN_PIXELS) + (i * IN_PIXELS + n % IN_PIXELS)] = value;
}
#endif

#if defined(CONVOLUTION_KERNEL)  // g[o, j] = Σ_n p[o, n] · patch[j, n]; with BIAS one more column, of ones: Σ_n p[o, n]
#define M_SIZE OUTPUTS
#define N_SIZE (INPUTS * TAPS + BIAS)
#define K_SIZE (batch * OUT_PIXELS)
#define KERNEL_ENTRIES (OUT_CHANNELS * INPUTS * TAPS)
__device__ __forceinline__ REAL left(const REAL* p, u32 group, u32 m, u32 k) {
  const REAL* sample = p + (size_t)(k / OUT_PIXELS) * (OUT_CHANNELS * OUT_PIXELS);
  return sample[(group * OUTPUTS + m) * OUT_PIXELS + k % OUT_PIXELS];
}
__device__ __forceinline__ REAL right(const REAL* x, u32 group, u32 k, u32 n) {
  return n < INPUTS * TAPS ? patch(x, group, n, k) : REAL(1);
}
__device__ __forceinline__ void store(REAL* g, REAL* ones, const REAL*, u32 group, u32 m, u32 n, REAL value) {
  if (n < INPUTS * TAPS) g[(group * OUTPUTS + m) * (INPUTS * TAPS) + n] = value;
  else ones[group * OUTPUTS + m] = value;
}
#endif

#if defined(DENSE_APPLY)  // y[b, o] = Σ_i x[b, i] · kernel[o, i] + bias[o]; m = b, n = o
#define M_SIZE batch
#define N_SIZE NEURONS
#define K_SIZE INPUTS
__device__ __forceinline__ REAL left(const REAL* x, u32, u32 m, u32 k) { return x[(size_t)m * INPUTS + k]; }
__device__ __forceinline__ REAL right(const REAL* kernel, u32, u32 k, u32 n) { return kernel[n * INPUTS + k]; }
__device__ __forceinline__ void store(REAL* y, REAL*, const REAL* bias, u32, u32 m, u32 n, REAL value) {
#if BIAS && !SPLIT
  value += bias[n];
#endif
  y[(size_t)m * NEURONS + n] = value;
}
#endif

#if defined(DENSE_STATE)  // x̄[b, i] = Σ_o p[b, o] · kernel[o, i]; m = b, n = i
#define M_SIZE batch
#define N_SIZE INPUTS
#define K_SIZE NEURONS
__device__ __forceinline__ REAL left(const REAL* p, u32, u32 m, u32 k) { return p[(size_t)m * NEURONS + k]; }
__device__ __forceinline__ REAL right(const REAL* kernel, u32, u32 k, u32 n) { return kernel[k * INPUTS + n]; }
__device__ __forceinline__ void store(REAL* x, REAL*, const REAL*, u32, u32 m, u32 n, REAL value) {
  x[(size_t)m * INPUTS + n] = value;
}
#endif

#if defined(DENSE_KERNEL)  // g[o, i] = Σ_b p[b, o] · x[b, i]; with BIAS one more column, of ones: Σ_b p[b, o]
#define M_SIZE NEURONS
#define N_SIZE (INPUTS + BIAS)
#define K_SIZE batch
#define KERNEL_ENTRIES (NEURONS * INPUTS)
__device__ __forceinline__ REAL left(const REAL* p, u32, u32 m, u32 k) { return p[(size_t)k * NEURONS + m]; }
__device__ __forceinline__ REAL right(const REAL* x, u32, u32 k, u32 n) {
  return n < INPUTS ? x[(size_t)k * INPUTS + n] : REAL(1);
}
__device__ __forceinline__ void store(REAL* g, REAL* ones, const REAL*, u32, u32 m, u32 n, REAL value) {
  if (n < INPUTS) g[m * INPUTS + n] = value;
  else ones[m] = value;
}
#endif

// Where thread t loads its j-th entry of a tile of lines: `line` neighbours (a power of two) lie along one line.
#define PLACE(line, j) ((line) <= THREADS ? t % (line) : t + (j) * THREADS % (line))
#define LINE(line, j) ((line) <= THREADS ? t / (line) + (j) * (THREADS / (line)) : (j) * THREADS / (line))
#define LOADS(line, lines) (((line) * (lines) + THREADS - 1) / THREADS)

#if A_ALONG_K
#define A_LOADS LOADS(A_LINE, BM)
#define A_M(j) LINE(A_LINE, j)
#define A_K(j) PLACE(A_LINE, j)
#define A_PITCH (BM + 4)  // fewer threads of a warp write to one bank; still a multiple of a vector
#else
#define A_LOADS LOADS(A_LINE, BK)
#define A_M(j) PLACE(A_LINE, j)
#define A_K(j) LINE(A_LINE, j)
#define A_PITCH BM
#endif
#if B_ALONG_K
#define B_LOADS LOADS(B_LINE, BN)
#define B_N(j) LINE(B_LINE, j)
#define B_K(j) PLACE(B_LINE, j)
#define B_PITCH (BN + 1)  // a warp writes to 32 banks
#else
#define B_LOADS LOADS(B_LINE, BK)
#define B_N(j) PLACE(B_LINE, j)
#define B_K(j) LINE(B_LINE, j)
#define B_PITCH BN
#endif
#define A_ENTRIES ((BK * A_PITCH + 3) / 4 * 4)
#define TILE_ENTRIES (A_ENTRIES + BK * B_PITCH)
#define SUM_ENTRIES (SLICES / 2 * BM * BN)

extern "C" __global__ void product(const REAL* a, const REAL* b, const REAL* bias, REAL* out, REAL* ones, u32 batch,
                                   u32 chunk, u32 m_tiles, u32 n_tiles, size_t split_entries) {
  __shared__ __align__(16) REAL memory[TILE_ENTRIES > SUM_ENTRIES ? TILE_ENTRIES : SUM_ENTRIES];
  REAL* const a_tile = memory;
  REAL* const b_tile = memory + A_ENTRIES;
  const u32 t = threadIdx.x, column = t % RN, row = t / RN % RM, slice = t / (RN * RM);

  u32 block = blockIdx.x;  // m fastest: blocks that read the same part of B run together
  const u32 m_first = block % m_tiles * BM;
  block /= m_tiles;
  const u32 n_first = block % n_tiles * BN;
  block /= n_tiles;
  const u32 group = block % GROUPS, split = block / GROUPS;
  const u32 k_first = split * chunk, k_size = K_SIZE, k_last = k_size - k_first < chunk ? k_size : k_first + chunk;
  const u32 m_size = M_SIZE, n_size = N_SIZE;

  REAL sum[TM][TN], a_next[A_LOADS], b_next[B_LOADS];
#pragma unroll
  for (int i = 0; i < TM; i++)
#pragma unroll
    for (int j = 0; j < TN; j++) sum[i][j] = 0;

  const auto load = [&](u32 k_tile) {
#pragma unroll
    for (int j = 0; j < A_LOADS; j++) {
      const u32 mm = A_M(j), kk = A_K(j), m = m_first + mm, k = k_tile + kk;
      a_next[j] = mm < BM && kk < BK && m < m_size && k < k_last ? left(a, group, m, k) : REAL(0);
    }
#pragma unroll
    for (int j = 0; j < B_LOADS; j++) {
      const u32 nn = B_N(j), kk = B_K(j), n = n_first + nn, k = k_tile + kk;
      b_next[j] = nn < BN && kk < BK && n < n_size && k < k_last ? right(b, group, k, n) : REAL(0);
    }
  };

  load(k_first);
  for (u32 k_tile = k_first; k_tile < k_last; k_tile += BK) {
#pragma unroll
    for (int j = 0; j < A_LOADS; j++)
      if (A_M(j) < BM && A_K(j) < BK) a_tile[A_K(j) * A_PITCH + A_M(j)] = a_next[j];
#pragma unroll
    for (int j = 0; j < B_LOADS; j++)
      if (B_N(j) < BN && B_K(j) < BK) b_tile[B_K(j) * B_PITCH + B_N(j)] = b_next[j];
    __syncthreads();
    if (k_tile + BK < k_last) load(k_tile + BK);
#pragma unroll 4
    for (int step = 0; step < BK / SLICES; step++) {
      const u32 kk = step * SLICES + slice;
      REAL a_entry[TM], b_entry[TN];
#pragma unroll
      for (int i = 0; i < TM; i++) a_entry[i] = a_tile[kk * A_PITCH + row * TM + i];
#pragma unroll
      for (int j = 0; j < TN; j++) b_entry[j] = b_tile[kk * B_PITCH + column + j * RN];
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] += a_entry[i] * b_entry[j];
    }
    __syncthreads();
  }

  // Slices: the upper half hands its sums to the lower half until one is left.
#pragma unroll
  for (u32 half = SLICES / 2; half > 0; half /= 2) {
    if (slice >= half && slice < 2 * half)
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++)
          memory[((slice - half) * (TM * TN) + i * TN + j) * (RM * RN) + t % (RM * RN)] = sum[i][j];
    __syncthreads();
    if (slice < half)
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++)
          sum[i][j] += memory[(slice * (TM * TN) + i * TN + j) * (RM * RN) + t % (RM * RN)];
    __syncthreads();
  }
  if (slice > 0) return;

#if SPLIT
  out += split * split_entries;
#ifdef KERNEL_ENTRIES
  ones = out + KERNEL_ENTRIES;
#endif
#endif
#pragma unroll
  for (int j = 0; j < TN; j++) {
    const u32 n = n_first + column + j * RN;
#pragma unroll
    for (int i = 0; i < TM; i++) {
      const u32 m = m_first + row * TM + i;
      if (m < m_size && n < n_size) store(out, ones, bias, group, m, n, sum[i][j]);
    }
  }
}
