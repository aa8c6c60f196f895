// Runs a model folder on given token ids, for the parity tests:
//   model_driver logits   --model DIR --ids FILE.json --out FILE.safetensors [--chunk N]
//   model_driver generate --model DIR --ids FILE.json --out FILE.json --tokens N [--chunk N]
//   model_driver save     --model DIR --out DIR
// each with [--dtype f32|bf16].

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/models/decoder.h"
#include "seer/models/generate.h"
#include "seer/models/loader.h"

namespace {

using seer::models::Decoder;
using Flags = std::map<std::string, std::string>;

Flags parse(int argc, char** argv) {
  Flags flags = {{"--dtype", "f32"}, {"--chunk", "0"}, {"--tokens", "16"}};
  for (int i = 2; i < argc; i += 2) {
    if (i + 1 == argc) throw seer::UsageError(std::string(argv[i]) + " needs a value");
    flags[argv[i]] = argv[i + 1];
  }
  return flags;
}

std::vector<int32_t> read_ids(const std::string& path) {
  return nlohmann::json::parse(seer::read_file(path)).get<std::vector<int32_t>>();
}

void logits(const Decoder& model, Flags& flags) {
  const auto ids = read_ids(flags["--ids"]);
  seer::models::SequenceCache cache(model.config().num_layers);
  std::vector<at::Tensor> parts;
  seer::models::prefill(
      model, ids, seer::models::dense_attention, std::stoll(flags["--chunk"]), cache,
      [&](const at::Tensor& hidden) { parts.push_back(model.logits(hidden).to(at::kFloat)); });
  const at::Tensor all = at::cat(parts, 0).contiguous();
  seer::io::write_safetensors(flags["--out"], {seer::models::tensor_record("logits", all)});
}

void generate(const Decoder& model, Flags& flags) {
  seer::models::GenerateSettings settings;
  settings.max_new_tokens = std::stoll(flags["--tokens"]);
  settings.chunk = std::stoll(flags["--chunk"]);
  const auto ids = seer::models::generate(model, read_ids(flags["--ids"]),
                                          seer::models::dense_attention, settings);
  seer::write_file_atomic(flags["--out"], nlohmann::json(ids).dump());
}

void run(int argc, char** argv) {
  if (argc < 2) throw seer::UsageError("give a verb: logits, generate or save");
  const std::string verb = argv[1];
  Flags flags = parse(argc, argv);
  const at::NoGradGuard no_grad;
  Decoder model = Decoder::load(flags["--model"],
                                flags["--dtype"] == "bf16" ? at::kBFloat16 : at::kFloat, at::kCPU);
  if (verb == "logits") {
    logits(model, flags);
  } else if (verb == "generate") {
    generate(model, flags);
  } else if (verb == "save") {
    seer::models::save_model(flags["--out"], model.config().raw, model.weights());
  } else {
    throw seer::UsageError("unknown verb " + verb + "; known: logits, generate, save");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "model_driver: error: %s\n", error.what());
    return 1;
  }
}
