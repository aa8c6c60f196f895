#pragma once
// Tiles for mma.sync: a swizzled one in shared memory, and the products with fragments of a warp.
//
// A fragment of mma.sync's result, [16 rows][8 columns a tile], per lane: columns lane % 4 * 2 and
// the next of row lane / 4 in elements 0 and 1, of row lane / 4 + 8 in elements 2 and 3.
// Names follow the place: s* shared memory, r* registers.

#include "seer/kernels/device/ptx_sm80.cuh"

namespace seer::device {

// A row-major tile whose 16-byte chunks are permuted within each row, so that the eight rows that an
// ldmatrix reads fall in eight different groups of four banks.
template <class Element, int kRows_, int kCols_>
struct alignas(128) SmemTile {
  static constexpr int kRows = kRows_;
  static constexpr int kCols = kCols_;
  static constexpr int kChunk = 16 / sizeof(Element);  // elements of a chunk
  static constexpr int kChunks = kCols / kChunk;       // chunks of a row
  // Rows of 8 n chunks all begin in bank group 0: eight permutations of eight chunks set them apart.
  // Rows of 8 n + 4 begin in groups 0 and 4 in turn: four permutations of four chunks do.
  static constexpr int kPermuted = kChunks % 8 == 0 ? 8 : 4;
  static_assert(kChunks % 4 == 0 && kRows % 16 == 0);

  Element data[kRows * kCols];

  static constexpr int offset(int row, int chunk) {  // bytes
    const int permutation = kPermuted == 8 ? row % 8 : row / 2 % 4;
    return (row * kChunks + (chunk ^ permutation)) * 16;
  }
  __device__ uint32_t chunk(int row, int c) const {
    return ptx::smem_address(data) + offset(row, c);
  }
  // From the address of chunk c of a row, c < kPermuted, that of chunk c ^ chunks, `rows` rows below;
  // rows must be a multiple of 8. One instruction, or none: constants join the address.
  static constexpr uint32_t moved(uint32_t address, int rows, int chunks) {
    return (address ^ chunks % kPermuted * 16) +
           (rows * kChunks + chunks / kPermuted * kPermuted) * 16;
  }
};

// Starts the copy of rows 0 .. num_rows - 1 of a matrix, `stride` elements apart; zeros in the rows
// below. The matrix may end there: nothing behind it is read.
template <int kThreads, class Element, int kRows, int kCols>
__device__ __forceinline__ void load_async(const SmemTile<Element, kRows, kCols>& s,
                                           const Element* g, int64_t stride, int num_rows) {
  using Tile = SmemTile<Element, kRows, kCols>;
  constexpr int kRowThreads = Tile::kPermuted;
  constexpr int kPassRows = kThreads / kRowThreads;  // rows that all threads together copy
  static_assert(kRows % kPassRows == 0 && kPassRows % 8 == 0);
  const int row = threadIdx.x / kRowThreads, c = threadIdx.x % kRowThreads;
  const uint32_t to = s.chunk(row, c);
  g += row * stride + c * Tile::kChunk;
#pragma unroll
  for (int pass = 0; pass < kRows; pass += kPassRows) {
#pragma unroll
    for (int chunk = 0; chunk < Tile::kChunks; chunk += kRowThreads) {
      ptx::cp_async_16(Tile::moved(to, pass, chunk), g + chunk * Tile::kChunk,
                       row + pass < num_rows);
    }
    g += kPassRows * stride;
  }
}

// The left operand [16 x 16]: rows row0 and on, columns 16 k and on.
template <class Tile>
__device__ __forceinline__ void load_left(uint32_t (&rA)[4], const Tile& sA, int row0, int k) {
  const int lane = threadIdx.x % 32;
  const uint32_t first = sA.chunk(row0 + lane % 16, lane / 16);
  ptx::ldmatrix_x4(rA, Tile::moved(first, 0, 2 * k));
}

// rC[16 x N] = A sB^T with sB stored [N, K]; left(rA, k) gives columns 16 k and on of A.
template <class Left, class Element, int kN, int kK>
__device__ __forceinline__ void multiply_transposed(float (&rC)[kN / 8][4], const Left& left,
                                                    const SmemTile<Element, kN, kK>& sB) {
  using Tile = SmemTile<Element, kN, kK>;
  const int lane = threadIdx.x % 32;
  // rB below: rows 0 to 7 in columns 0 to 7 and 8 to 15, then rows 8 to 15.
  const uint32_t first = sB.chunk(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int n = 0; n < kN / 8; ++n) {
    rC[n][0] = rC[n][1] = rC[n][2] = rC[n][3] = 0.f;
  }
#pragma unroll
  for (int k = 0; k < kK / 16; ++k) {
    uint32_t rA[4];
    left(rA, k);
#pragma unroll
    for (int n = 0; n < kN / 16; ++n) {
      uint32_t rB[4];
      ptx::ldmatrix_x4(rB, Tile::moved(first, 16 * n, 2 * k));
      ptx::mma_16x8x16<Element>(rC[2 * n], rA, rB[0], rB[1]);
      ptx::mma_16x8x16<Element>(rC[2 * n + 1], rA, rB[2], rB[3]);
    }
  }
}

// rC[16 x N] += rP[16 x K] sB, with rP the f32 result of an earlier product, rounded to Element, and
// sB stored [K, columns]; N of its columns from `column` on, a multiple of 64.
template <class Element, int kTilesN, int kK, int kColumns>
__device__ __forceinline__ void multiply_add(float (&rC)[kTilesN][4], const float (&rP)[kK / 8][4],
                                             const SmemTile<Element, kK, kColumns>& sB,
                                             int column = 0) {
  using Tile = SmemTile<Element, kK, kColumns>;
  constexpr int kN = kTilesN * 8;
  const int lane = threadIdx.x % 32;
  // rB below: columns 0 to 7 in rows 0 to 7 and 8 to 15, then columns 8 to 15.
  const uint32_t first =
      sB.chunk(lane % 16, lane / 16) + column * static_cast<int>(sizeof(Element));
#pragma unroll
  for (int k = 0; k < kK / 16; ++k) {
    // Two result tiles side by side have the layout of one left operand.
    const uint32_t rA[4] = {ptx::pack<Element>(rP[2 * k][0], rP[2 * k][1]),
                            ptx::pack<Element>(rP[2 * k][2], rP[2 * k][3]),
                            ptx::pack<Element>(rP[2 * k + 1][0], rP[2 * k + 1][1]),
                            ptx::pack<Element>(rP[2 * k + 1][2], rP[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < kN / 16; ++n) {
      uint32_t rB[4];
      ptx::ldmatrix_x4_trans(rB, Tile::moved(first, 16 * k, 2 * n));
      ptx::mma_16x8x16<Element>(rC[2 * n], rA, rB[0], rB[1]);
      ptx::mma_16x8x16<Element>(rC[2 * n + 1], rA, rB[2], rB[3]);
    }
  }
}

}  // namespace seer::device
