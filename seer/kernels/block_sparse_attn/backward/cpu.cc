// One kv head of one sequence at a time, a chunk of its rows after another:
//
//   tasks of row tiles   P and dS of their blocks, which are kept; grad_q
//   tasks of columns     grad_v += P^T grad_o, grad_k += dS^T q, over the chunk's rows
//
// Each gradient is summed by one task at a time, in the order of the rows, so neither the number of
// threads nor the size of a chunk changes a bit.

#include "seer/kernels/block_sparse_attn/backward/cpu.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/block_sparse_attn/backward/cpu_products.h"
#include "seer/kernels/block_sparse_attn/lists.h"
#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnBackwardParams;

constexpr int kTileQueries = 64;   // of a task, at most
constexpr int kChunkBlocks = 256;  // blocks of a chunk, for each thread

// Up to 64 queries of one head that share a list.
struct RowTile {
  int head;  // within the group
  int first, num_queries;
  const int32_t* list;
  int count;            // blocks of which a query sees a key
  int64_t first_block;  // of the chunk's
};

// A block of the chunk, in the order of its column.
struct Entry {
  int tile;
  int64_t block;
};

class KvHead {
 public:
  KvHead(const Params& p, int seq, int kv_head)
      : p_(p),
        kv_head_(kv_head),
        group_(p.group()),
        q_begin_(p.cu_q[seq]),
        k_begin_(p.cu_k[seq]),
        len_q_(p.len_q(seq)),
        len_k_(p.len_k(seq)),
        dim_(p.head_dim),
        stride_((p.lists.block_k + 15) / 16 * 16),
        num_columns_((len_k_ + p.lists.block_k - 1) / p.lists.block_k) {
    find_tiles(seq);
    queries_.resize(size_t(group_) * len_q_ * dim_);
    grad_o_.resize(queries_.size());
    grad_q_.resize(queries_.size());
    lse_.resize(size_t(group_) * len_q_);
    delta_.resize(lse_.size());
    keys_.resize(size_t(len_k_) * dim_);
    grad_k_.resize(keys_.size());
    grad_v_.resize(keys_.size());
    transposed_keys_.resize(size_t(num_columns_) * dim_ * stride_);
    transposed_values_.resize(transposed_keys_.size());
  }

  void run() {
    read_queries();
    read_keys();
    const int64_t most = int64_t{kChunkBlocks} * omp_get_max_threads();
    for (size_t first = 0; first < tiles_.size();) {
      size_t last = first;
      int64_t blocks = 0;
      while (last < tiles_.size() && (last == first || blocks + tiles_[last].count <= most)) {
        tiles_[last].first_block = blocks;
        blocks += tiles_[last++].count;
      }
      run_chunk(first, last, blocks);
      first = last;
    }
    write();
  }

 private:
  const Params& p_;
  const int kv_head_, group_;
  const int64_t q_begin_, k_begin_, len_q_, len_k_;
  const int dim_, stride_;
  const int64_t num_columns_;
  std::vector<RowTile> tiles_;  // by row, then by head
  std::vector<uint8_t> is_listed_;
  std::vector<float> queries_, grad_o_, grad_q_, lse_, delta_, keys_, grad_k_, grad_v_;
  std::vector<float> transposed_keys_, transposed_values_;
  std::vector<float> weights_, grad_scores_;

  int64_t last_key(int64_t query) const {
    return p_.causal ? std::min(query + len_k_ - len_q_, len_k_ - 1) : len_k_ - 1;
  }
  size_t query_row(int head, int64_t query) const { return size_t(head) * len_q_ + query; }

  void find_tiles(int seq) {
    const BlockList& lists = p_.lists;
    is_listed_.assign(num_columns_, 0);
    const int heads_per_list = p_.num_q_heads / lists.num_heads;
    for (int row = 0; row < lists.cu_rows[seq + 1] - lists.cu_rows[seq]; ++row) {
      const int row_end = static_cast<int>(std::min<int64_t>(len_q_, (row + 1) * lists.block_q));
      for (int first = row * lists.block_q; first < row_end; first += kTileQueries) {
        const int n = std::min(kTileQueries, row_end - first);
        for (int head = 0; head < group_; ++head) {
          const int64_t at = int64_t{(kv_head_ * group_ + head) / heads_per_list} * lists.num_rows +
                             lists.cu_rows[seq] + row;
          RowTile tile{head, first, n, lists.list + lists.begin[at], lists.count[at], 0};
          check_list("block_sparse_attn_backward", tile.list, tile.count, num_columns_, row, seq);
          const int64_t last = last_key(first + n - 1);
          while (tile.count > 0 && tile.list[tile.count - 1] * int64_t{lists.block_k} > last) {
            --tile.count;  // lists ascend: no query sees the others either
          }
          for (int i = 0; i < tile.count; ++i) is_listed_[tile.list[i]] = 1;
          tiles_.push_back(tile);
        }
      }
    }
  }

  float element(const StridedIn& x, int64_t token, int head, int d) const {
    return load_element(p_.dtype, x.data, token * x.token_stride + head * x.head_stride + d);
  }

