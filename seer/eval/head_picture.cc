#include "seer/eval/head_picture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "seer/base/error.h"
#include "seer/eval/recall.h"
#include "seer/models/list_mask.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

// How much of each head's map lies away from the first block and from the diagonal's last four: [H].
at::Tensor distant_mass(const at::Tensor& map) {
  const int64_t n = map.size(2);
  const auto options = at::TensorOptions(map.device()).dtype(at::kLong);
  const at::Tensor row = at::arange(map.size(1), options).unsqueeze(1);
  const at::Tensor column = at::arange(n, options).unsqueeze(0);
  return (map * ((column >= 1) & (row - column >= 4))).sum(at::IntArrayRef{1, 2});
}

// Maps of long texts, the largest of every few blocks for one cell.
at::Tensor shrunk(const at::Tensor& map, int64_t factor) {
  if (factor == 1) return map;
  return at::max_pool2d(map.unsqueeze(0), {factor, factor}, {factor, factor}, 0, 1,
                        /*ceil_mode=*/true)
      .squeeze(0);
}

using report::Color;
using report::Image;

// Four decades of shares, so that faint blocks are seen, too.
constexpr double kDecades = 4;
Color color_of(double share) {
  return report::heat(share > 0 ? 1 + std::log10(share) / kDecades : 0);
}

const Color kComputed = report::heat(0.8), kLeftOut = report::heat(0);
constexpr Color kInk = {20, 20, 30}, kPale = {100, 100, 112}, kPaper = {255, 255, 255},
                kUnseen = {226, 226, 232};
// Pixels.
constexpr int kMargin = 24, kGap = 28, kLine = 24, kPanel = 256, kMostCells = 512, kAxis = 56,
              kTick = 5, kScale = 250, kSwatch = 18;

// "0", "512", "4k".
std::string tokens_text(int64_t tokens) {
  return tokens > 0 && tokens % 1024 == 0 ? message(tokens / 1024, "k") : std::to_string(tokens);
}

// How the maps are laid out: the same for all.
struct HeadLayout {
  int64_t tokens;  // of a side
  int cells, cell;
  int side() const { return cells * cell; }
  int width() const { return 2 * kMargin + kAxis + 3 * side() + 2 * kGap; }
  // Heading, panels, ticks, space.
  int row_height() const { return kLine + side() + kTick + 2 * kLine + 8; }
  // Tokens between ticks: a power of two, four ticks at most.
  int64_t step() const {
    int64_t step = 1;
    while (4 * step < tokens) step *= 2;
    return step;
  }
  int at(int64_t token) const { return static_cast<int>(token * side() / tokens); }
};

void draw_head_panel(Image& image, int x, int y, const HeadLayout& layout, const at::Tensor& map,
                     bool is_mask) {
  const auto values = map.accessor<float, 2>();
  for (int64_t r = 0; r < map.size(0); ++r) {
    for (int64_t c = 0; c < map.size(1); ++c) {
      const float value = values[r][c];
      const Color color = c > r     ? kUnseen
                          : is_mask ? (value > 0 ? kComputed : kLeftOut)
                                    : color_of(value);
      image.fill(x + static_cast<int>(c) * layout.cell, y + static_cast<int>(r) * layout.cell,
                 layout.cell, layout.cell, color);
    }
  }
}

void draw_head_axes(Image& image, int x, int y, const HeadLayout& layout, bool has_rows) {
  const int side = layout.side();
  for (int64_t token = 0; token <= layout.tokens; token += layout.step()) {
    const int at = std::min(layout.at(token), side - 1);
    const std::string text = tokens_text(token);
    const int wide = Image::text_width(text);
    image.fill(x + at, y + side, 1, kTick, kPale);
    image.text(x + std::clamp(at - wide / 2, 0, side - wide), y + side + kTick + 3, text, kPale);
    if (!has_rows) continue;
    image.fill(x - kTick, y + at, kTick, 1, kPale);
    image.text(x - kTick - 4 - wide, y + std::clamp(at - 7, 0, side - 14), text, kPale);
  }
}

// The scale of colours of the maps, and what those of the chosen blocks mean.
void draw_head_legend(Image& image, int x, int y) {
  image.text(x, y, "Share of a query block's attention, log scale", kInk);
  y += kLine;
  for (int i = 0; i < kScale; ++i) {
    image.fill(x + i, y, 1, kSwatch, report::heat((i + 0.5) / kScale));
  }
  constexpr const char* kShares[] = {"0.01%", "1%", "100%"};
  for (int i = 0; i < 3; ++i) {
    const int wide = Image::text_width(kShares[i]);
    image.text(x + (kScale - wide) * i / 2, y + kSwatch + 4, kShares[i], kPale);
  }
  x += kScale + kGap;
  const std::pair<Color, const char*> swatches[] = {
      {kComputed, "computed"}, {kLeftOut, "left out"}, {kUnseen, "after the query"}};
  for (const auto& [color, text] : swatches) {
    image.fill(x, y, kSwatch, kSwatch, color);
    image.text(x + kSwatch + 8, y + 2, text, kInk);
    x += kSwatch + 8 + Image::text_width(text) + kGap;
  }
}

