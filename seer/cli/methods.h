#pragma once
// The methods of a table and what they need, settled from names, rules and files before a model is
// loaded: whatever can be refused is refused here.

#include <string>
#include <vector>

#include "seer/base/dtype.h"
#include "seer/cli/settings.h"
#include "seer/kernels/impl.h"

namespace seer::cli {

// What some methods need together.
struct Needs {
  bool trained = false;  // gates from a folder
  bool gates = false;    // gates of some form: kernels of attn_gate
  bool lookups = false;  // their lookup heads, where they have any
  bool sparse = false;   // blocks: kernels of block_select and block_sparse_attn
  bool map = false;      // the true map: pooled_attn
  bool trains = false;   // gradients of gates by their loss, and through blocks where there are any
  int lookup_rank = 0;   // features of lookup heads: kernels of lookup_score; 0: there are none
};
Needs needs_of(const std::vector<std::string>& names);
// Why some operation that is needed has no kernel on a device for heads of that size and blocks of that size; empty: all
// have one.
std::string why_no_kernel(const kernels::Device& device, DType dtype, int head_dim,
                          const Needs& needs, int block);

// UsageError: a rule that a method's scores cannot be used with.
void check_rules(const std::vector<std::string>& names, const SelectArgs& select);

// The folder of gates in assets/gates that were made for the model in the folder `model`: for its weights and settings;
// "": there are none. Of a model of other sizes than theirs no weights are read.
std::string shipped_gates(const std::string& model);

// `folder`, or `gates` in the model's folder where there is one, or shipped gates, which a line then says; else "".
std::string gates_folder(const std::string& folder, const std::string& model);

// Of a setting that gates_folder() takes.
inline constexpr const char* kWhichGates =
    "folder of the gates; default: `gates` in the model's folder, or those that ship for it";

// "there are no gates in MODEL/gates: train them with `seer distill ...`"
std::string no_gates(const std::string& model);

// What is known of gates before their weights are read.
struct GatesFound {
  std::string folder;  // "": none
  io::GateConfig config;
};
// The config of gates in that folder. Error: it cannot be read, or does not fit the model.
GatesFound find_gates(const std::string& folder, const io::ModelConfig& model);
// The same where only `needs` decides: nothing where no method looks at gates, or where there are none and
// none must be trained. An error that says how to train them where they must.
GatesFound find_gates(const Needs& needs, const std::string& folder,
                      const std::string& model_folder, const io::ModelConfig& model);

// UsageError where the device that `model` names has no kernel for the heads of the model, for blocks of `block`
// tokens, or for lookup heads. Where `auto` is the CPU for such a reason, a line says so. Sets model.block and
// model.lookup_rank.
void settle_device(ModelArgs& model, const io::ModelConfig& config, const Needs& needs, int block);

// Named methods, each sparse one at every asked strength; `form`: of untrained gates.
std::vector<eval::Method> make_methods(const std::vector<std::string>& names,
                                       const SelectArgs& select, const io::GateConfig& form,
                                       int block, uint64_t seed);

}  // namespace seer::cli
