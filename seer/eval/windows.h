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
// From documents of at least `min_ratio` x length tokens: the first `length` of each, `max_documents` of
// them. Error, with the longest document found, where none is long enough.
Windows document_windows(const std::vector<std::vector<int32_t>>& documents, int64_t length,
                         double min_ratio, int64_t max_documents, int64_t bos_id);

// int64 [tokens] on `device`: what a decoder takes.
at::Tensor ids_of(const std::vector<int32_t>& window, const at::Device& device);

}  // namespace seer::eval
