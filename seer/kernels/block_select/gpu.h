#pragma once
// Choice of blocks on sm_80 and later chips: a warp for each row.

#include <cstdint>

#include "seer/kernels/block_select/params.h"

namespace seer::kernels {

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void block_select_sm80(const BlockSelectParams& p, void* stream);

namespace sm80 {

// Bytes of head_budget's workspace.
int64_t budget_workspace(int64_t num_heads, int64_t num_seqs, int64_t num_rows);

}  // namespace sm80
}  // namespace seer::kernels
