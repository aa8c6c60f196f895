#pragma once
// Methods: ways to choose the key blocks that each row of queries attends to. Each is a file of this folder
// and an entry of the table in method.cc.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "seer/models/attention.h"
#include "seer/models/gates/gates.h"
#include "seer/torch/ops.h"

namespace seer::models {

struct SparseSettings {
  std::string method = "seer";
  torch_ops::Selection selection;
  int block = 64;
  uint64_t seed = 0;  // of methods that draw: random blocks, untrained gates, the tokens of duo
  // Of rules that keep a number of blocks a row (nz_ratio, row_budget): forced blocks count within that
  // number, which is one more than theirs at least. Rows then have as many blocks under every method,
  // where the published rule, which this is not, adds what is forced to what is best. One sequence only.
  bool even = false;
  io::GateConfig form;  // of untrained gates, where no others are given; its block size is `block`
};

class Method {
 public:
  virtual ~Method() = default;
  // What it chooses by: [Hq, R, N] f32, -inf where no key of the block is visible. Undefined for a method that
  // gives lists without scores.
  virtual at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged);
  // Lists of the chosen blocks; `scores` as above, or those of the same method with another selection.
  virtual torch_ops::BlockLists choose(const AttentionInput& input, const torch_ops::Ragged& ragged,
                                       const at::Tensor& scores,
                                       const torch_ops::Selection& selection);
  // Both, and attention over the chosen blocks; the three as steps that are watched (torch/steps.h).
  torch_ops::SparseOutput attend(const AttentionInput& input, const torch_ops::Ragged& ragged,
                                 const torch_ops::Selection& selection);
};

// What a method is made from; outlives it.
struct MethodInputs {
  const Decoder& model;
  const Gates* gates;  // null: none
  const SparseSettings& settings;
};
using MethodFactory = std::unique_ptr<Method>(const MethodInputs& inputs);

struct MethodInfo {
  const char* name;
  MethodFactory* make;
  // What it needs.
  bool trained = false;  // a folder of gates
  bool gates = false;    // kernels of gates, for gates of some form or to pool q and k
  bool lookups = false;  // those of the gates' lookup heads, too
  bool map = false;      // the true map: pooled_map
  bool whole = false;    // the last queries of a prompt: a chunk that ends before them is an Error
  // Its scores mean something beside their order, which rules that read them as logits need.
  bool logits = false;
  std::string_view own_rule = {};  // such a rule that it follows in a way of its own
};
std::span<const MethodInfo> methods();
// UsageError: no method has this name; it lists them.
const MethodInfo& method_named(const std::string& name);
// UsageError: a rule that reads scores as logits with a method that only orders blocks.
void check_rule(const std::string& method, const std::string& rule);

}  // namespace seer::models
