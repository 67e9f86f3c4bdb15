#include "compile/assembly.h"

#include <algorithm>
#include <optional>

#include "compile/recompute.h"
#include "tensor/shape.h"

namespace lohe::compiler {
namespace {

using namespace ir;

/// Beyond these a reader had better find the whole in memory: every piece is a load for each element.
constexpr size_t kMostPieces = 4, kMostReaders = 4, kMostInAll = 12;
/// Simple instructions of a piece, which each reader does again.
constexpr int kMostCost = 6;
/// Positions in windows are counted in 32 bits.
constexpr int64_t kMostElements = int64_t{1} << 31;

bool is_empty(const Window& w) {
  for (size_t d = 0; d < w.low.size(); ++d) {
    if (w.low[d] >= w.high[d]) return true;
  }
  return false;
}

/// The window that is left of one over `sizes`: cut at the space's edges, and empty lists for all of it.
Window cut(Window w, const Dims& sizes) {
  bool everywhere = true;
  for (size_t d = 0; d < w.low.size(); ++d) {
    w.low[d] = std::max<int64_t>(w.low[d], 0);
    w.high[d] = std::min(w.high[d], sizes[d]);
    everywhere = everywhere && w.low[d] == 0 && w.high[d] == sizes[d];
  }
  return everywhere ? Window{} : w;
}

/// Elementwise work on real numbers that a reader may do itself.
bool is_light(const TraceRecord& r) {
  const int cost = r.outputs == 1 ? cost_of_repeating(r) : -1;
  return cost >= 0 && cost <= kMostCost &&
         std::none_of(r.program->graph().nodes.begin(), r.program->graph().nodes.end(),
                      [](const GraphNode& n) { return is_complex(n.dtype); });
}

std::vector<Dtype> read_dtypes(const TraceRecord& r) {
  const Graph& graph = r.program->graph();
  return input_dtypes(graph, graph.needed(), static_cast<size_t>(r.inputs));
}

/// How a writer of a storage and a reader see it, dim by dim.
struct Meeting {
  struct Dim {
    int writer = -1, reader = -1;   ///< dims of their spaces
    int64_t written = 0, read = 0;  ///< where they begin
    int64_t writes = 1, reads = 1;  ///< how far they go
  };
  SmallVector<Dim, 8> dims;

  /// Nothing where elements of the storage do not lie in rows of rows that both go along.
  static std::optional<Meeting> of(const Access& write, const Dims& written, const Access& read,
                                   const Dims& sizes) {
    const int64_t bytes = itemsize(write.dtype);
    if (write.dtype != read.dtype || write.offset % bytes != 0 || read.offset % bytes != 0)
      return std::nullopt;
    SmallVector<int64_t, 16> strides;
    for (const Dims* list : {&write.strides, &read.strides}) {
      for (const int64_t s : *list) {
        if (s < 0) return std::nullopt;
        if (s != 0 && std::find(strides.begin(), strides.end(), s) == strides.end()) strides.push_back(s);
      }
    }
    std::sort(strides.begin(), strides.end(), std::greater<>());
    Meeting m;
    int64_t at_write = write.offset / bytes, at_read = read.offset / bytes;
    for (size_t i = 0; i < strides.size(); ++i) {
      const int64_t stride = strides[i];
      Dim dim;
      const auto find = [&](const Dims& list, const Dims& size, int* number, int64_t* count) {
        for (size_t d = 0; d < list.size(); ++d) {
          if (list[d] != stride) continue;
          if (*number >= 0) return false;
          *number = static_cast<int>(d);
          *count = size[d];
        }
        return true;
      };
      if (!find(write.strides, written, &dim.writer, &dim.writes) ||
          !find(read.strides, sizes, &dim.reader, &dim.reads))
        return std::nullopt;
      dim.written = at_write / stride;
      dim.read = at_read / stride;
      at_write %= stride;
      at_read %= stride;
      if (i > 0) {
        const int64_t outer = strides[i - 1];
        if (outer % stride != 0 || std::max(dim.written + dim.writes, dim.read + dim.reads) > outer / stride)
          return std::nullopt;
      }
      m.dims.push_back(dim);
    }
    if (at_write != at_read) return std::nullopt;
    return m;
  }

