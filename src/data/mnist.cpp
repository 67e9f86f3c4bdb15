#include <filesystem>
#include <fstream>

#include "lohe/creation.h"
#include "lohe/data/dataset.h"

namespace lohe::data::datasets {
namespace {

/// Reads a file of bytes with big-endian sizes in front of them: `magic`, then one size for each dim.
Tensor read_idx(const std::filesystem::path& path, uint32_t magic) {
  std::ifstream file(path, std::ios::binary);
  LOHE_CHECK_KIND(kIo, file.good(), "Error opening ", path.string(),
                  "; expected an unpacked file of the MNIST database");
  const auto word = [&] {
    unsigned char bytes[4] = {};
    file.read(reinterpret_cast<char*>(bytes), 4);
    return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
  };
  const uint32_t found = word();
  LOHE_CHECK(file.good() && found == magic, path.string(), ": expected a file that begins with ", magic,
             ", but it begins with ", found);
  std::vector<int64_t> sizes;
  uint64_t expected = 1;
  for (uint32_t dim = 0; dim < (magic & 0xFF); ++dim) {
    sizes.push_back(word());
    // The file is the bound: no more is allocated than it holds.
    const uint64_t held = std::filesystem::file_size(path);
    LOHE_CHECK(file.good() && sizes.back() > 0 && static_cast<uint64_t>(sizes.back()) <= held / expected,
               path.string(), ": the sizes in its head ask for more bytes than the file has");
    expected *= static_cast<uint64_t>(sizes.back());
  }
  Tensor bytes = empty(sizes, kUInt8);
  file.read(static_cast<char*>(bytes.data_ptr()), static_cast<std::streamsize>(expected));
  LOHE_CHECK(static_cast<uint64_t>(file.gcount()) == expected, path.string(), ": expected ", expected,
             " bytes behind the head, but got ", file.gcount());
  return bytes;
}

}  // namespace

MNIST::MNIST(const std::string& root, Mode mode) : train_(mode == Mode::kTrain) {
  const std::filesystem::path folder(root);
  const std::string prefix = train_ ? "train" : "t10k";
  images_ = read_idx(folder / (prefix + "-images-idx3-ubyte"), 2051).to(kFloat32).div_(255).unsqueeze(1);
  targets_ = read_idx(folder / (prefix + "-labels-idx1-ubyte"), 2049).to(kInt64);
  LOHE_CHECK(images_.size(0) == targets_.size(0), root, ": there are ", images_.size(0), " images but ",
             targets_.size(0), " labels");
}

Example<> MNIST::get(size_t index) {
  const auto i = static_cast<int64_t>(index);
  return {images_[i], targets_[i]};
}

}  // namespace lohe::data::datasets
