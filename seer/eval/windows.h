#pragma once
// Token windows of one length, cut from documents: what every evaluation runs on.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace seer::eval {

// Token windows of `length`, each with BOS first where the tokenizer has one.
struct Windows {
  int64_t length = 0;
  std::vector<std::vector<int32_t>> ids;
};

// Windows of several lengths, cut from documents that come one after another: of those with at least
// `min_ratio` x length tokens the first `length`, from at most `max_documents` for each length.
// `further`: where there are fewer documents than that, what follows in them makes more windows, the
// second of each document, then the third, up to the same number.
class WindowCutter {
 public:
  WindowCutter(const std::vector<int64_t>& lengths, double min_ratio, int64_t max_documents,
               int64_t bos_id, bool further = false);
  // False: further documents would not be looked at.
  bool wants_more() const;
  void add(const std::vector<int32_t>& document);
  // In the order of `lengths`. Error, with the longest document found: none is long enough for one.
  std::vector<Windows> take();

 private:
  // Windows of a length, document by document.
  struct Cut {
    int64_t length;
    std::vector<std::vector<std::vector<int32_t>>> documents;
  };
  double min_ratio_;
  int64_t max_documents_, bos_id_;
  bool further_;
  size_t longest_ = 0;
  std::vector<Cut> cuts_;
};

// int64 [tokens] on `device`: what a decoder takes.
at::Tensor ids_of(const std::vector<int32_t>& window, const at::Device& device);

}  // namespace seer::eval