  void read_queries() {
    const StridedIn o = {p_.o.data, p_.o.token_stride, p_.o.head_stride};
#pragma omp parallel for collapse(2) schedule(static)
    for (int head = 0; head < group_; ++head) {
      for (int64_t i = 0; i < len_q_; ++i) {
        const int h = kv_head_ * group_ + head;
        const size_t row = query_row(head, i);
        double delta = 0;
        for (int d = 0; d < dim_; ++d) {
          queries_[row * dim_ + d] = element(p_.q, q_begin_ + i, h, d);
          const float grad = element(p_.grad_o, q_begin_ + i, h, d);
          grad_o_[row * dim_ + d] = grad;
          delta += double(grad) * element(o, q_begin_ + i, h, d);
        }
        const float lse = p_.lse[h * p_.total_q + q_begin_ + i] * 1.44269504f;
        // A query that sees no key: weights of 2^(score - inf) = 0.
        lse_[row] = lse == -INFINITY ? INFINITY : lse;
        delta_[row] = static_cast<float>(delta);
      }
    }
  }

  void read_keys() {
    const int block_k = p_.lists.block_k;
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t column = 0; column < num_columns_; ++column) {
      if (!is_listed_[column]) continue;
      float* const k_t = &transposed_keys_[column * dim_ * stride_];
      float* const v_t = &transposed_values_[column * dim_ * stride_];
      for (int64_t j = column * block_k; j < std::min(len_k_, (column + 1) * block_k); ++j) {
        for (int d = 0; d < dim_; ++d) {
          const int64_t at = d * stride_ + j - column * block_k;
          keys_[j * dim_ + d] = k_t[at] = element(p_.k, k_begin_ + j, kv_head_, d);
          v_t[at] = element(p_.v, k_begin_ + j, kv_head_, d);
        }
      }
    }
  }

  BackwardBlock block(const RowTile& tile, int64_t column, int64_t block_of_chunk) {
    const int64_t first_key = column * p_.lists.block_k;
    const size_t row = query_row(tile.head, tile.first);
    const size_t at = block_of_chunk * kTileQueries * stride_;
    return {.num_queries = tile.num_queries,
            .num_keys = static_cast<int>(std::min<int64_t>(p_.lists.block_k, len_k_ - first_key)),
            .head_dim = dim_,
            .stride = stride_,
            .scale = p_.scale,
            .limit = last_key(tile.first) - first_key,
            .slope = p_.causal ? 1 : 0,
            .q = &queries_[row * dim_],
            .grad_o = &grad_o_[row * dim_],
            .lse = &lse_[row],
            .delta = &delta_[row],
            .k = &keys_[first_key * dim_],
            .k_t = &transposed_keys_[column * dim_ * stride_],
            .v_t = &transposed_values_[column * dim_ * stride_],
            .weights = &weights_[at],
            .grad_score = &grad_scores_[at],
            .grad_q = &grad_q_[row * dim_],
            .grad_k = &grad_k_[first_key * dim_],
            .grad_v = &grad_v_[first_key * dim_]};
  }

  void run_chunk(size_t first, size_t last, int64_t num_blocks) {
    const BackwardProducts& products = backward_products();
    const size_t size = num_blocks * kTileQueries * stride_;
    if (weights_.size() < size) {
      weights_.resize(size);
      grad_scores_.resize(size);
    }
    std::vector<std::vector<Entry>> columns(num_columns_);
    for (size_t t = first; t < last; ++t) {
      for (int i = 0; i < tiles_[t].count; ++i) {
        columns[tiles_[t].list[i]].push_back({static_cast<int>(t), tiles_[t].first_block + i});
      }
    }
    // The longest first.
    std::vector<int> order;
    for (int c = 0; c < num_columns_; ++c) {
      if (!columns[c].empty()) order.push_back(c);
    }
    std::ranges::stable_sort(order, std::greater(), [&](int c) { return columns[c].size(); });
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
      for (size_t t = first; t < last; ++t) {
        for (int i = 0; i < tiles_[t].count; ++i) {
          products.rows(block(tiles_[t], tiles_[t].list[i], tiles_[t].first_block + i));
        }
      }
#pragma omp for schedule(dynamic, 1)
      for (const int c : order) {
        for (const Entry& e : columns[c]) products.columns(block(tiles_[e.tile], c, e.block));
      }
    }
  }

  // Rows of one head to a tensor.
  void write(const float* from, float factor, const StridedOut& to, int64_t begin, int64_t len,
             int head) const {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < len; ++i) {
      for (int d = 0; d < dim_; ++d) {
        store_element(p_.dtype, to.data, (begin + i) * to.token_stride + head * to.head_stride + d,
                      from[i * dim_ + d] * factor);
      }
    }
  }
  void write() const {
    for (int head = 0; head < group_; ++head) {
      write(&grad_q_[query_row(head, 0) * dim_], p_.scale, p_.grad_q, q_begin_, len_q_,
            kv_head_ * group_ + head);
    }
    write(grad_k_.data(), p_.scale, p_.grad_k, k_begin_, len_k_, kv_head_);
    write(grad_v_.data(), 1.f, p_.grad_v, k_begin_, len_k_, kv_head_);
  }
};

}  // namespace

void block_sparse_attn_backward_cpu(const Params& p) {
  check_sequences("block_sparse_attn_backward", p, p.lists.cu_rows, p.lists.num_rows,
                  p.lists.block_q);
  for (int seq = 0; seq < p.num_seqs; ++seq) {
    for (int kv_head = 0; kv_head < p.num_kv_heads; ++kv_head) KvHead(p, seq, kv_head).run();
  }
}

}  // namespace seer::kernels
