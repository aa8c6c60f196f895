#include "seer/eval/head_losses.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/eval/head_grid.h"
#include "seer/report/table.h"

namespace seer::eval {
namespace {

using report::Image;
using report::kFaint;
using report::kText;
using report::kWhite;

constexpr int64_t kSmallModel = 128;  // heads that a table shows all of
constexpr size_t kNeediest = 20;
// Pixels.
constexpr int kBorder = 24, kSpace = 32, kTextLine = 24, kBar = 300, kBarHeight = 18;

struct Head {
  int64_t layer, head;
  double lost;
};

// Those that were measured, the neediest first.
std::vector<Head> ranked(const HeadLosses& losses) {
  std::vector<Head> heads;
  const auto lost = losses.lost.accessor<double, 2>();
  for (int64_t layer = 0; layer < losses.lost.size(0); ++layer) {
    for (int64_t head = 0; head < losses.lost.size(1); ++head) {
      if (!std::isnan(lost[layer][head])) heads.push_back({layer, head, lost[layer][head]});
    }
  }
  SEER_CHECK(!heads.empty(), "no head chooses blocks: a sliding window hides keys in every layer");
  std::stable_sort(heads.begin(), heads.end(),
                   [](const Head& a, const Head& b) { return a.lost > b.lost; });
  return heads;
}

std::string grid_table(const HeadLosses& losses) {
  std::vector<report::Columns::Column> columns{{"layer", 0, true}};
  for (int64_t head = 0; head < losses.lost.size(1); ++head) {
    columns.push_back({(head == 0 ? "head " : "") + std::to_string(head) + " ", 7, true});
  }
  const report::Columns lines(columns);
  std::string text = lines.head();
  const auto lost = losses.lost.accessor<double, 2>();
  for (int64_t layer = 0; layer < losses.lost.size(0); ++layer) {
    std::vector<std::string> cells{std::to_string(layer)};
    for (int64_t head = 0; head < losses.lost.size(1); ++head) {
      cells.push_back(report::fixed_or_empty(lost[layer][head], 3) +
                      (losses.is_lookup(layer, head) ? "*" : " "));
    }
    text += lines.line(cells);
  }
  return text;
}

std::string neediest_table(const HeadLosses& losses, const std::vector<Head>& heads) {
  report::Table table({"layer", "head", "lost", "lookup head"});
  for (size_t i = 0; i < std::min(kNeediest, heads.size()); ++i) {
    const auto& [layer, head, lost] = heads[i];
    table.add({std::to_string(layer), std::to_string(head), report::fixed(lost, 3),
               losses.is_lookup(layer, head) ? "yes" : ""});
  }
  return table.text();
}

// "lost, mean of 32 heads: 0.120; of 3 lookup heads (*): 0.040; of the others: 0.128".
std::string means(const HeadLosses& losses, const std::vector<Head>& heads) {
  double sum = 0, of_lookups = 0;
  size_t lookups = 0;
  for (const auto& [layer, head, lost] : heads) {
    sum += lost;
    if (!losses.is_lookup(layer, head)) continue;
    of_lookups += lost;
    ++lookups;
  }
  const auto mean = [](double total, size_t count) {
    return report::fixed(total / static_cast<double>(count), 3);
  };
  std::string text = message("lost, mean of ", counted(static_cast<int64_t>(heads.size()), "head"),
                             ": ", mean(sum, heads.size()));
  const size_t others = heads.size() - lookups;
  if (lookups > 0)
    text += message("; of ", counted(static_cast<int64_t>(lookups), "lookup head"),
                    " (*): ", mean(of_lookups, lookups));
  if (lookups > 0 && others > 0) text += "; of the others: " + mean(sum - of_lookups, others);
  return text + "\n";
}

}  // namespace

bool HeadLosses::is_lookup(int64_t layer, int64_t head) const {
  const std::vector<int>& heads = lookup_heads.at(static_cast<size_t>(layer));
  return std::find(heads.begin(), heads.end(), head) != heads.end();
}

std::string to_table(const HeadLosses& losses) {
  const std::vector<Head> heads = ranked(losses);
  return (losses.lost.numel() <= kSmallModel ? grid_table(losses) : neediest_table(losses, heads)) +
         means(losses, heads);
}

Image head_losses_picture(const HeadLosses& losses, const std::string& title) {
  const std::vector<Head> heads = ranked(losses);
  const int64_t layers = losses.lost.size(0), across = losses.lost.size(1);
  const int cell = static_cast<int>(std::clamp<int64_t>(960 / std::max(layers, across), 8, 60));
  const double most = std::max(1.0, std::ceil(10 * heads[0].lost)) / 10;  // where the colours end
  constexpr const char* kLegend = "Weights of lost blocks, sum of a row";
  constexpr const char* kMarked = "Lookup head";
  constexpr const char* kGrey = "Not measured: sliding window";
  const bool has_grey = static_cast<int64_t>(heads.size()) < losses.lost.numel();
  // Beside the bar of colours, one below the other.
  const int marks = kSpace + kBarHeight + 8 + Image::text_width(has_grey ? kGrey : kMarked);
  const int width = std::max({Image::text_width(title), Image::text_width(kLegend), kBar + marks,
                              kTicksLeft + static_cast<int>(across) * cell});
  const int top = kBorder + 3 * kTextLine + 12 + kBarHeight + kTickLine;
  Image image(2 * kBorder + width, top + static_cast<int>(layers) * cell + 2 * kTickLine + kBorder,
              kWhite);
  int y = kBorder;
  image.text(kBorder, y, title, kText);
  y += kTextLine + 12;
  image.text(kBorder, y, kLegend, kText);
  y += kTextLine;
  for (int i = 0; i < kBar; ++i) {
    image.fill(kBorder + i, y, 1, kBarHeight, report::heat((i + 0.5) / kBar));
  }
  for (int tick = 0; tick <= 2; ++tick) {
    const std::string text = report::number(most * tick / 2, 3);
    image.text(kBorder + (kBar - Image::text_width(text)) * tick / 2, y + kBarHeight + 4, text,
               kFaint);
  }
  int x = kBorder + kBar + kSpace;
  frame(image, x, y, kBarHeight, kBarHeight, 3, kFrame);
  image.text(x + kBarHeight + 8, y + 1, kMarked, kText);
  if (has_grey) {
    const auto grey = report::heat(std::numeric_limits<double>::quiet_NaN());
    image.fill(x, y + kTextLine, kBarHeight, kBarHeight, grey);
    image.text(x + kBarHeight + 8, y + kTextLine + 1, kGrey, kText);
  }
  x = kBorder + kTicksLeft;
  draw_grid(
      image, x, top, cell, losses.lost, [](double lost) { return report::fixed(lost, 2); },
      [&](double lost) { return report::heat(lost / most); });
  for (const auto& [layer, head, lost] : heads) {
    if (losses.is_lookup(layer, head)) frame_cell(image, x, top, cell, layer, head);
  }
  return image;
}

}  // namespace seer::eval
