// What a Monte Carlo with CUDA's own libraries does: to be measured against, not to be used.
//
// Prices a call from normal numbers that cuRAND made, with CUDA's exp and a sum of floating-point atomics, whose last
// bits depend on the order of arrival.

extern "C" __global__ void price_call(const double *normals, double *sums, unsigned long long paths, double spot, double strike,
                                      double drift, double volatility, double discount) {
    unsigned long long all = (unsigned long long)gridDim.x * blockDim.x;
    double sum = 0.0, squares = 0.0;
    for (unsigned long long path = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; path < paths; path += all) {
        double payoff = fmax(spot * exp(drift + volatility * normals[path]) - strike, 0.0) * discount;
        sum += payoff;
        squares += payoff * payoff;
    }
    for (int lane = 16; lane > 0; lane /= 2) {
        sum += __shfl_down_sync(0xffffffffu, sum, lane);
        squares += __shfl_down_sync(0xffffffffu, squares, lane);
    }
    if (threadIdx.x % 32 == 0) {
        atomicAdd(&sums[0], sum);
        atomicAdd(&sums[1], squares);
    }
}
