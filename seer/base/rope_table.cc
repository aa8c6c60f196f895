#include "seer/base/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "seer/base/error.h"
#include "seer/base/shown.h"

namespace seer {
namespace {

// Arithmetic is f32 where torch's tensors are f32, and double where transformers uses Python
// floats: the frequencies agree with it to a unit in the last place or two.

void check_common(const RopeConfig& c) {
  SEER_CHECK(c.rotary_dim >= 2 && c.rotary_dim % 2 == 0, "rope: rotary_dim is ", c.rotary_dim,
             ", want an even number of at least 2; check head_dim and partial_rotary_factor");
  SEER_CHECK(std::isfinite(c.theta) && c.theta > 1, "rope: rope_theta is ", c.theta,
             ", want a number above 1");
}

void check_positive(const RopeConfig& c, double value, const char* key) {
  SEER_CHECK(std::isfinite(value) && value > 0, "rope: type ", c.type, " needs ", key,
             " above 0 and got ", value, "; give it in config.json");
}

// theta ^ (2 i / dim)
float period(double theta, int i, int dim) {
  const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
  return static_cast<float>(
      std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent)));
}

RopeFrequencies default_frequencies(double theta, int dim) {
  RopeFrequencies out;
  for (int i = 0; i < dim / 2; ++i) out.inv_freq.push_back(1.0f / period(theta, i, dim));
  return out;
}

RopeFrequencies linear(const RopeConfig& c) {
  check_positive(c, c.factor, "factor");
  RopeFrequencies out = default_frequencies(c.theta, c.rotary_dim);
  for (float& f : out.inv_freq) f /= static_cast<float>(c.factor);
  return out;
}

// NTK-aware: theta grows with the length beyond the trained one.
RopeFrequencies dynamic(const RopeConfig& c, int64_t length) {
  check_positive(c, c.factor, "factor");
  check_positive(c, static_cast<double>(c.max_position), "max_position_embeddings");
  SEER_CHECK(c.rotary_dim > 2, "rope: type dynamic needs a rotary_dim above 2 and got ",
             c.rotary_dim);
  const double longest = static_cast<double>(std::max(length, c.max_position));
  const double dim = c.rotary_dim;
  const double grown = c.factor * longest / static_cast<double>(c.max_position) - (c.factor - 1);
  return default_frequencies(c.theta * std::pow(grown, dim / (dim - 2)), c.rotary_dim);
}

// Low frequencies are divided by the factor, high ones kept, those between blended.
RopeFrequencies llama3(const RopeConfig& c) {
  check_positive(c, c.factor, "factor");
  check_positive(c, c.low_freq_factor, "low_freq_factor");
  check_positive(c, c.high_freq_factor, "high_freq_factor");
  check_positive(c, static_cast<double>(c.original_max_position),
                 "original_max_position_embeddings");
  SEER_CHECK(c.high_freq_factor > c.low_freq_factor, "rope: type llama3 has high_freq_factor ",
             c.high_freq_factor, " and low_freq_factor ", c.low_freq_factor,
             ", want the first above the second");
  const double context = static_cast<double>(c.original_max_position);
  const float longest = static_cast<float>(context / c.low_freq_factor);
  const float shortest = static_cast<float>(context / c.high_freq_factor);
  const float factor = static_cast<float>(c.factor), low = static_cast<float>(c.low_freq_factor);
  const float range = static_cast<float>(c.high_freq_factor - c.low_freq_factor);

  RopeFrequencies out = default_frequencies(c.theta, c.rotary_dim);
  for (float& f : out.inv_freq) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength > longest) {
      f /= factor;
    } else if (wavelength >= shortest) {
      const float smooth = (static_cast<float>(context) / wavelength - low) / range;
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
  return out;
}

// Whether the factor of yarn and longrope is the ratio of the two lengths.
bool takes_ratio(const RopeConfig& c) {
  return c.original_max_position > 0 && (c.factor == 0 || !c.factor_first);
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeConfig& c, double factor) {
  if (c.attention_factor != 0) return c.attention_factor;
  if (c.mscale != 0 && c.mscale_all_dim != 0) {
    return yarn_mscale(factor, c.mscale) / yarn_mscale(factor, c.mscale_all_dim);
  }
  return yarn_mscale(factor, 1);
}

