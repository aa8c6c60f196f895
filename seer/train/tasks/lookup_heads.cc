#include "seer/train/tasks/lookup_heads.h"

#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"

namespace seer::train {

models::HeadNeeds head_needs(const models::Decoder& model, const models::Gates& gates,
                             const at::Tensor& windows, uint64_t seed) {
  models::HeadNeeds needs(model, gates);
  for (int64_t i = 0; i < windows.size(0); ++i) {
    needs.add_repeated(windows[i], seed, static_cast<uint64_t>(i));
  }
  return needs;
}

models::Gates with_lookup_heads(const models::Decoder& model, const models::Gates& gates,
                                const models::HeadNeeds& needs, const LookupSettings& settings,
                                uint64_t seed) {
  const auto& shape = model.config();
  const int64_t all = int64_t{shape.num_layers} * shape.num_heads;
  const auto wanted = std::max<int64_t>(
      1, static_cast<int64_t>(std::round(settings.share * static_cast<double>(all))));
  io::GateConfig config = gates.config();
  config.lookup_rank = settings.rank;
  config.lookup_heads = needs.neediest(wanted);
  const bool any = std::any_of(config.lookup_heads.begin(), config.lookup_heads.end(),
                               [](const auto& heads) { return !heads.empty(); });
  SEER_CHECK(any, "no head loses anything by these gates: leave out --lookup-heads");
  models::Gates out = models::Gates::create(config, model, seed);
  for (size_t layer = 0; layer < out.layers().size(); ++layer) {
    models::GateWeights& to = out.layers()[layer];
    to.q = gates.layers()[layer].q;
    to.k = gates.layers()[layer].k;
    std::vector<at::Tensor> q, k;
    for (const int head : config.lookup_heads[layer]) {
      const auto [of_q, of_k] =
          needs.best_projections(static_cast<int>(layer), head, settings.rank);
      q.push_back(of_q);
      k.push_back(of_k);
    }
    if (q.empty()) continue;
    to.lookup_q = at::stack(q).to(model.device());
    to.lookup_k = at::stack(k).to(model.device());
  }
  return out;
}

}  // namespace seer::train
