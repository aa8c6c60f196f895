#include "seer/torch/beside.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <map>
#include <utility>

namespace seer::torch_ops {
namespace {

// One for each device: memory that its tensors leave is its own again. Of high priority, so that it does not wait for the end of
// kernels with many thread blocks.
const c10::Stream& own_stream(const at::Device& device) {
  thread_local std::map<c10::DeviceIndex, c10::Stream> streams;
  const auto found = streams.find(device.index());
  if (found != streams.end()) return found->second;
  const c10::impl::VirtualGuardImpl guard(device.type());
  return streams
      .emplace(device.index(), guard.getStreamFromGlobalPool(device, /*isHighPriority=*/true))
      .first->second;
}

c10::Stream current_stream(const at::Device& device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

}  // namespace

Beside::Beside(const at::Device& device, const std::function<at::Tensor()>& make)
    : current_(current_stream(device)) {
  if (device.is_cpu()) {
    made_ = make();
    return;
  }
  const c10::Stream own = own_stream(device);
  c10::Event begun(device.type());
  begun.record(current_);
  begun.block(own);
  const c10::StreamGuard guard(own);
  made_ = make();
  done_.emplace(device.type());
  done_->record(own);
}

Beside::~Beside() {
  join();
}

void Beside::join() {
  if (done_) done_->block(current_);
  done_.reset();
}

at::Tensor Beside::take() {
  join();
  if (!made_.is_cpu()) made_.record_stream(current_);
  return std::exchange(made_, {});
}

}  // namespace seer::torch_ops
