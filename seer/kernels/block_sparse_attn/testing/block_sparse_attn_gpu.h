#pragma once
// For tests: block_sparse_attn on a GPU.

#include <optional>

#include "seer/kernels/attention/testing/gpu_calls.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_cases.h"

namespace seer::kernels {

class BlockSparseAttnDeviceCall : public AttentionDeviceCall<BlockSparseAttnCall> {
 public:
  // num_parts: pieces of a list, of kernels that can cut them.
  explicit BlockSparseAttnDeviceCall(BlockSparseAttnCall& call, int num_parts = 1)
      : AttentionDeviceCall(call),
        cu_rows_(call.cu_rows),
        begin_(call.begin),
        count_(call.count),
        list_(call.list),
        counter_(std::vector<int32_t>{0}) {
    params_.lists.cu_rows = cu_rows_.as<int32_t>();
    params_.lists.begin = begin_.as<int64_t>();
    params_.lists.count = count_.as<int32_t>();
    params_.lists.list = list_.as<int32_t>();
    params_.counter = counter_.as<int32_t>();
    params_.num_parts = num_parts;
    partials_.emplace(block_sparse_attn_partials(params_) * sizeof(float));
    params_.partials = partials_->as<float>();
  }

 private:
  DeviceBuffer cu_rows_, begin_, count_, list_, counter_;
  std::optional<DeviceBuffer> partials_;
};

struct BlockSparseAttnOp {
  using Case = BlockSparseAttnCase;
  using Call = BlockSparseAttnCall;
  using Params = BlockSparseAttnParams;
  using Reference = BlockSparseAttnReference;
  using DeviceCall = BlockSparseAttnDeviceCall;
  static auto impls() { return block_sparse_attn_impls(); }
  static void attend(const Params& p, const Device& device) { block_sparse_attn(p, device); }
};

struct BlockSparseAttnGpu : AttentionGpu<BlockSparseAttnOp> {
  static void run_in_parts(const Kernel& kernel, Call& call, int num_parts) {
    const DeviceCall on_device(call, num_parts);
    kernel.run(on_device.params(), nullptr);
    on_device.download(call);
  }
};

}  // namespace seer::kernels
