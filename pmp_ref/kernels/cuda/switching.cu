// The second formula of images.cu, which comes before this.
//
// A block sums over `chunk` units, each of ROWS rows of SAMPLES samples, for M_THREADS · TM channels m and CHANNELS
// channels k. It copies the pixels and p of a unit into shared memory, p in pieces of PIECE positions along a row. A
// thread has TM channels m and TAP_ROWS rows of the window of one channel k. For each piece it reads the pixels that
// these rows see once, and uses each for all columns of the window. SLICES threads with the same entries of g share the
// pieces; their sums are added in fixed order at the end. With SPLIT, blocks share the units too, and what they make is
// a partial sum in the workspace `out`, for partials.cu.
#define ROW_GROUPS (KERNEL_ROWS / TAP_ROWS)
#define SLICE (M_THREADS * CHANNELS * ROW_GROUPS)  // threads
#define K_TILES ((K_SIZE + CHANNELS - 1) / CHANNELS)
#define ROW_PIECES (COLUMNS / PIECE)
#define PIECES (SAMPLES * ROWS * ROW_PIECES)
#define PIECE_PITCH (PIECE * M_PITCH / 8 * 8 + 4)  // slices that read vectors of different pieces meet 32 banks
#define SEEN ((PIECE - 1) * COLUMN_STEP + (KERNEL_COLUMNS - 1) * COLUMN_DILATION + 1)  // columns of a piece
#define P_ENTRIES (PIECES * PIECE_PITCH)
#define TILE_ENTRIES (P_ENTRIES + CHANNELS * IMAGES)
#define SUM_ENTRIES (SLICE * SLICES * SUM_ROWS * TAP_ROWS * KERNEL_COLUMNS)
#define MOST(a, b) ((a) > (b) ? (a) : (b))

// Copies p at the rows from row_first on of the samples that there are; zeros where there is no position.
__device__ __forceinline__ void copy_costate(const REAL* p, REAL* copy, u32 samples, u32 m_first, u32 row_first) {
  for (u32 e = threadIdx.x; e < PIECES * PIECE; e += THREADS) {
    const u32 sample = e / (ROWS * COLUMNS), h = row_first + e / COLUMNS % ROWS, w = e % COLUMNS;
    const bool inside = sample < samples && h < TO_ROWS && w < TO_COLUMNS;
    const REAL* const source = p + sample * (GROUPS * M_SIZE * TO_PIXELS) + h * TO_COLUMNS + w;
    REAL* const target = copy + e / PIECE * PIECE_PITCH + e % PIECE * M_PITCH;
#pragma unroll
    for (u32 line = 0; line < M_LINES; line += 4) {
      REAL vector[4];
#pragma unroll
      for (u32 l = 0; l < 4; l++) {
        const u32 i = (line + l) % TM_PITCH, m = (line + l) / TM_PITCH * TM + i;
        vector[l] = inside && i < TM && m_first + m < M_SIZE ? source[m * TO_PIXELS] : REAL(0);
      }
#pragma unroll
      for (u32 l = 0; l < 4; l++) target[line + l] = vector[l];
    }
  }
}

// Adds what one piece gives.
__device__ __forceinline__ void add_piece(const REAL* p, const REAL* pixels,
                                          REAL (&sum)[TM][TAP_ROWS * KERNEL_COLUMNS]) {
  REAL seen[TAP_ROWS][SEEN];  // those that no position meets are never read
#pragma unroll
  for (int s = 0; s < TAP_ROWS; s++)
#pragma unroll
    for (int c = 0; c < SEEN; c++) seen[s][c] = pixels[s * (ROW_DILATION * PITCH) + c];
#pragma unroll
  for (int j = 0; j < PIECE; j++) {
    REAL costate[TM];
#pragma unroll
    for (int i = 0; i < TM; i++) costate[i] = p[j * M_PITCH + i];
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int a = 0; a < TAP_ROWS * KERNEL_COLUMNS; a++)
        sum[i][a] += costate[i] * seen[a / KERNEL_COLUMNS][j * COLUMN_STEP + a % KERNEL_COLUMNS * COLUMN_DILATION];
  }
}

