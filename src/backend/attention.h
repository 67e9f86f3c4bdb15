#pragma once

#include <cstdint>

#include "backend/library.h"
#include "lohe/dtype.h"

namespace lohe::backend {

/// `batch` heads of attention; of `inner` of them in a row the memory is batch_stride apart (see Matrix).
struct AttentionShape {
  int64_t batch = 1;
  int64_t inner = 1;
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t width = 0;        ///< features of queries and keys
  int64_t value_width = 0;  ///< features of values and of the result
  double scale = 1;
  bool causal = false;  ///< query i sees keys 0 to i

  /// What these functions do; the rest is somebody else's.
  bool fits() const {
    return batch > 0 && queries > 0 && keys > 0 && keys < kMostKeys && width > 0 && width <= kMostWidth &&
           value_width > 0 && value_width <= kMostWidth;
  }
  static constexpr int64_t kMostKeys = 32768;  ///< longer rows are summed in another order
  static constexpr int64_t kMostWidth = 384;   ///< one chunk of a product
};

/// output = softmax(scale * query key^T) value, a block of queries at a time, so that the scores stay in a
/// cache; what a causal block does not see is not computed. `statistics`, [batch, queries, 2]: the maximum of
/// a row's scaled scores and the sum of their exponentials. float32 and float64; features are adjacent.
///
/// For finite operands an element of the result has the bits that the products and the softmax give when they
/// are computed one after the other: scores are chains over the features, and a key that is not seen adds a
/// zero. A key or value that no query of a block sees takes no part in it, were it a NaN; one that only some
/// of its queries see is multiplied by a weight of 0 for the others.
/// @throws OutOfMemory for the scratch memory.
void attention(Dtype dtype, const AttentionShape& shape, const Matrix& query, const Matrix& key,
               const Matrix& value, const Matrix& output, void* statistics);

/// The gradients, the weights made again from the statistics. Those of key and value are sums over blocks of
/// 64 queries, added in order.
void attention_gradient(Dtype dtype, const AttentionShape& shape, const Matrix& query, const Matrix& key,
                        const Matrix& value, const Matrix& grad_output, const void* statistics,
                        const Matrix& grad_query, const Matrix& grad_key, const Matrix& grad_value);

}  // namespace lohe::backend
