#include "seer/eval/head_picture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/report/image.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

// 1 where a row's list names the block: [R, N] of one head, on the CPU.
at::Tensor to_mask(const torch_ops::BlockLists& on_device, int64_t head, int64_t blocks) {
  const torch_ops::BlockLists lists{on_device.begin.cpu(), on_device.count.cpu(),
                                    on_device.list.cpu()};
  const int64_t rows = lists.begin.size(1);
  at::Tensor mask = at::zeros({rows, blocks}, at::kFloat);
  auto out = mask.accessor<float, 2>();
  const auto begin = lists.begin.accessor<int64_t, 2>();
  const auto count = lists.count.accessor<int32_t, 2>();
  const auto list = lists.list.accessor<int32_t, 1>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < count[head][r]; ++i) out[r][list[begin[head][r] + i]] = 1;
  }
  return mask;
}

// How much of each head's map lies away from the first block and from the diagonal's last four: [H].
at::Tensor distant_mass(const at::Tensor& map) {
  const int64_t n = map.size(2);
  const at::Tensor row = at::arange(map.size(1)).unsqueeze(1), column = at::arange(n).unsqueeze(0);
  return (map * ((column >= 1) & (row - column >= 4))).sum(at::IntArrayRef{1, 2});
}

double recall_of(const at::Tensor& truth, const at::Tensor& chosen) {
  return (truth * chosen).sum(1).mean().item<double>();
}

// Four decades of shares, so that faint blocks are seen, too.
report::Color color_of(float share) {
  return report::heat(share > 0 ? 1 + std::log10(share) / 4 : 0);
}

constexpr report::Color kInk = {20, 20, 30}, kPaper = {255, 255, 255}, kUnseen = {226, 226, 232};
constexpr int kMargin = 24, kGap = 20, kLine = 22, kPanel = 260;

void draw_panel(report::Image& image, int x, int y, int cell, const at::Tensor& map, bool is_mask) {
  const auto values = map.accessor<float, 2>();
  for (int64_t r = 0; r < map.size(0); ++r) {
    for (int64_t c = 0; c < map.size(1); ++c) {
      const bool seen = c <= r;
      const report::Color color = !seen ? kUnseen
                                  : is_mask
                                      ? (values[r][c] > 0 ? report::heat(0.8) : report::heat(0))
                                      : color_of(values[r][c]);
      image.fill(x + static_cast<int>(c) * cell, y + static_cast<int>(r) * cell, cell, cell, color);
    }
  }
}

}  // namespace

std::vector<HeadMaps> capture_heads(const models::Decoder& model, const models::Gates& gates,
                                    const at::Tensor& ids, const torch_ops::Selection& selection,
                                    int count) {
  const at::NoGradGuard no_grad;
  const int64_t length = ids.size(0);
  const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};
  const int layers = model.config().num_layers;
  const int wanted = std::min(count, layers);
  std::vector<HeadMaps> heads;

  const models::Attention attention = [&](const models::AttentionInput& in) {
    // The wanted-th part of the layers that ends here gives one head.
    if ((in.layer + 1) * wanted / layers == in.layer * wanted / layers) {
      return models::dense_attention(in);
    }
    const auto ragged = torch_ops::make_ragged(in.sequences.q_lens, in.sequences.k_lens,
                                               gates.config().block_size, in.q.device());
    const auto [o, lse, map_on_device] =
        torch_ops::pooled_attn(in.q, in.k, in.v, ragged, in.scale, true, false, true);
    const at::Tensor scores = gates.scores(in, ragged, model), map = map_on_device.cpu();
    const auto lists = torch_ops::block_select(scores, ragged, selection);
    const int64_t head = distant_mass(map).argmax().item<int64_t>();
    HeadMaps maps{in.layer,
                  static_cast<int>(head),
                  map[head].clone(),
                  scores[head].softmax(1).cpu(),
                  to_mask(lists, head, ragged.num_blocks),
                  0};
    maps.recall = recall_of(maps.truth, maps.chosen);
    heads.push_back(std::move(maps));
    return o;
  };
  model.hidden(ids, sequences, attention);
  return heads;
}

void draw_heads(const std::vector<HeadMaps>& heads, const std::string& title,
                const std::filesystem::path& png) {
  SEER_CHECK(!heads.empty(), "no heads to draw");
  const int blocks = static_cast<int>(heads[0].truth.size(1));
  const int cell = std::max(1, kPanel / blocks), side = cell * blocks;
  const int width =
      std::max(2 * kMargin + 3 * side + 2 * kGap, 2 * kMargin + report::Image::text_width(title));
  const int head_height = side + 2 * kLine;
  report::Image image(width, kMargin + 2 * kLine + static_cast<int>(heads.size()) * head_height,
                      kPaper);
  image.text(kMargin, kMargin, title, kInk);
  int y = kMargin + 2 * kLine;
  for (const HeadMaps& h : heads) {
    const std::string labels[3] = {message("layer ", h.layer, " head ", h.head), "gate",
                                   "chosen: " + report::fixed(100 * h.recall, 0) + "% of mass"};
    const at::Tensor maps[3] = {h.truth, h.gate, h.chosen};
    for (int p = 0; p < 3; ++p) {
      const int x = kMargin + p * (side + kGap);
      image.text(x, y, labels[p], kInk, report::Image::text_width(labels[p]) > side ? 1 : 2);
      draw_panel(image, x, y + kLine, cell, maps[p], p == 2);
    }
    y += head_height;
  }
  image.write_png(png);
}

}  // namespace seer::eval
