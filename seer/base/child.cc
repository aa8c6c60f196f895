#include "seer/base/child.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "seer/base/descriptor.h"

namespace seer {
namespace {

using Clock = std::chrono::steady_clock;

// 0, or the errno of what failed.
int start(const std::vector<std::string>& words, int its_end, int its_errors, pid_t& pid) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, its_end, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, its_end, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, its_errors, STDERR_FILENO);
  const int error = ::posix_spawnp(&pid, argv[0], &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

std::string last_line_of(int file) {
  constexpr off_t kMost = 2000;
  const off_t size = ::lseek(file, 0, SEEK_END);
  std::string text(static_cast<size_t>(std::clamp<off_t>(size, 0, kMost)), '\0');
  const ssize_t count =
      ::pread(file, text.data(), text.size(), size - static_cast<off_t>(text.size()));
  text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);  // npos + 1 is 0
}

// Writes the input and reads the output, whichever the other side is ready for.
ChildResult::End talk(int fd, const std::string& input, Clock::time_point deadline, size_t most,
                      std::string& output) {
  size_t sent = 0;
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return ChildResult::End::too_long;
    pollfd ready{fd, static_cast<short>(POLLIN | (sent < input.size() ? POLLOUT : 0)), 0};
    if (::poll(&ready, 1, static_cast<int>(std::min<long>(left, 1000))) <= 0) continue;
    if (ready.revents & POLLOUT) {
      // Whoever ends without reading its input answers all the same.
      const ssize_t count =
          ::send(fd, input.data() + sent, input.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0) sent += static_cast<size_t>(count);
      if (count < 0 && errno != EAGAIN && errno != EINTR) sent = input.size();
      if (sent == input.size()) ::shutdown(fd, SHUT_WR);
    }
    if (ready.revents & (POLLIN | POLLHUP | POLLERR)) {
      const ssize_t count = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        return ChildResult::End::exited;
      }
      if (count > 0) output.append(buffer.data(), static_cast<size_t>(count));
      if (output.size() > most) return ChildResult::End::too_much;
    }
  }
}

}  // namespace

ChildResult run_child(const std::vector<std::string>& words, const std::string& input,
                      std::chrono::duration<double> seconds, size_t most) {
  ChildResult result;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return {ChildResult::End::not_started, errno, "", ""};
  }
  Descriptor ours(ends[0]), its(ends[1]), errors(::memfd_create("stderr", MFD_CLOEXEC));
  pid_t pid = 0;
  if (const int error = start(words, its.fd(), errors.fd(), pid)) {
    return {ChildResult::End::not_started, error, "", ""};
  }
  its = Descriptor();
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(seconds);
  if (input.empty()) ::shutdown(ours.fd(), SHUT_WR);
  result.end = talk(ours.fd(), input, deadline, most, result.output);
  if (result.end != ChildResult::End::exited) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  result.last_line = last_line_of(errors.fd());
  if (result.end != ChildResult::End::exited) return result;
  if (WIFSIGNALED(status)) {
    result.end = ChildResult::End::killed;
    result.status = WTERMSIG(status);
  } else {
    result.status = WEXITSTATUS(status);
  }
  return result;
}

}  // namespace seer
