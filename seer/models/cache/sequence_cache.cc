#include "seer/models/cache/sequence_cache.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "seer/base/error.h"

namespace seer::models {
namespace {

// Room for `needed` tokens: what is there is kept. As many as are expected, then half as many again
// each time, so that appending one token at a time copies each token a bounded number of times.
void reserve(at::Tensor& store, const at::Tensor& like, int64_t length, int64_t needed,
             int64_t expected) {
  const int64_t capacity = store.defined() ? store.size(1) : 0;
  if (needed <= capacity) return;
  const int64_t room = std::max({needed, expected, capacity + capacity / 2});
  at::Tensor larger =
      at::empty({like.size(1), room, like.size(2)}, like.options().requires_grad(false));
  if (length > 0) larger.narrow(1, 0, length).copy_(store.narrow(1, 0, length));
  store = larger;
}

// Tokens begin .. end - 1 as [tokens, Hk, D].
at::Tensor tokens_of(const at::Tensor& store, int64_t begin, int64_t end) {
  return store.slice(1, begin, end).transpose(0, 1);
}

}  // namespace

SequenceCache::Layer& SequenceCache::at(int layer) {
  SEER_CHECK(layer >= 0 && layer < static_cast<int>(layers_.size()), "cache: layer ", layer, " of ",
             layers_.size());
  return layers_[static_cast<size_t>(layer)];
}

std::pair<at::Tensor, at::Tensor> SequenceCache::append(int layer, const at::Tensor& k,
                                                        const at::Tensor& v) {
  Layer& to = at(layer);
  SEER_CHECK(k.dim() == 3 && v.dim() == 3 && k.size(0) == v.size(0), "cache: k is ", k.sizes(),
             " and v is ", v.sizes(), ", expected [tokens, heads, features] of the same tokens");
  const int64_t total = length_ + k.size(0);
  reserve(to.k, k, length_, total, expected_);
  reserve(to.v, v, length_, total, expected_);
  tokens_of(to.k, length_, total).copy_(k.detach());
  tokens_of(to.v, length_, total).copy_(v.detach());
  return {tokens_of(to.k, 0, total), tokens_of(to.v, 0, total)};
}

at::Tensor SequenceCache::append_gate_keys(int layer, int64_t first, const at::Tensor& keys) {
  at::Tensor& cached = at(layer).gate_keys;
  if (first == 0) cached = at::Tensor();  // a new prompt
  const int64_t before = cached.defined() ? cached.size(0) : 0;
  SEER_CHECK(before == first, "layer ", layer, " has gate keys of ", before, " blocks, expected ",
             first);
  cached = before == 0 ? keys.detach() : at::cat({cached, keys.detach()}, 0);
  return cached;
}

}  // namespace seer::models
