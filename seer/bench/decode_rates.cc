#include <ATen/Parallel.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <chrono>

#include "seer/base/error.h"
#include "seer/bench/decode.h"
#include "seer/report/table.h"
#include "seer/torch/stopwatch.h"

namespace seer::bench {

void read_memory(const at::Tensor& x) {
  if (x.is_cuda()) {
    x.sum();
    return;
  }
  const auto* words = static_cast<const uint64_t*>(x.const_data_ptr());
  const int64_t num_words = x.numel() * static_cast<int64_t>(x.element_size()) / 8;
  std::vector<uint64_t> sums(static_cast<size_t>(at::get_num_threads()));
  const int64_t share = (num_words + at::get_num_threads() - 1) / at::get_num_threads();
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      uint64_t sum[8] = {};
      for (int64_t i = thread * share; i + 8 <= std::min(num_words, (thread + 1) * share); i += 8) {
        for (int j = 0; j < 8; ++j) sum[j] += words[i + j];
      }
      for (const uint64_t part : sum) sums[static_cast<size_t>(thread)] += part;
    }
  });
  // Used, so that no compiler leaves the loop out.
  static volatile uint64_t total;
  for (const uint64_t sum : sums) total = total + sum;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::vector<std::vector<double>> time_in_rounds(const std::vector<std::function<void()>>& calls,
                                                const Request& request, int repeats) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> ms(calls.size());
  const auto begin = Clock::now();
  for (int round = -1;; ++round) {  // the first warms up
    for (size_t i = 0; i < calls.size(); ++i) {
      torch_ops::synchronize(request.device);
      const auto start = Clock::now();
      for (int n = 0; n < repeats; ++n) calls[i]();
      torch_ops::synchronize(request.device);
      const std::chrono::duration<double, std::milli> took = Clock::now() - start;
      if (round >= 0) ms[i].push_back(took.count() / repeats);
    }
    const std::chrono::duration<double> all = Clock::now() - begin;
    if (round + 1 >= request.runs && all.count() >= request.seconds) return ms;
  }
}

nlohmann::json decode_row(nlohmann::json row, const std::vector<double>& ms, double bytes,
                          const std::vector<double>& read_ms, double read_bytes) {
  std::vector<double> shares;  // of one round each
  for (size_t i = 0; i < ms.size(); ++i) {
    shares.push_back(bytes / ms[i] * (read_ms[i] / read_bytes));
  }
  row.update({{"len_q", 1},
              {"median_ms", median(ms)},
              {"min_ms", *std::min_element(ms.begin(), ms.end())},
              {"max_ms", *std::max_element(ms.begin(), ms.end())},
              {"runs", ms.size()},
              {"gbytes_per_s", bytes / median(ms) * 1e-6},
              {"memory_share", median(shares)}});
  return row;
}

std::string decode_table(const nlohmann::json& rows) {
  report::Table table({"model", "implementation", "dtype", "heads", "D", "cached", "median", "min",
                       "max", "GB/s", "of memory", "tokens/s", "attention"});
  for (const auto& r : rows) {
    const bool is_model = r.contains("tokens_per_s");
    table.add({r["model"], r["implementation"], r["dtype"],
               message(r["heads_q"].get<int>(), "/", r["heads_kv"].get<int>()),
               std::to_string(r["head_dim"].get<int>()), std::to_string(r["len_k"].get<int64_t>()),
               ms_text(r["median_ms"], 3), ms_text(r["min_ms"], 3), ms_text(r["max_ms"], 3),
               report::fixed(r["gbytes_per_s"], 1), percent_text(r["memory_share"], 0),
               is_model ? report::fixed(r["tokens_per_s"], 1) : "",
               is_model ? ms_text(r["attention_ms"], 3) : ""});
  }
  return table.text();
}

}  // namespace seer::bench
