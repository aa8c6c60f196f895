#include "seer/train/tasks/lookup_heads.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/base/interrupt.h"
#include "seer/base/progress.h"

namespace seer::train {

models::HeadNeeds find_needs(const models::Decoder& model, const models::Gates& gates,
                             const Window& window, const LookupSettings& settings,
                             const LoopSettings& loop, uint64_t seed) {
  const bool shows = loop.show_progress && loop.is_first();
  const InterruptGuard guard(Ranks::same_signal_seconds());
  models::HeadNeeds needs(model, gates);
  Ranks alone;
  Ranks& ranks = loop.ranks ? *loop.ranks : alone;
  const int64_t own = (settings.windows + ranks.size() - 1 - ranks.rank()) / ranks.size();
  Progress progress("distill: looking for heads", own, 0, shows);
  const auto watch = [&](int64_t layer, int64_t layers) {
    progress.part(static_cast<double>(layer) / static_cast<double>(layers),
                  message("layer ", layer, "/", layers));
    if (const int signal = guard.signal()) {
      throw Interrupted(signal, shows ? "distill: stopped while lookup heads were looked for; " +
                                            loop.go_on + " begins that anew"
                                      : "");
    }
  };
  for (int64_t i = ranks.rank(); i < settings.windows; i += ranks.size()) {
    needs.add_repeated(window(i), seed, static_cast<uint64_t>(i), watch);
    progress.advance();
  }
  if (ranks.size() > 1) {
    needs.join([&](const at::Tensor& x) {
      ranks.start_sum(x);
      ranks.finish();
    });
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
  SEER_CHECK(any,
             needs.has_any() ? "no head loses anything by these gates"
                             : "no head chooses blocks: a sliding window hides keys in every layer",
             ": leave out --lookup-heads");
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

std::string text_of_found(const models::HeadNeeds& needs, const io::GateConfig& config) {
  const at::Tensor lost = needs.lost().nan_to_num(0);
  std::string layers;
  int64_t count = 0;
  double of_these = 0;
  for (size_t layer = 0; layer < config.lookup_heads.size(); ++layer) {
    std::string heads;
    for (const int head : config.lookup_heads[layer]) {
      heads += message(heads.empty() ? "" : ", ", head);
      of_these += lost[static_cast<int64_t>(layer)][head].item<double>();
      ++count;
    }
    if (!heads.empty()) layers += message(layers.empty() ? "" : "; ", "layer ", layer, ": ", heads);
  }
  return message(count, " of ", lost.numel(), " heads choose blocks by tokens: ", layers,
                 ". They lose ", std::llround(100 * of_these / lost.sum().item<double>()),
                 " % of what all lose");
}

}  // namespace seer::train
