#pragma once
// For tests: calls of attention ops on a GPU, and what every op's GPU kernels must do.
//
// An op is described by a struct:
//   Case, Call, Params, Reference   of its testing/ folder
//   DeviceCall                      an AttentionDeviceCall that Call& alone makes
//   impls(), attend(p, device)      the op's table and its public call

#include <gtest/gtest.h>

#include <functional>

#include "seer/kernels/attention/testing/call_checks.h"
#include "seer/kernels/testing/gpu_run.h"

namespace seer::kernels {

inline constexpr DType kGpuDTypes[] = {DType::bf16, DType::f16};

// A call whose tensors are on the GPU. Behind the last query, key and value lie NaN; o, lse and map are
// NaN before a kernel writes them.
template <class Call>
class AttentionDeviceCall {
 public:
  using Params = decltype(std::declval<Call&>().params());

  explicit AttentionDeviceCall(Call& call)
      : params_(call.params()),
        q_(call.q.bytes, kBehind * call.q.token_stride),
        k_(call.k.bytes, kBehind * call.k.token_stride),
        v_(call.v.bytes, kBehind * call.v.token_stride),
        o_(call.o.bytes.size()),
        lse_(call.lse.size() * sizeof(float)),
        map_(call.map.size() * sizeof(float)),
        cu_q_(call.cu_q),
        cu_k_(call.cu_k) {
    params_.q.data = q_.template as<void>();
    params_.k.data = k_.template as<void>();
    params_.v.data = v_.template as<void>();
    params_.o.data = o_.template as<void>();
    params_.lse = lse_.template as<float>();
    params_.cu_q = cu_q_.template as<int32_t>();
    params_.cu_k = cu_k_.template as<int32_t>();
  }

  const Params& params() const { return params_; }
  DeviceBuffer& q() { return q_; }

  // Waits for the GPU; the results of `call` become what the kernel wrote.
  void download(Call& call) const {
    o_.download(call.o.bytes);
    lse_.download(call.lse);
    map_.download(call.map);
  }

 protected:
  static constexpr size_t kBehind = 2 * 128;  // bytes of an element, tokens of the largest tile

  Params params_;
  DeviceBuffer q_, k_, v_, o_, lse_, map_, cu_q_, cu_k_;
};

template <class Op>
struct AttentionGpu : OnGpu<> {
  using Case = typename Op::Case;
  using Call = typename Op::Call;
  using Params = typename Op::Params;
  using DeviceCall = typename Op::DeviceCall;
  using Kernel = Impl<Params>;

  static int visit(const Params& p, const std::function<void(const Kernel&)>& visit) {
    SCOPED_TRACE(name(p.dtype));
    return visit_kernels(Op::impls(), p, visit);
  }
  static void each_kernel(const Params& p, const std::function<void(const Kernel&)>& visit) {
    SCOPED_TRACE(name(p.dtype));
    for_each_kernel(Op::impls(), p, visit);
  }

  // Tensors of its own for every run: no kernel finds another's results.
  static void run(const Kernel& kernel, Call& call) {
    const DeviceCall on_device(call);
    kernel.run(on_device.params(), nullptr);
    on_device.download(call);
  }

  // The call on every kernel, for both element types, after `change`.
  static void on_every_kernel(const Case& shape, const std::function<void(Call&)>& change,
                              const std::function<void(const Call&)>& then) {
    for (const DType dtype : kGpuDTypes) {
      Call call(shape, dtype);
      change(call);
      each_kernel(call.params(), [&](const Kernel& kernel) {
        run(kernel, call);
        then(call);
      });
    }
  }

  static void nothing_is_written_between_rows(const Case& shape) {
    const auto check = [](const Call& call) {
      const int end = call.o.head_dim + call.shape.padding;
      for (int64_t t = 0; t < call.o.tokens; ++t) {
        for (int d = call.o.head_dim; d < end; ++d) {
          ASSERT_TRUE(std::isnan(call.o.at(t, 0, d))) << t;
        }
      }
    };
    on_every_kernel(shape, [](Call&) {}, check);
  }

  static void same_bits_in_every_run(const Case& shape) {
    Call first(shape, DType::bf16), again(shape, DType::bf16);
    each_kernel(first.params(), [&](const Kernel& kernel) {
      run(kernel, first);
      for (int i = 0; i < 4; ++i) {
        run(kernel, again);
        EXPECT_TRUE(same_bits(first, again)) << i;
      }
    });
  }

  static void two_streams_at_once(const Case& shape) {
    Call alone[] = {{shape, DType::bf16, 1}, {shape, DType::bf16, 2}};
    each_kernel(alone[0].params(), [&](const Kernel& kernel) {
      for (Call& call : alone) run(kernel, call);
      Call together[] = {alone[0], alone[1]};
      const DeviceCall on_device[] = {DeviceCall(together[0]), DeviceCall(together[1])};
      const Stream streams[2];
      check_cuda(cudaDeviceSynchronize(), "copies");  // these streams do not wait for them
      for (int i = 0; i < 4; ++i) {
        for (int s = 0; s < 2; ++s) kernel.run(on_device[s].params(), streams[s].handle);
      }
      for (int s = 0; s < 2; ++s) {
        on_device[s].download(together[s]);
        EXPECT_TRUE(same_bits(alone[s], together[s])) << s;
      }
    });
  }

