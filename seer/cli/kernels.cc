// seer kernels: which operation has which implementation on this machine.

#include "seer/kernels/kernel_list.h"

#include <cstdio>

#include "seer/base/limits.h"
#include "seer/cli/args.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/report/table.h"

namespace seer::cli {
namespace {

DType dtype_named(const std::string& text) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    if (text == name(dtype)) return dtype;
  }
  fail("no dtype ", text);
}

}  // namespace

int kernels(int argc, char** argv, int first) {
  std::string dtype = "bf16", json;
  int head_dim = 128, block = 64;
  Args args("kernels",
            "Lists the implementations of every operation, and why some do not run here.");
  args.add("dtype", dtype, one_of({"f32", "f16", "bf16"}), "of q, k and v");
  args.add("head-dim", head_dim, range(1, limits::kHeadDim), "features of a head");
  args.add("block", block, range(1, limits::kTokens), "tokens in a block");
  args.json_output(json);
  if (!args.parse(argc, argv, first)) return 0;

  report::Table table({"operation", "implementation", "device", "runs"});
  nlohmann::json rows = nlohmann::json::array();
  const int num_gpus = seer::kernels::num_cuda_devices();
  for (int gpu = -1; gpu < num_gpus; ++gpu) {
    const auto device = gpu < 0 ? seer::kernels::Device{} : seer::kernels::cuda_device(gpu);
    const std::string where = gpu < 0 ? "cpu" : "cuda:" + std::to_string(gpu);
    for (const auto& status :
         seer::kernels::kernel_list(device, dtype_named(dtype), head_dim, block)) {
      const std::string yes = status.slower.empty() ? "yes" : "yes, " + status.slower;
      table.add({status.op, status.implementation, where,
                 status.why_not.empty() ? yes : "no: " + status.why_not});
      rows.push_back({{"operation", status.op},
                      {"implementation", status.implementation},
                      {"device", where},
                      {"why_not", status.why_not},
                      {"slower", status.slower}});
    }
  }
  std::FILE* const out = json == "-" ? stderr : stdout;
  std::fputs(table.text().c_str(), out);
  if (num_gpus == 0) std::fputs("no CUDA device here\n", out);
  write_json(json, rows);
  return 0;
}

}  // namespace seer::cli