constexpr const char* kTitles[3] = {"True attention", "What the gate thinks", "Blocks computed"};

void draw_head(Image& image, int y, const HeadLayout& layout, int64_t factor,
               const HeadMaps& head) {
  const int left = kMargin + kAxis;
  image.text(
      left, y,
      message("Layer ", head.layer, ", head ", head.head, ": ", report::fixed(100 * head.recall, 0),
              "% of the attention in ", report::fixed(100 * head.density, 1), "% of the blocks"),
      kInk);
  y += kLine;
  const at::Tensor maps[3] = {head.truth, head.gate, head.chosen};
  for (int p = 0; p < 3; ++p) {
    const int x = left + p * (layout.side() + kGap);
    draw_head_panel(image, x, y, layout, shrunk(maps[p], factor), p == 2);
    draw_head_axes(image, x, y, layout, p == 0);
  }
}

}  // namespace

std::vector<HeadMaps> capture_heads(const models::Decoder& model, const models::Gates& gates,
                                    const at::Tensor& ids, const models::SparseSettings& settings,
                                    int count) {
  const at::NoGradGuard no_grad;
  const int64_t length = ids.size(0);
  const models::Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};
  const int layers = model.config().num_layers;
  const int wanted = std::min(count, layers);
  models::SparseAttention chooser(model, &gates, settings);
  std::vector<HeadMaps> heads;

  const models::Attention attention = [&](const models::AttentionInput& in) {
    // The wanted-th part of the layers that ends here gives one head.
    const bool is_wanted = (in.layer + 1) * wanted / layers > in.layer * wanted / layers;
    if (!is_wanted || models::window_cuts(in)) return models::dense_attention(in);
    const auto ragged = torch_ops::make_ragged(in.sequences.q_lens, in.sequences.k_lens,
                                               settings.block, in.q.device());
    const auto [o, lse, map] =
        torch_ops::pooled_attn(in.q, in.k, in.v, ragged, in.scale, true, false, true);
    const at::Tensor scores = chooser.scores(in);
    const auto lists = chooser.select(in, scores);
    const int64_t head = distant_mass(map).argmax().item<int64_t>();
    const at::Tensor kept = std::get<1>(chooser.attend(in, lists));
    HeadMaps maps{in.layer,
                  static_cast<int>(head),
                  map[head].cpu().clone(),
                  scores[head].softmax(1).cpu(),
                  models::mask_of(lists, head, ragged.num_blocks).to(at::kFloat).cpu(),
                  0,
                  0};
    maps.recall = recall_by_head(kept, lse)[head].item<double>();
    const auto blocks = static_cast<double>(ragged.num_blocks);
    maps.density = maps.chosen.sum().item<double>() / (blocks * (blocks + 1) / 2);
    heads.push_back(std::move(maps));
    return o;
  };
  model.hidden(ids, sequences, attention);
  return heads;
}

report::Image head_picture(const std::vector<HeadMaps>& heads, int block,
                           const std::string& about) {
  SEER_CHECK(!heads.empty(), "no heads to draw: a sliding window hides keys in every layer");
  const int64_t blocks = heads[0].truth.size(1);
  const int64_t factor = (blocks + kMostCells - 1) / kMostCells;
  const int cells = static_cast<int>((blocks + factor - 1) / factor);
  // At least kPanel wide: a column's title has room above it.
  const HeadLayout layout{cells * factor * block, cells, (kPanel + cells - 1) / cells};
  const std::string reason[2] = {
      "From each of some layers the head that looks least at the first",
      "and at the latest blocks: the one whose blocks a gate has to find."};
  const int left = kMargin + kAxis;
  int width = layout.width();
  for (const std::string& line : {about, reason[0], reason[1]}) {
    width = std::max(width, left + kMargin + Image::text_width(line));
  }
  const int legend = left + kMargin + kScale + 4 * kGap + 3 * (kSwatch + 8) +
                     Image::text_width("computedleft outafter the query");
  width = std::max(width, legend);
  const int above = kMargin + 3 * kLine + 12 + 3 * kLine + 12 + kLine + 12;
  Image image(width, above + static_cast<int>(heads.size()) * layout.row_height() + kMargin,
              kPaper);
  int y = kMargin;
  for (const std::string& line : {about, reason[0], reason[1]}) {
    image.text(left, y, line, y == kMargin ? kInk : kPale);
    y += kLine;
  }
  draw_head_legend(image, left, y + 12);
  for (int p = 0; p < 3; ++p) {
    const int x = left + p * (layout.side() + kGap);
    image.text(x, above - kLine - 12, kTitles[p], kInk);
  }
  y = above;
  for (const HeadMaps& head : heads) {
    draw_head(image, y, layout, factor, head);
    y += layout.row_height();
  }
  image.text(left, y - kLine, "across: key token, down: query token", kPale);
  return image;
}

}  // namespace seer::eval
