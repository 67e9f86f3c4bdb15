#pragma once

#include <array>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ops/op_types.h"

/// From lambdas with plain parameters, as rows are written with, to GraphBody.
namespace lohe::ops::detail {

template <class T>
struct Get;
template <>
struct Get<Node> {
  static Node from(GraphCall& c, int i) { return c.nodes[static_cast<size_t>(i)]; }
};
template <>
struct Get<Str> {
  static Str from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)].str(); }
};
template <>
struct Get<bool> {
  static bool from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)].integer != 0; }
};
template <>
struct Get<int64_t> {
  static int64_t from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)].integer; }
};
template <>
struct Get<Arg> {
  static Arg from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)]; }
};

template <class F>
struct Signature : Signature<decltype(&F::operator())> {};
template <class C, class R, class... A>
struct Signature<R (C::*)(A...) const> {
  using Result = R;
  using Arguments = std::tuple<std::remove_cvref_t<A>...>;
  static constexpr int size = sizeof...(A);
};
template <class C, class R, class... A>
struct Signature<R (C::*)(A...)> : Signature<R (C::*)(A...) const> {};
template <class R, class... A>
struct Signature<R (*)(A...)> {
  using Result = R;
  using Arguments = std::tuple<std::remove_cvref_t<A>...>;
  static constexpr int size = sizeof...(A);
};

inline std::vector<Node> to_nodes(Node n) { return {n}; }
template <size_t N>
std::vector<Node> to_nodes(const std::array<Node, N>& a) {
  return {a.begin(), a.end()};
}
inline std::vector<Node> to_nodes(std::vector<Node> v) { return v; }

/// Calls f with its first `shift` parameters taken from the end positions given by `slots`.
template <class F, size_t... I>
std::vector<Node> invoke(const F& f, GraphCall& c, const int* slots, std::index_sequence<I...>) {
  using Arguments = typename Signature<F>::Arguments;
  return to_nodes(f(Get<std::tuple_element_t<I, Arguments>>::from(c, slots[I])...));
}

template <class F>
GraphBody make_body(F f) {
  if constexpr (std::is_same_v<typename Signature<F>::Arguments, std::tuple<GraphCall>>) {
    return [f](GraphCall& c) { return to_nodes(f(c)); };
  } else {
    return [f](GraphCall& c) {
      constexpr int n = Signature<F>::size;
      int slots[n > 0 ? n : 1];
      for (int i = 0; i < n; ++i) slots[i] = i;
      return invoke(f, c, slots, std::make_index_sequence<n>());
    };
  }
}

}  // namespace lohe::ops::detail
