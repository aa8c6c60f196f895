#include "seer/torch/side_stream.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <map>
#include <mutex>

namespace seer::torch_ops {
namespace {

// The same one each time: the allocator keeps memory by stream.
c10::Stream side_of(const c10::Device& device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const std::lock_guard lock(mutex);
  const auto found = streams.find(device.index());
  if (found != streams.end()) return found->second;
  const c10::impl::VirtualGuardImpl impl(device.type());
  return streams
      .emplace(device.index(), impl.getStreamFromGlobalPool(device, /*isHighPriority=*/true))
      .first->second;
}

}  // namespace

SideStream::SideStream(const c10::Device& device) {
  if (device.is_cpu()) return;
  c10::Event here(device.type());
  here.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  const c10::Stream side = side_of(device);
  here.block(side);
  guard_.emplace(side);
}

void SideStream::leave() {
  if (!guard_) return;
  done_.emplace(guard_->current_stream().device_type());
  done_->record(guard_->current_stream());
  guard_.reset();
}

at::Tensor SideStream::join(const at::Tensor& x) {
  if (!done_) return x;
  const c10::Stream now = c10::impl::VirtualGuardImpl(x.device().type()).getStream(x.device());
  done_->block(now);
  x.record_stream(now);  // its memory belongs to the other stream
  return x;
}

}  // namespace seer::torch_ops
