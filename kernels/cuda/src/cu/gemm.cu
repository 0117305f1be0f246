// One k-chunk of a matrix product, register tiled.
//
// Owns the device twin of kernels/src/gemm: each element is one chain acc = fma(a, b, acc) over ascending k, starting at
// +0. A chunk loads the chain's value where the one before stored it, which changes no bit, and k is never padded.
// Rows and columns beyond the edge are computed from zeros and stored nowhere.

#define INLINE static __device__ __forceinline__
typedef unsigned int u32;
typedef unsigned long long u64;

INLINE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
INLINE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// Elements of 16 bytes: what one shared memory instruction moves. A tile's rows lie so much farther apart that threads
// which follow k store to different banks.
#define GROUP(T) (16 / (int)sizeof(T))
#define PITCH(T, EDGE) (EDGE + GROUP(T))

// Moves one operand's tile to shared memory. Neighbouring threads follow what lies together in memory, k or the edge.
template <typename T, int EDGE, int DEPTH, int THREADS>
INLINE void load(T (*tile)[PITCH(T, EDGE)], const T *from, u32 edge_stride, u32 k_stride, u32 edge, u32 depth) {
    bool deep = k_stride < edge_stride;
#pragma unroll
    for (int turn = 0; turn < EDGE * DEPTH / THREADS; ++turn) {
        u32 place = threadIdx.x + turn * THREADS;
        u32 across = deep ? place / DEPTH : place % EDGE;
        u32 down = deep ? place % DEPTH : place / EDGE;
        bool inside = across < edge && down < depth;
        tile[down][across] = inside ? from[across * edge_stride + down * k_stride] : (T)0;
    }
}

// One step of every chain of the thread's tile.
template <typename T, int EDGE, int SIDE, int EACH>
INLINE void step(const T (&a_row)[PITCH(T, EDGE)], const T (&b_row)[PITCH(T, EDGE)], u32 row, u32 col, T (&sums)[EACH][EACH]) {
    T left[EACH], right[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        left[i] = a_row[i / GROUP(T) * SIDE * GROUP(T) + row + i % GROUP(T)];
        right[i] = b_row[i / GROUP(T) * SIDE * GROUP(T) + col + i % GROUP(T)];
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            sums[i][j] = fused(left[i], right[j], sums[i][j]);
        }
    }
}

// SIDE x SIDE threads, each with EACH x EACH elements in groups that lie together.
template <typename T, int EDGE, int DEPTH, int SIDE>
INLINE void product(T (*a_tile)[PITCH(T, EDGE)], T (*b_tile)[PITCH(T, EDGE)], const T *a, const T *b, T *acc, u32 a_row, u32 a_k,
                    u32 b_k, u32 b_col, u32 rows, u32 cols, u32 depth, u32 resume) {
    const int THREADS = SIDE * SIDE, EACH = EDGE / SIDE;
    u32 first_row = blockIdx.y * EDGE, first_col = blockIdx.x * EDGE;
    u32 row = threadIdx.x / SIDE * GROUP(T), col = threadIdx.x % SIDE * GROUP(T);
    a += first_row * a_row;
    b += first_col * b_col;
    acc += first_row * cols + first_col;
    rows -= first_row;
    u32 width = cols - first_col;
    T sums[EACH][EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            u32 r = i / GROUP(T) * SIDE * GROUP(T) + row + i % GROUP(T), c = j / GROUP(T) * SIDE * GROUP(T) + col + j % GROUP(T);
            sums[i][j] = resume && r < rows && c < width ? acc[r * cols + c] : (T)0;
        }
    }
#pragma unroll 1
    for (u32 k = 0; k < depth; k += DEPTH) {
        u32 left = depth - k;
        load<T, EDGE, DEPTH, THREADS>(a_tile, a, a_row, a_k, rows, left);
        load<T, EDGE, DEPTH, THREADS>(b_tile, b, b_col, b_k, width, left);
        a += DEPTH * a_k;
        b += DEPTH * b_k;
        __syncthreads();
        if (left >= DEPTH) {
#pragma unroll
            for (int at = 0; at < DEPTH; ++at) {
                step<T, EDGE, SIDE, EACH>(a_tile[at], b_tile[at], row, col, sums);
            }
        } else {
#pragma unroll 1
            for (u32 at = 0; at < left; ++at) {
                step<T, EDGE, SIDE, EACH>(a_tile[at], b_tile[at], row, col, sums);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            u32 r = i / GROUP(T) * SIDE * GROUP(T) + row + i % GROUP(T), c = j / GROUP(T) * SIDE * GROUP(T) + col + j % GROUP(T);
            if (r < rows && c < width) {
                acc[r * cols + c] = sums[i][j];
            }
        }
    }
}

// P0 = fma(alpha, acc, beta C) where C is read, else alpha acc; in place.
template <typename T>
INLINE void finish_element(T *acc, const T *addend, T alpha, T beta, u64 elements, u32 adds) {
    u64 place = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place < elements) {
        acc[place] = adds ? fused(alpha, acc[place], beta * addend[place]) : alpha * acc[place];
    }
}

extern "C" __global__ void __launch_bounds__(256, 2)
gemm_f32(const float *a, const float *b, float *acc, u32 a_row, u32 a_k, u32 b_k, u32 b_col, u32 rows, u32 cols, u32 depth,
         u32 resume) {
    __shared__ __align__(16) float a_tile[8][PITCH(float, 128)];
    __shared__ __align__(16) float b_tile[8][PITCH(float, 128)];
    product<float, 128, 8, 16>(a_tile, b_tile, a, b, acc, a_row, a_k, b_k, b_col, rows, cols, depth, resume);
}

extern "C" __global__ void __launch_bounds__(256, 2)
gemm_f64(const double *a, const double *b, double *acc, u32 a_row, u32 a_k, u32 b_k, u32 b_col, u32 rows, u32 cols, u32 depth,
         u32 resume) {
    __shared__ __align__(16) double a_tile[8][PITCH(double, 64)];
    __shared__ __align__(16) double b_tile[8][PITCH(double, 64)];
    product<double, 64, 8, 16>(a_tile, b_tile, a, b, acc, a_row, a_k, b_k, b_col, rows, cols, depth, resume);
}

extern "C" __global__ void finish_f32(float *acc, const float *addend, float alpha, float beta, u64 elements, u32 adds) {
    finish_element<float>(acc, addend, alpha, beta, elements, adds);
}

extern "C" __global__ void finish_f64(double *acc, const double *addend, double alpha, double beta, u64 elements, u32 adds) {
    finish_element<double>(acc, addend, alpha, beta, elements, adds);
}
