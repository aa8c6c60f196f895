#include "seer/models/kv_cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "seer/base/error.h"

namespace seer::models {
namespace {

// Room for `needed` tokens: what is there is kept, and the capacity doubles so that appending one
// token at a time copies each token a bounded number of times.
void reserve(at::Tensor& store, const at::Tensor& like, int64_t length, int64_t needed) {
  const int64_t capacity = store.defined() ? store.size(0) : 0;
  if (needed <= capacity) return;
  at::Tensor larger = at::empty({std::max(needed, 2 * capacity), like.size(1), like.size(2)},
                                like.options().requires_grad(false));
  if (length > 0) larger.narrow(0, 0, length).copy_(store.narrow(0, 0, length));
  store = larger;
}

}  // namespace

std::pair<at::Tensor, at::Tensor> KvCache::append(int layer, const at::Tensor& k,
                                                  const at::Tensor& v) {
  SEER_CHECK(layer >= 0 && layer < static_cast<int>(layers_.size()), "KV cache: layer ", layer,
             " of ", layers_.size());
  SEER_CHECK(k.dim() == 3 && v.dim() == 3 && k.size(0) == v.size(0), "KV cache: k is ", k.sizes(),
             " and v is ", v.sizes(), ", expected [tokens, heads, features] of the same tokens");
  Layer& to = layers_[static_cast<size_t>(layer)];
  const int64_t total = length_ + k.size(0);
  reserve(to.k, k, length_, total);
  reserve(to.v, v, length_, total);
  to.k.narrow(0, length_, k.size(0)).copy_(k.detach());
  to.v.narrow(0, length_, v.size(0)).copy_(v.detach());
  return {to.k.narrow(0, 0, total), to.v.narrow(0, 0, total)};
}

}  // namespace seer::models