extern "C" __global__ void switching(const REAL* p, const REAL* from, REAL* out, REAL* ones, u32 batch, u32 units,
                                     u32 chunk, size_t split_entries) {
  __shared__ __align__(16) REAL memory[MOST(MOST(TILE_ENTRIES, SUM_ENTRIES), THREADS)];
  REAL* const costates = memory;
  REAL* const pixels = memory + P_ENTRIES;

  u32 block = blockIdx.x;  // channels fastest: blocks that read the same states run together
  const u32 m_first = block % M_TILES * (M_THREADS * TM);
  block /= M_TILES;
  const u32 k_first = block % K_TILES * CHANNELS;
  block /= K_TILES;
  const u32 group = block % GROUPS, split = block / GROUPS;
  const u32 unit_last = units - split * chunk < chunk ? units : split * chunk + chunk;

  const u32 t = threadIdx.x, slice = t / SLICE, m_thread = t % SLICE / (CHANNELS * ROW_GROUPS);
  const REAL* const my_costates = costates + m_thread * TM_PITCH;
  const REAL* const my_pixels =
      pixels + t / ROW_GROUPS % CHANNELS * IMAGES + t % ROW_GROUPS * (TAP_ROWS * ROW_DILATION * PITCH);

  REAL sum[TM][TAP_ROWS * KERNEL_COLUMNS], sum_ones = 0;
#pragma unroll
  for (int i = 0; i < TM; i++)
#pragma unroll
    for (int a = 0; a < TAP_ROWS * KERNEL_COLUMNS; a++) sum[i][a] = 0;

#pragma unroll 1
  for (u32 unit = split * chunk; unit < unit_last; unit++) {
    const u32 row_first = unit % ROW_TILES * ROWS, b_first = unit / ROW_TILES * SAMPLES;
    copy_costate(p + ((size_t)b_first * (GROUPS * M_SIZE) + group * M_SIZE + m_first) * TO_PIXELS, costates,
                 batch - b_first, m_first, row_first);
    copy_pixels(from + ((size_t)b_first * (GROUPS * K_SIZE) + group * K_SIZE + k_first) * FROM_PIXELS, pixels,
                batch - b_first, row_first * ROW_STEP - ROW_BEFORE, 0u - COLUMN_BEFORE, K_SIZE - k_first);
    __syncthreads();
    if (slice < SLICES)
#pragma unroll 1
      for (u32 piece = slice; piece < PIECES; piece += SLICES) {
        const u32 row = piece / ROW_PIECES % ROWS, sample = piece / (ROW_PIECES * ROWS);
        add_piece(my_costates + piece * PIECE_PITCH,
                  my_pixels + sample * IMAGE + row * (ROW_STEP * PITCH) + piece % ROW_PIECES * (PIECE * COLUMN_STEP),
                  sum);
      }
#if BIAS
    if (k_first == 0 && t < THREADS / M_LINES * M_LINES)  // thread t adds line t % M_LINES
      for (u32 piece = t / M_LINES; piece < PIECES; piece += THREADS / M_LINES)
#pragma unroll
        for (int j = 0; j < PIECE; j++) sum_ones += costates[piece * PIECE_PITCH + j * M_PITCH + t % M_LINES];
#endif
    __syncthreads();  // all have read the unit
  }

#if SPLIT
  out += split * split_entries;
  ones = out + GROUPS * M_SIZE * K_SIZE * TAPS;
#endif
#pragma unroll
  for (int first = 0; first < TM; first += SUM_ROWS) {  // SUM_ROWS channels m of each thread at a time
    if (slice < SLICES)
#pragma unroll
      for (int i = first; i < first + SUM_ROWS && i < TM; i++)
#pragma unroll
        for (int a = 0; a < TAP_ROWS * KERNEL_COLUMNS; a++)
          memory[((i - first) * (TAP_ROWS * KERNEL_COLUMNS) + a) * (SLICE * SLICES) + t] = sum[i][a];
    __syncthreads();
    for (u32 e = t; e < SUM_ROWS * TAP_ROWS * KERNEL_COLUMNS * SLICE; e += THREADS) {
      const u32 place = e % SLICE, a = e / SLICE % (TAP_ROWS * KERNEL_COLUMNS);
      const u32 i = first + e / (SLICE * TAP_ROWS * KERNEL_COLUMNS);
      const u32 m = m_first + place / (CHANNELS * ROW_GROUPS) * TM + i, k = k_first + place / ROW_GROUPS % CHANNELS;
      if (i >= TM || m >= M_SIZE || k >= K_SIZE) continue;
      REAL total = 0;
#pragma unroll 8
      for (u32 j = 0; j < SLICES; j++) total += memory[e / SLICE * (SLICE * SLICES) + j * SLICE + place];
      out[((group * M_SIZE + m) * K_SIZE + k) * TAPS + place % ROW_GROUPS * (TAP_ROWS * KERNEL_COLUMNS) + a] = total;
    }
    __syncthreads();  // all have read these sums
  }
#if BIAS
  if (k_first > 0) return;
  memory[t] = sum_ones;
  __syncthreads();
  const u32 i = t % TM_PITCH, m = m_first + t / TM_PITCH * TM + i;
  if (t >= M_LINES || i >= TM || m >= M_SIZE) return;
  REAL total = 0;
  for (u32 j = t; j < THREADS / M_LINES * M_LINES; j += M_LINES) total += memory[j];
  ones[group * M_SIZE + m] = total;
#endif
}