  static void graph_is_captured_and_replayed(const Case& shape) {
    Call captured(shape, DType::bf16, 1), other(shape, DType::bf16, 2);
    each_kernel(captured.params(), [&](const Kernel& kernel) {
      // The other call's queries, on all else of the captured call.
      Call want = captured, got = captured;
      want.q = other.q;
      run(kernel, want);
      DeviceCall on_device(captured);
      run_captured([&](void* stream) { kernel.run(on_device.params(), stream); },
                   [&] { on_device.q().upload(other.q.bytes); });
      on_device.download(got);
      EXPECT_TRUE(same_bits(want, got));
    });
  }

  // q, k, v and o side by side in rows of 8 MiB: offsets exceed 2^31 elements from token 512 on.
  static void more_than_2_to_31_elements(const Case& shape) {
    constexpr int64_t kStride = int64_t{1} << 22;
    Call call(shape, DType::bf16);
    const int64_t tokens = call.q.tokens;
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    const size_t bytes = tokens * kStride * 2;
    if (free < bytes + (size_t{1} << 30)) GTEST_SKIP() << "needs 6 GiB of GPU memory";

    const typename Op::Reference reference(call);
    const DeviceBuffer wide(bytes);
    const DeviceCall on_device(call);
    Params p = on_device.params();
    const size_t row = call.q.token_stride * 2;
    const auto place = [&](auto& x, int column) {
      const void* from = x.data;
      x.data = wide.as<char>() + column * row;
      x.token_stride = kStride;
      check_cuda(cudaMemcpy2D(wide.as<char>() + column * row, kStride * 2, from, row, row, tokens,
                              cudaMemcpyDeviceToDevice),
                 "copy to wide rows");
    };
    place(p.q, 0);
    place(p.k, 1);
    place(p.v, 2);
    each_kernel(p, [&](const Kernel& kernel) {
      p.o = on_device.params().o;
      place(p.o, 3);
      kernel.run(p, nullptr);
      on_device.download(call);
      check_cuda(cudaMemcpy2D(call.o.bytes.data(), row, p.o.data, kStride * 2, row, tokens,
                              cudaMemcpyDeviceToHost),
                 "copy from wide rows");
      EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(DType::bf16)), "");
    });
  }

  // --- what no kernel takes; no GPU needed ---

  static void expect_error(const Case& shape, DType dtype, int sm,
                           const std::function<void(Params&)>& spoil,
                           std::initializer_list<const char*> reasons) {
    kernels::expect_error(
        Call(shape, dtype), [&](const Params& p) { Op::attend(p, {.sm = sm, .num_sms = 100}); },
        [&](Call&, Params& p) { spoil(p); }, reasons);
  }

  static void list_every_kernels_reason(const Case& shape, const char* block_q_reason) {
    const auto as_is = [](Params&) {};
    expect_error(shape, DType::f32, 80, as_is,
                 {"sm90: needs compute capability 9.0", "sm80: dtype is f32, want bf16 or f16",
                  "cpu: the tensors are on a GPU"});
    expect_error(shape, DType::f32, 90, as_is, {"(sm90: ", "; sm80: ", "; cpu: "});
    expect_error(shape, DType::bf16, 75, as_is, {"sm80: needs compute capability 8.0 or later"});
    const auto with = [&](int head_dim, int block_q, int block_k) {
      Case c = shape;
      c.head_dim = head_dim, c.block_q = block_q, c.block_k = block_k;
      return c;
    };
    expect_error(with(72, 64, 64), DType::bf16, 80, as_is,
                 {"sm80: head_dim is 72, want 64, 96, 128 or 256"});
    expect_error(with(64, 16, 64), DType::bf16, 80, as_is, {block_q_reason});
    expect_error(with(64, 64, 16), DType::bf16, 80, as_is, {"sm80: block_k is 16, want 64 or 128"});
  }

  static void misaligned_tensors(const Case& shape) {
    const auto shift = [](auto& x, int bytes) {
      x.data =
          reinterpret_cast<decltype(x.data)>(reinterpret_cast<uintptr_t>(x.data) / 16 * 16 + bytes);
    };
    const auto expect = [&](const std::function<void(Params&)>& spoil, const char* reason) {
      expect_error(shape, DType::bf16, 80, spoil, {reason});
    };
    expect([&](Params& p) { shift(p.q, 2); }, "sm80: q begins 2 bytes behind a multiple of 16");
    expect([&](Params& p) { shift(p.v, 8); }, "sm80: v begins 8 bytes behind a multiple of 16");
    expect([&](Params& p) { p.k.token_stride = 68; },
           "sm80: k has a token stride of 68, want a multiple of 8");
    expect([&](Params& p) { p.q.head_stride = 65; },
           "sm80: q has a head stride of 65, want a multiple of 8");
    expect([&](Params& p) { shift(p.o, 2); }, "sm80: o begins 2 bytes behind a multiple of 4");
  }
};

}  // namespace seer::kernels
