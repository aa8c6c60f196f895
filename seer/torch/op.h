#pragma once
// How an op comes to be: its schema, and what runs under each dispatch key, in one place.
//
// An op is an aggregate whose fields are its arguments in the schema's order, with
//
//   static constexpr char kName[] = "seer::...", kSchema[] = "(Tensor x, ...) -> ...";
//   using Signature = Result(TensorIn x, ...);  // of the schema; a SymInt is a number in run()
//   Result form() const;    // Meta: checks the form of the arguments, makes results without contents
//   Result run() const;     // CPU, CUDA: begins with form()
//   void refuse() const;    // Autograd: an error for each derivative that does not exist
//
// and, where it has a gradient,
//
//   Result forward(Context&, const Below<Result>&) const;  // saves for backward(); below() is the op itself
//   static Tensors backward(Context&, const Tensors& grads);  // of the first arguments; undefined: none
//
// One made of other ops has run() alone. RegisteredOp makes it torch.ops.seer.<name>; call<Op>(arguments...) is
// that from C++.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "seer/torch/checks.h"

namespace seer::torch_ops {

using TensorIn = const at::Tensor&;
using OptionalIn = const OptionalTensor&;
using Context = torch::autograd::AutogradContext;
using Tensors = torch::autograd::variable_list;
template <class Result>
using Below = std::function<Result()>;

inline bool wants_gradient(const at::Tensor& x) {
  return x.defined() && x.requires_grad();
}
inline bool wants_gradient(const OptionalTensor& x) {
  return x && wants_gradient(*x);
}
template <class Other>
bool wants_gradient(const Other&) {
  return false;
}

// The results of an op as a list, and back.
inline Tensors as_list(const at::Tensor& x) {
  return {x};
}
template <class... T>
Tensors as_list(const std::tuple<T...>& results) {
  return std::apply([](const auto&... x) { return Tensors{x...}; }, results);
}
template <class Result>
Result from_list(const Tensors& x) {
  if constexpr (std::is_same_v<Result, at::Tensor>) {
    return x[0];
  } else {
    return [&]<size_t... i>(std::index_sequence<i...>) {
      return Result{x[i]...};
    }(std::make_index_sequence<std::tuple_size_v<Result>>());
  }
}

template <class Op, class Signature = typename Op::Signature>
struct OpOf;
template <class Op, class Result, class... Args>
struct OpOf<Op, Result(Args...)> {
  static Result call(Args... args) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow(Op::kName, "")
                               .template typed<Result(Args...)>();
    return op.call(args...);
  }
  static Result form(Args... args) { return Op{args...}.form(); }
  static Result run(Args... args) { return Op{args...}.run(); }
  static Result autograd(Args... args) {
    Op{args...}.refuse();
    if constexpr (requires { &Op::backward; }) {
      if (at::GradMode::is_enabled() && (wants_gradient(args) || ...)) {
        return from_list<Result>(Node::apply(args...));
      }
    }
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call(args...);
  }

  struct Node : torch::autograd::Function<Node> {
    static Tensors forward(Context* context, Args... args) {
      const at::AutoDispatchBelowADInplaceOrView guard;
      return as_list(Op{args...}.forward(*context, [&] { return call(args...); }));
    }
    static Tensors backward(Context* context, const Tensors& grads) {
      Tensors out = Op::backward(*context, grads);
      out.resize(sizeof...(Args));
      return out;
    }
  };
};

// The op through the dispatcher.
template <class Op, class... Args>
auto call(Args&&... args) {
  return OpOf<Op>::call(std::forward<Args>(args)...);
}

// Registers an op while it lives: `const RegisteredOp<Op> kOp;` in the op's file.
template <class Op>
class RegisteredOp {
 public:
  RegisteredOp() {
    const std::string schema = std::string(Op::kName) + Op::kSchema;
    if constexpr (requires { &Op::form; }) {
      library_.def(schema.c_str());
      library_.impl(Op::kName, torch::dispatch(c10::DispatchKey::CPU, OpOf<Op>::run));
      library_.impl(Op::kName, torch::dispatch(c10::DispatchKey::CUDA, OpOf<Op>::run));
      library_.impl(Op::kName, torch::dispatch(c10::DispatchKey::Meta, OpOf<Op>::form));
      library_.impl(Op::kName, torch::dispatch(c10::DispatchKey::Autograd, OpOf<Op>::autograd));
    } else {
      constexpr auto kKey = c10::DispatchKey::CompositeImplicitAutograd;
      library_.def(schema.c_str(), torch::dispatch(kKey, OpOf<Op>::run));
    }
  }

 private:
  torch::Library library_{torch::Library::FRAGMENT, "seer", std::nullopt, __FILE__, __LINE__};
};

}  // namespace seer::torch_ops
