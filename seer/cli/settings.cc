#include "seer/cli/settings.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "seer/io/model_config.h"
#include "seer/kernels/cpu_features.h"
#include "seer/kernels/kernel_list.h"

namespace seer::cli {
namespace fs = std::filesystem;

std::string embedded_model() {
  if (const char* assets = std::getenv("SEER_ASSETS")) return std::string(assets) + "/reference";
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  for (fs::path at = program.parent_path(); at.has_relative_path(); at = at.parent_path()) {
    if (fs::exists(at / "assets" / "reference" / "config.json")) return at / "assets" / "reference";
  }
  return "assets/reference";
}

void ModelArgs::add(Args& args) {
  args.group("Model");
  args.add("model", model, "folder of the model (Hugging Face form)");
  args.add("device", device, "cpu, cuda, or auto: cuda where every operation needed has a kernel");
  args.add("dtype", dtype, "f32, bf16, or auto: bf16 where the device multiplies it natively");
  args.flag(
      "stream", stream,
      "keep layers in host memory, each travels to the GPU while the one before computes: for "
      "models larger than its memory");
  args.add("threads", threads, "CPU threads; 0: all cores");
  args.group("");
}

namespace {

// Whether each operation has a kernel for this model on the first GPU.
bool runs_on_gpu(const std::string& model, DType dtype, int block) {
  if (!at::hasCUDA() || kernels::num_cuda_devices() == 0) return false;
  const int head_dim = io::ModelConfig::read(model).head_dim;
  std::map<std::string, bool> runs;
  for (const auto& kernel : kernels::kernel_list(kernels::cuda_device(0), dtype, head_dim, block)) {
    runs[kernel.op] |= kernel.why_not.empty();
  }
  return std::all_of(runs.begin(), runs.end(), [](const auto& op) { return op.second; });
}

// The GPU of this process: torchrun numbers those of a machine.
at::Device own_gpu() {
  const int gpus = kernels::num_cuda_devices();
  SEER_CHECK(gpus > 0, "--device cuda: this build has no kernels for a GPU, or sees none");
  const char* number = std::getenv("LOCAL_RANK");
  const std::string text = number ? number : "0";
  int index = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  SEER_CHECK(error == std::errc() && end == text.data() + text.size() && index >= 0,
             "LOCAL_RANK is \"", text, "\", want a number");
  SEER_CHECK(index < gpus, "LOCAL_RANK is ", index, ", but this machine has ", gpus,
             " GPUs: start fewer processes on it");
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

}  // namespace

at::Device ModelArgs::resolved_device() const {
  if (device == "cpu") return at::kCPU;
  if (device == "auto") {
    return runs_on_gpu(model, dtype == "f32" ? DType::f32 : DType::bf16, block)
               ? own_gpu()
               : at::Device(at::kCPU);
  }
  if (device == "cuda") {
    if (!at::hasCUDA()) throw UsageError("--device cuda: no GPU here that torch can use");
    return own_gpu();
  }
  throw UsageError("--device " + device + ": want cpu, cuda or auto");
}

at::ScalarType ModelArgs::resolved_dtype() const {
  if (dtype == "f32") return at::kFloat;
  if (dtype == "bf16") return at::kBFloat16;
  if (dtype != "auto") throw UsageError("--dtype " + dtype + ": want f32, bf16 or auto");
  const bool native = resolved_device().is_cuda() || kernels::cpu_has_bf16_dot();
  return native ? at::kBFloat16 : at::kFloat;
}

models::Decoder ModelArgs::load() const {
  if (threads < 0) throw UsageError("--threads: want 0 or more");
  if (threads > 0) at::set_num_threads(threads);
  return models::Decoder::load(model, resolved_dtype(), resolved_device(), stream);
}

io::Tokenizer ModelArgs::tokenizer() const {
  return io::Tokenizer::load(model);
}

void GateArgs::add(Args& args) {
  args.group("Gate");
  args.add("gate-type", config.type, "poolings of q and k, of max, min, avg");
  args.add("block", config.block_size, "tokens in a block: 16 ... 128, a multiple of 16");
  args.add("gate-dim", config.gate_dim, "size of the gate's vectors; 0: the model's head size");
  args.flag("force-double", config.force_double,
            "a weight for q, too, where the single form would do");
  args.group("");
}

void SelectArgs::add(Args& args, std::vector<double> default_sparsity) {
  sparsity = std::move(default_sparsity);
  args.group("Selection");
  args.add(
      "rule", rule,
      "nz_ratio, threshold, top_p, row_budget (tokens per row) or head_budget (share per head)");
  args.add("sparsity", sparsity,
           "share of causal blocks left out, 0 ... 1; for the rules nz_ratio and head_budget");
  args.add("strength", strength,
           "for the others: softmax threshold, kept mass (top_p), tokens (row_budget)");
  args.add(
      "also", also,
      "further rules as rule:strength, e.g. threshold:0.005,top_p:0.95,nz_ratio:0.2 (density)");
  args.add("sink-blocks", forced.sink_blocks, "first blocks always kept");
  args.add("local-blocks", forced.local_blocks, "blocks before the diagonal always kept");
  args.add("last-dense-rows", forced.last_dense_rows,
           "last block rows of the prompt that see everything (published default: 2)");
  args.group("");
}

// "threshold:0.005".
static torch_ops::Selection selection_from(const std::string& text,
                                           const torch_ops::Selection& forced) {
  const size_t colon = text.find(':');
  torch_ops::Selection one = forced;
  one.rule = text.substr(0, colon);
  char* end = nullptr;
  const std::string number = colon == std::string::npos ? "" : text.substr(colon + 1);
  one.strength = {std::strtod(number.c_str(), &end)};
  if (number.empty() || *end != '\0') {
    throw UsageError("--also " + text + ": want rule:strength, e.g. threshold:0.005");
  }
  return one;
}

std::vector<torch_ops::Selection> SelectArgs::selections() const {
  const auto check = [](const std::string& flag, const torch_ops::Selection& selection) {
    try {
      torch_ops::check_selection(selection);
    } catch (const std::exception& error) {
      throw UsageError(flag + ": " + error.what());
    }
  };
  check("--rule", {.rule = rule, .strength = {0}});
  const bool by_share = rule == "nz_ratio" || rule == "head_budget";
  if (by_share && !strength.empty()) {
    throw UsageError("--rule " + rule + " takes --sparsity, not --strength");
  }
  if (!by_share && strength.empty()) throw UsageError("--rule " + rule + " needs --strength");
  std::vector<torch_ops::Selection> selections;
  for (const double value : by_share ? sparsity : strength) {
    if (by_share && !(value >= 0 && value < 1)) {
      throw UsageError(message("--sparsity ", value, ": want 0 ... 1, 1 not included"));
    }
    torch_ops::Selection one = forced;
    one.rule = rule;
    one.strength = {by_share ? 1 - value : value};
    check(by_share ? "--sparsity" : "--strength", one);
    selections.push_back(one);
  }
  for (const std::string& text : also) {
    selections.push_back(selection_from(text, forced));
    check("--also", selections.back());
  }
  return selections;
}

std::vector<eval::Method> make_methods(const std::vector<std::string>& names,
                                       const SelectArgs& select, int block, uint64_t seed) {
  std::vector<eval::Method> methods;
  for (const std::string& name : names) {
    if (name == "dense") {
      methods.push_back({.dense = true, .sparse = {}});
      continue;
    }
    for (const auto& selection : select.selections()) {
      models::SparseSettings sparse{.scorer = models::scorer_from_name(name),
                                    .selection = selection,
                                    .block = block,
                                    .seed = seed};
      methods.push_back({.dense = false, .sparse = sparse});
    }
  }
  return methods;
}

std::unique_ptr<models::Gates> load_gates(const std::string& folder,
                                          const std::string& model_folder,
                                          const models::Decoder& model, bool required) {
  const fs::path path = folder.empty() ? fs::path(model_folder) / "gates" : fs::path(folder);
  if (folder.empty() && !fs::exists(path)) {
    if (!required) return nullptr;
    fail("no gates in ", path.string(), ": train them with `seer distill --model ", model_folder,
         " --data TEXT --out FOLDER` and name the folder with --gates");
  }
  return std::make_unique<models::Gates>(models::Gates::load(path, model));
}

void write_json(const std::string& where, const nlohmann::json& json) {
  if (where.empty()) return;
  if (where == "-") {
    std::puts(json.dump(2).c_str());
  } else {
    write_file_atomic(where, json.dump(2) + "\n");
  }
}

}  // namespace seer::cli
