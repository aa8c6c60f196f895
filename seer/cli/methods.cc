#include "seer/cli/methods.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>

#include "seer/base/progress.h"
#include "seer/base/shell.h"
#include "seer/io/model_config.h"
#include "seer/kernels/kernel_list.h"

namespace seer::cli {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> operations(const Needs& needs) {
  std::vector<std::string> ops;
  if (needs.sparse) ops.insert(ops.end(), {"block_select", "block_sparse_attn"});
  if (needs.gates) {
    ops.insert(ops.end(), {"attn_gate_pool", "attn_gate_project", "attn_gate_score"});
  }
  if (needs.map) ops.emplace_back("pooled_attn");
  if (needs.lookup_rank > 0) ops.emplace_back("lookup_score");
  if (needs.trains && needs.gates) ops.emplace_back("gate_loss");
  if (needs.trains && needs.sparse) ops.emplace_back("block_sparse_attn_backward");
  if (needs.trains && needs.lookup_rank > 0) ops.emplace_back("lookup_score_grad");
  return ops;
}

// As the device of a model is called.
std::string why_not_on(const at::Device& device, at::ScalarType dtype,
                       const io::ModelConfig& config, const Needs& needs, int block) {
  const kernels::Device on =
      device.is_cuda() ? kernels::cuda_device(std::max<int>(device.index(), 0)) : kernels::Device{};
  return why_no_kernel(on, dtype == at::kFloat ? DType::f32 : DType::bf16, config.head_dim, needs,
                       block);
}

}  // namespace

std::string why_no_kernel(const kernels::Device& device, DType dtype, int head_dim,
                          const Needs& needs, int block) {
  std::map<std::string, std::string> reasons;
  std::map<std::string, bool> runs;
  for (const auto& kernel :
       kernels::kernel_list(device, dtype, head_dim, block, needs.lookup_rank)) {
    runs[kernel.op] = runs[kernel.op] || kernel.why_not.empty();
    std::string& text = reasons[kernel.op];
    text += (text.empty() ? "" : "; ") + std::string(kernel.implementation) + ": " + kernel.why_not;
  }
  for (const std::string& op : operations(needs)) {
    if (!runs[op]) return "no kernel of " + op + " takes this (" + reasons[op] + ")";
  }
  return "";
}

Needs needs_of(const std::vector<std::string>& names) {
  Needs needs;
  for (const std::string& name : names) {
    if (name == "dense") continue;
    const models::MethodInfo& method = models::method_named(name);
    needs.sparse = true;
    needs.trained |= method.trained;
    needs.gates |= method.gates;
    needs.lookups |= method.lookups;
    needs.map |= method.map;
  }
  return needs;
}

void check_rules(const std::vector<std::string>& names, const SelectArgs& select) {
  const auto selections = select.selections();
  for (const std::string& name : names) {
    if (name == "dense") continue;
    for (const auto& selection : selections) {
      models::check_rule(name, selection.rule);
    }
  }
}

std::string shipped_gates(const std::string& model) {
  std::error_code error;
  std::set<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(assets_folder() / "gates", error)) {
    if (entry.is_directory()) folders.insert(entry.path());
  }
  const auto sizes = [](const io::ModelConfig& c) {
    return std::tuple(c.num_layers, c.hidden_size, c.intermediate_size, c.num_heads, c.num_kv_heads,
                      c.head_dim, c.vocab_size);
  };
  const auto config = io::ModelConfig::read(model);
  for (const fs::path& folder : folders) {
    if (sizes(io::ModelConfig::read(folder)) != sizes(config)) continue;
    const auto mapped = models::Decoder::load(model, at::ScalarType::Undefined, at::kCPU);
    if (models::difference_of_models(folder, io::read_gate_config(folder), mapped).empty()) {
      return folder;
    }
  }
  return "";
}

std::string gates_folder(const std::string& folder, const std::string& model) {
  if (!folder.empty()) return folder;
  const fs::path own = fs::path(model) / "gates";
  std::error_code error;
  if (fs::exists(own, error)) return own.string();
  std::string shipped = shipped_gates(model);
  if (!shipped.empty()) print_line("seer: gates of this model ship with seer: " + shipped);
  return shipped;
}

std::string no_gates(const std::string& model) {
  const std::string own = (fs::path(model) / "gates").string();
  return message("there are no gates in ", own, ": train them with `seer distill --model ",
                 shell_word(model), " --data TEXT --out ", shell_word(own), "`");
}

GatesFound find_gates(const std::string& folder, const io::ModelConfig& model) {
  GatesFound found{folder, io::read_gate_config(folder)};
  try {
    found.config.check(model);
  } catch (const Error& error) {
    fail((fs::path(folder) / "config.json").string(), ": ", error.what());
  }
  return found;
}

GatesFound find_gates(const Needs& needs, const std::string& folder,
                      const std::string& model_folder, const io::ModelConfig& model) {
  if (!needs.sparse) return {};
  const std::string found = gates_folder(folder, model_folder);
  if (!found.empty()) return find_gates(found, model);
  if (!needs.trained) return {};
  fail("trained gates are needed, and ", no_gates(model_folder),
       ", name another folder with --gates, or leave out the methods seer and gate");
}

void settle_device(ModelArgs& model, const io::ModelConfig& config, const Needs& needs, int block) {
  model.block = block;
  model.lookup_rank = needs.lookup_rank;
  model.check_head_dim(config.head_dim);
  const at::Device device = model.resolved_device();
  const at::ScalarType dtype = model.resolved_dtype();
  const std::string why = why_not_on(device, dtype, config, needs, block);
  if (!why.empty()) {
    throw UsageError(
        message("--device ", model.device, ", blocks of ", block, " tokens: ", why,
                device.is_cuda() ? "; choose --device cpu or auto, or another block size" : ""));
  }
  if (model.device != "auto" || device.is_cuda() || kernels::num_cuda_devices() == 0) return;
  const at::ScalarType on_gpu = model.dtype == "f32" ? at::kFloat : at::kBFloat16;
  std::string why_cpu = kernels::why_not_head_dim(kernels::cuda_device(0), config.head_dim);
  if (why_cpu.empty()) {
    why_cpu = why_not_on(at::Device(at::kCUDA, 0), on_gpu, config, needs, block);
  }
  if (!why_cpu.empty()) {
    std::fprintf(stderr,
                 "seer: the CPU takes this: on the GPU, with heads of %d features and blocks of %d "
                 "tokens, %s\n",
                 config.head_dim, block, why_cpu.c_str());
  }
}

std::vector<eval::Method> make_methods(const std::vector<std::string>& names,
                                       const SelectArgs& select, const io::GateConfig& form,
                                       int block, uint64_t seed) {
  std::vector<eval::Method> methods;
  for (const std::string& name : names) {
    if (name == "dense") {
      methods.push_back({.dense = true, .sparse = {}});
      continue;
    }
    for (const auto& selection : select.selections()) {
      models::SparseSettings sparse{.method = name,
                                    .selection = selection,
                                    .block = block,
                                    .seed = seed,
                                    .even = true,
                                    .form = form};
      methods.push_back({.dense = false, .sparse = sparse});
    }
  }
  return methods;
}

}  // namespace seer::cli
