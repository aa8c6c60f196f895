#include "seer/bench/bench.h"

#include <algorithm>
#include <chrono>

#include "seer/bench/attention.h"
#include "seer/bench/decode.h"
#include "seer/bench/model_shapes.h"
#include "seer/report/table.h"

namespace seer::bench {

const std::vector<Benchmark>& benchmarks() {
  using Of = Benchmark::Models;
  const std::vector<std::string> inputs{"lengths", "head-dims", "heads", "kv-heads", "dtypes"},
      model{"lengths", "shapes", "model", "device"};
  const auto with = [](std::vector<std::string> names, const std::vector<std::string>& more) {
    names.insert(names.end(), more.begin(), more.end());
    return names;
  };
  const auto lists = with(inputs, {"block", "densities", "lists"});
  static const std::vector<Benchmark> all{
      {"block_sparse_attn", false, Of::none, lists, block_sparse_attn, attention_table},
      {"block_sparse_attn_backward", false, Of::none, lists, block_sparse_attn_backward,
       attention_table},
      {"pooled_attn", false, Of::none, with(inputs, {"block"}), pooled_attn, attention_table},
      {"attn_gate", false, Of::none, with(inputs, {"block", "densities"}), attn_gate,
       attention_table},
      {"decode_attn", true, Of::none, with(inputs, {"device"}), decode_attn, decode_table},
      {"decode", true, Of::any, model, decode, decode_table},
      {"prefill", true, Of::any, with(model, {"densities", "methods"}), prefill, prefill_table},
      {"distill", true, Of::shapes, with(model, {"sequences", "stream"}), distill, distill_table},
      {"finetune", true, Of::shapes, with(model, {"densities", "sequences", "states-on-host"}),
       finetune, finetune_table}};
  return all;
}

Times time_calls(const std::function<void()>& call, int runs, double seconds) {
  using Clock = std::chrono::steady_clock;
  call();  // warms up
  std::vector<double> ms;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    call();
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  } while (static_cast<int>(ms.size()) < runs ||
           std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms.front(), ms.back(), static_cast<int>(ms.size())};
}

void for_each_model(const Request& request, bool needs_gates, const UseModel& use) {
  if (request.shapes.empty()) request.with_model(needs_gates, use);
  for (const std::string& shape : request.shapes) {
    const models::Decoder model = random_model(shape, request.model_dtype, request.device);
    if (needs_gates) {
      const models::Gates gates = models::Gates::create({}, model, 0);
      use(model, &gates, shape);
    } else {
      use(model, nullptr, shape);
    }
  }
}

std::string ms_text(const nlohmann::json& ms, int digits) {
  return report::fixed(ms.get<double>(), digits) + " ms";
}

std::string percent_text(const nlohmann::json& share, int digits) {
  return share.is_null() ? "" : report::fixed(100 * share.get<double>(), digits) + "%";
}

}  // namespace seer::bench
