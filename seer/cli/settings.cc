#include "seer/cli/settings.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "seer/base/cpus.h"
#include "seer/base/file.h"
#include "seer/base/idle_spin.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/cli/device.h"
#include "seer/io/gate_file.h"
#include "seer/io/hub_name.h"
#include "seer/io/model_config.h"
#include "seer/kernels/cpu_features.h"
#include "seer/kernels/kernel_list.h"
#include "seer/kernels/size_limits.h"

namespace seer::cli {
namespace fs = std::filesystem;

fs::path assets_folder() {
  if (const char* assets = std::getenv("SEER_ASSETS")) return assets;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  for (fs::path at = program.parent_path(); at.has_relative_path(); at = at.parent_path()) {
    if (fs::exists(at / "assets" / "reference" / "config.json")) return at / "assets";
  }
  return "assets";
}

std::string embedded_model() {
  return assets_folder() / "reference";
}

void check_model_folder(const std::string& flag, const std::string& path) {
  std::error_code error;
  const std::string where = "--" + flag + " " + shown(path, 300);
  if (fs::is_directory(path, error)) {
    const bool is_gate = fs::exists(io::gate_weights_path(path), error) &&
                         !fs::exists(fs::path(path) / "tokenizer.json", error);
    if (is_gate) throw UsageError(where + " is a folder of gates: want that of their model");
    return;
  }
  constexpr const char* kForm = "config.json, tokenizer.json, *.safetensors";
  if (fs::exists(path, error)) {
    const std::string name = fs::path(path).filename().string();
    const bool is_gguf = name.ends_with(".gguf") || name.ends_with(".GGUF");
    throw UsageError(where + " is a " + (is_gguf ? "GGUF file, which is not read" : "file") +
                     ": want the folder of the model in Hugging Face form (" + kForm + ")" +
                     (is_gguf ? "; `hf download ORG/NAME --local-dir FOLDER` gets it" : ""));
  }
  if (const std::string name = io::hub_name(path); !name.empty()) {
    throw UsageError(where + " is no folder here; a model of this name on Hugging Face is got by " +
                     io::hub_download(path) + ", then --" + flag + " " + name);
  }
  throw UsageError(where + " is no folder: want the folder of a model (" + kForm + ")");
}

void ModelArgs::add(Args& args) {
  args.group("Model");
  args.add("model", model, "folder of the model (Hugging Face form)");
  args.when_read([this] { check_model_folder("model", model); });
  add_device(args,
             "cuda: the GPU, of several that of torchrun's process; auto: cuda where every "
             "operation needed has a kernel");
  args.add("dtype", dtype, one_of({"f32", "bf16", "auto"}),
           "auto: bf16 where the device multiplies it natively");
  args.flag(
      "stream", stream,
      "keep layers in host memory, each travels to the GPU while the one before computes: for "
      "models larger than its memory");
  add_threads(args);
  args.group("");
}

void ModelArgs::add_device(Args& args, const std::string& help) {
  args.add("device", device, device_names(), "auto, cpu, cuda, cuda:N; " + help);
}

void ModelArgs::add_threads(Args& args) {
  args.add("threads", threads, range(0, limits::kThreads),
           "CPU threads; 0: OMP_NUM_THREADS, or as many as this process may use");
}

void ModelArgs::add_foreign_gates(Args& args) {
  args.flag("foreign-gates", foreign_gates,
            "use gates though they were made for a model of other weights or RoPE");
}

namespace {

// Whether each operation has a kernel for this model on the first GPU.
bool runs_on_gpu(const std::string& model, DType dtype, int block, int lookup_rank) {
  const int head_dim = io::ModelConfig::read(model).head_dim;
  std::map<std::string, bool> runs;
  for (const auto& kernel :
       kernels::kernel_list(kernels::cuda_device(0), dtype, head_dim, block, lookup_rank)) {
    runs[kernel.op] |= kernel.why_not.empty();
  }
  return std::all_of(runs.begin(), runs.end(), [](const auto& op) { return op.second; });
}

}  // namespace

at::Device ModelArgs::resolved_device() const {
  int gpus = at::hasCUDA() ? kernels::num_cuda_devices() : 0;
  if (any_gpu && at::hasCUDA()) gpus = at::detail::getCUDAHooks().getNumGPUs();
  return resolve_device(device, gpus, [&] {
    return any_gpu ||
           runs_on_gpu(model, dtype == "f32" ? DType::f32 : DType::bf16, block, lookup_rank);
  });
}

at::ScalarType ModelArgs::resolved_dtype() const {
  if (dtype == "f32") return at::kFloat;
  if (dtype == "bf16") return at::kBFloat16;
  const bool native = resolved_device().is_cuda() || kernels::cpu_has_bf16_dot();
  return native ? at::kBFloat16 : at::kFloat;
}

void set_threads(int threads) {
  // OpenMP reads OMP_NUM_THREADS and the affinity mask, but knows nothing of a container's limit.
  if (threads == 0 && std::getenv("OMP_NUM_THREADS") == nullptr) {
    threads = std::min(usable_cpus(), at::get_num_threads());
  }
  if (threads > 0) at::set_num_threads(threads);
  shorten_idle_spin_when_contended();
}

void ModelArgs::check_head_dim(int head_dim) const {
  const at::Device where = resolved_device();
  if (!where.is_cuda()) return;
  const std::string why_not =
      kernels::why_not_head_dim(kernels::cuda_device(where.index()), head_dim);
  if (why_not.empty()) return;
  throw UsageError(message("--device ", device, ": the heads of ", shown(model, 300), " have ",
                           head_dim, " features, and ", why_not, "; --device cpu takes the model"));
}

models::Decoder ModelArgs::load() const {
  set_threads(threads);
  check_head_dim(io::ModelConfig::read(model).head_dim);
  return models::Decoder::load(model, resolved_dtype(), resolved_device(), stream);
}

io::Tokenizer ModelArgs::tokenizer() const {
  return io::Tokenizer::load(model);
}

void refuse(const Args& args, const std::vector<std::string>& names, const std::string& where) {
  for (const std::string& name : names) {
    if (args.has_flag(name)) throw UsageError("--" + name + " means nothing " + where);
  }
}

void GateArgs::add(Args& args) {
  args.group("Gate");
  Allowed types;
  types.wants = [](const std::string& type) -> std::string {
    io::GateConfig config;
    config.type = type;
    try {
      config.check(/*head_dim=*/0);
      return "";
    } catch (const Error&) {
      return "Q..._K... with poolings in the order max, min, avg, such as Qavg_Kmaxminavg";
    }
  };
  args.add("gate-type", config.type, types, "poolings of q and k, of max, min, avg");
  args.add("block", config.block_size, multiple(16, 16, 128), "tokens in a block");
  args.add("gate-dim", config.gate_dim, multiple(2, 0, limits::kGateDim),
           "size of the gate's vectors; 0: the model's head size");
  args.flag("force-double", config.force_double,
            "a weight for q, too, where the single form would do");
  args.group("");
}

namespace {

Allowed strength_of(const std::string& rule) {
  return range(0, std::min<double>(kernels::select_rule(rule).largest, limits::kTokens));
}

// "threshold:0.005"; what it should have been where it is none.
std::string read_rule(const std::string& text, torch_ops::Selection& selection) {
  const size_t colon = text.find(':');
  const std::string rule = text.substr(0, colon);
  const auto names = kernels::select_rule_names();
  if (colon == std::string::npos || std::find(names.begin(), names.end(), rule) == names.end()) {
    return "rule:strength, e.g. threshold:0.005, of the rules " + listed(names) +
           (colon == std::string::npos ? "" : did_you_mean(rule, names));
  }
  const Allowed strength = strength_of(rule);
  const auto number = read_number(std::string_view(text).substr(colon + 1), Kind::real);
  if (!number || !strength.takes(*number, Kind::real)) {
    return "behind " + rule + ": " + strength.expected(Kind::real) +
           (number ? strength.suggestion(*number) : "");
  }
  selection.rule = rule;
  selection.strength = {number->get<double>()};
  return "";
}

}  // namespace

void SelectArgs::add(Args& args, std::vector<double> default_sparsity) {
  sparsity = std::move(default_sparsity);
  args.group("Selection");
  args.add("rule", rule, one_of(kernels::select_rule_names()),
           "what limits the blocks: row_budget tokens per row, head_budget a share per head");
  const auto by_share = kernels::select_rule_names([](const auto& r) { return r.takes_share(); });
  args.add("sparsity", sparsity, below(0, 1),
           "share of causal blocks left out, for the rule " + listed(by_share));
  args.add("strength", strength, range(0, limits::kTokens),
           "for the others: softmax threshold, kept mass (top_p), tokens (row_budget)");
  Allowed rule_strength;
  rule_strength.wants = [](const std::string& text) {
    torch_ops::Selection read;
    return read_rule(text, read);
  };
  args.add(
      "also", also, rule_strength,
      "further rules as rule:strength, e.g. threshold:0.005,top_p:0.95,nz_ratio:0.2 (density)");
  const Allowed blocks = range(0, kernels::kMostBlocks);
  args.add("sink-blocks", forced.sink_blocks, blocks, "first blocks always kept");
  args.add("local-blocks", forced.local_blocks, blocks, "blocks before the diagonal always kept");
  args.add("last-dense-rows", forced.last_dense_rows, blocks,
           "last block rows of the prompt that see everything; published default: 2");
  args.group("");
  args.when_read([this] { selections(); });
}

std::vector<torch_ops::Selection> SelectArgs::selections() const {
  const bool by_share = kernels::select_rule(rule).takes_share();
  if (by_share && !strength.empty()) {
    throw UsageError("--rule " + rule + " takes --sparsity, not --strength");
  }
  if (!by_share && strength.empty()) throw UsageError("--rule " + rule + " needs --strength");
  const Allowed allowed = strength_of(rule);
  std::vector<torch_ops::Selection> selections;
  for (const double value : by_share ? sparsity : strength) {
    if (!by_share && !allowed.takes(value, Kind::real)) {
      throw UsageError(message("--strength ", value, ": the rule ", rule, " takes ",
                               allowed.expected(Kind::real), allowed.suggestion(value)));
    }
    torch_ops::Selection one = forced;
    one.rule = rule;
    one.strength = {by_share ? 1 - value : value};
    selections.push_back(one);
  }
  for (const std::string& text : also) {
    torch_ops::Selection one = forced;
    read_rule(text, one);
    for (const auto& other : selections) {
      if (one.rule == other.rule && std::abs(one.strength[0] - other.strength[0]) < 1e-9) {
        throw UsageError("--also " + text + " is what another setting asks for: leave it out");
      }
    }
    selections.push_back(one);
  }
  return selections;
}

std::vector<std::string> method_names() {
  std::vector<std::string> names{"dense"};
  for (const auto& method : models::methods()) names.emplace_back(method.name);
  return names;
}

std::unique_ptr<models::Gates> load_gates(const std::string& folder, const ModelArgs& model_args,
                                          const models::Decoder& model) {
  auto gates =
      std::make_unique<models::Gates>(models::Gates::load(folder, model, model_args.foreign_gates));
  if (gates->config().fingerprint.empty()) {
    std::fprintf(stderr,
                 "seer: note: %s does not tell which model these gates are of, nothing more than "
                 "their shapes is checked\n",
                 shown((fs::path(folder) / "config.json").string(), 200).c_str());
  }
  return gates;
}

void write_json(const std::string& where, const nlohmann::json& json) {
  if (where.empty()) return;
  const bool is_empty = json.contains("rows") && json["rows"].empty();
  if (is_empty && !json.value("complete", true)) return;
  const std::string text = json_text(json, 2);
  if (where == "-") {
    std::puts(text.c_str());
  } else {
    write_file_atomic(where, text + "\n");
  }
}

}  // namespace seer::cli
