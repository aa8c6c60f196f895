// seer bench: an operation beside its rivals.

#include "seer/bench/bench.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "seer/base/limits.h"
#include "seer/base/progress.h"
#include "seer/bench/model_shapes.h"
#include "seer/cli/measured.h"
#include "seer/cli/methods.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/report/results.h"

namespace seer::cli {
namespace {

std::vector<std::string> benchmark_names() {
  std::vector<std::string> names;
  for (const auto& benchmark : seer::bench::benchmarks()) names.emplace_back(benchmark.name);
  return names;
}

std::vector<std::string> sparse_methods() {
  std::vector<std::string> names = method_names();
  std::erase(names, "dense");
  return names;
}

const seer::bench::Benchmark& benchmark_named(const std::string& name) {
  const auto& all = seer::bench::benchmarks();
  return *std::find_if(all.begin(), all.end(), [&](const auto& one) { return name == one.name; });
}

// Flags of other benchmarks would be read in vain; so would a GPU's name where the CPU is timed.
void refuse_flags_of_others(const Args& args, const seer::bench::Benchmark& benchmark,
                            const std::string& device) {
  const auto& own = benchmark.settings;
  std::vector<std::string> others;
  for (const auto& other : seer::bench::benchmarks()) {
    for (const std::string& name : other.settings) {
      const bool reads = std::find(own.begin(), own.end(), name) != own.end();
      if (!reads && name != "device") others.push_back(name);
    }
  }
  const std::string where = std::string("for bench ") + benchmark.name;
  refuse(args, others, where);
  if (!benchmark.on_device && device != "cpu") {
    refuse(args, {"device"}, where + ", which times the CPU (bench/README.md: those of GPUs)");
  }
}

// What no kernel takes is found before other sizes have been measured.
void check_sizes(const seer::bench::Request& request) {
  const Needs all{.gates = true, .sparse = true, .map = true, .trains = true};
  for (const int64_t head_dim : request.head_dims) {
    for (const std::string& dtype : request.dtypes) {
      const std::string why = why_no_kernel({}, dtype == "f32" ? DType::f32 : DType::bf16,
                                            static_cast<int>(head_dim), all, request.block);
      if (!why.empty()) throw UsageError(message("--head-dims ", head_dim, ": ", why));
    }
  }
}

// The model that the arguments name.
void with_model(const ModelArgs& args, bool needs_gates, const seer::bench::UseModel& use) {
  const std::string folder = needs_gates ? gates_folder("", args.model) : "";
  SEER_CHECK(!needs_gates || !folder.empty(), no_gates(args.model));
  const models::Decoder model = args.load();
  const auto gates = needs_gates ? load_gates(folder, args, model) : nullptr;
  use(model, gates.get(), args.model);
}

}  // namespace

int bench(int argc, char** argv, int first) {
  using Models = seer::bench::Benchmark::Models;
  std::string operation, out = "results";
  bool append = false, avx2 = false;
  seer::bench::Request r;
  ModelArgs model;
  Args args("bench", "Times an operation beside its rivals on the same inputs.");
  args.positional("operation", operation, one_of(benchmark_names()), "what is timed")->required();
  args.add("lengths", r.lengths, range(2, limits::kTokens), "tokens");
  args.add("head-dims", r.head_dims, range(1, limits::kHeadDim), "head sizes");
  args.add("densities", r.densities, range(0, 1), "shares of the causal block map");
  args.add("methods", r.methods, one_of(sparse_methods()),
           "of prefill: who chooses the blocks; several have as many blocks a row");
  args.add("lists", r.lists, one_of({"random", "gate"}),
           "gate: sink, local, vertical and scattered blocks");
  args.add("heads", r.heads_q, range(1, limits::kHeads), "query heads, a multiple of --kv-heads");
  args.add("kv-heads", r.heads_kv, range(1, limits::kHeads), "key heads");
  args.add("dtypes", r.dtypes, one_of({"f32", "bf16"}), "of the operation; rivals: both");
  args.add("block", r.block, multiple(16, 16, 128), "tokens in a block");
  args.add("runs", r.runs, range(1, 1e6), "timed calls, at least");
  args.add("seconds", r.seconds, range(0, 1e6), "timed time, at least");
  args.flag("avx2", avx2, "use AVX2 at most, torch too");
  model.add_threads(args);
  args.add("model", model.model, "folder of a model; for decode and, with gates, prefill");
  args.add("shapes", r.shapes, one_of(seer::bench::model_shapes()),
           "models with random weights, for prefill, decode and training");
  model.add_device(args, "of decode_attn, decode, prefill and training");
  args.add("sequences", r.sequences, range(1, limits::kSequences), "of a step of training");
  args.flag("states-on-host", r.states_on_host, "finetune with optimizer states in host memory");
  args.flag("stream", model.stream, "distill with layers that stay in host memory");
  Allowed folder;
  folder.may_be_empty = true;
  args.add("out", out, folder, "folder of results: <out>/<chip>/<operation>.json; empty: none");
  args.flag("append", append, "keep the rows that the file has of other shapes and lengths");
  args.when_read([&] {
    if (r.heads_q % r.heads_kv != 0) {
      throw UsageError(
          message("--heads ", r.heads_q, ": want a multiple of --kv-heads ", r.heads_kv));
    }
    const Models of = benchmark_named(operation).of;
    refuse_flags_of_others(args, benchmark_named(operation), model.device);
    if (of == Models::shapes && r.shapes.empty()) {
      throw UsageError("bench " + operation + ": name models with --shapes");
    }
    if (of == Models::shapes || (of == Models::any && r.shapes.empty())) {
      check_model_folder("model", model.model);
    }
    if (of == Models::none && !benchmark_named(operation).on_device) check_sizes(r);
    if (!out.empty()) check_folder_of("out", out);
  });
  if (!args.parse(argc, argv, first)) return 0;
  const seer::bench::Benchmark& benchmark = benchmark_named(operation);
  if (avx2) limit_to_avx2();
  set_threads(model.threads);
  if (benchmark.on_device) {
    r.device = model.resolved_device();
    r.model_dtype = model.resolved_dtype();
  }
  r.stream = model.stream;
  r.model = model.model;
  r.with_model = [&](bool needs_gates, const seer::bench::UseModel& use) {
    with_model(model, needs_gates, use);
  };

  nlohmann::json rows = nlohmann::json::array();
  const std::string path = out + "/" + chip_folder(r.device) + "/" + operation + ".json";
  const auto record = [&] {
    nlohmann::json made = record_of(operation, argc, argv, rows, r.device);
    return append && std::filesystem::exists(path) ? report::appended(path, std::move(made)) : made;
  };
  if (!out.empty()) record();  // a file that cannot be added to is an error before hours are spent
  benchmark.run(r, rows);
  if (rows.empty()) return 0;  // another process has them
  std::fputs(benchmark.table(rows).c_str(), stdout);
  if (!out.empty()) {
    write_json(path, record());
    print_line("written: " + path, stdout);
  }
  return 0;
}

}  // namespace seer::cli
