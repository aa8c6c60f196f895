#pragma once
// For tests: a call of block_sparse_attn whose tensors are on the GPU.

#include <optional>

#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_case.h"
#include "seer/kernels/device_buffer.h"

namespace seer::kernels {

// Behind the last query, key and value lie NaN; o and lse are NaN before a kernel writes them.
class BlockSparseAttnDeviceCall {
 public:
  explicit BlockSparseAttnDeviceCall(BlockSparseAttnCall& call)
      : params_(call.params()),
        q_(call.q.bytes, kBehind * call.q.token_stride),
        k_(call.k.bytes, kBehind * call.k.token_stride),
        v_(call.v.bytes, kBehind * call.v.token_stride),
        o_(call.o.bytes.size()),
        lse_(call.lse.size() * sizeof(float)),
        cu_q_(call.cu_q),
        cu_k_(call.cu_k),
        cu_rows_(call.cu_rows),
        begin_(call.begin),
        count_(call.count),
        list_(call.list),
        counter_(std::vector<int32_t>{0}) {
    params_.q.data = q_.as<void>();
    params_.k.data = k_.as<void>();
    params_.v.data = v_.as<void>();
    params_.o.data = o_.as<void>();
    params_.lse = lse_.as<float>();
    params_.cu_q = cu_q_.as<int32_t>();
    params_.cu_k = cu_k_.as<int32_t>();
    params_.lists.cu_rows = cu_rows_.as<int32_t>();
    params_.lists.begin = begin_.as<int64_t>();
    params_.lists.count = count_.as<int32_t>();
    params_.lists.list = list_.as<int32_t>();
    params_.counter = counter_.as<int32_t>();
  }

  // Lists in so many pieces; 1: whole.
  void cut(int num_parts) {
    params_.num_parts = num_parts;
    partials_.emplace(block_sparse_attn_partials(params_) * sizeof(float));
    params_.partials = partials_->as<float>();
  }

  const BlockSparseAttnParams& params() const { return params_; }
  DeviceBuffer& q() { return q_; }

  // Waits for the GPU; o and lse of `call` become what the kernel wrote.
  void download(BlockSparseAttnCall& call) const {
    o_.download(call.o.bytes);
    lse_.download(call.lse);
  }

 private:
  static constexpr size_t kBehind = 2 * 128;  // bytes of an element, tokens of the largest block

  BlockSparseAttnParams params_;
  DeviceBuffer q_, k_, v_, o_, lse_, cu_q_, cu_k_, cu_rows_, begin_, count_, list_, counter_;
  std::optional<DeviceBuffer> partials_;
};

}  // namespace seer::kernels
