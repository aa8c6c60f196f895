#pragma once
// The processes that train one model together, as torchrun starts them, and what they tell each other.

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>

namespace seer::train {

// This class itself is one process alone: its sums are what they are.
class Ranks {
 public:
  // From torchrun's environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT): sums over NCCL on GPUs,
  // over Gloo on CPUs. One process alone where WORLD_SIZE is not set, or 1. Waits for all processes.
  // A process that gives no sign of life for `limit` counts as gone, which ends the others: with an
  // error from the sum that they wait for, or with no more than the line that says so.
  // Error: a variable is missing, no number or out of range; the others do not come within `patience`,
  // or the holder of their store does not answer by then.
  static std::unique_ptr<Ranks> from_environment(const at::Device& device,
                                                 std::chrono::milliseconds limit = kSilence,
                                                 std::chrono::milliseconds patience = kPatience);
  static constexpr std::chrono::seconds kSilence{15};
  static constexpr std::chrono::minutes kPatience{2};

  // Whether torchrun has started the processes again (--max-restarts), with the same arguments.
  static bool started_again();
  // For InterruptGuard: torchrun passes on a Ctrl-C that its processes get, too. 0: it has not started this one.
  static double same_signal_seconds();

  Ranks() = default;
  virtual ~Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  virtual int rank() const { return 0; }
  virtual int size() const { return 1; }
  bool is_first() const { return rank() == 0; }

  // Calls must come in the same order everywhere; what was begun with x must be finished before x is
  // touched. Error: a process is gone; names it.
  //
  // Begins to replace x in every process by its sum over all.
  virtual void start_sum(const at::Tensor& /*x*/) {}
  // The same in process `root` alone; elsewhere x then holds anything.
  virtual void start_reduce(const at::Tensor& /*x*/, int /*root*/) {}
  // Begins to replace x in every process by that of `root`.
  virtual void start_broadcast(const at::Tensor& /*x*/, int /*root*/) {}
  // Waits for what was begun (on a GPU its current stream does).
  virtual void finish() {}
  // x of one process to another, which calls receive() with one like it. Both wait.
  virtual void send(const at::Tensor& /*x*/, int /*to*/) {}
  virtual void receive(const at::Tensor& /*x*/, int /*from*/) {}
  // Waits until all processes are here.
  virtual void meet() {}
};

}  // namespace seer::train
