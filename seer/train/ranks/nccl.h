#pragma once
// Sums over NCCL; a file of its own for its headers.

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

namespace seer::train {

// `patience`: how long a sum may take. Error: a build without CUDA.
c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               int rank, int size,
                                               std::chrono::milliseconds patience);

}  // namespace seer::train