// YaRN (arXiv 2309.00071): a ramp over the features between dividing by the factor and keeping.
RopeFrequencies yarn(const RopeConfig& c) {
  check_positive(c, static_cast<double>(c.max_position), "max_position_embeddings");
  SEER_CHECK(c.original_max_position >= 0, "rope: original_max_position_embeddings is ",
             c.original_max_position, ", want a positive number");
  const bool has_original = c.original_max_position > 0;
  const double longest = static_cast<double>(c.max_position);
  const double context = has_original ? static_cast<double>(c.original_max_position) : longest;
  const double factor = takes_ratio(c) ? longest / context : c.factor;
  check_positive(c, factor, "factor");
  const double beta_fast = c.beta_fast != 0 ? c.beta_fast : 32;
  const double beta_slow = c.beta_slow != 0 ? c.beta_slow : 1;
  check_positive(c, beta_fast, "beta_fast");
  check_positive(c, beta_slow, "beta_slow");

  const int dim = c.rotary_dim;
  // The feature that rotates `rotations` times over the trained context.
  const auto feature = [&](double rotations) {
    return dim * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(c.theta));
  };
  double low = feature(beta_fast), high = feature(beta_slow);
  if (c.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;

  RopeFrequencies out;
  out.attention_factor = static_cast<float>(yarn_attention_factor(c, factor));
  for (int i = 0; i < dim / 2; ++i) {
    const float p = period(c.theta, i, dim);
    const float kept = 1.0f / p, divided = 1.0f / (static_cast<float>(factor) * p);
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float keep = 1 - ramp;
    out.inv_freq.push_back(divided * (1 - keep) + kept * keep);
  }
  return out;
}

// LongRoPE (arXiv 2402.13753): a factor per feature, one list up to the trained context, one
// beyond.
RopeFrequencies longrope(const RopeConfig& c, int64_t length) {
  check_positive(c, static_cast<double>(c.max_position), "max_position_embeddings");
  const bool has_original = c.original_max_position > 0;
  const int64_t context = has_original ? c.original_max_position : c.max_position;
  const auto& factors = length > context ? c.long_factor : c.short_factor;
  const char* key = length > context ? "long_factor" : "short_factor";
  const int dim = c.rotary_dim;
  SEER_CHECK(static_cast<int>(factors.size()) == dim / 2, "rope: ", key, " has ", factors.size(),
             " numbers, want ", dim / 2, " (rotary_dim / 2)");
  const double ratio = static_cast<double>(c.max_position) / static_cast<double>(context);
  const double factor = takes_ratio(c) ? ratio : c.factor;
  double attention = c.attention_factor;
  if (attention == 0) {
    check_positive(c, factor, "factor (or original_max_position_embeddings)");
    const double size = std::log(static_cast<double>(context));
    attention = factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / size);
  }

  RopeFrequencies out;
  out.attention_factor = static_cast<float>(attention);
  for (int i = 0; i < dim / 2; ++i) {
    check_positive(c, factors[i], key);
    out.inv_freq.push_back(1.0f / (static_cast<float>(factors[i]) * period(c.theta, i, dim)));
  }
  return out;
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeConfig& config, int64_t length) {
  check_common(config);
  if (config.type == "default") return default_frequencies(config.theta, config.rotary_dim);
  if (config.type == "linear") return linear(config);
  if (config.type == "dynamic") return dynamic(config, length);
  if (config.type == "llama3") return llama3(config);
  if (config.type == "yarn") return yarn(config);
  if (config.type == "longrope") return longrope(config, length);
  fail("rope: unknown type ", shown(config.type),
       ", want default, linear, dynamic, llama3, yarn or longrope");
}

RopeTable rope_table(const RopeFrequencies& frequencies, const std::vector<int64_t>& positions) {
  const size_t half = frequencies.inv_freq.size();
  const double factor = frequencies.attention_factor;
  RopeTable table;
  table.cos.resize(positions.size() * half);
  table.sin.resize(positions.size() * half);
  for (size_t row = 0; row < positions.size(); ++row) {
    const float position = static_cast<float>(positions[row]);
    for (size_t i = 0; i < half; ++i) {
      const float angle = position * frequencies.inv_freq[i];  // rounded: part of the definition
      table.cos[row * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)) * factor);
      table.sin[row * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * factor);
    }
  }
  return table;
}

}  // namespace seer
