#pragma once
// How processes that are started together find each other in a store that may hold what earlier ones
// left: torchrun starts them again (--max-restarts) with the store of the last time, and on several
// machines its counts of restarts differ.

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <string>

namespace seer::train {

// Waits for all `size` processes; gives all of them one prefix that nobody has used before. Error: some
// do not come within `patience`; the first process names them.
std::string agree_on_round(c10d::Store& store, int rank, int size,
                           std::chrono::milliseconds patience);

}  // namespace seer::train
