// A GPU for kernels as far as C++ goes: every thread of a block is a fiber. What threads wait for is counted; a fiber that
// waits lets the others run, and if none gets on for long the program ends with status 3.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __shared__
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__

namespace emulation {

struct Index { int x = 0, y = 0, z = 0; };
struct Barrier { int count = 0; long generation = 0; };

struct Block {
    std::vector<char> memory;
    char* base;  // of shared memory, at a multiple of 1024
    Barrier all, consumers;
    std::vector<Barrier> warps;
    int alive;
    Index index;
};

struct Fiber { ucontext_t context; bool done = false; Index thread; Block* block; };

inline Fiber* now;
inline ucontext_t scheduler;
inline Index grid, block_size;
inline std::function<void()> kernel;
inline long idle = 0;
constexpr size_t kStack = 96 << 10;

inline void others() { swapcontext(&now->context, &scheduler); }

// Waits until `wanted` threads are here.
template <typename Wanted> void meet(Barrier& barrier, Wanted wanted) {
    long const generation = barrier.generation;
    ++barrier.count;
    while (barrier.generation == generation) {
        if (barrier.count >= wanted()) {
            barrier.count = 0, ++barrier.generation, idle = 0;
            return;
        }
        others();
    }
}

inline void fiber() {
    kernel();
    now->done = true;
    --now->block->alive, idle = 0;
    others();
}

// Runs `run` for every thread of a grid, block by block. Shared memory is filled with NaN.
inline void launch(Index size, int threads, size_t shared, std::function<void()> run) {
    static std::vector<std::unique_ptr<char[]>> stacks;
    while ((int)stacks.size() < threads) stacks.emplace_back(new char[kStack]);
    grid = size, block_size = {threads, 1, 1}, kernel = run;
    for (int i = 0; i < size.x * size.y; ++i) {
        Block block;
        block.memory.assign(shared + 1024, (char)0xff);
        block.base = block.memory.data() + (1024 - (uintptr_t)block.memory.data() % 1024) % 1024;
        block.index = {i % size.x, i / size.x, 0};
        block.alive = threads, block.warps.resize((threads + 31) / 32);
        std::vector<Fiber> fibers(threads);
        for (int n = 0; n < threads; ++n) {
            Fiber& each = fibers[n];
            each.thread = {n, 0, 0}, each.block = &block;
            getcontext(&each.context);
            each.context.uc_stack.ss_sp = stacks[n].get(), each.context.uc_stack.ss_size = kStack;
            each.context.uc_link = nullptr;
            makecontext(&each.context, fiber, 0);
        }
        for (idle = 0; block.alive > 0;) {
            for (Fiber& each : fibers)
                if (!each.done) now = &each, swapcontext(&scheduler, &each.context);
            if (++idle > 20000) {
                fprintf(stderr, "threads wait for each other\n");
                exit(3);
            }
        }
    }
}

}  // namespace emulation

#define threadIdx (emulation::now->thread)
#define blockIdx (emulation::now->block->index)
#define gridDim (emulation::grid)
#define blockDim (emulation::block_size)

using std::max;
using std::min;
inline void __syncthreads() { emulation::meet(emulation::now->block->all, [] { return emulation::now->block->alive; }); }
inline void __syncwarp() { emulation::meet(emulation::now->block->warps[threadIdx.x >> 5], [] { return 32; }); }
inline uint32_t __float_as_uint(float v) { uint32_t bits; memcpy(&bits, &v, 4); return bits; }
inline float __uint_as_float(uint32_t bits) { float v; memcpy(&v, &bits, 4); return v; }
inline float __int_as_float(int bits) { return __uint_as_float((uint32_t)bits); }
template <typename T> T __ldg(T const* p) { return *p; }
