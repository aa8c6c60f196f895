// seer::pooled_attn, and seer::pooled_map, the same without values.

#include "seer/kernels/pooled_attn/pooled_attn.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"
#include "seer/torch/packed.h"

namespace seer::torch_ops {
namespace {

constexpr char kNoBackward[] = "it has no backward: call it under no_grad or detach its inputs";

// The arguments of both ops; without values v is undefined.
struct Pooled {
  PackedQkv in;
  SymInt num_rows, num_blocks;
  int64_t block_q, block_k;
  double scale;
  bool causal, group_max, normalise;

  // lse and the map.
  std::tuple<at::Tensor, at::Tensor> form(const char* op) const {
    in.check_form(op, block_k, "block_k", scale);
    check_block_q(op, block_q);
    check_count(op, "num_rows", num_rows, kernels::kMostTokens);
    check_count(op, "num_blocks", num_blocks, kernels::kMostBlocks);
    const at::Tensor lse = attention_lse(in.q);
    const SymInt heads = group_max ? in.k.sym_size(1) : in.q.sym_size(1);
    return {lse, at::empty_symint({heads, num_rows, num_blocks}, lse.options())};
  }

  // Fills them, and o where it is defined.
  void run(const char* op, const at::Tensor& o, const at::Tensor& lse,
           const at::Tensor& map) const {
    in.check_contents(op, block_q, map.size(1));
    check_longest(op, in.cu_k, block_k, "the map", map.size(2));
    kernels::PooledAttnParams p{};
    in.put_into(p, o, lse, scale, causal);
    p.map = map.mutable_data_ptr<float>();
    p.cu_rows = int_data(in.cu_rows);
    p.num_map_heads = static_cast<int>(map.size(0));
    p.num_rows = map.size(1);
    p.num_blocks = map.size(2);
    p.block_q = static_cast<int>(block_q);
    p.block_k = static_cast<int>(block_k);
    p.normalise = normalise;
    const Queue queue(in.q);
    at::Tensor workspace;
    if (in.q.is_cuda()) {
      p.workspace_bytes = kernels::pooled_attn_workspace(p, queue.device);
      workspace = at::empty({p.workspace_bytes}, in.q.options().dtype(at::kByte));
      p.workspace = workspace.mutable_data_ptr();
    }
    kernels::pooled_attn(p, queue.device, queue.stream);
  }
};

struct PooledAttn {
  static constexpr char kName[] = "seer::pooled_attn";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor cu_k, Tensor cu_rows, SymInt num_rows, "
      "SymInt num_blocks, int block_q, int block_k, float scale, bool causal, bool group_max, "
      "bool normalise) -> (Tensor o, Tensor lse, Tensor map)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, SymInt,
                           SymInt, int64_t, int64_t, double, bool, bool, bool);

  Pooled x;

  Result form() const {
    const auto [lse, map] = x.form(kName);
    return {attention_output(x.in.q), lse, map};
  }
  Result run() const {
    const auto [o, lse, map] = form();
    x.run(kName, o, lse, map);
    return {o, lse, map};
  }
  void refuse() const {
    refuse_gradient(kName, kNoBackward, {{"q", x.in.q}, {"k", x.in.k}, {"v", x.in.v}});
  }
};

struct PooledMap {
  static constexpr char kName[] = "seer::pooled_map";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor cu_q, Tensor cu_k, Tensor cu_rows, SymInt num_rows, "
      "SymInt num_blocks, int block_q, int block_k, float scale, bool causal, bool group_max, "
      "bool normalise) -> (Tensor lse, Tensor map)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, SymInt, SymInt,
                           int64_t, int64_t, double, bool, bool, bool);

  const at::Tensor &q, &k, &cu_q, &cu_k, &cu_rows;
  SymInt num_rows, num_blocks;
  int64_t block_q, block_k;
  double scale;
  bool causal, group_max, normalise;
  at::Tensor none = {};

  Pooled all() const {
    return {{q, k, none, cu_q, cu_k, cu_rows},
            num_rows,
            num_blocks,
            block_q,
            block_k,
            scale,
            causal,
            group_max,
            normalise};
  }
  Result form() const { return all().form(kName); }
  Result run() const {
    const auto [lse, map] = form();
    all().run(kName, none, lse, map);
    return {lse, map};
  }
  void refuse() const { refuse_gradient(kName, kNoBackward, {{"q", q}, {"k", k}}); }
};

const RegisteredOp<PooledAttn> kPooledAttn;
const RegisteredOp<PooledMap> kPooledMap;

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> pooled_attn(const at::Tensor& q, const at::Tensor& k,
                                                           const at::Tensor& v,
                                                           const Ragged& ragged, double scale,
                                                           bool causal, bool group_max,
                                                           bool normalise) {
  return call<PooledAttn>(q, k, v, ragged.cu_q, ragged.cu_k, ragged.cu_rows, ragged.num_rows,
                          ragged.num_blocks, ragged.block_q, ragged.block, scale, causal, group_max,
                          normalise);
}

std::tuple<at::Tensor, at::Tensor> pooled_map(const at::Tensor& q, const at::Tensor& k,
                                              const Ragged& ragged, double scale, bool causal,
                                              bool group_max, bool normalise) {
  return call<PooledMap>(q, k, ragged.cu_q, ragged.cu_k, ragged.cu_rows, ragged.num_rows,
                         ragged.num_blocks, ragged.block_q, ragged.block, scale, causal, group_max,
                         normalise);
}

}  // namespace seer::torch_ops
