// The first formula of images.cu, which comes before this.
//
// A block makes ROWS × COLUMNS pixels (ROWS = STRIPS · TN) of M_THREADS · TM channels of SAMPLES samples. CHANNELS
// channels k at a time, it copies the pixels that its windows see, zeros in the padding, and the weights into shared
// memory. A thread has TM channels of TN pixels below one another. For each column t of the window it reads the pixels
// that these see once, and uses each for all rows s; neighbouring threads lie at neighbouring columns and read the same
// weights. SLICES threads with the same entries share the channels k; their sums are added in fixed order at the end.
#define ITEMS (SAMPLES * STRIPS * COLUMNS)  // threads with the same channels m
#define SLICE (M_THREADS * ITEMS)           // threads with the same channels k
#define WEIGHT_ENTRIES (CHANNELS * TAPS * M_PITCH)
#define TILE_ENTRIES (WEIGHT_ENTRIES + CHANNELS * IMAGES)
#define SUM_ENTRIES (SLICES / 2 * SLICE * TM * TN)
#define SEEN ((TN - 1) * ROW_STEP + (KERNEL_ROWS - 1) * ROW_DILATION + 1)  // rows that a thread sees
#define COLUMN_TILES ((TO_COLUMNS + COLUMNS - 1) / COLUMNS)

// Copies the weights of `count` channels k from k_first on. Four neighbouring threads take four neighbours m, the next
// four the next tap: they read whole sectors and write to different banks.
__device__ __forceinline__ void copy_weights(const REAL* kernel, REAL* weights, u32 group, u32 m_first, u32 k_first,
                                             u32 count) {
  const u32 l = threadIdx.x % 4, m_size = M_SIZE - m_first;
  kernel += TURNED ? ((group * K_SIZE + k_first) * M_SIZE + m_first) * TAPS
                   : ((group * M_SIZE + m_first) * K_SIZE + k_first) * TAPS;
#pragma unroll 2
  for (u32 e = threadIdx.x / 4; e < count * TAPS; e += THREADS / 4) {  // of the channels and taps
    const REAL* const source = kernel + (TURNED ? e / TAPS * (M_SIZE * TAPS) + (TAPS - 1 - e % TAPS) : e);
#pragma unroll
    for (u32 line = 0; line < M_LINES; line += 4) {
      const u32 i = line % TM_PITCH + l, m = line / TM_PITCH * TM + i;
      const bool there = i < TM && m < m_size;
      weights[e * M_PITCH + line + l] = there ? source[m * (TURNED ? TAPS : K_SIZE * TAPS)] : REAL(0);
    }
  }
}

constexpr int unrolled = UNROLL;  // columns of the window

// Adds what one channel k gives: for each column of the window, the pixels that its rows see, each used for all rows.
__device__ __forceinline__ void add_channel(const REAL* pixels, const REAL* weights, REAL (&sum)[TM][TN]) {
#pragma unroll unrolled
  for (int t = 0; t < KERNEL_COLUMNS; t++) {
    REAL seen[SEEN];  // those that no row of the window meets are never read
#pragma unroll
    for (int r = 0; r < SEEN; r++) seen[r] = pixels[r * PITCH + t * COLUMN_DILATION];
#pragma unroll
    for (int s = 0; s < KERNEL_ROWS; s++) {
      REAL weight[TM];
#pragma unroll
      for (int i = 0; i < TM; i++) weight[i] = weights[(s * KERNEL_COLUMNS + t) * M_PITCH + i];
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] += weight[i] * seen[j * ROW_STEP + s * ROW_DILATION];
    }
  }
}

extern "C" __global__ void correlation(const REAL* kernel, const REAL* from, const REAL* bias, REAL* to, u32 batch) {
  __shared__ __align__(16) REAL memory[TILE_ENTRIES > SUM_ENTRIES ? TILE_ENTRIES : SUM_ENTRIES];
  REAL* const weights = memory;
  REAL* const pixels = memory + WEIGHT_ENTRIES;

  u32 block = blockIdx.x;  // channels fastest: blocks that read the same pixels run together
  const u32 m_first = block % M_TILES * (M_THREADS * TM);
  block /= M_TILES;
  const u32 group = block % GROUPS;
  block /= GROUPS;
  const u32 column_first = block % COLUMN_TILES * COLUMNS;
  block /= COLUMN_TILES;
  const u32 row_first = block % ROW_TILES * ROWS, b_first = block / ROW_TILES * SAMPLES;

  // Threads left over do the work of the last ones again and store nothing.
  const bool left_over = threadIdx.x >= SLICES * SLICE;
  const u32 t = (left_over ? SLICES * SLICE - 1 : threadIdx.x) % SLICE, m_thread = t / ITEMS;
  const u32 slice = left_over ? SLICES - 1 : threadIdx.x / SLICE;
  const u32 sample = t % ITEMS / (STRIPS * COLUMNS), row = t / COLUMNS % STRIPS * TN, column = t % COLUMNS;
  const REAL* const my_pixels = pixels + sample * IMAGE + row * (ROW_STEP * PITCH) + column * COLUMN_STEP;
  const REAL* const my_weights = weights + m_thread * TM_PITCH;

  REAL sum[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; i++)
#pragma unroll
    for (int j = 0; j < TN; j++) sum[i][j] = 0;

  from += ((size_t)b_first * GROUPS + group) * (K_SIZE * FROM_PIXELS);
  for (u32 k_first = 0; k_first < K_SIZE; k_first += CHANNELS) {
    const u32 count = K_SIZE - k_first < CHANNELS ? K_SIZE - k_first : CHANNELS;
    if (k_first > 0) __syncthreads();  // all have read the channels before
    copy_pixels(from + k_first * FROM_PIXELS, pixels, batch - b_first, row_first * ROW_STEP - ROW_BEFORE,
                column_first * COLUMN_STEP - COLUMN_BEFORE, count);
    copy_weights(kernel, weights, group, m_first, k_first, count);
    __syncthreads();
#pragma unroll 1
    for (u32 c = slice; c < count; c += SLICES)
      add_channel(my_pixels + c * IMAGES, my_weights + c * (TAPS * M_PITCH), sum);
  }

  // The upper half of the slices hands its sums to the lower half until one is left.
#pragma unroll
  for (u32 half = SLICES / 2; half > 0; half /= 2) {
    __syncthreads();  // all have read what lies in memory
    if (slice >= half && slice < 2 * half && !left_over)
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) memory[((i * TN + j) * half + slice - half) * SLICE + t] = sum[i][j];
    __syncthreads();
    if (slice < half)
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] += memory[((i * TN + j) * half + slice) * SLICE + t];
  }

  const u32 b = b_first + sample, w = column_first + column;
  if (left_over || slice > 0 || b >= batch || w >= TO_COLUMNS) return;
#pragma unroll
  for (int i = 0; i < TM; i++) {
    const u32 m = m_first + m_thread * TM + i;
    if (m >= M_SIZE) return;
    REAL* const channel = to + ((size_t)b * (GROUPS * M_SIZE) + group * M_SIZE + m) * TO_PIXELS + w;
#pragma unroll
    for (int j = 0; j < TN; j++) {
      const u32 h = row_first + row + j;
#if BIAS
      sum[i][j] += bias[group * M_SIZE + m];
#endif
      if (h < TO_ROWS) channel[h * TO_COLUMNS] = sum[i][j];
    }
  }
}