  /// Where the reader finds what has been written there; nothing where it meets none of it.
  std::optional<Window> window(const Dims& sizes) const {
    Window w{Dims(sizes.size()), sizes};
    for (const Dim& d : dims) {
      if (d.reader < 0) {
        if (d.read < d.written || d.read >= d.written + d.writes) return std::nullopt;
        continue;
      }
      const auto r = static_cast<size_t>(d.reader);
      w.low[r] = d.written - d.read;
      w.high[r] = w.low[r] + d.writes;
    }
    w = cut(std::move(w), sizes);
    if (is_empty(w)) return std::nullopt;
    return w;
  }

  /// What the writer sees as `a`, as the reader would; false where the reader's fixed places lie outside of
  /// its window.
  bool carry_over(Access& a, const Window& box, const Dims& sizes) const {
    Access result{a.storage, a.offset, Dims(sizes.size()), a.dtype, {}};
    Window w{Dims(sizes.size()), sizes};
    for (const Dim& d : dims) {
      if (d.writer < 0) continue;
      const auto k = static_cast<size_t>(d.writer);
      const int64_t ahead = d.read - d.written;  // of the reader's first index
      result.offset += a.strides[k] * ahead * itemsize(a.dtype);
      if (d.reader >= 0) result.strides[static_cast<size_t>(d.reader)] = a.strides[k];
      if (a.window.everywhere()) continue;
      if (d.reader < 0) {
        if (ahead < a.window.low[k] || ahead >= a.window.high[k]) return false;
      } else {
        w.low[static_cast<size_t>(d.reader)] = a.window.low[k] - ahead;
        w.high[static_cast<size_t>(d.reader)] = a.window.high[k] - ahead;
      }
    }
    for (size_t d = 0; d < box.low.size(); ++d) {
      w.low[d] = std::max(w.low[d], box.low[d]);
      w.high[d] = std::min(w.high[d], box.high[d]);
    }
    result.window = cut(std::move(w), sizes);
    a = std::move(result);
    return true;
  }
  bool carry_over(std::vector<Source>& sources, const Window& box, const Dims& sizes) const {
    for (Source& s : sources) {
      if (s.access.dtype == Dtype::kUndefined) continue;
      if (!carry_over(s.access, box, sizes)) return false;
      for (Piece& p : s.pieces) {
        if (!carry_over(p.place, box, sizes) || !carry_over(p.inputs, box, sizes)) return false;
      }
    }
    return true;
  }
};

}  // namespace

SmallVector<int64_t, 8> moving_dims(const TraceRecord& record) {
  SmallVector<int64_t, 8> dims;
  for (size_t d = 0; d < record.space.sizes.size(); ++d) {
    if (record.space.sizes[d] != 1) dims.push_back(static_cast<int64_t>(d));
  }
  return dims;
}

Dims moving_sizes(const TraceRecord& record) {
  Dims sizes;
  for (const int64_t d : moving_dims(record)) sizes.push_back(record.space.sizes[static_cast<size_t>(d)]);
  return sizes;
}

Access access_of(const TraceRecord& record, const TraceOperand& operand, Dtype dtype) {
  Access a{operand.storage, operand.offset, {}, dtype, {}};
  if (record.program == nullptr) return a;
  for (const int64_t d : moving_dims(record)) a.strides.push_back(operand.strides[static_cast<size_t>(d)]);
  return a;
}

std::vector<Dtype> input_dtypes(const Graph& g, const std::vector<bool>& needed, size_t inputs) {
  std::vector<Dtype> dtypes(inputs, Dtype::kUndefined);
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    const GraphNode& n = g.nodes[i];
    if (needed[i] && n.prim == Prim::kInput && n.imm < static_cast<int64_t>(inputs))
      dtypes[static_cast<size_t>(n.imm)] = n.dtype;
  }
  return dtypes;
}

Assemblies::Assemblies(const Trace& trace)
    : trace_(trace),
      uses_(trace.storages.size()),
      assembly_(trace.storages.size()),
      spared_(trace.records.size()),
      pieces_(trace.storages.size()),
      sources_(trace.storages.size()) {
  note_uses();
  // What is read first may be a piece of what is read later.
  std::vector<int32_t> order;
  for (size_t s = 0; s < uses_.size(); ++s) {
    const Uses& u = uses_[s];
    if (u.possible && u.writers.size() > 1 && !u.readers.empty() && u.readers.size() <= kMostReaders)
      order.push_back(static_cast<int32_t>(s));
  }
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return uses_[static_cast<size_t>(a)].readers.front() < uses_[static_cast<size_t>(b)].readers.front();
  });
  for (const int32_t s : order) {
    const auto number = static_cast<size_t>(s);
    assembly_[number] = true;  // pieces() asks
    assembly_[number] = decide(s);
    if (!assembly_[number]) continue;
    for (const int32_t w : uses_[number].writers) spared_[static_cast<size_t>(w)] = true;
  }
}

