// A convolution's products straight from images in shared memory: every patch is read there, at places known when this
// is compiled. Both kernels work in each group of channels by itself. Nothing depends on the order in which blocks run.
//
// correlation.cu: to[b, m, h, w] = Σ_{k, s, t} weight[m, k, s, t] · from[b, k, h·step + s·dilation − before, …], plus
// bias[m]. For A(x, k): from = x, to = y, weight = kernel. For A(·, k)*p: from = p with stride − 1 zeros between its
// pixels, to = x̄, and weight is the kernel with its channels exchanged and its window turned by half a turn (TURNED).
//
// switching.cu: g[m, k, s, t] = Σ_{b, h, w} p[b, m, h, w] · x[b, k, h·step + s·dilation − before, …], and with BIAS
// Σ_{b, h, w} p[b, m, h, w]. Here from = x, and p has the places of `to`.

typedef unsigned int u32;

#define TAPS (KERNEL_ROWS * KERNEL_COLUMNS)
#define FROM_PIXELS (FROM_ROWS * FROM_COLUMNS)
#define TO_PIXELS (TO_ROWS * TO_COLUMNS)
#define TILE_ROWS ((ROWS - 1) * ROW_STEP + (KERNEL_ROWS - 1) * ROW_DILATION + 1)
#define TILE_COLUMNS ((COLUMNS - 1) * COLUMN_STEP + (KERNEL_COLUMNS - 1) * COLUMN_DILATION + 1)
#define IMAGE (TILE_ROWS * PITCH)
#define IMAGES (SAMPLES * IMAGE)  // one channel of all samples
#define TM_PITCH ((TM + 3) / 4 * 4)  // a thread reads its TM neighbours m as vectors
#define M_LINES (M_THREADS * TM_PITCH)
#define M_PITCH (M_LINES % 8 ? M_LINES : M_LINES + 4)  // eight threads that write vectors meet 32 banks
#define ROW_TILES ((TO_ROWS + ROWS - 1) / ROWS)
#define M_TILES ((M_SIZE + M_THREADS * TM - 1) / (M_THREADS * TM))

// Copies `count` channels of the samples that there are, the first pixel at row `top` and column `before`. Both count
// without sign: a place before the image lies far behind it.
__device__ __forceinline__ void copy_pixels(const REAL* from, REAL* pixels, u32 samples, u32 top, u32 before,
                                            u32 count) {
  for (u32 e = threadIdx.x; e < SAMPLES * TILE_ROWS * TILE_COLUMNS; e += THREADS) {
    const u32 sample = e / (TILE_ROWS * TILE_COLUMNS), row = e / TILE_COLUMNS % TILE_ROWS, column = e % TILE_COLUMNS;
    const u32 h = (top + row) / ROW_SPREAD, w = (before + column) / COLUMN_SPREAD;
    const bool spread = (top + row) % ROW_SPREAD == 0 && (before + column) % COLUMN_SPREAD == 0;
    const bool inside = spread && sample < samples && h < FROM_ROWS && w < FROM_COLUMNS;
    const REAL* const source = from + sample * (GROUPS * K_SIZE * FROM_PIXELS) + h * FROM_COLUMNS + w;
    REAL* const pixel = pixels + sample * IMAGE + row * PITCH + column;
#pragma unroll
    for (u32 c = 0; c < CHANNELS; c++)
      if (K_SIZE % CHANNELS == 0 || c < count) pixel[c * IMAGES] = inside ? source[c * FROM_PIXELS] : REAL(0);
  }
}
