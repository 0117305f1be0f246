// CUDA C on a processor: what our sources use of the language, for a C++ compiler.
//
// Owns grids, blocks, threads, barriers, shared memory and atomics. The threads of a block take turns on one processor,
// each running to its next barrier, so that shared memory is a static variable and an atomic is what it says.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct Place {
    unsigned int x;
    unsigned int y;
    unsigned int z;
};

static Place threadIdx, blockIdx, blockDim, gridDim;

// A test rounds twice to see that it shows.
#ifdef UNFUSED
static inline double __fma_rn(double a, double b, double c) { return a * b + c; }
#else
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

static inline double __longlong_as_double(long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline long long __double_as_longlong(double value) {
    long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

template <typename T> static inline T atomicAdd(T *place, T value) {
    T before = *place;
    *place = before + value;
    return before;
}

template <typename T> static inline T atomicMax(T *place, T value) {
    T before = *place;
    *place = value > before ? value : before;
    return before;
}

template <typename T> static inline T atomicCAS(T *place, T compare, T value) {
    T before = *place;
    if (before == compare) {
        *place = value;
    }
    return before;
}

const unsigned int THREADS_MAX = 256;
const size_t STACK_BYTES = 64 << 10;

static ucontext_t scheduler, contexts[THREADS_MAX];
static bool ended[THREADS_MAX];
static unsigned int running;
static void (*start)(void **);
static void **start_arguments;

static inline void __syncthreads() { swapcontext(&contexts[running], &scheduler); }

static void run_thread() {
    start(start_arguments);
    ended[running] = true;
}

static void run_block() {
    static char *stacks = static_cast<char *>(std::malloc(THREADS_MAX * STACK_BYTES));
    for (unsigned int thread = 0; thread < blockDim.x; ++thread) {
        getcontext(&contexts[thread]);
        contexts[thread].uc_stack.ss_sp = stacks + thread * STACK_BYTES;
        contexts[thread].uc_stack.ss_size = STACK_BYTES;
        contexts[thread].uc_link = &scheduler;
        ended[thread] = false;
        makecontext(&contexts[thread], run_thread, 0);
    }
    for (bool waiting = true; waiting;) {
        waiting = false;
        for (running = 0; running < blockDim.x; ++running) {
            if (!ended[running]) {
                threadIdx.x = running;
                swapcontext(&scheduler, &contexts[running]);
                waiting |= !ended[running];
            }
        }
    }
}

static void run_grid(const unsigned int *blocks, unsigned int threads, void (*kernel)(void **), void **arguments) {
    start = kernel;
    start_arguments = arguments;
    gridDim = {blocks[0], blocks[1], 1};
    blockDim = {threads, 1, 1};
    for (blockIdx.y = 0; blockIdx.y < blocks[1]; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < blocks[0]; ++blockIdx.x) {
            run_block();
        }
    }
}

template <typename... Parameters, size_t... At>
static void call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<At...>) {
    kernel(*static_cast<Parameters *>(arguments[At])...);
}

// A kernel as a function of an array of pointers to its arguments, as the driver takes them.
template <auto kernel> static void with_arguments(void **arguments) {
    [&]<typename... Parameters>(void (*typed)(Parameters...)) {
        call(typed, arguments, std::make_index_sequence<sizeof...(Parameters)>());
    }(kernel);
}