void Assemblies::note_uses() {
  changes_.resize(trace_.storages.size());
  for (size_t r = 0; r < trace_.records.size(); ++r) {
    const TraceRecord& record = trace_.records[r];
    const auto number = static_cast<int32_t>(r);
    const bool program = record.program != nullptr;
    const auto inputs = trace_.inputs(record);
    const std::vector<Dtype> dtypes = program ? read_dtypes(record) : std::vector<Dtype>();
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].storage < 0 || (program && dtypes[i] == Dtype::kUndefined)) continue;
      const auto s = static_cast<size_t>(inputs[i].storage);
      Uses& u = uses_[s];
      if (!program && writes(trace_, record, inputs[i].storage)) changes_[s].push_back(number);
      if (u.replaced) continue;
      u.possible = u.possible && program;
      if (u.readers.empty() || u.readers.back() != number) u.readers.push_back(number);
    }
    for (const TraceOperand& o : trace_.outputs(record)) {
      const auto s = static_cast<size_t>(o.storage);
      Uses& u = uses_[s];
      changes_[s].push_back(number);
      if (u.replaced) continue;
      if (u.readers.empty()) {
        u.possible = u.possible && program;
        u.writers.push_back(number);
      } else {
        u.replaced = u.readers.size() == 1 && u.readers[0] == number && replaces(record, o);
        u.possible = u.possible && u.replaced;
      }
    }
  }
}

/// Whether all of a storage is written, by a record that reads it at most in the same place.
bool Assemblies::replaces(const TraceRecord& record, const TraceOperand& operand) const {
  if (record.program == nullptr || record.outputs != 1 || operand.offset != 0) return false;
  const Graph& graph = record.program->graph();
  for (const GraphNode& n : graph.nodes) {
    if (is_reduction(n.prim)) return false;
  }
  for (const TraceOperand& i : trace_.inputs(record)) {
    if (i.storage == operand.storage && i != operand) return false;
  }
  const int64_t bytes = numel_of(record.space.sizes) * itemsize(graph.node(graph.outputs[0]).dtype);
  return bytes == trace_.storages[static_cast<size_t>(operand.storage)].nbytes &&
         !may_overlap(record.space.sizes, operand.strides);
}

bool Assemblies::reads_assembly(int32_t record, int32_t storage) const {
  const auto s = static_cast<size_t>(storage);
  const std::vector<int32_t>& readers = uses_[s].readers;
  return assembly_[s] && std::find(readers.begin(), readers.end(), record) != readers.end();
}

bool Assemblies::reads_assembly(int32_t record) const {
  const auto inputs = trace_.inputs(trace_.records[static_cast<size_t>(record)]);
  return std::any_of(inputs.begin(), inputs.end(), [&](const TraceOperand& o) {
    return o.storage >= 0 && reads_assembly(record, o.storage);
  });
}

const std::vector<int32_t>& Assemblies::readers(int32_t record) const {
  const TraceOperand& o = trace_.outputs(trace_.records[static_cast<size_t>(record)])[0];
  return uses_[static_cast<size_t>(o.storage)].readers;
}

void Assemblies::make_whole_for(int32_t record) {
  for (const TraceOperand& o : trace_.inputs(trace_.records[static_cast<size_t>(record)])) {
    if (o.storage >= 0 && reads_assembly(record, o.storage)) make_whole(o.storage);
  }
}

void Assemblies::make_whole(int32_t storage) {
  const auto s = static_cast<size_t>(storage);
  if (!assembly_[s]) return;
  const Uses& u = uses_[s];
  for (const int32_t r : u.readers) {
    if (!spared_[static_cast<size_t>(r)]) continue;
    for (const TraceOperand& o : trace_.outputs(trace_.records[static_cast<size_t>(r)]))
      make_whole(o.storage);
  }
  assembly_[s] = false;
  for (const int32_t w : u.writers) spared_[static_cast<size_t>(w)] = false;
}

/// Whether nobody writes there between two records.
bool Assemblies::stays(int32_t storage, int32_t from, int32_t to) const {
  const auto s = static_cast<size_t>(storage);
  return std::none_of(changes_[s].begin(), changes_[s].end(), [&](int32_t r) { return r > from && r <= to; });
}

