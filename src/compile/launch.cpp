#include "compile/launch.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "base/allocator.h"
#include "base/inline_vector.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe::compiler {

int64_t scalar_bits(const Scalar& s, Dtype dtype, bool imaginary) {
  const Dtype part = info(dtype).value_dtype;
  if (is_integral(part, false)) return s.to_int();
  if (part == Dtype::kBool) return s.to_bool() ? 1 : 0;
  const double v = imaginary ? s.imag() : s.to_double();
  if (part == Dtype::kFloat64) return std::bit_cast<int64_t>(v);
  return std::bit_cast<int32_t>(static_cast<float>(v));
}

void run(const Launch& launch, std::span<char* const> bases, std::span<const Scalar> numbers) {
  SmallVector<void*, 64> buffers(launch.buffers.size() + launch.scratch.size());
  for (size_t i = 0; i < launch.buffers.size(); ++i)
    buffers[i] = bases[static_cast<size_t>(launch.buffers[i].base)] + launch.buffers[i].offset;
  const int64_t* params = launch.params.data();
  SmallVector<int64_t, 64> patched;
  if (!launch.numbers.empty()) {
    patched.assign(launch.params.data(), launch.params.size());
    for (const Launch::Number& n : launch.numbers) {
      patched[static_cast<size_t>(n.param)] =
          scalar_bits(numbers[static_cast<size_t>(n.scalar)], n.dtype, n.imaginary);
    }
    params = patched.data();
  }
  const codegen::CompiledKernel& kernel = *launch.kernel;
  int32_t code = 0;
  if (launch.count <= launch.grain && launch.scratch.empty()) {
    code = kernel(buffers.data(), params, 0, launch.count);
  } else {
    std::atomic<int32_t> worst{0};
    parallel_for(
        launch.count, launch.grain,
        [&](int64_t begin, int64_t end) {
          SmallVector<void*, 64> own = buffers;
          size_t at = launch.buffers.size();
          for (const int64_t bytes : launch.scratch) own[at++] = allocate(static_cast<size_t>(bytes));
          if (const int32_t c = kernel(own.data(), params, begin, end); c != 0)
            worst.store(c, std::memory_order_relaxed);
          at = launch.buffers.size();
          for (const int64_t bytes : launch.scratch) deallocate(own[at++], static_cast<size_t>(bytes));
        },
        launch.length);
    code = worst.load();
  }
  if (code == 0) return;
  const ir::Graph::Check& check = launch.graph->checks[static_cast<size_t>(code - 1)];
  raise(check.index_error ? ErrorKind::kIndex : ErrorKind::kRuntime, check.message);
}

}  // namespace lohe::compiler
