#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "io/safetensors.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

std::string file_of(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + data;
}

SafetensorsFile read(const std::string& bytes) {
  return load_safetensors(std::as_bytes(std::span(bytes)), nullptr, "test");
}

void expect_error(const std::string& bytes, const std::string& part, ErrorKind kind = ErrorKind::kValue) {
  try {
    read(bytes);
    ADD_FAILURE() << "read: " << bytes;
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    EXPECT_NE(error.message().find(part), std::string::npos) << error.what();
  }
}

TensorBlob tensor_over(const void* data, size_t nbytes, Dtype dtype, std::vector<int64_t> sizes,
                       std::vector<int64_t> strides, int64_t offset = 0) {
  auto storage = std::make_shared<StorageBlob>();
  storage->dtype = dtype;
  storage->data = static_cast<const std::byte*>(data);
  storage->nbytes = nbytes;
  TensorBlob tensor;
  tensor.dtype = dtype;
  tensor.sizes = std::move(sizes);
  tensor.strides = std::move(strides);
  tensor.storage_offset = offset;
  tensor.storage = storage;
  return tensor;
}

TEST(IoSafetensors, ReadsTheReferencesFilesAndWritesTheSameBytes) {
  const char* folder = std::getenv("LOHE_IO_FIXTURES");
  if (folder == nullptr) GTEST_SKIP() << "set LOHE_IO_FIXTURES to the folder that make_io_fixtures.py filled";
  const auto path = std::filesystem::path(folder) / "all.safetensors";
  const SafetensorsFile file = load_safetensors(path);
  EXPECT_EQ(file.metadata.at("format"), "pt");
  ASSERT_EQ(file.tensors.size(), 14U);
  float value;
  std::memcpy(&value, file.find("scalar")->storage->data, sizeof value);
  EXPECT_EQ(value, 3.25F);
  EXPECT_EQ(file.find("empty")->sizes, (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(file.find("grün \"x\"\n")->strides, (std::vector<int64_t>{3, 1}));
  for (const auto& [name, tensor] : file.tensors) {
    const Dtype named = dtype_from_name(name);
    EXPECT_TRUE(named == Dtype::kUndefined || named == tensor.dtype) << name;
  }
  const std::map<std::string, TensorBlob> tensors(file.tensors.begin(), file.tensors.end());
  EXPECT_EQ(save_safetensors_to_string(tensors, file.metadata), read_file(path));
  EXPECT_EQ(save_safetensors_to_string({}, {}),
            read_file(std::filesystem::path(folder) / "none.safetensors"));
  EXPECT_THROW(load_safetensors(std::filesystem::path(folder) / "uint16.safetensors"), Error);
}

TEST(IoSafetensors, EnforcesTheFormatsRules) {
  const std::string f4 = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_EQ(read(file_of(f4 + "}", "0000")).tensors.size(), 1U);
  EXPECT_EQ(read(file_of(f4 + "}   ", "0000")).tensors.size(), 1U);
  EXPECT_TRUE(read(file_of("{}")).tensors.empty());
  EXPECT_TRUE(read(file_of(R"({"__metadata__":null})")).metadata.empty());

  expect_error("", "shorter");
  expect_error(file_of(f4 + "}", "0000").substr(0, 30), "truncated");
  expect_error(std::string(7, '\xFF') + "\x7F{}", "100 MB");
  expect_error(file_of(""), "'{'");
  expect_error(file_of(" {}"), "'{'");
  expect_error(file_of("{"), "invalid JSON");
  expect_error(file_of("{}}"), "invalid JSON");
  expect_error(file_of("{\"\xFF\":1}"), "invalid JSON");
  expect_error(file_of(f4 + "}", "00000"), "belong to no tensor");
  expect_error(file_of(f4 + "}", "000"), "truncated");
  expect_error(file_of(f4 + R"(,"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "00000000"),
               "twice");
  expect_error(file_of(f4 + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "0000"),
               "do not follow");
  expect_error(file_of(f4 + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[5,9]}})", "000000000"),
               "do not follow");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "0000"), "needs 8 bytes");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "0000"), "do not follow");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})"),
               "overflows");
  expect_error(
      file_of(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", "0000"),
      "beyond 64 bits");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "0000"), "unexpected");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "0000"), "unexpected");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", "0000"), "unexpected");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "0000"), "two numbers");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", "0000"), "unexpected");
  expect_error(file_of(R"({"a":{"dtype":"F32","shape":[1]}})"), "lacks");
  expect_error(file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "0000"),
               "twice");
  expect_error(file_of(R"({"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}})", "0000"), "unknown dtype");
  expect_error(file_of(R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", "0000"), "F8_E4M3",
               ErrorKind::kNotImplemented);
  expect_error(file_of(R"({"__metadata__":{"a":1}})"), "unexpected");
  expect_error(file_of(R"({"__metadata__":{"a":"1","a":"2"}})"), "twice");
  expect_error(file_of(R"({"a":null})"), "unexpected null");
  expect_error(file_of(R"({"a":[1]})"), "unexpected");
  expect_error(file_of("{\"a\":" + std::string(1000000, '[')), "unexpected");
}

TEST(IoSafetensors, CopiesMisalignedTensors) {
  // One byte before: float32 data at an odd address.
  const std::string header = R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  const SafetensorsFile file = read(file_of(header, std::string(1, '\1') + std::string("\0\0\x80\x3F", 4)));
  const TensorBlob* f = file.find("f");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(f->storage->data) % 4, 0U);
  float value;
  std::memcpy(&value, f->storage->data, sizeof value);
  EXPECT_EQ(value, 1.0F);
}

TEST(IoSafetensors, RefusesWhatTheFormatCannotSay) {
  alignas(16) const float data[16] = {};
  const auto save = [](const std::map<std::string, TensorBlob>& tensors) {
    return save_safetensors_to_string(tensors, {});
  };
  const TensorBlob whole = tensor_over(data, sizeof data, kFloat32, {2, 2}, {2, 1});
  EXPECT_NO_THROW(save({{"a", whole}}));
  EXPECT_NO_THROW(save({{"a", whole}, {"b", tensor_over(data, sizeof data, kFloat32, {4}, {1}, 4)}}));
  EXPECT_THROW(save({{"a", whole}, {"b", tensor_over(data, sizeof data, kFloat32, {4}, {1}, 3)}}),
               SafetensorsError);
  EXPECT_THROW(save({{"a", tensor_over(data, sizeof data, kFloat32, {2, 2}, {1, 2})}}), SafetensorsError);
  EXPECT_THROW(save({{"a", tensor_over(data, sizeof data, kFloat32, {17}, {1})}}), Error);
  EXPECT_THROW(save({{"a", tensor_over(data, sizeof data, kComplex128, {1}, {1})}}), SafetensorsError);
  EXPECT_THROW(save({{"__metadata__", whole}}), SafetensorsError);
  EXPECT_THROW(save({{"\xFF", whole}}), SafetensorsError);
  TensorBlob conjugate = tensor_over(data, sizeof data, kComplex64, {1}, {1});
  conjugate.is_conj = true;
  EXPECT_THROW(save({{"a", conjugate}}), SafetensorsError);
}

}  // namespace
}  // namespace lohe::io
