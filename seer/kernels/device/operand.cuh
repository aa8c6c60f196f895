#pragma once
// A matrix in memory that a product reads.

namespace seer::device {

// Which index of an operand runs along memory: threads that are neighbours read along it.
enum class Along { depth, side };

// Half of the sides of a tile lie in each run: element (side, k) of the first half lies at run[0][side *
// stride + k] where k runs along memory, at run[0][k * stride + side] where sides do.
// Addresses, strides and the depth are multiples of four floats.
struct Operand {
  const float* run[2];
  int stride;
  int sides;  // from here on zeros, which are not read; where sides run along memory: all of them
};

}  // namespace seer::device
