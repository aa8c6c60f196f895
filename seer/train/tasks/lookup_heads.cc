#include "seer/train/tasks/lookup_heads.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/base/interrupt.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"

namespace seer::train {
namespace {

// Where neither a share nor a cost is given. SmolLM2-135M finds facts with a tenth of its heads as with the true map in all.
constexpr double kAutomaticShare = 0.1;
constexpr int kAutomaticBlock = 64;  // that kernels of all devices take

}  // namespace

void check(const LookupSettings& settings) {
  if (settings.share < 0 || settings.cost == 0) return;
  throw UsageError(
      "--lookup-heads and --lookup-cost both say how many heads choose blocks by tokens: give one");
}

double lookup_cost(double share, int rank, int head_dim, double density) {
  return share * rank / (2 * head_dim * density);
}

LookupShare lookup_share(const LookupSettings& settings, const io::ModelConfig& model, int block,
                         int64_t length) {
  if (settings.cost > 0) {
    const double all = double{1} * model.num_layers * model.num_heads;
    const double of_one = lookup_cost(1 / all, settings.rank, model.head_dim);
    const double heads = std::floor(settings.cost / of_one * (1 + 1e-9));
    if (heads < 1) {
      throw UsageError(message("--lookup-cost ", settings.cost, " is less than one of the ", all,
                               " heads costs, which is ", of_one,
                               ": give more, or --lookup-heads 0"));
    }
    return {std::min(heads / all, 1.0), ""};
  }
  if (settings.share >= 0) return {settings.share, ""};
  if (block != kAutomaticBlock) {
    return {0, message("gates with blocks of ", block,
                       " tokens get them only where --lookup-heads "
                       "says how many, as GPUs score them in blocks of ",
                       kAutomaticBlock)};
  }
  if (settings.rank > model.head_dim) {
    return {0, message("heads have ", model.head_dim, " features, fewer than --lookup-rank ",
                       settings.rank)};
  }
  if (length < models::HeadNeeds::fewest_tokens(block)) {
    return {0, message("sequences of ", length, " tokens are too short to find any: want ",
                       models::HeadNeeds::fewest_tokens(block), " or more")};
  }
  return {kAutomaticShare, ""};
}

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

std::string why_none(const models::HeadNeeds& needs) {
  if (!needs.has_any()) {
    return "no head chooses blocks: a sliding window hides keys in every layer";
  }
  const auto most = needs.neediest(1);
  const bool any = std::any_of(most.begin(), most.end(), [](const auto& x) { return !x.empty(); });
  return any ? "" : "no head loses anything by these gates";
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
  const std::string why = why_none(needs);
  SEER_CHECK(why.empty(), why, ": there are no lookup heads to find");
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
  return message(count, " of ", counted(lost.numel(), "head"), count == 1 ? " chooses" : " choose",
                 " blocks by tokens: ", layers, count == 1 ? ". It loses " : ". They lose ",
                 std::llround(100 * of_these / lost.sum().item<double>()), " % of what all lose");
}

}  // namespace seer::train
