#include "seer/train/ranks/ranks.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/train/ranks/heartbeat.h"
#include "seer/train/ranks/nccl.h"
#include "seer/train/ranks/round.h"

namespace seer::train {
namespace {

// Limit of a sum: processes differ in their work, and the heartbeat finds those that have died.
constexpr std::chrono::hours kWork{24 * 7};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  SEER_CHECK(value != nullptr, "WORLD_SIZE is set, but ", name,
             " is not: start the processes with torchrun --no-python");
  return value;
}

int number(const char* name) {
  const std::string text = variable(name);
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  SEER_CHECK(error == std::errc() && end == text.data() + text.size() && value >= 0, name, " is ",
             shown(text), ", want a number; start the processes with torchrun --no-python");
  return value;
}

// c10d warns of each connection that breaks, with its stack; what matters of that is in our errors.
// TORCH_CPP_LOG_LEVEL=WARNING shows it.
void set_log_level() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") != nullptr) {
    c10::initLogging();
  } else {
    FLAGS_caffe2_log_level = c10::GLOG_ERROR;
  }
}

// A broken socket becomes an error that says so. If it is this process's own output that nobody reads
// any more, the signal still ends the process quietly.
void on_broken_pipe(int) {
  const int error = errno;
  pollfd outputs[] = {{STDOUT_FILENO, POLLOUT, 0}, {STDERR_FILENO, POLLOUT, 0}};
  if (poll(outputs, 2, 0) > 0 &&
      ((outputs[0].revents | outputs[1].revents) & (POLLERR | POLLHUP)) != 0) {
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  errno = error;
}

// torchrun's agent may hold the store already.
bool agent_holds_store() {
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  return agent != nullptr && std::strcmp(agent, "True") == 0;
}

Place place_of(int rank, int size) {
  if (!agent_holds_store()) {
    return {rank, size, rank == 0, "the process that holds the store (rank 0)"};
  }
  return {rank, size, false,
          message("torchrun, which holds the store at ", one_line(variable("MASTER_ADDR"), 100),
                  ":", variable("MASTER_PORT"), ",")};
}

c10::intrusive_ptr<c10d::Store> connect(bool holds, int size, std::chrono::milliseconds patience) {
  c10d::TCPStoreOptions options;
  const int port = number("MASTER_PORT");
  SEER_CHECK(port >= 1 && port <= 65535, "MASTER_PORT is ", port, ", want 1 to 65535");
  options.port = static_cast<uint16_t>(port);
  options.isServer = holds;
  options.numWorkers = size;
  options.waitWorkers = false;
  options.timeout = patience;
  const std::string address = variable("MASTER_ADDR");
  try {
    return c10::make_intrusive<c10d::TCPStore>(address, options);
  } catch (const std::exception& error) {
    fail("no store for the processes at ", one_line(address, 100), ":", port, " (",
         shown(first_line(error.what()), 300),
         "): is the port taken, or the first process not running?");
  }
}

class ManyRanks : public Ranks {
 public:
  ManyRanks(const Place& place, const at::Device& device, const Rhythm& rhythm,
            std::chrono::milliseconds patience)
      : place_(place),
        token_(at::zeros({1}, at::TensorOptions(device).dtype(at::kFloat))),
        watchdog_(rhythm.beat) {
    watchdog_.expect(patience + rhythm.limit, place.lost(place.store_holder));
    const int rank = place.rank, size = place.size;
    const auto store = connect(place.holds_store, size, patience);
    watchdog_.expect(rhythm.limit, place.lost(place.store_holder));
    heartbeat_ = std::make_unique<Heartbeat>(connect(/*holds=*/false, size, patience), place,
                                             rhythm, watchdog_);
    const std::string prefix = agree(*store, patience);
    heartbeat_->join(prefix);
    store_ = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
    guard([&] { backend_ = device.is_cuda() ? nccl_backend(store_, rank, size, kWork) : gloo(); });
    meet();
  }

  ~ManyRanks() override {
    if (!backend_) return;
    const bool fails = std::uncaught_exceptions() > 0;
    if (!token_.is_cuda()) {
      // Gloo would wait here for sums that the others will not join.
      if (fails) static_cast<void>(backend_.release());
      return;
    }
    try {
      fails ? backend_->abort() : backend_->shutdown();
    } catch (const std::exception&) {  // of a process that is gone: nothing is left to be summed
    }
  }

  int rank() const override { return place_.rank; }
  int size() const override { return place_.size; }

  void start_sum(const at::Tensor& x) override {
    start(x, [&](auto& tensors) { return backend_->allreduce(tensors, c10d::AllreduceOptions()); });
  }
  void start_reduce(const at::Tensor& x, int root) override {
    c10d::ReduceOptions options;
    options.rootRank = root;
    start(x, [&](auto& tensors) { return backend_->reduce(tensors, options); });
  }
  void start_broadcast(const at::Tensor& x, int root) override {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    start(x, [&](auto& tensors) { return backend_->broadcast(tensors, options); });
  }
  void send(const at::Tensor& x, int to) override {
    start(x, [&](auto& tensors) { return backend_->send(tensors, to, /*tag=*/0); });
    finish();
  }
  void receive(const at::Tensor& x, int from) override {
    start(x, [&](auto& tensors) { return backend_->recv(tensors, from, /*tag=*/0); });
    finish();
  }

  void finish() override {
    guard([&] {
      for (const auto& work : pending_) work->wait();
    });
    pending_.clear();
  }

  void meet() override {
    start_sum(token_);
    finish();
    token_.sum().item();  // on a GPU, too, all are here
  }

 private:
  const Place place_;
  c10::intrusive_ptr<c10d::Store> store_;  // longest: the others may still want to read it
  const at::Tensor token_;
  Watchdog watchdog_;
  std::unique_ptr<Heartbeat> heartbeat_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  std::vector<c10::intrusive_ptr<c10d::Work>> pending_;

  // `call` begins something on the tensors { x }.
  template <class Call>
  void start(const at::Tensor& x, const Call& call) {
    guard([&] {
      std::vector<at::Tensor> tensors{x};
      pending_.push_back(call(tensors));
    });
  }

  c10::intrusive_ptr<c10d::Backend> gloo() const {
    auto options = c10d::ProcessGroupGloo::Options::create(kWork);
    options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    options->threads = 2;
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store_, place_.rank, place_.size, options);
  }

  std::string agree(c10d::Store& store, std::chrono::milliseconds patience) const {
    try {
      return agree_on_round(store, place_.rank, place_.size, patience);
    } catch (const Error&) {
      throw;
    } catch (const std::exception&) {  // the holder of the store has ended meanwhile
      fail(place_.lost(place_.store_holder));
    }
  }

  // What the libraries throw becomes one line.
  template <class Call>
  void guard(const Call& call) {
    try {
      call();
    } catch (const std::exception& error) {
      const std::string gone = heartbeat_->gone();
      if (!gone.empty()) {
        heartbeat_->linger();
        fail(place_.lost(gone));
      }
      fail("rank ", place_.rank, " of ", place_.size, ": the processes cannot reach each other (",
           shown(first_line(error.what()), 300),
           "); start all of them again, they go on from the last checkpoint");
    }
  }
};

}  // namespace

bool Ranks::started_again() {
  const char* count = std::getenv("TORCHELASTIC_RESTART_COUNT");
  return count != nullptr && std::strcmp(count, "0") != 0;
}

double Ranks::same_signal_seconds() {
  return std::getenv("TORCHELASTIC_RUN_ID") != nullptr ? 5 : 0;
}

std::unique_ptr<Ranks> Ranks::from_environment(const at::Device& device,
                                               std::chrono::milliseconds limit,
                                               std::chrono::milliseconds patience) {
  if (std::getenv("WORLD_SIZE") == nullptr || number("WORLD_SIZE") <= 1) {
    return std::make_unique<Ranks>();
  }
  const int rank = number("RANK"), size = number("WORLD_SIZE");
  set_log_level();
  SEER_CHECK(rank < size, "RANK is ", rank, ", want less than WORLD_SIZE, ", size);
  std::signal(SIGPIPE, on_broken_pipe);
  return std::make_unique<ManyRanks>(place_of(rank, size), device, Rhythm(limit), patience);
}

}  // namespace seer::train
