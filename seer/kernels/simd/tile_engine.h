#pragma once
// The arithmetic of block attention on a CPU, one function per step on one tile of queries. Both
// attention ops are written once on this table; the table is filled once per instruction set.
//
// Queries are the vector lanes: a score block is stored transposed, [keys][lanes], so that row
// maxima, sums and rescaling are plain vertical operations and keys are broadcast operands.
//
//   lanes  queries of a tile, padded to a multiple of 16, at most kTileLanes
//   keys   keys of a block, a multiple of 16, at most kMaxBlockKeys
//   D      head size, at most kMaxHeadDim; packed ones are padded with zeros to a multiple of 8

#include <cstdint>

#include "seer/base/dtype.h"

namespace seer::kernels {

inline constexpr int kTileLanes = 64;
inline constexpr int kMaxBlockKeys = 128;
inline constexpr int kMaxHeadDim = 256;

// Features that a packed row has.
constexpr int padded_head_dim(int head_dim) {
  return (head_dim + 7) / 8 * 8;
}

// What accumulate() does with the output that is already there.
enum class Blend { set, add, rescale };

struct TileEngine {
  const char* name;
  int element_bytes;  // of packed queries, keys and values

  // keys rows of D features -> [keys / 4][D / e][4][e], e = 4 / element_bytes: four keys side by
  // side, one 32-bit word each. Rows from `valid` on are not read and become zeros.
  void (*pack_keys)(DType dtype, const void* rows, int64_t row_stride, int valid, int keys,
                    int head_dim, void* packed);
  // keys rows of D features -> [D / 4][keys / e][4][e]: four features side by side.
  void (*pack_values)(DType dtype, const void* rows, int64_t row_stride, int valid, int keys,
                      int head_dim, void* packed);
  // One row of D features per lane (null: zeros) -> [D / e][lanes][e].
  void (*pack_queries)(DType dtype, const void* const* rows, int lanes, int head_dim, void* packed);
  // Those three and finish() take D itself, the other steps padded_head_dim(D).

  // s [keys][lanes] = k q^T, row_max [lanes] = the largest score of each lane.
  void (*scores)(const void* q, const void* k, int lanes, int keys, int head_dim, float* s,
                 float* row_max);
  // Lane i keeps keys 0 .. limit[i]; the others become -inf. Finds row_max again.
  void (*mask)(const int32_t* limit, int lanes, int keys, float* s, float* row_max);
  // One step of the online softmax over s [keys][lanes] in base 2: turns s, in place, into the
  // engine's form of p = 2^(scale_log2 * s - m), and adds to l. m moves only when a score exceeds
  // it by more than 2^8 would show; then alpha holds the factor of what was summed before, and the
  // result is true.
  bool (*softmax)(float scale_log2, const float* row_max, int lanes, int keys, float* s, float* m,
                  float* l, float* alpha);
  // acc [D][lanes] gets sum over blocks of v^T p; p holds the blocks' keys one after another.
  void (*accumulate)(const void* p, const void* const* v, int num_blocks, int block_keys, int lanes,
                     int head_dim, Blend blend, const float* alpha, float* acc);
  // Writes o = acc / l and lse = ln 2 * (m + log2 l) of the first `valid` lanes; 0 and -inf where
  // l is 0 (no key was seen).
  void (*finish)(DType dtype, const float* acc, const float* m, const float* l, int lanes,
                 int valid, int head_dim, void* const* o, float* const* lse);
  // x [rows][lanes] = 2^(scale_log2 * x - lse2[lane])
  void (*weights)(float scale_log2, const float* lse2, int lanes, int64_t rows, float* x);
};

// f32 arithmetic for every dtype, compiled for each instruction set; the best one that the CPU has.
const TileEngine& f32_tile_engine();
// bf16 dot products (AVX512_BF16) with f32 sums, for bf16 tensors; null where not compiled in. The
// caller asks the CPU first.
const TileEngine* bf16_tile_engine();

// The engine of a call: bf16 dot products when the tensors are bf16 and the CPU has them.
inline const TileEngine& tile_engine(DType dtype, bool has_bf16_dot) {
  const TileEngine* bf16 = bf16_tile_engine();
  return dtype == DType::bf16 && has_bf16_dot && bf16 ? *bf16 : f32_tile_engine();
}

}  // namespace seer::kernels
