#pragma once
// What benchmarks of attention ops share: inputs, the dense rival, rows and their table.

#include "seer/bench/bench.h"
#include "seer/torch/ops.h"

namespace seer::bench {

// Rows have kept_tflops: 4 * block^2 * head_dim per computed block over the median time.
// For the backward, five products of which the forward has two are counted, for the map alone one.
void block_sparse_attn(const Request& request, nlohmann::json& rows);
void block_sparse_attn_backward(const Request& request, nlohmann::json& rows);
void pooled_attn(const Request& request, nlohmann::json& rows);
// Pooling, projection, scores and selection, beside block_sparse_attn on the blocks chosen.
void attn_gate(const Request& request, nlohmann::json& rows);
std::string attention_table(const nlohmann::json& rows);

// One shape of a request.
struct Shape {
  int64_t heads_q, heads_kv, head_dim, length;
  int block;
  std::string lists;  // "random", or "gate": sink, local, vertical and scattered blocks
  double density;     // of the causal block map
  std::string dtype;
};
void for_each_shape(const Request& request, const std::function<void(const Shape&)>& run);

struct Inputs {
  explicit Inputs(const Shape& shape);
  at::Tensor q, k, v;
  torch_ops::Ragged ragged;
  double scale;
  double causal_blocks;  // of all heads
};

nlohmann::json row_of(const Shape& shape, const std::string& implementation,
                      const std::string& dtype, double density, const std::string& lists,
                      const Times& times, double blocks);
enum class Direction { forward, backward };
// Products of a direction, in units of the forward's.
double products(Direction direction);
// attend(q, k, v) without gradients, or its backward alone, as often as it is called.
using Attend = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;
std::function<void()> pass_of(Direction direction, const Attend& attend, const at::Tensor& q,
                              const at::Tensor& k, const at::Tensor& v);
// torch's dense attention in both dtypes; the faster one is the rival.
void dense_rows(const Shape& shape, const Inputs& inputs, const Request& request,
                nlohmann::json& rows, Direction direction = Direction::forward);

}  // namespace seer::bench
