// seer bench: an operation beside its rivals.

#include "seer/bench/bench.h"
#include "seer/bench/model_shapes.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "seer/base/limits.h"
#include "seer/base/output.h"
#include "seer/base/progress.h"
#include "seer/cli/bench_distill.h"
#include "seer/cli/methods.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/report/table.h"

namespace seer::cli {
namespace {

using BenchCall = void (*)(const bench::Shape&, int, double, nlohmann::json&);
struct Operation {
  const char* name;
  BenchCall run;
};
constexpr Operation kOperations[] = {{"block_sparse_attn", bench::block_sparse_attn},
                                     {"pooled_attn", bench::pooled_attn},
                                     {"attn_gate", bench::attn_gate}};

// The embedded model, the one named, or models of the shapes named: run(model, its gates, its name).
// Gates of models with random weights are random, too.
template <class Run>
void for_each_model(const ModelArgs& model_args, const std::vector<std::string>& shapes,
                    bool needs_gates, const Run& run) {
  if (shapes.empty()) {
    const std::string folder = needs_gates ? gates_folder("", model_args.model) : "";
    SEER_CHECK(!needs_gates || !folder.empty(), no_gates(model_args.model));
    const models::Decoder model = model_args.load();
    const auto gates = needs_gates ? load_gates(folder, model_args, model) : nullptr;
    run(model, gates.get(), model_args.model);
  }
  for (const std::string& shape : shapes) {
    const models::Decoder model =
        bench::random_model(shape, model_args.resolved_dtype(), model_args.resolved_device());
    const auto gates = needs_gates
                           ? std::make_unique<models::Gates>(models::Gates::create({}, model, 0))
                           : nullptr;
    run(model, gates.get(), shape);
  }
}

// Every length through every model.
void prefill(const ModelArgs& model_args, const std::vector<std::string>& shapes,
             const std::vector<int64_t>& lengths, const std::vector<double>& densities, int runs,
             double seconds, nlohmann::json& rows) {
  std::vector<torch_ops::Selection> selections;
  for (const double density : densities) selections.emplace_back().strength = {density};
  for_each_model(
      model_args, shapes, /*needs_gates=*/true,
      [&](const models::Decoder& model, const models::Gates* gates, const std::string& name) {
        for (const int64_t length : lengths) {
          bench::prefill(model, *gates, selections, length, runs, seconds, name, rows);
        }
      });
}

std::string decode_table(const nlohmann::json& rows) {
  report::Table table({"model", "implementation", "dtype", "heads", "D", "cached", "median", "min",
                       "max", "GB/s", "of memory", "tokens/s", "attention"});
  const auto ms = [](const nlohmann::json& value) {
    return report::fixed(value.get<double>(), 3) + " ms";
  };
  for (const auto& r : rows) {
    const bool is_model = r.contains("tokens_per_s");
    table.add({r["model"], r["implementation"], r["dtype"],
               message(r["heads_q"].get<int>(), "/", r["heads_kv"].get<int>()),
               std::to_string(r["head_dim"].get<int>()), std::to_string(r["len_k"].get<int64_t>()),
               ms(r["median_ms"]), ms(r["min_ms"]), ms(r["max_ms"]),
               report::fixed(r["gbytes_per_s"], 1),
               report::fixed(100 * r["memory_share"].get<double>(), 0) + "%",
               is_model ? report::fixed(r["tokens_per_s"], 1) : "",
               is_model ? ms(r["attention_ms"]) : ""});
  }
  return table.text();
}

// Where the time of a prompt goes.
std::string parts_of(const nlohmann::json& rows) {
  report::Table table({"model", "length", "implementation", "density", "first token", "gate",
                       "selection", "attention", "products", "rest", "overhead", "peak MiB"});
  const auto ms = [](const nlohmann::json& value) {
    return report::fixed(value.get<double>(), 1) + " ms";
  };
  for (const auto& r : rows) {
    table.add(
        {r["model"], std::to_string(r["len_q"].get<int>()), r["implementation"],
         report::fixed(r["density"], 3), ms(r["median_ms"]), ms(r["gate_ms"]), ms(r["select_ms"]),
         ms(r["attention_ms"]), ms(r["products_ms"]), ms(r["rest_ms"]),
         r.contains("overhead") ? report::fixed(100 * r["overhead"].get<double>(), 1) + "%" : "",
         report::fixed(r["peak_mib"], 0)});
  }
  return table.text();
}

std::vector<std::string> operation_names() {
  std::vector<std::string> names;
  for (const Operation& operation : kOperations) names.emplace_back(operation.name);
  names.insert(names.end(), {"decode_attn", "decode", "prefill", "distill"});
  return names;
}

std::string table_of(const nlohmann::json& rows) {
  report::Table table({"implementation", "dtype", "heads", "D", "length", "lists", "density",
                       "median", "min", "max", "kept GFLOP/s", "peak MiB"});
  for (const auto& r : rows) {
    table.add(
        {r["implementation"], r["dtype"],
         message(r["heads_q"].get<int>(), "/", r["heads_kv"].get<int>()),
         std::to_string(r["head_dim"].get<int>()), std::to_string(r["len_q"].get<int>()),
         r["lists"], report::fixed(r["density"], 3), report::fixed(r["median_ms"], 1) + " ms",
         report::fixed(r["min_ms"], 1) + " ms", report::fixed(r["max_ms"], 1) + " ms",
         r["kept_tflops"].is_null() ? "" : report::fixed(r["kept_tflops"].get<double>() * 1e3, 0),
         r.contains("peak_mib") ? report::fixed(r["peak_mib"], 0) : ""});
  }
  return table.text();
}

}  // namespace

int bench(int argc, char** argv, int first) {
  std::string operation, out = "results";
  bool append = false;
  std::vector<int64_t> lengths{8192, 32768}, head_dims{64, 128};
  std::vector<double> densities{0.1};
  std::vector<std::string> lists{"random"}, dtypes{"bf16"}, shapes;
  bench::Shape shape;
  ModelArgs model;
  bool avx2 = false;
  int64_t sequences = 1;
  int runs = 3;
  double seconds = 1;
  Args args("bench", "Times an operation beside its rivals on the same inputs.");
  args.positional("operation", operation, one_of(operation_names()), "what is timed")->required();
  args.add("lengths", lengths, range(2, limits::kTokens), "tokens");
  args.add("head-dims", head_dims, range(1, limits::kHeadDim), "head sizes");
  args.add("densities", densities, range(0, 1), "shares of the causal block map");
  args.add("lists", lists, one_of({"random", "gate"}),
           "gate: sink, local, vertical and scattered blocks");
  args.add("heads", shape.heads_q, range(1, limits::kHeads),
           "query heads, a multiple of --kv-heads");
  args.add("kv-heads", shape.heads_kv, range(1, limits::kHeads), "key heads");
  args.add("dtypes", dtypes, one_of({"f32", "bf16"}), "of the operation; rivals: both");
  args.add("block", shape.block, multiple(16, 16, 128), "tokens in a block");
  args.add("runs", runs, range(1, 1e6), "timed calls, at least");
  args.add("seconds", seconds, range(0, 1e6), "timed time, at least");
  args.flag("avx2", avx2, "use AVX2 at most, torch too");
  model.add_threads(args);
  args.add("model", model.model, "folder of a model; for decode and, with gates, prefill");
  args.add("shapes", shapes, one_of(bench::model_shapes()),
           "models with random weights, for prefill, decode and distill");
  model.add_device(args, "of decode_attn, decode, prefill and distill");
  args.add("sequences", sequences, range(1, limits::kSequences), "of a step of distill");
  args.flag("stream", model.stream, "distill with layers that stay in host memory");
  Allowed folder;
  folder.may_be_empty = true;
  args.add("out", out, folder, "folder of results: <out>/<chip>/<operation>.json; empty: none");
  args.flag("append", append, "keep the rows that the file has of other shapes and lengths");
  args.when_read([&] {
    if (shape.heads_q % shape.heads_kv != 0) {
      throw UsageError(
          message("--heads ", shape.heads_q, ": want a multiple of --kv-heads ", shape.heads_kv));
    }
    if (operation == "distill" && shapes.empty()) {
      throw UsageError("bench distill: name models with --shapes");
    }
    const bool takes_model = operation == "prefill" || operation == "decode";
    if (takes_model && shapes.empty()) check_model_folder("model", model.model);
    if (!out.empty()) check_output_folder(out);
  });
  if (!args.parse(argc, argv, first)) return 0;
  const auto* op = std::find_if(std::begin(kOperations), std::end(kOperations),
                                [&](const Operation& o) { return operation == o.name; });
  const bool is_prefill = operation == "prefill", is_distill = operation == "distill";
  const bool is_decode_attn = operation == "decode_attn", is_decode = operation == "decode";
  if (avx2) bench::limit_to_avx2();
  set_threads(model.threads);

  nlohmann::json rows = nlohmann::json::array();
  const bool on_any_device = is_prefill || is_distill || is_decode || is_decode_attn;
  const at::Device device = on_any_device ? model.resolved_device() : at::Device(at::kCPU);
  const std::string path = out + "/" + bench::chip(device) + "/" + operation + ".json";
  const auto record = [&] {
    nlohmann::json made = bench::record(operation, argc, argv, rows, device);
    return append && std::filesystem::exists(path) ? bench::appended(path, std::move(made)) : made;
  };
  if (!out.empty()) record();  // a file that cannot be added to is an error before hours are spent
  if (is_prefill || is_distill || is_decode) {
    if (is_decode) {
      for_each_model(model, shapes, /*needs_gates=*/false,
                     [&](const models::Decoder& decoder, const auto*, const std::string& name) {
                       for (const int64_t length : lengths) {
                         bench::decode(decoder, length, runs, seconds, name, rows);
                       }
                     });
    }
    if (is_prefill) prefill(model, shapes, lengths, densities, runs, seconds, rows);
    if (is_distill) {
      const auto ranks = train::Ranks::from_environment(device);
      bench_distill(model, shapes, lengths, sequences, runs, *ranks, rows);
      if (!ranks->is_first()) return 0;
    }
    head_dims.clear();
  }
  for (const int64_t head_dim : head_dims) {
    for (const int64_t length : lengths) {
      shape.head_dim = head_dim;
      shape.len_q = shape.len_k = length;
      for (const std::string& dtype : dtypes) {
        shape.dtype = dtype;
        if (is_decode_attn) bench::decode_attn(shape, device, runs, seconds, rows);
      }
      if (is_decode_attn) continue;
      for (const std::string& list : lists) {
        for (const double density : densities) {
          shape.lists = list;
          shape.density = density;
          for (const std::string& dtype : dtypes) {
            shape.dtype = dtype;
            op->run(shape, runs, seconds, rows);
          }
        }
      }
    }
  }
  const auto text = is_prefill                    ? parts_of(rows)
                    : is_distill                  ? distill_table(rows)
                    : is_decode || is_decode_attn ? decode_table(rows)
                                                  : table_of(rows);
  std::fputs(text.c_str(), stdout);
  if (!out.empty()) {
    write_json(path, record());
    print_line("written: " + path, stdout);
  }
  return 0;
}

}  // namespace seer::cli
