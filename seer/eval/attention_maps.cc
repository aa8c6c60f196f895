#include "seer/eval/attention_maps.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <deque>

#include "seer/eval/method.h"
#include "seer/eval/recall.h"
#include "seer/models/list_mask.h"
#include "seer/report/results.h"

namespace seer::eval {
namespace {

constexpr double kMapDecades = 4;

std::string base64(const std::vector<uint8_t>& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const auto left = bytes.size() - i;
    const uint32_t three = static_cast<uint32_t>(bytes[i] << 16) |
                           static_cast<uint32_t>(left > 1 ? bytes[i + 1] << 8 : 0) |
                           static_cast<uint32_t>(left > 2 ? bytes[i + 2] : 0);
    for (int digit = 0; digit < 4; ++digit) {
      const bool is_filled = digit <= static_cast<int>(left);
      text += is_filled ? kDigits[three >> (18 - 6 * digit) & 63] : '=';
    }
  }
  return text;
}

std::vector<uint8_t> bytes_of(const at::Tensor& values) {
  const at::Tensor bytes = values.to(at::kByte).cpu().contiguous();
  const auto* begin = bytes.const_data_ptr<uint8_t>();
  return {begin, begin + bytes.numel()};
}

std::string log_bytes(const at::Tensor& shares) {
  const at::Tensor levels = shares.clamp_min(1e-30).log10().add(kMapDecades).mul(255 / kMapDecades);
  return base64(bytes_of(levels.round().clamp(0, 255)));
}

std::string bits(const at::Tensor& mask) {
  const std::vector<uint8_t> each = bytes_of(mask);
  std::vector<uint8_t> packed((each.size() + 7) / 8);
  for (size_t i = 0; i < each.size(); ++i) {
    packed[i / 8] = static_cast<uint8_t>(packed[i / 8] | each[i] << i % 8);
  }
  return base64(packed);
}

}  // namespace

nlohmann::json attention_rows(const models::Decoder& model, const models::Gates& gates,
                              const at::Tensor& ids, models::SparseSettings settings,
                              const std::vector<torch_ops::Selection>& selections,
                              int64_t most_bytes) {
  const at::NoGradGuard no_grad;
  const int64_t length = ids.size(0);
  const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};
  std::deque<models::SparseAttention> choosers;
  for (const auto& selection : selections) {
    settings.selection = selection;
    choosers.emplace_back(model, &gates, settings);
  }
  const auto ragged = torch_ops::make_ragged({length}, {length}, settings.block, model.device());
  const int64_t blocks = ragged.num_blocks, cells = blocks * (blocks + 1) / 2;
  const auto choices = static_cast<int64_t>(selections.size());
  const int64_t layers = model.config().num_layers, heads = model.config().num_heads;
  const int64_t bytes_of_layer = heads * (2 * cells + choices * (cells + 7) / 8);
  const int64_t wanted = std::clamp<int64_t>(most_bytes / bytes_of_layer, 1, layers);
  // Where the key block is one that the row sees, row by row: [cells].
  const at::Tensor seen =
      at::ones({blocks, blocks}, at::kBool).tril().flatten().nonzero().squeeze(1);
  const auto seen_of = [&](const at::Tensor& map) { return map.flatten().index({seen}); };

  nlohmann::json rows = nlohmann::json::array();
  const models::Attention attention = [&](const models::AttentionInput& in) {
    // The wanted-th part of the layers that ends here is shown by this one.
    const bool is_wanted = (in.layer + 1) * wanted / layers > in.layer * wanted / layers;
    if (!is_wanted || models::window_cuts(in)) return models::dense_attention(in);
    const auto [o, lse, map] =
        torch_ops::pooled_attn(in.q, in.k, in.v, ragged, in.scale, /*causal=*/true,
                               /*group_max=*/false, /*normalise=*/true);
    const at::Tensor scores = choosers[0].scores(in);
    const at::Tensor truth = map.cpu(), gate = scores.softmax(2).cpu();
    std::vector<torch_ops::BlockLists> chosen;
    std::vector<at::Tensor> recall;  // of each choice: [heads]
    for (auto& chooser : choosers) {
      chosen.push_back(chooser.select(in, scores));
      const at::Tensor kept = std::get<1>(chooser.attend(in, chosen.back()));
      recall.push_back(recall_by_head(kept, lse).cpu());
    }
    const auto& lookups = gates.config().lookup_heads.at(static_cast<size_t>(in.layer));
    for (int64_t head = 0; head < heads; ++head) {
      nlohmann::json row{
          {"layer", in.layer},
          {"head", head},
          {"lookup", std::find(lookups.begin(), lookups.end(), head) != lookups.end()},
          {"truth", log_bytes(seen_of(truth[head]))},
          {"gate", log_bytes(seen_of(gate[head]))}};
      for (size_t i = 0; i < chosen.size(); ++i) {
        const at::Tensor mask = models::mask_of(chosen[i], head, blocks).cpu();
        row["chosen"].push_back(bits(seen_of(mask)));
        row["recall"].push_back(report::rounded(recall[i][head].item<double>()));
        row["density"].push_back(
            report::rounded(mask.sum().item<double>() / static_cast<double>(cells)));
      }
      rows.push_back(std::move(row));
    }
    return o;
  };
  model.hidden(ids, sequences, attention);
  return rows;
}

nlohmann::json attention_window(const models::Decoder& model, const io::Tokenizer& tokenizer,
                                const std::vector<int32_t>& ids, int block,
                                const std::vector<torch_ops::Selection>& selections) {
  nlohmann::json window{{"tokens", ids.size()},
                        {"block", block},
                        {"layers", model.config().num_layers},
                        {"heads", model.config().num_heads}};
  for (const auto& selection : selections) {
    window["choices"].push_back(to_text(setting_of(selection)));
  }
  for (auto from = ids.begin(); from != ids.end();) {
    const auto to = from + std::min<std::ptrdiff_t>(block, ids.end() - from);
    window["texts"].push_back(tokenizer.decode({from, to}, /*skip_special=*/false));
    from = to;
  }
  return window;
}

}  // namespace seer::eval
