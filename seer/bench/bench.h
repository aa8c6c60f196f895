#pragma once
// Benchmarks of single operations beside their rivals, in one process on the same inputs, and the record
// that is kept of them: results/<chip>/<operation>.json.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/models/sparse_attention.h"
#include "seer/models/sparse_meter.h"

namespace seer::bench {

// One shape to be timed.
struct Shape {
  int64_t heads_q = 4, heads_kv = 4, head_dim = 128;
  int64_t len_q = 8192, len_k = 8192;
  double density = 0.1;          // of the causal block map
  std::string lists = "random";  // "random", or "gate": sink, local, vertical and scattered blocks
  std::string dtype = "bf16";    // f32, bf16
  int block = 64;
};

struct Times {
  double median_ms, min_ms, max_ms;
  int runs;
};
// Times `call` until `min_runs` are done and `seconds` are over, after one warm-up call. It returns
// when its work is done, on a GPU, too.
Times time_calls(const std::function<void()>& call, int min_runs, double seconds);

// Each appends its rows to `rows` (a JSON array): implementation, the shape, the times, kept_tflops:
// 4 * block^2 * head_dim per computed block over the median time.
void block_sparse_attn(const Shape& shape, int runs, double seconds, nlohmann::json& rows);
void pooled_attn(const Shape& shape, int runs, double seconds, nlohmann::json& rows);
// Pooling, projection, scores and selection, beside block_sparse_attn on the blocks chosen.
void attn_gate(const Shape& shape, int runs, double seconds, nlohmann::json& rows);

// One query against keys and values that lie as in a cache, beside torch's attention and a plain read
// of the same memory, in rounds of all three: gbytes_per_s, and memory_share, that of the read's rate.
void decode_attn(const Shape& shape, const at::Device& device, int runs, double seconds,
                 nlohmann::json& rows);
// Tokens written one after another behind `length` cached ones: tokens_per_s, the time of attention in
// it, and the same two rates for weights and cache together.
void decode(const models::Decoder& model, int64_t length, int runs, double seconds,
            const std::string& name, nlohmann::json& rows);

// A prompt of random ids through a model up to its first token: dense (on a GPU by FlashAttention-2,
// then cuDNN; one that torch refuses is left out, with a line that says so), and sparse with each
// selection, in rounds of one run each in an order drawn anew, until `runs` are done and `seconds`
// over for each, after a round that warms up. Rows have the median time and its parts (gate, select,
// attention; products: all matrix products; rest); `overheads`, for each dense run: how much longer
// than the sparse attention and what that run takes beside its own, together; `overhead`: that of the
// faster one; and `peak_mib`, the memory beyond what was in use before.
void prefill(const models::Decoder& model, const models::Gates& gates,
             const std::vector<torch_ops::Selection>& selections, int64_t length, int runs,
             double seconds, const std::string& name, nlohmann::json& rows);

// A short name of the device, for a folder, as "amd-epyc-2-threads-avx512bf16", "nvidia-h200".
std::string chip(const at::Device& device = at::kCPU);
// Limits the operations and torch to AVX2, to measure a CPU without AVX-512 on one that has it. Call
// it before anything runs.
void limit_to_avx2();
// Everything around the rows: chip, versions, command, date.
nlohmann::json record(const std::string& operation, int argc, char** argv, nlohmann::json rows,
                      const at::Device& device = at::kCPU);
// `made` with the rows that the record at `path` has of other shapes and lengths before its own, and
// both commands. Error where that record is of another chip, number of threads or version.
nlohmann::json appended(const std::filesystem::path& path, nlohmann::json made);

}  // namespace seer::bench
