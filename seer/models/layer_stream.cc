#include "seer/models/layer_stream.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "seer/base/error.h"

namespace seer::models {
namespace {

constexpr int64_t kPiece = 64 << 20;  // bytes of a piece on its way

}  // namespace

// A thread of its own copies: pages of a file -> pinned memory -> device, on a stream of its own.
class LayerStream::Copier {
 public:
  Copier(const std::vector<LayerWeights>& layers, const at::Device& device)
      : layers_(layers), device_(device) {
    SEER_CHECK(!layers.empty(), "a model without layers cannot be streamed");
    for (Slot& slot : slots_) {
      for (const LayerWeight& w : layer_weights()) {
        const at::Tensor& host = layers[0].*w.field;
        if (!host.defined()) continue;
        slot.weights.*w.field = at::empty_like(host, host.options().device(device));
      }
    }
    if (on_gpu()) {
      copies_.emplace(c10::impl::VirtualGuardImpl(device.type())
                          .getStreamFromGlobalPool(device, /*isHighPriority=*/false));
      for (Piece& piece : pieces_) {
        piece.bytes = at::empty({kPiece}, at::TensorOptions(at::kByte).pinned_memory(true));
      }
    }
    thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
  }

  // Copies that are under way still write to the slots.
  ~Copier() {
    thread_.request_stop();
    thread_.join();
    if (on_gpu()) copies_->synchronize();
  }

  const LayerWeights& layer(int i) {
    if (slots_[current_].layer == i) return slots_[current_].weights;  // once more
    const int num_layers = static_cast<int>(layers_.size());
    Slot& slot = slots_[current_ ^ 1];
    if (slot.layer != i) ask(current_ ^ 1, i);  // the first call, or one out of order
    wait_for(slot);
    if (on_gpu()) slot.ready->block(current_stream());
    current_ ^= 1;
    // What was enqueued so far may still read the other slot: it is filled after that.
    ask(current_ ^ 1, (i + 1) % num_layers);
    return slot.weights;
  }

 private:
  struct Slot {
    LayerWeights weights;
    int layer = -1;     // asked for
    bool done = false;  // its copy is enqueued
    std::optional<c10::Event> ready, free;
  };
  struct Piece {
    at::Tensor bytes;
    std::optional<c10::Event> sent;
  };

  const std::vector<LayerWeights>& layers_;
  const at::Device device_;
  Slot slots_[2];
  int current_ = 0;
  std::optional<c10::Stream> copies_;
  Piece pieces_[2];
  int next_piece_ = 0;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<int> asked_;  // slot to fill
  std::exception_ptr error_;
  std::jthread thread_;

  bool on_gpu() const { return !device_.is_cpu(); }
  c10::Stream current_stream() const {
    return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  }

  // A copy into this slot that was asked for before has been enqueued by then.
  void ask(int slot, int layer) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !asked_; });
    Slot& to = slots_[slot];
    to.layer = layer;
    to.done = false;
    if (on_gpu()) {
      to.free.emplace(device_.type());
      to.free->record(current_stream());
    }
    asked_ = slot;
    changed_.notify_all();
  }

  void wait_for(const Slot& slot) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return slot.done || error_; });
    if (error_) std::rethrow_exception(error_);
  }

  void work(const std::stop_token& stop) {
    for (;;) {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return asked_.has_value(); })) return;
      Slot& slot = slots_[*asked_];
      lock.unlock();
      std::exception_ptr error;
      try {
        fill(slot);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      error_ = error;
      slot.done = true;
      asked_.reset();
      changed_.notify_all();
    }
  }

  void fill(Slot& slot) {
    const LayerWeights& from = layers_[static_cast<size_t>(slot.layer)];
    std::optional<c10::StreamGuard> guard;
    if (on_gpu()) {
      guard.emplace(*copies_);
      slot.free->block(*copies_);
    }
    for (const LayerWeight& w : layer_weights()) {
      const at::Tensor &host = from.*w.field, &to = slot.weights.*w.field;
      SEER_CHECK(host.defined() == to.defined() && (!host.defined() || host.sizes() == to.sizes()),
                 "layer ", slot.layer, " has other weights than the first: it cannot be streamed");
      if (!host.defined()) continue;
      on_gpu() ? send(host, to) : static_cast<void>(to.copy_(host));
    }
    if (on_gpu()) {
      slot.ready.emplace(device_.type());
      slot.ready->record(*copies_);
    }
  }

  void send(const at::Tensor& host, const at::Tensor& to) {
    const auto total = static_cast<int64_t>(host.nbytes());
    const auto* from = static_cast<const char*>(host.const_data_ptr());
    const at::Tensor bytes = to.view(-1).view(at::kByte);
    for (int64_t begin = 0; begin < total; begin += kPiece) {
      const int64_t size = std::min(kPiece, total - begin);
      Piece& piece = pieces_[next_piece_];
      next_piece_ ^= 1;
      if (piece.sent) piece.sent->synchronize();
      std::memcpy(piece.bytes.data_ptr(), from + begin, static_cast<size_t>(size));
      bytes.narrow(0, begin, size).copy_(piece.bytes.narrow(0, 0, size), /*non_blocking=*/true);
      piece.sent.emplace(device_.type());
      piece.sent->record(*copies_);
    }
  }
};

LayerStream::LayerStream(const std::vector<LayerWeights>& layers, const at::Device& device)
    : copier_(std::make_unique<Copier>(layers, device)) {}
LayerStream::~LayerStream() = default;

const LayerWeights& LayerStream::layer(int i) {
  return copier_->layer(i);
}

}  // namespace seer::models
