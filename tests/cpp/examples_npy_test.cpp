// The reader of .npy files that examples/cpp uses: what it reads, and that it refuses every header it cannot
// trust.

#include <gtest/gtest.h>
#include <unistd.h>

#include "../../examples/cpp/npy.h"

namespace {

namespace fs = std::filesystem;

class NpyReader : public testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::temp_directory_path() / ("examples_npy_test." + std::to_string(getpid()) + ".npy");
  }
  void TearDown() override { fs::remove(path_); }

  void write(const std::string& header, const std::string& body, int version = 1, int64_t claimed = -1) {
    const uint64_t length = claimed < 0 ? header.size() : static_cast<uint64_t>(claimed);
    std::string text = "\x93NUMPY";
    text += static_cast<char>(version);
    text += '\0';
    for (int i = 0; i < (version == 1 ? 2 : 4); ++i) text += static_cast<char>(length >> (8 * i));
    std::ofstream(path_, std::ios::binary) << text << header << body;
  }
  template <class T = float>
  void refused(const std::string& why) {
    try {
      npy::read<T>(path_);
      FAIL() << "was read";
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  }

  fs::path path_;
};

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

TEST_F(NpyReader, ReadsFloat32OfEveryFormatVersion) {
  for (const int version : {1, 2, 3}) {
    write("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }    \n", floats({1, 2, 3, 4, 5, 6}),
          version);
    const npy::Array<float> array = npy::read<float>(path_);
    EXPECT_EQ(array.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(array.values, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  }
}

TEST_F(NpyReader, ReadsScalarsEmptyArraysAndOneDimension) {
  write("{'descr': '<f4', 'fortran_order': False, 'shape': ()}\n", floats({7}));
  EXPECT_TRUE(npy::read<float>(path_).shape.empty());
  write("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5)}\n", "");
  EXPECT_TRUE(npy::read<float>(path_).values.empty());
  const int64_t number = -3;
  write("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}\n",
        std::string(reinterpret_cast<const char*>(&number), sizeof number));
  EXPECT_EQ(npy::read<int64_t>(path_).values, std::vector<int64_t>{-3});
}

TEST_F(NpyReader, RefusesWhatItDoesNotKnow) {
  write("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}\n", floats({1, 2}));
  refused("holds '<f8'");
  write("{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}\n", floats({1}));
  refused("column-major");
  write("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", floats({1}));
  refused("holds '|O'");
  write("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n", floats({1}), 4);
  refused("format version 4");
  fs::remove(path_);
  refused("cannot be opened");
}

TEST_F(NpyReader, RefusesSizesThatTheFileDoesNotHave) {
  const std::string start = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const char* shape : {"2", "3,", "1000000000, 100000", "-1"}) {
    write(start + shape + ")}\n", floats({1}));
    refused(std::string(shape) == "-1" ? "expected a size" : "another size");
  }
  write(start + "999999999999, 999999999999)}\n", floats({1}));
  refused("no memory holds");
  write(start + "9999999999999)}\n", floats({1}));
  refused("more than 12 digits");
  write(start + "1,1,1,1,1,1,1,1,1)}\n", floats({1}));
  refused("more than 8 dimensions");
  write(start + "1,)}\n", floats({1, 2}));
  refused("another size");
}

TEST_F(NpyReader, RefusesTornAndMalformedHeaders) {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n";
  write(good, "", 1, 60000);
  refused("header of 60000 bytes");
  write(good, "", 2, 0xffffffff);
  refused("header of 4294967295 bytes");
  write(good, "", 1, 200);
  refused("ends within its header");
  for (const char* header :
       {"", "{", "{'descr", "{}", "{'descr': '<f4'}", "[]", "{'descr': '<f4', 'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': Maybe, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", "{'more': 1}"}) {
    write(header, floats({1}));
    refused("header of a .npy file");
  }
  std::ofstream(path_, std::ios::binary) << "PK\x03\x04 is another format";
  refused("no .npy file");
  std::ofstream(path_, std::ios::binary) << "\x93NUM";
  refused("no .npy file");
}

}  // namespace