bool Assemblies::decide(int32_t storage) {
  const auto number = static_cast<size_t>(storage);
  const TraceStorage& s = trace_.storages[number];
  const Uses& u = uses_[number];
  if (!s.fresh || (!u.replaced && (s.observed || s.kept))) return false;
  // Worth it where something is written that its reader need not read, or copied that is in memory anyway.
  bool saves = false;
  size_t in_all = u.writers.size();
  std::vector<int32_t> from;
  for (const int32_t w : u.writers) {
    const TraceRecord& record = trace_.records[static_cast<size_t>(w)];
    if (!is_light(record)) return false;
    const auto inputs = trace_.inputs(record);
    const std::vector<Dtype> dtypes = read_dtypes(record);
    bool constant = true;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (dtypes[i] == Dtype::kUndefined) continue;
      constant = false;
      const int32_t x = inputs[i].storage;
      const TraceStorage& source = trace_.storages[static_cast<size_t>(x)];
      if (x == storage) return false;
      const bool pieces = reads_assembly(w, x);
      if (pieces) in_all += pieces_[static_cast<size_t>(x)];
      saves = saves || pieces || !source.fresh || source.observed ||
              uses_[static_cast<size_t>(x)].readers.size() > 1;
      const std::vector<int32_t> memory = pieces ? sources(x) : std::vector<int32_t>{x};
      for (const int32_t m : memory) {
        if (!stays(m, w, u.readers.back())) return false;
        if (std::find(from.begin(), from.end(), m) == from.end()) from.push_back(m);
      }
    }
    saves = saves || constant;
  }
  if (!saves || in_all > kMostInAll) return false;
  pieces_[number] = in_all;
  for (const int32_t r : u.readers) {
    const TraceRecord& record = trace_.records[static_cast<size_t>(r)];
    const Dims sizes = moving_sizes(record);
    const auto inputs = trace_.inputs(record);
    const std::vector<Dtype> dtypes = read_dtypes(record);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].storage != storage || dtypes[i] == Dtype::kUndefined) continue;
      const std::vector<Piece> found = pieces(access_of(record, inputs[i], dtypes[i]), sizes);
      if (found.empty() || found.size() > kMostPieces || !all_covered(found, sizes)) return false;
    }
  }
  sources_[number] = std::move(from);
  return true;
}

bool Assemblies::all_covered(const std::vector<Piece>& pieces, const Dims& sizes) const {
  if (pieces[0].place.window.everywhere()) return true;
  // Pieces that do not overlap cover everything if their sizes add up to it.
  int64_t covered = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Window& w = pieces[i].place.window;
    int64_t elements = 1;
    for (size_t d = 0; d < sizes.size(); ++d) elements *= w.high[d] - w.low[d];
    covered += elements;
    for (size_t k = 0; k < i; ++k) {
      const Window& other = pieces[k].place.window;
      bool overlap = true;
      for (size_t d = 0; d < sizes.size(); ++d)
        overlap = overlap && w.low[d] < other.high[d] && other.low[d] < w.high[d];
      if (overlap) return false;
    }
  }
  return covered == numel_of(sizes);
}

std::vector<Piece> Assemblies::pieces(const Access& read, const Dims& sizes) const {
  std::vector<Piece> found;
  if (numel_of(sizes) >= kMostElements) return {};
  for (const int32_t w : uses_[static_cast<size_t>(read.storage)].writers) {
    const TraceRecord& record = trace_.records[static_cast<size_t>(w)];
    const Graph& graph = record.program->graph();
    const Access write = access_of(record, trace_.outputs(record)[0], graph.node(graph.outputs[0]).dtype);
    const Dims written = moving_sizes(record);
    const std::optional<Meeting> meeting = Meeting::of(write, written, read, sizes);
    if (!meeting || numel_of(written) == 0 || may_overlap(written, write.strides)) return {};
    const std::optional<Window> box = meeting->window(sizes);
    if (!box) continue;
    Piece piece{w, read, {}};
    piece.place.window = *box;
    const auto inputs = trace_.inputs(record);
    const std::vector<Dtype> dtypes = read_dtypes(record);
    for (size_t i = 0; i < inputs.size(); ++i) {
      Source source{access_of(record, inputs[i], dtypes[i]), {}};
      if (dtypes[i] != Dtype::kUndefined && reads_assembly(w, inputs[i].storage))
        source.pieces = pieces(source.access, written);
      piece.inputs.push_back(std::move(source));
    }
    if (!meeting->carry_over(piece.inputs, *box, sizes)) return {};
    if (box->everywhere()) found.clear();
    found.push_back(std::move(piece));
  }
  return found;
}

}  // namespace lohe::compiler
