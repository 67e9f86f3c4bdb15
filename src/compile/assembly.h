#pragma once

#include <vector>

#include "compile/access.h"
#include "compile/trace.h"

/// Storages that records put together piece by piece (a border around a tensor, tensors side by side, the
/// gradient of a slice) and that others read as a whole: readers take the pieces from where they come from,
/// each in its window, and the whole is never made. A reader may write what it makes of it into its place, as
/// a sum of gradients is.
namespace lohe::compiler {

struct Piece;

/// What an input of a record holds: memory, or, where there are pieces, the last one that covers an element.
struct Source {
  Access access;
  std::vector<Piece> pieces;
};

/// A record's value in the window of `place`, which is the assembled storage as its reader sees it.
struct Piece {
  int32_t record;
  Access place;
  std::vector<Source> inputs;  ///< by input of its program
};

/// The dims of a record's space that have more than one element, and their sizes.
SmallVector<int64_t, 8> moving_dims(const TraceRecord& record);
Dims moving_sizes(const TraceRecord& record);
/// Over those dims.
Access access_of(const TraceRecord& record, const TraceOperand& operand, Dtype dtype);
/// The dtype of each input; kUndefined for those that nothing needs (what an in-place row overwrites).
std::vector<Dtype> input_dtypes(const ir::Graph& graph, const std::vector<bool>& needed, size_t inputs);

class Assemblies {
 public:
  explicit Assemblies(const Trace& trace);
  /// The record cannot read pieces: what it reads is made whole, and what that would be a piece of.
  void make_whole_for(int32_t record);

  /// Whether all that the record does is to write an assembly.
  bool spares(int32_t record) const { return spared_[static_cast<size_t>(record)]; }
  /// Whether the record finds an assembly where it reads the storage, or anywhere.
  bool reads_assembly(int32_t record) const;
  bool reads_assembly(int32_t record, int32_t storage) const;
  /// Of an assembly, as `read` sees it over a space of these sizes.
  std::vector<Piece> pieces(const Access& read, const Dims& sizes) const;
  /// The records that read the assembly which this one, spared, writes.
  const std::vector<int32_t>& readers(int32_t record) const;
  /// The storages that an assembly is made from.
  const std::vector<int32_t>& sources(int32_t storage) const {
    return sources_[static_cast<size_t>(storage)];
  }

 private:
  /// Of what the first writes put there.
  struct Uses {
    std::vector<int32_t> writers, readers;
    bool possible = true, replaced = false;  ///< whether its reader wrote something else there
  };
  void note_uses();
  bool replaces(const TraceRecord& record, const TraceOperand& operand) const;
  bool decide(int32_t storage);
  void make_whole(int32_t storage);
  bool stays(int32_t storage, int32_t from, int32_t to) const;
  bool all_covered(const std::vector<Piece>& pieces, const Dims& sizes) const;

  const Trace& trace_;
  std::vector<Uses> uses_;
  std::vector<bool> assembly_, spared_;
  std::vector<size_t> pieces_;  ///< of an assembly, those of its pieces included
  std::vector<std::vector<int32_t>> sources_;
  std::vector<std::vector<int32_t>> changes_;  ///< by storage: the records that write it
};

}  // namespace lohe::compiler
