// Every op of torch.ops.seer, on one screen. ops.h says what each computes, those named _grad and
// _with_grad apart, which are for autograd; here the packed sequences of `Ragged` are spelled out:
// cu_q, cu_k in tokens, cu_rows, cu_blocks in query and key blocks.

#include <torch/library.h>

TORCH_LIBRARY(seer, m) {
  m.def(
      "block_sparse_attn(Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor cu_k, Tensor cu_rows, "
      "Tensor list_begin, Tensor list_count, Tensor list, int block, float scale, bool causal) "
      "-> (Tensor o, Tensor lse)");
  m.def(
      "decode_attn(Tensor q, Tensor k, Tensor v, Tensor? cu_k, int window, float scale) "
      "-> (Tensor o, Tensor lse)");
  m.def(
      "pooled_attn(Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor cu_k, Tensor cu_rows, "
      "SymInt num_rows, SymInt num_blocks, int block_q, int block_k, float scale, bool causal, "
      "bool group_max, bool normalise) -> (Tensor o, Tensor lse, Tensor map)");
  m.def(
      "attn_gate_pool(Tensor x, Tensor cu, Tensor cu_blocks, SymInt num_blocks, int block, "
      "int pools, Tensor? cos=None, Tensor? sin=None) -> Tensor");
  m.def("attn_gate_project(Tensor x, Tensor? weight, Tensor? cos, Tensor? sin) -> Tensor");
  m.def(
      "attn_gate_vectors(Tensor q, Tensor k, Tensor cu, Tensor cu_blocks, SymInt num_blocks, "
      "int block, int q_pools, int k_pools, Tensor? q_weight, Tensor? k_weight, Tensor? cos, "
      "Tensor? sin) -> (Tensor q_gate, Tensor k_gate)");
  m.def("attn_gate_project_grad(Tensor dy, Tensor x, Tensor? cos, Tensor? sin) -> Tensor dweight");
  m.def(
      "attn_gate_score(Tensor q_gate, Tensor k_gate, Tensor cu_q, Tensor cu_k, Tensor cu_rows, "
      "Tensor cu_blocks, SymInt num_blocks, int block) -> Tensor");
  m.def(
      "attn_gate_score_grad(Tensor dscores, Tensor q_gate, Tensor k_gate, Tensor cu_q, "
      "Tensor cu_k, Tensor cu_rows, Tensor cu_blocks, int block, bool want_q) "
      "-> (Tensor dq_gate, Tensor dk_gate)");  // dq_gate is empty where it is not wanted
  m.def(
      "gate_loss(Tensor scores, Tensor target, Tensor cu_rows, Tensor cu_blocks, float skip, "
      "str kind) -> Tensor");
  m.def(
      "gate_loss_with_grad(Tensor scores, Tensor target, Tensor cu_rows, Tensor cu_blocks, "
      "float skip, str kind) -> (Tensor loss, Tensor dscores)");
  // `list` holds -1 between the rows' blocks. prompt_blocks: key blocks of the complete prompt while it
  // comes in chunks (0: the sequences are complete); what chunks off the grid of blocks mean is said in
  // kernels/block_select/params.h.
  m.def(
      "block_select(Tensor scores, Tensor cu_q, Tensor cu_k, Tensor cu_rows, int block, str rule, "
      "float[] strength, int sink_blocks=0, int local_blocks=0, int last_dense_rows=0, "
      "int prompt_blocks=0) -> (Tensor begin, Tensor count, Tensor list)");
}
