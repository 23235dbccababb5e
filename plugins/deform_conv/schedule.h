// Which kernels run a problem, and on how many blocks; for hosts.
#pragma once

#include "plan.h"

namespace onnx_rewrite {
namespace {

struct Shape { int filters, positions, depth, stages; double turn, alone; int threads, shared, threads_of_two, shared_of_two; };

#define ONNX_REWRITE_SHAPE(I, N, WM, WK, STAGES, TURN, ALONE) \
    {N, 64 * WM, WK, STAGES, TURN, ALONE, Tile<N, WM, WK, STAGES>::kThreads, Tile<N, WM, WK, STAGES>::kShared, \
        Tile<N, WM, WK, STAGES, 2>::kThreads, Tile<N, WM, WK, STAGES, 2>::kShared},
constexpr Shape kShapes[] = {ONNX_REWRITE_TILES(ONNX_REWRITE_SHAPE)};
#undef ONNX_REWRITE_SHAPE
constexpr int kShapeCount = sizeof(kShapes) / sizeof(kShapes[0]);
// Added to a tactic: fp16 interpolates in fp32; times kParts, how many blocks share a tile's units, if not one; these blocks
// form clusters; and blocks of channels are padded each for itself.
constexpr int kWide = 64, kParts = 128, kMostParts = 8, kCluster = 2048, kPadded = 4096;

inline int shape_of(int tactic) { return (tactic & (kWide - 1)) - (int)Tactic::kTensor; }
inline bool is_tile(int tactic) { return tactic >= 0 && shape_of(tactic) >= 0 && shape_of(tactic) < kShapeCount; }
inline int parts_of(int tactic) { return tactic > kParts && tactic / kParts % 16 ? tactic / kParts % 16 : 1; }
inline bool in_clusters(int tactic) { return tactic > 0 && tactic & kCluster; }

struct Device { int major, minor, processors, shared; };

inline int element_of(Type type) { return type == Type::kFloat ? 4 : 2; }

// Whether fp32 as three products of TF32 beats FFMA: where tensor cores multiply TF32 more than three times as fast, which
// those of data centres do, and others do not.
inline bool fast_tf32(Device const& device) { return device.major == 9 || ((device.major == 8 || device.major == 10) && device.minor == 0); }

inline int copies_of(Type type, Math math, int tactic) {
    return is_tile(tactic) && type == Type::kFloat && math == Math::kExact ? 2 : 1;
}

inline int filter_tile_of(int tactic) { return is_tile(tactic) ? kShapes[shape_of(tactic)].filters : kSimtFilters; }

// How many sampling points a tile of `positions` keeps for each of them, beyond the taps of one pack.
inline int points_kept(int positions, Device const& device) {
    return device.shared < (128 << 10) ? kTapGroup : 4 * kTapGroup * 64 / positions;
}

// How many groups share a tile, and how many blocks lie side by side in a chunk.
struct Packing { int apart, pack; };

inline Packing packing_of(DeformConv const& p, int element, int blocks, int copies, int tactic) {
    if (!is_tile(tactic) || tactic & kPadded) return {1, 1};
    int const per_group = blocks / p.groups, bytes = p.c / blocks * element, filters = p.m / p.groups;
    Packing best{1, 1};
    if (per_group > 1) {
        for (int pack = 2; pack <= 4; pack *= 2)
            if (per_group % pack == 0 && bytes * pack <= kRowBytes) best.pack = pack;
        return best;
    }
    Shape const& s = kShapes[shape_of(tactic)];
    if (!comes_apart(s.filters, s.depth)) return best;
    int least = p.groups * ceil_div(filters, s.filters);  // columns of tiles
    for (int apart = 2; apart * copies <= 4; apart *= 2) {
        if (p.groups % apart || bytes * apart > kRowBytes) break;
        int const columns = p.groups / apart * ceil_div(filters, s.filters / apart);
        if (columns < least) best = {apart, apart}, least = columns;
    }
    return best;
}

inline Plan make_plan(DeformConv const& p, Type type, Math math, int tactic, Device const& device) {
    int const element = element_of(type), parts = parts_of(tactic);
    Plan plan{};
    plan.p = p;
    plan.taps = p.kh * p.kw;
    plan.ohw = p.oh * p.ow;
    plan.positions = p.n * plan.ohw;
    plan.copies = copies_of(type, math, tactic);
    int a = p.groups, b = p.offset_groups;
    while (b) { int r = a % b; a = b; b = r; }
    int const blocks = p.groups / a * p.offset_groups;
    Packing const packing = packing_of(p, element, blocks, plan.copies, tactic);
    plan.bundles = p.groups / packing.apart;
    plan.apart = packing.apart;
    plan.block_channels = p.c / blocks;
    plan.chunk = kRowBytes / element;
    plan.chunks = packing.pack > 1 ? 1 : ceil_div(plan.block_channels, plan.chunk);
    plan.pack = packing.pack;
    int const packs = blocks / plan.bundles / plan.pack;  // per group
    plan.units = packs * plan.chunks;
    int const kept = points_kept(is_tile(tactic) ? kShapes[shape_of(tactic)].positions : kSimtPositions, device);
    int const span = plan.taps > kTapGroup ? 1 : kept / (plan.pack * plan.taps);
    plan.span = span < 1 ? 1 : span < packs ? span : packs;
    plan.channels = plan.bundles * plan.units * plan.chunk;
    plan.pitch = p.w + 1;
    plan.image_pixels = (p.h + 3) * plan.pitch + 1;
    plan.filters = p.m / p.groups;
    plan.filter_tile = filter_tile_of(tactic);
    plan.filter_tiles = ceil_div(plan.filters, plan.filter_tile / plan.apart);
    plan.stages = plan.units * plan.taps;
    int64_t const image = (int64_t)p.n * plan.image_pixels * plan.channels * element;
    plan.weight_offset = (image + 1023) / 1024 * 1024;
    plan.partial_offset = plan.weight_offset
        + (int64_t)plan.bundles * plan.filter_tiles * plan.stages * plan.filter_tile * plan.copies * kRowBytes;
    bool const kept_apart = parts > 1 && !in_clusters(tactic);
    plan.bytes = plan.partial_offset + (kept_apart ? (int64_t)parts * p.m * plan.positions * 4 : 0);
    return plan;
}

inline int shared_of(int shape, Plan const& plan) {
    Shape const& s = kShapes[shape];
    int const points = plan.span * plan.pack * (plan.taps < kTapGroup ? plan.taps : kTapGroup);
    return (plan.copies == 1 ? s.shared : s.shared_of_two) + points * s.positions * kEntryBytes;
}

inline bool fits(int shape, Plan const& plan, Device const& device) {
    Shape const& s = kShapes[shape];
    return shared_of(shape, plan) <= device.shared && (plan.copies == 1 || comes_in_two_parts(s.filters, s.depth))
        && (plan.apart == 1 || comes_apart(s.filters, s.depth));
}

// Whether positions, pixels and thread blocks can be numbered in 32 bits, which the plan's own fields then are.
inline bool small_enough(Plan const& plan, int element) {
    DeformConv const& p = plan.p;
    int64_t const limit = (int64_t)1 << 31;
    int64_t const image = ((int64_t)p.h + 3) * ((int64_t)p.w + 1) + 1, plane = (int64_t)p.oh * p.ow;
    return image < limit && plane < limit && p.n * image < limit && p.n * plane < limit - 1024
        && ((int64_t)p.w + 1) * plan.channels * element < limit
        && (p.n * image / 64 + p.n) * (plan.channels * element / kRowBytes) < limit / 2;
}

// Channels are padded to whole stages and filters to whole tiles: below a quarter of real work no tile pays.
inline bool thin(Plan const& plan) { return plan.block_channels * plan.pack * 4 < plan.chunk || plan.filters < 8; }

// How positions are shared out: the first `positions` go to tiles of one shape, in whole waves of thread blocks, and the
// rest to tiles of another, if a last wave would leave most multiprocessors idle.
struct Schedule { int positions, rest_shape; double time; };

inline Schedule schedule(Plan const& plan, int tactic, Device const& device) {
    int const shape = shape_of(tactic), parts = parts_of(tactic);
    // Of the block with most stages.
    int const stages = plan.taps * ceil_div(plan.units, parts);
    auto turns = [&](Shape const& s, int64_t blocks) {
        return ceil_div(stages, s.depth) * (blocks <= device.processors ? s.alone : s.turn) + 3.0;
    };
    Shape const& s = kShapes[shape];
    int const columns = plan.bundles * plan.filter_tiles;
    int64_t const blocks = (int64_t)ceil_div(plan.positions, s.positions) * columns * parts;
    int64_t const waves = (blocks + device.processors - 1) / device.processors;
    Schedule best{plan.positions, -1, (double)waves * turns(s, blocks)};
    // Waiting for each other; or one more launch, and what is written and read again, at 3 TB/s in L2.
    if (parts > 1) best.time += in_clusters(tactic) ? 1.5 : 4.0 + (double)parts * plan.p.m * plan.positions * 8.0 / 3e6;
    if (waves < 2 || parts > 1) return best;
    int64_t const whole = (waves - 1) * device.processors / columns * s.positions;
    if (whole <= 0 || whole >= plan.positions) return best;
    int const rest = plan.positions - (int)whole;
    double const before = (double)(waves - 1) * turns(s, blocks) + 4.0;  // one more launch
    for (int i = 0; i < kShapeCount; ++i) {
        Shape const& r = kShapes[i];
        if (plan.filter_tile % r.filters || !fits(i, plan, device)) continue;
        int64_t const rest_blocks = (int64_t)ceil_div(rest, r.positions) * columns * (plan.filter_tile / r.filters);
        double const time = before + (double)((rest_blocks + device.processors - 1) / device.processors) * turns(r, rest_blocks);
        if (time < best.time) best = {(int)whole, i, time};
    }
    return best;
}

// Whether so many blocks may share the units of a tile: each has one of its own, and their sums do not take much. Clusters
// have any number of blocks up to eight; all sums must fit shared memory at once.
inline bool shares(Plan const& plan, int tactic, Device const& device) {
    int const parts = parts_of(tactic);
    if (parts > plan.units || parts > kMostParts) return false;
    if (in_clusters(tactic)) return parts > 1 && device.major >= 9 && plan.filter_tile <= 128;
    return parts == 1 || (int64_t)parts * plan.p.m * plan.positions * 4 <= kPartialBytes;
}

// Where blocks that share a tile are a cluster: measured on Hopper alone.
inline bool clusters_pay(Device const& device) { return device.major == 9; }

// The smallest tile, which packs most.
constexpr int kSmallTile = (int)Tactic::kTensor + 5;

// The tactic that `kAuto` stands for.
inline int choose(DeformConv const& p, Type type, Math math, Device const& device) {
    bool const tensor = device.major >= 8 && (type != Type::kFloat || math == Math::kTF32 || (math == Math::kExact && fast_tf32(device)));
    Plan const plan = make_plan(p, type, math, tensor ? kSmallTile : (int)Tactic::kSimt, device);
    if (thin(plan) || !small_enough(plan, element_of(type))) return (int)Tactic::kDirect;
    if (!tensor) return (int)Tactic::kSimt;
    int best = -1;
    double least = 0;
    for (int i = 0; i < kShapeCount; ++i) {
        for (int parts = 1; parts <= kMostParts; ++parts) {
            int const tactic = (int)Tactic::kTensor + i + (parts > 1 ? parts * kParts + (clusters_pay(device) ? kCluster : 0) : 0);
            Plan const tile = make_plan(p, type, math, tactic, device);
            if (!fits(i, tile, device) || !shares(tile, tactic, device) || !small_enough(tile, element_of(type))) continue;
            double const time = schedule(tile, tactic, device).time;
            if (best >= 0 && time >= least) continue;
            best = tactic;
            least = time;
        }
    }
    return best < 0 ? (int)Tactic::kSimt : best;
}

// Whether a tactic can run a problem on a device.
inline bool runs(Plan const& plan, Type type, Math math, int tactic, Device const& device) {
    if (tactic == (int)Tactic::kDirect) return true;
    if (!small_enough(plan, element_of(type))) return false;
    if (tactic == (int)Tactic::kSimt) return kSimtShared <= device.shared;
    if (tactic >= 0 && tactic & kWide && type != Type::kHalf) return false;
    return is_tile(tactic) && shares(plan, tactic, device) && device.major >= 8 && fits(shape_of(tactic), plan, device)
        && (type != Type::kFloat || math != Math::kFFMA);
}

// One kernel and its blocks. `shape` is the tile's; `first` is where its positions begin. For `prepare`, how many of the
// blocks read the image, and how many write its frame. `parts` blocks share a tile, and `together` are a cluster.
enum class Kind : int { kDirect = 0, kPrepare = 1, kSimt = 2, kTensor = 3, kFinish = 4 };
struct Launch { Kind kind; int shape, first, image_blocks, frame_blocks, threads, shared; int64_t blocks; int parts = 1, together = 1; };

// Everything that is done for a problem: at most four launches; none if the tactic cannot run it.
struct Work { int tactic, count; Plan plan; Launch launches[4]; };

// `aligned`: x begins at a multiple of 16 bytes.
inline Work work_of(DeformConv const& p, Type type, Math math, int tactic, Device const& device, bool aligned) {
    int const element = element_of(type);
    if (tactic == (int)Tactic::kAuto) tactic = choose(p, type, math, device);
    int const parts = parts_of(tactic);
    Work work{tactic, 0, make_plan(p, type, math, tactic, device), {}};
    Plan const& plan = work.plan;
    auto add = [&](Launch launch) {
        if (work.count >= 0 && launch.blocks < (int64_t)1 << 31) work.launches[work.count++] = launch;
        else work.count = -1;  // too many blocks for a grid
    };
    if (!runs(plan, type, math, tactic, device)) return work;
    if (tactic == (int)Tactic::kDirect) {
        int64_t const blocks = ((int64_t)p.n * p.m * p.oh * p.ow + 255) / 256, most = 1 << 20;
        add({Kind::kDirect, 0, 0, 0, 0, 256, 0, blocks < most ? blocks : most});
        return work;
    }
    // A row of x begins at a multiple of 16 bytes if its planes are that long: then it is read in vectors.
    bool const vectors = aligned && (int64_t)p.h * p.w * element % 16 == 0;
    int const pixels = vectors ? p.h * p.w : plan.image_pixels, chunks = plan.channels / plan.chunk;
    int64_t const image = (int64_t)p.n * ceil_div(pixels, 64) * chunks;
    int64_t const frame = vectors ? ((int64_t)p.n * (3 * plan.pitch + 1 + p.h) * chunks * 8 + 255) / 256 : 0;
    int64_t const rows = ((int64_t)plan.bundles * plan.filter_tiles * plan.stages * plan.filter_tile * 8 + 255) / 256;
    add({Kind::kPrepare, 0, 0, (int)image, (int)frame, 256, 0, image + frame + rows});
    int64_t const columns = (int64_t)plan.bundles * plan.filter_tiles;
    if (tactic == (int)Tactic::kSimt) {
        add({Kind::kSimt, 0, 0, 0, 0, kSimtThreads, kSimtShared, ceil_div(plan.positions, kSimtPositions) * columns});
        return work;
    }
    auto tiles = [&](int shape, int first, int count) {
        Shape const& s = kShapes[shape];
        add({Kind::kTensor, shape, first, 0, 0, plan.copies == 1 ? s.threads : s.threads_of_two, shared_of(shape, plan),
            ceil_div(count, s.positions) * columns * (plan.filter_tile / s.filters), parts, in_clusters(tactic) ? parts : 1});
    };
    int const shape = shape_of(tactic);
    Schedule const shared_out = schedule(plan, tactic, device);
    tiles(shape, 0, shared_out.positions);
    if (shared_out.rest_shape >= 0) tiles(shared_out.rest_shape, shared_out.positions, plan.positions - shared_out.positions);
    if (parts > 1 && !in_clusters(tactic)) add({Kind::kFinish, 0, 0, 0, 0, 256, 0, ((int64_t)p.m * plan.positions + 255) / 256, parts});
    return work;
}

// The most workspace that `kAuto` can need for these sizes or smaller n, h, w, oh, ow.
inline int64_t largest_workspace(DeformConv const& p, Type type, Math math) {
    int64_t most = 0;
    for (int i = 0; i < kShapeCount; ++i) {  // the sizes do not depend on the device
        Plan const plan = make_plan(p, type, math, (int)Tactic::kTensor + i, Device{9, 0, 1, 1});
        int64_t const bytes = plan.bytes + (plan.units > 1 ? kPartialBytes : 0);
        if (bytes > most) most = bytes;
    }
    return most;
}

}  // namespace
}  // namespace onnx_rewrite
