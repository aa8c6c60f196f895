#pragma once
// Benchmarks beside their rivals, in one process on the same inputs. Each is a file with two functions
// and a line in benchmarks() (bench.cc).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/models/gates/gates.h"

namespace seer::bench {

// A model, its gates (null where none are asked for) and its name.
using UseModel =
    std::function<void(const models::Decoder&, const models::Gates*, const std::string&)>;

// What is asked for. Each benchmark looks at what it needs.
struct Request {
  std::vector<int64_t> lengths{8192, 32768}, head_dims{64, 128};
  std::vector<double> densities{0.1};        // of the causal block map
  std::vector<std::string> methods{"seer"};  // of a prompt's sparse attention
  std::vector<std::string> lists{"random"};  // "random", or "gate" (attention.h)
  std::vector<std::string> dtypes{"bf16"};   // f32, bf16
  int64_t heads_q = 4, heads_kv = 4;
  int block = 64;
  int runs = 3;        // timed calls, at least
  double seconds = 1;  // timed time, at least
  at::Device device = at::kCPU;
  // Models.
  std::vector<std::string> shapes;  // with random weights (model_shapes.h)
  at::ScalarType model_dtype = at::kFloat;
  bool stream = false;          // in training: layers stay in host memory
  int64_t sequences = 1;        // of a step of training
  bool states_on_host = false;  // masters and optimizer states of fine-tuning
  std::string model;            // a folder, with a tokenizer
  std::function<void(bool needs_gates, const UseModel&)> with_model;  // loads that one
};

struct Benchmark {
  const char* name;
  bool on_device;                              // else on the CPU, whatever the request says
  enum class Models { none, shapes, any } of;  // any: of the shapes, or else the folder
  std::vector<std::string> settings;  // the flags that it looks at, beside runs and seconds
  // Appends objects to `rows`, a JSON array: implementation, shape, median_ms, min_ms, max_ms and what
  // the benchmark's file names. Of several processes the first one alone.
  void (*run)(const Request&, nlohmann::json& rows);
  std::string (*table)(const nlohmann::json& rows);
};
const std::vector<Benchmark>& benchmarks();

// Those of attention are in attention.h, those of decoding in decode.h.
// A prompt of random ids through a model up to its first token: dense (on a GPU by FlashAttention-2,
// then cuDNN; one that torch refuses is left out, with a line that says so), and sparse with each method and
// density, in rounds of one run each in an order drawn anew, until `runs` are done and `seconds` over
// for each, after a round that warms up. Several methods compare at the same number of blocks a row
// (SparseSettings::even). Rows have the median time and its parts (gate, or whatever else a method chooses by,
// select, attention; products: all matrix products; rest); `overheads`, for each dense run: how much longer
// than the sparse attention and what that run takes beside its own, together; `overhead`: that of the
// faster one; and `peak_mib`, the memory beyond what was in use before.
void prefill(const Request& request, nlohmann::json& rows);
std::string prefill_table(const nlohmann::json& rows);
// Steps of `sequences` of random ids through models with random weights, shared by all processes of
// torchrun; the first steps are not timed. Rows: tokens_per_s, hours (of the published recipe, 500
// steps of 16 x 64k tokens); shares of the time (attention with the map, gates with their gradients,
// the rest of the model); model_tflops (the frozen model's forward pass alone) and mfu, its share of
// the chips' rate; peak_mib of one device.
void distill(const Request& request, nlohmann::json& rows);
std::string distill_table(const nlohmann::json& rows);
// Steps of fine-tuning of models with random weights, `sequences` windows of random ids each: with dense
// attention (on a GPU cuDNN's), and with block-sparse attention of each density and its gates. Rows:
// median_ms of a step, of sparse ones where gates get a gradient, and `without_gates_ms` where they get
// none; `parts`, the milliseconds of one such step in attention_forward, attention_backward, pooled
// (the pass that gives gates their target), gates (with selection), products, loss, optimizer and rest;
// tokens_per_s; model_tflops (three times the forward pass, of attention what is kept) and mfu;
// peak_mib with the weights.
void finetune(const Request& request, nlohmann::json& rows);
std::string finetune_table(const nlohmann::json& rows);

struct Times {
  double median_ms, min_ms, max_ms;
  int runs;
};
// Times `call` until `runs` are done and `seconds` are over, after one warm-up call. It returns when
// its work is done, on a GPU, too.
Times time_calls(const std::function<void()>& call, int runs, double seconds);

// use() with each model of the shapes asked for, or else with the one named. Gates of models with
// random weights are random, too.
void for_each_model(const Request& request, bool needs_gates, const UseModel& use);

// For tables: "1.25 ms"; "12.5%", "" of null.
std::string ms_text(const nlohmann::json& ms, int digits);
std::string percent_text(const nlohmann::json& share, int digits = 1);

}  // namespace seer::bench
