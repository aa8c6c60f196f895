#pragma once
// Which heads need to look single tokens up: what each loses where its gate chooses its blocks, found without labels on any
// text, best one in which phrases come again (measured: SmolLM2-135M loses facts and copies in a tenth of its heads).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "seer/models/gates/gates.h"

namespace seer::models {

class HeadNeeds {
 public:
  static constexpr double kDensity = 0.1;
  // Both outlive this object. `density`: of the lists that are compared.
  HeadNeeds(const Decoder& model, const Gates& gates, double density = kDensity);
  // Tokens that a sequence has at least: with fewer than 16 blocks none is far.
  static int64_t fewest_tokens(int block);
  // Error: it has fewer.
  static void check_length(int64_t tokens, int block);
  // Takes in one more sequence, ids int64 [length]: a forward pass with dense attention, which waits for the device. `watch`
  // is told after each layer; what it throws ends the pass, after which this object is not to be used. Error: the sequence
  // is too short.
  using Watch = std::function<void(int64_t layer, int64_t layers)>;
  void add(const at::Tensor& ids, const Watch& watch = nullptr);
  // The same after phrases of it, 2 to 5 tokens for each 32 of the sequence, were written again to later places, drawn by `seed`
  // and `index`.
  void add_repeated(const at::Tensor& ids, uint64_t seed, uint64_t index,
                    const Watch& watch = nullptr);

  // Takes in what other processes have: `sum` replaces a tensor on the model's device by its sum over all of them.
  void join(const std::function<void(const at::Tensor&)>& sum);

  // Whether some head chooses blocks.
  bool has_any() const;

  // [layers, Hq] f64, on the CPU: of the true map, outside of the first block and the last four, what lists by the map itself keep
  // and lists by the gate do not; summed over a row's blocks, mean over rows. NaN: a layer whose window hides keys.
  at::Tensor lost() const;
  // The heads that lose most, `count` of all layers' at most, none that loses nothing: ascending in each layer.
  std::vector<std::vector<int>> neediest(int64_t count) const;
  // Projections [D, rank] of q and k after RoPE whose products are, over the tokens taken in, as near to q k as products of rank
  // `rank` come: by singular values of the second moments' roots. f32, on the CPU.
  std::pair<at::Tensor, at::Tensor> best_projections(int layer, int head, int rank) const;

 private:
  // The layer's attention; what its heads lose goes into `lost` [Hq].
  at::Tensor measure(const AttentionInput& input, const torch_ops::Ragged& ragged, at::Tensor lost);

  const Decoder& model_;
  const Gates& gates_;
  const double density_;
  int64_t num_rows_ = 0, num_tokens_ = 0;
  at::Tensor lost_;                // [layers, Hq] f64, summed over rows
  std::vector<at::Tensor> q_, k_;  // second moments [Hq or Hk, D, D] of each layer, f64
};

// {"lost": [layers][heads], "lookup_heads": [layers][...]}: null for layers whose window hides keys; `gates`: whose lookup heads they are.
nlohmann::json to_json(const at::Tensor& lost, const Gates& gates);

}  // namespace seer::models
