#pragma once
// For tests: a call of pooled_attn whose tensors are on the GPU.

#include "seer/kernels/device_buffer.h"
#include "seer/kernels/pooled_attn/pooled_attn_case.h"

namespace seer::kernels {

// Behind the last query, key and value lie NaN; o, lse, map and workspace are NaN before a kernel
// writes them.
class PooledAttnDeviceCall {
 public:
  PooledAttnDeviceCall(PooledAttnCall& call, int64_t workspace_bytes)
      : params_(call.params()),
        q_(call.q.bytes, kBehind * call.q.token_stride),
        k_(call.k.bytes, kBehind * call.k.token_stride),
        v_(call.v.bytes, kBehind * call.v.token_stride),
        o_(call.o.bytes.size()),
        lse_(call.lse.size() * sizeof(float)),
        map_(call.map.size() * sizeof(float)),
        cu_q_(call.cu_q),
        cu_k_(call.cu_k),
        cu_rows_(call.cu_rows),
        workspace_(workspace_bytes) {
    params_.q.data = q_.as<void>();
    params_.k.data = k_.as<void>();
    params_.v.data = v_.as<void>();
    params_.o.data = o_.as<void>();
    params_.lse = lse_.as<float>();
    params_.map = map_.as<float>();
    params_.cu_q = cu_q_.as<int32_t>();
    params_.cu_k = cu_k_.as<int32_t>();
    params_.cu_rows = cu_rows_.as<int32_t>();
    params_.workspace = workspace_.as<void>();
    params_.workspace_bytes = workspace_bytes;
  }

  const PooledAttnParams& params() const { return params_; }
  DeviceBuffer& q() { return q_; }

  // Waits for the GPU; o, lse and map of `call` become what the kernel wrote.
  void download(PooledAttnCall& call) const {
    o_.download(call.o.bytes);
    lse_.download(call.lse);
    map_.download(call.map);
  }

 private:
  static constexpr size_t kBehind = 2 * 128;  // bytes of an element, tokens of the largest tile

  PooledAttnParams params_;
  DeviceBuffer q_, k_, v_, o_, lse_, map_, cu_q_, cu_k_, cu_rows_, workspace_;
};

}  // namespace seer::kernels
