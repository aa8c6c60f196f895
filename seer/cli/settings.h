#pragma once
// Settings that several verbs share, and what is made from them.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "seer/cli/args.h"
#include "seer/eval/method.h"
#include "seer/io/gate_file.h"
#include "seer/io/tokenizer/tokenizer.h"
#include "seer/models/decoder.h"
#include "seer/models/gates/gates.h"
#include "seer/models/sparse_attention.h"

namespace seer::cli {

// What ships with the program: $SEER_ASSETS, or assets beside the build folder.
std::filesystem::path assets_folder();
// In it.
std::string embedded_model();

// UsageError where a model cannot be read from there: a name on Hugging Face, a file of another form.
void check_model_folder(const std::string& flag, const std::string& path);

// Of --threads; 0: OMP_NUM_THREADS, or all CPUs that this process may use.
void set_threads(int threads);

struct ModelArgs {
  std::string model = embedded_model();
  std::string device = "auto", dtype = "auto";
  int threads = 0;
  bool stream = false;
  bool any_gpu = false;  // for verbs that need torch's kernels alone
  // Of the gates, as far as they are known when the model is loaded: as settle_device() sets them.
  int block = 64, lookup_rank = 0;
  void add(Args& args);
  // Parts of add(). A verb that adds --model itself calls check_model_folder().
  void add_device(Args& args, const std::string& help);
  void add_threads(Args& args);
  // For verbs that load gates, beside --gates.
  bool foreign_gates = false;
  void add_foreign_gates(Args& args);
  // Sets the number of threads, then loads.
  models::Decoder load() const;
  io::Tokenizer tokenizer() const;
  at::Device resolved_device() const;
  // UsageError: the device has no kernel for heads of that size.
  void check_head_dim(int head_dim) const;
  at::ScalarType resolved_dtype() const;
};

struct GateArgs {
  io::GateConfig config;
  void add(Args& args);
};
// Its flags, which say what new gates are.
inline const std::vector<std::string> kOfNewGates{"gate-type", "block", "gate-dim", "force-double"};
// UsageError where one of these flags is given, which means nothing `where`: "beside --gates".
void refuse(const Args& args, const std::vector<std::string>& names, const std::string& where);

struct SelectArgs {
  std::string rule = kernels::kDefaultSelectRule;
  std::vector<double> sparsity, strength;
  std::vector<std::string> also;  // "rule:strength", further rows of a table
  torch_ops::Selection forced;    // sink, local, last dense rows
  void add(Args& args, std::vector<double> default_sparsity);
  // One Selection per asked strength. UsageError where rule and flags do not fit; called by
  // Args::parse().
  std::vector<torch_ops::Selection> selections() const;
};

// The flags of gates and selection, which mean nothing where attention is dense.
inline const std::vector<std::string> kOfSparse{"gates",       "foreign-gates", "rule",
                                                "sparsity",    "strength",      "also",
                                                "sink-blocks", "local-blocks",  "last-dense-rows"};

// The names that make_methods() knows.
std::vector<std::string> method_names();
// A note on standard error where the gates do not tell which model they are of.
std::unique_ptr<models::Gates> load_gates(const std::string& folder, const ModelArgs& model_args,
                                          const models::Decoder& model);

// Writes `json` to standard output ("-") or atomically to a file; "" does nothing. Nor does a record of
// a measurement that ended before its first row: an earlier one stays.
void write_json(const std::string& where, const nlohmann::json& json);

}  // namespace seer::cli
