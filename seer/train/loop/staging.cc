#include "seer/train/loop/staging.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

namespace seer::train {
namespace {

struct Piece {
  size_t tensor;
  int64_t begin, count;

  at::Tensor of(const std::vector<at::Tensor>& tensors) const {
    return tensors[tensor].view(-1).narrow(0, begin, count);
  }
};

std::vector<Piece> pieces_of(const std::vector<at::Tensor>& tensors, int64_t most) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tensors.size(); ++i) {
    for (int64_t begin = 0; begin < tensors[i].numel(); begin += most) {
      pieces.push_back({i, begin, std::min(most, tensors[i].numel() - begin)});
    }
  }
  return pieces;
}

}  // namespace

Staging::Staging(const at::Device& device, int64_t piece) : device_(device), piece_(piece) {
  for (Buffer& buffer : buffers_) {
    buffer.bytes = at::empty({piece * static_cast<int64_t>(sizeof(float))},
                             at::TensorOptions(at::kByte).pinned_memory(!device.is_cpu()));
    if (!device.is_cpu()) buffer.done.emplace(device.type());
  }
}

// Waits until its last copy is done.
at::Tensor Staging::buffer(size_t i, int64_t elements, at::ScalarType dtype) {
  Buffer& buffer = buffers_[i % 2];
  if (buffer.done) buffer.done->synchronize();
  const auto bytes = elements * static_cast<int64_t>(c10::elementSize(dtype));
  return buffer.bytes.narrow(0, 0, bytes).view(dtype);
}

void Staging::record(size_t i) {
  auto& done = buffers_[i % 2].done;
  if (done) done->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

void Staging::down(const std::vector<at::Tensor>& tensors, const Work& work) {
  const std::vector<Piece> pieces = pieces_of(tensors, piece_);
  const auto send = [&](size_t i) {
    const at::Tensor from = pieces[i].of(tensors);
    buffer(i, from.numel(), from.scalar_type()).copy_(from, /*non_blocking=*/true);
    record(i);
  };
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i == 0) send(0);
    if (i + 1 < pieces.size()) send(i + 1);
    const auto& [tensor, begin, count] = pieces[i];
    work(tensor, begin, buffer(i, count, tensors[tensor].scalar_type()));
  }
}

void Staging::up(const std::vector<at::Tensor>& tensors, const Work& work) {
  const std::vector<Piece> pieces = pieces_of(tensors, piece_);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const at::Tensor to = pieces[i].of(tensors);
    const at::Tensor filled = buffer(i, to.numel(), to.scalar_type());
    work(pieces[i].tensor, pieces[i].begin, filled);
    to.copy_(filled, /*non_blocking=*/true);
    record(i);
  }
}

}  // namespace seer::train
