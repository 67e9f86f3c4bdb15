// Files that PyTorch wrote (make_io_fixtures.py), read and written again.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "io/checkpoint.h"
#include "io/pickle.h"
#include "io/unpickle.h"
#include "io/zip.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

namespace fs = std::filesystem;

class IoLoad : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("LOHE_IO_FIXTURES");
    if (folder == nullptr)
      GTEST_SKIP() << "set LOHE_IO_FIXTURES to the folder that make_io_fixtures.py filled";
    folder_ = folder;
  }
  fs::path file(const std::string& name) const { return folder_ / name; }

  void expect_error(const std::string& name, ErrorKind kind, const std::string& part) const {
    try {
      load(file(name));
      ADD_FAILURE() << name << " was read";
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
      EXPECT_NE(error.message().find(part), std::string::npos) << error.what();
    }
  }

  fs::path folder_;
};

template <class T>
T element(const TensorBlob& tensor, std::initializer_list<int64_t> index) {
  int64_t offset = tensor.storage_offset;
  size_t d = 0;
  for (const int64_t i : index) offset += i * tensor.strides[d++];
  T value;
  std::memcpy(&value, tensor.storage->data + static_cast<size_t>(offset) * sizeof(T), sizeof(T));
  return value;
}

void expect_state_dict(const Value& value) {
  const Dict& dict = value.as_dict();
  EXPECT_EQ(dict.kind, DictKind::kOrdered);
  ASSERT_EQ(dict.items.size(), 7U);
  EXPECT_EQ(dict.items[0].first.as_text(), "0.weight");
  const TensorBlob& weight = dict.at("0.weight").as_tensor();
  EXPECT_EQ(weight.dtype, kFloat32);
  EXPECT_EQ(weight.sizes, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(weight.strides, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(element<float>(weight, {1, 2}), 5.0F);
  EXPECT_EQ(element<float>(dict.at("0.bias").as_tensor(), {1}), -0.5F);
  EXPECT_TRUE(dict.at("1.num_batches_tracked").as_tensor().sizes.empty());
  ASSERT_NE(dict.attributes, nullptr);
  EXPECT_EQ(dict.attributes->at("_metadata").as_dict().at("1").as_dict().at("version").as_int(), 2);
}

TEST_F(IoLoad, ReadsAStateDictWithItsMetadata) {
  for (const char* name : {"state_dict.pt", "state_dict_protocol3.pt", "state_dict_protocol4.pt",
                           "state_dict_protocol5.pt", "stored.pt"}) {
    SCOPED_TRACE(name);
    expect_state_dict(load(file(name)));
    expect_state_dict(load(file(name), {.mmap = true}));
  }
}

TEST_F(IoLoad, MappedStoragesLieInTheFile) {
  const Value value = load(file("state_dict.pt"), {.mmap = true});
  const StorageBlob& storage = *value.as_dict().at("0.weight").as_tensor().storage;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(storage.data) % 64, 0U);
  const auto* mapped = static_cast<const MappedFile*>(storage.owner.get());
  EXPECT_GE(storage.data, mapped->data());
  EXPECT_LT(storage.data, mapped->data() + mapped->size());
}

void expect_plain(const Value& value) {
  const Dict& dict = value.as_dict();
  EXPECT_TRUE(dict.at("none").is_none());
  EXPECT_TRUE(dict.at("true").as_bool());
  EXPECT_FALSE(dict.at("false").as_bool());
  const std::vector<int64_t> expected = {
      0, 255, 256, 65535, 65536, -1, int64_t{1} << 31, -(int64_t{1} << 31), int64_t{1} << 62};
  const auto& ints = dict.at("ints").as_list().items;
  ASSERT_EQ(ints.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(ints[i].as_int(), expected[i]);
  EXPECT_EQ(*dict.at("big").get_if<BigInt>()->bytes, std::string("\0\0\0\0\0\0\0\0\x40", 9));
  EXPECT_EQ(*dict.at("negative").get_if<BigInt>()->bytes, std::string("\0\0\0\0\0\0\0\0\xC0", 9));
  EXPECT_EQ(dict.at("long").get_if<BigInt>()->bytes->size(), 376U);
  EXPECT_EQ(*dict.at("float").get_if<double>(), 1.5);
  EXPECT_EQ(*dict.at("complex").get_if<std::complex<double>>(), std::complex<double>(1, -2));
  EXPECT_EQ(dict.at("text").as_text(), "grün \U0001f525");
  EXPECT_EQ(*dict.at("bytes").get_if<Bytes>()->bytes, std::string("\0ab\xFF", 4));
  EXPECT_EQ(*dict.at("empty_bytes").get_if<Bytes>()->bytes, "");
  EXPECT_EQ(*dict.at("bytearray").get_if<ByteArray>()->bytes, "xyz\x80");
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(dict.at("tuples").as_tuple().items[i].as_tuple().items.size(), i);
  const auto& shared = dict.at("shared").as_list().items;
  EXPECT_EQ(&shared[0].as_list(), &shared[1].as_list());
  EXPECT_FALSE(dict.at("set").as_set().frozen);
  EXPECT_TRUE(dict.at("frozenset").as_set().frozen);
  EXPECT_EQ(dict.at("counter").as_dict().kind, DictKind::kCounter);
  EXPECT_EQ(dict.at("counter").as_dict().at("a").as_int(), 2);
  EXPECT_EQ(dict.at("defaultdict").as_dict().kind, DictKind::kDefault);
  EXPECT_EQ(dict.at("defaultdict").as_dict().default_factory, "list");
  EXPECT_EQ(dict.at("defaultdict").as_dict().at("x").as_list().items.size(), 1U);
  EXPECT_EQ(dict.at("ordered").as_dict().items[0].first.as_text(), "b");
  EXPECT_EQ((*dict.at("size").get_if<std::shared_ptr<const Size>>())->sizes, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(*dict.at("dtype").get_if<Dtype>(), kBFloat16);
  EXPECT_EQ((*dict.at("device").get_if<std::shared_ptr<const Device>>())->name, "cuda:1");
  EXPECT_EQ((*dict.at("layout").get_if<std::shared_ptr<const Layout>>())->name, "torch.strided");
  EXPECT_EQ(dict.at("many").as_list().items.size(), 2500U);
  EXPECT_EQ(dict.at("many").as_list().items[2499].as_int(), 2499);
}

TEST_F(IoLoad, ReadsPlainDataOfEveryProtocol) {
  for (const char* name : {"plain.pt", "plain_protocol3.pt", "plain_protocol4.pt", "plain_protocol5.pt"}) {
    SCOPED_TRACE(name);
    expect_plain(load(file(name)));
  }
}

void expect_tensors(const Value& value) {
  const Dict& dict = value.as_dict();
  for (const auto& [name, tensor] : dict.at("dtypes").as_dict().items) {
    EXPECT_EQ(tensor.as_tensor().dtype, dtype_from_name(name.as_text())) << name.as_text();
    EXPECT_EQ(tensor.as_tensor().storage->nbytes,
              4U * static_cast<size_t>(itemsize(tensor.as_tensor().dtype)));
  }
  EXPECT_EQ(dict.at("dtypes").as_dict().items.size(), 12U);
  const TensorBlob& base = dict.at("base").as_tensor();
  const TensorBlob& view = dict.at("view").as_tensor();
  EXPECT_EQ(base.storage, view.storage) << "a view shares its base's storage";
  EXPECT_EQ(view.sizes, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(view.strides, (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(view.storage_offset, 4);
  EXPECT_EQ(element<float>(view, {1, 1}), 10.0F);
  EXPECT_EQ(element<float>(dict.at("scalar").as_tensor(), {}), 3.25F);
  EXPECT_EQ(dict.at("empty").as_tensor().sizes, (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(dict.at("expanded").as_tensor().strides, (std::vector<int64_t>{0, 0}));
  EXPECT_TRUE(dict.at("parameter").as_tensor().is_parameter);
  EXPECT_FALSE(dict.at("parameter").as_tensor().requires_grad);
  EXPECT_TRUE(dict.at("tagged").as_tensor().requires_grad);
  EXPECT_EQ(dict.at("tagged").as_tensor().attributes->at("tag").as_text(), "yes");
  EXPECT_EQ(dict.at("plain").as_tensor().attributes->at("note").as_int(), 7);
  EXPECT_FALSE(dict.at("leaf").as_tensor().is_parameter);
  EXPECT_TRUE(dict.at("leaf").as_tensor().requires_grad);
  const auto& same = dict.at("same").as_list().items;
  EXPECT_EQ(&same[0].as_tensor(), &base);
  EXPECT_EQ(&same[1].as_tensor(), &base);
  EXPECT_TRUE(dict.at("conj").as_tensor().is_conj);
  EXPECT_TRUE(dict.at("neg").as_tensor().is_neg);
  EXPECT_TRUE(dict.at("buffer").as_tensor().is_buffer);
  EXPECT_TRUE((*dict.at("untyped").get_if<std::shared_ptr<const StorageBlob>>())->untyped);
  EXPECT_EQ((*dict.at("untyped").get_if<std::shared_ptr<const StorageBlob>>())->nbytes, 6U);
  EXPECT_EQ((*dict.at("typed").get_if<std::shared_ptr<const StorageBlob>>())->dtype, kInt16);
}

TEST_F(IoLoad, ReadsTensorsOfEveryKind) {
  expect_tensors(load(file("tensors.pt")));
  expect_tensors(load(file("tensors.pt"), {.mmap = true}));
}

TEST_F(IoLoad, WritesWhatItReads) {
  expect_state_dict(load(file("state_dict.pt"), {.mmap = true}));
  const auto again = [&](const char* name) {
    const std::string bytes = save_to_string(load(file(name)));
    return load(std::as_bytes(std::span(bytes)), nullptr, name);
  };
  expect_state_dict(again("state_dict.pt"));
  expect_plain(again("plain.pt"));
  expect_tensors(again("tensors.pt"));
}

TEST_F(IoLoad, WritesPyTorchsOwnBytesForAStateDict) {
  // But for the entry that identifies the contents, whose hash depends on the C++ library.
  const MappedFile original(file("state_dict.pt"));
  const fs::path copy =
      fs::temp_directory_path() / ("lohe_io_" + std::to_string(::getpid())) / "state_dict.pt";
  fs::create_directories(copy.parent_path());
  save(load(file("state_dict.pt")), copy);
  const std::string written = read_file(copy);
  fs::remove_all(copy.parent_path());
  const ZipReader expected(original.bytes(), "original");
  const ZipReader actual(std::as_bytes(std::span(written)), "copy");
  ASSERT_EQ(actual.entries().size(), expected.entries().size());
  for (size_t i = 0; i < expected.entries().size(); ++i) {
    const ZipEntry& e = expected.entries()[i];
    const ZipEntry& a = actual.entries()[i];
    EXPECT_EQ(a.name, e.name);
    EXPECT_EQ(reinterpret_cast<const char*>(a.bytes.data()) - written.data(),
              e.bytes.data() - original.data());
    if (e.name.ends_with("serialization_id")) continue;
    EXPECT_EQ(a.bytes.size(), e.bytes.size()) << e.name;
    EXPECT_EQ(a.crc32, e.crc32) << e.name;
  }
  EXPECT_EQ(written.size(), original.size());
}

TEST_F(IoLoad, SwapsTheBytesOfBigEndianFiles) {
  const Value value = load(file("big_endian.pt"), {.mmap = true});
  EXPECT_EQ(element<int16_t>(value.as_tensor(), {2}), 2);
}

TEST_F(IoLoad, SaysWhatItDoesNotRead) {
  expect_error("custom.pt", ErrorKind::kValue, "'__main__.Custom'");
  expect_error("module.pt", ErrorKind::kValue, "torch.nn.modules.linear.Linear");
  expect_error("module.pt", ErrorKind::kValue, "always safe loading");
  expect_error("numpy.pt", ErrorKind::kValue, "NumPy");
  expect_error("sparse.pt", ErrorKind::kNotImplemented, "sparse");
  expect_error("uint16.pt", ErrorKind::kNotImplemented, "torch.uint16");
  expect_error("script.pt", ErrorKind::kNotImplemented, "TorchScript");
  expect_error("legacy.pt", ErrorKind::kNotImplemented, "_use_new_zipfile_serialization=True");
  expect_error("bare.pt", ErrorKind::kRuntime, "bare pickle");
  expect_error("deflated.pt", ErrorKind::kRuntime, "is compressed");
  expect_error("all.safetensors", ErrorKind::kRuntime, "safetensors");
  expect_error("no_such_file.pt", ErrorKind::kIo, "no_such_file.pt");
}

}  // namespace
}  // namespace lohe::io
