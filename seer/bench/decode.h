#pragma once
// What benchmarks of decoding share: the rate at which the device reads memory, rows and their table.

#include "seer/bench/bench.h"

namespace seer::bench {

// One query against keys and values that lie as in a cache, beside torch's attention and a plain read
// of the same memory, in rounds of all three: gbytes_per_s, and memory_share, that of the read's rate.
void decode_attn(const Request& request, nlohmann::json& rows);
// Tokens written one after another behind cached ones: tokens_per_s, the time of attention in it, and
// the same two rates for weights and cache together.
void decode(const Request& request, nlohmann::json& rows);
std::string decode_table(const nlohmann::json& rows);

// A plain read of a tensor's memory by all threads of the device.
void read_memory(const at::Tensor& x);

double median(std::vector<double> values);

// Rounds in which each call has its turn, so that all meet the machine in the same state; the
// milliseconds of each call. A turn is `repeats` calls.
std::vector<std::vector<double>> time_in_rounds(const std::vector<std::function<void()>>& calls,
                                                const Request& request, int repeats);

// `row` (what is timed) with the times of calls that read `bytes`, beside those of a plain read of
// `read_bytes`.
nlohmann::json decode_row(nlohmann::json row, const std::vector<double>& ms, double bytes,
                          const std::vector<double>& read_ms, double read_bytes);

}  // namespace seer::bench
