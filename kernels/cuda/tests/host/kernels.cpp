// Our kernels as a library for the processor, made of the very sources that are compiled to PTX.

#include "cuda.h"

typedef unsigned long long u64;

namespace sums {
#include "monte_carlo.cu"
#include "catastrophe.cu"
}
#undef INLINE
#undef THREADS
namespace gemm {
#include "gemm.cu"
}

struct Kernel {
    const char *name;
    void (*run)(void **);
};

static const Kernel KERNELS[] = {
    {"simulate", with_arguments<sums::simulate>},
    {"tally_contracts", with_arguments<sums::tally_contracts>},
    {"value_book", with_arguments<sums::value_book>},
    {"tally_values", with_arguments<sums::tally_values>},
    {"count_points", with_arguments<sums::count_points>},
    {"tally_events", with_arguments<sums::tally_events>},
    {"gemm_f32", with_arguments<gemm::gemm_f32>},
    {"gemm_f64", with_arguments<gemm::gemm_f64>},
    {"finish_f32", with_arguments<gemm::finish_f32>},
    {"finish_f64", with_arguments<gemm::finish_f64>},
};

// Runs a kernel to its end. Returns whether there is one of this name.
extern "C" int launch(const char *name, const unsigned int *blocks, unsigned int threads, void **arguments) {
    for (const Kernel &kernel : KERNELS) {
        if (std::strcmp(kernel.name, name) == 0 && threads <= THREADS_MAX) {
            run_grid(blocks, threads, kernel.run, arguments);
            return 1;
        }
    }
    return 0;
}
