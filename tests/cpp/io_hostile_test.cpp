// Damaged files and files made to do harm: every one gives a lohe::Error or a sound value, in bounded time
// and memory. Build with -fsanitize=address,undefined to give these tests their full strength.

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "io/unpickle.h"
#include "io/zip.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

template <class T>
std::string little(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// Reads every byte that a value gives access to, for the address sanitizer; returns their sum.
size_t touch(const Value& value, int depth = 0) {
  if (depth > kMaxNesting + 1) throw std::logic_error("deeper than allowed");
  size_t sum = 1;
  if (const auto* list = value.get_if<std::shared_ptr<List>>()) {
    for (const Value& item : (*list)->items) sum += touch(item, depth + 1);
  } else if (const auto* tuple = value.get_if<std::shared_ptr<Tuple>>()) {
    for (const Value& item : (*tuple)->items) sum += touch(item, depth + 1);
  } else if (const auto* dict = value.get_if<std::shared_ptr<Dict>>()) {
    for (const auto& [key, item] : (*dict)->items) sum += touch(key, depth + 1) + touch(item, depth + 1);
    if ((*dict)->attributes != nullptr) sum += touch((*dict)->attributes, depth + 1);
  } else if (const auto* tensor = value.get_if<std::shared_ptr<TensorBlob>>()) {
    check_bounds(**tensor, "test");
    const StorageBlob& storage = *(*tensor)->storage;
    for (size_t i = 0; i < storage.nbytes; ++i) sum += static_cast<size_t>(storage.data[i]);
  }
  return sum;
}

/// Whether the file was read; an error other than lohe::Error fails the test.
bool readable(const std::string& file, LoadOptions options = {}) {
  try {
    touch(load(bytes_of(file), nullptr, "hostile", options));
    return true;
  } catch (const Error& error) {
    EXPECT_NE(error.kind(), ErrorKind::kInternal) << error.what();
    return false;
  }
}

Value run(const std::string& pickle) {
  return unpickle(
      bytes_of(pickle),
      [](const StorageId& id) {
        if (id.numel > 4) raise(ErrorKind::kRuntime, "storage too short");
        static const float data[4] = {};
        auto blob = std::make_shared<StorageBlob>();
        blob->dtype = id.dtype;
        blob->untyped = id.untyped;
        blob->data = reinterpret_cast<const std::byte*>(data);
        blob->nbytes = static_cast<size_t>(id.numel * itemsize(id.dtype));
        return blob;
      },
      "test");
}

void expect_refused(const std::string& pickle, const std::string& part) {
  try {
    run(pickle);
    ADD_FAILURE() << "accepted; expected: " << part;
  } catch (const Error& error) {
    EXPECT_NE(error.message().find(part), std::string::npos) << error.what();
  }
}

std::string text(const std::string& content) {
  return "X" + little(static_cast<uint32_t>(content.size())) + content;
}

/// A tensor of a storage with four floats.
std::string tensor(const std::string& offset, const std::string& sizes, const std::string& strides,
                   const std::string& numel = "K\4") {
  return "\x80\2ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" +
         text("0") + text("cpu") + numel + "tQ" + offset + sizes + strides + "\x89" +
         "ccollections\nOrderedDict\n)RtR.";
}

Value sample() {
  auto storage = std::make_shared<StorageBlob>();
  static const float data[6] = {0, 1, 2, 3, 4, 5};
  storage->dtype = kFloat32;
  storage->data = reinterpret_cast<const std::byte*>(data);
  storage->nbytes = sizeof data;
  TensorBlob weight;
  weight.dtype = kFloat32;
  weight.sizes = {2, 3};
  weight.strides = {3, 1};
  weight.storage = storage;
  weight.is_parameter = true;
  weight.requires_grad = true;
  TensorBlob bias = weight;
  bias.is_parameter = false;
  bias.sizes = {2};
  bias.strides = {1};
  bias.storage_offset = 2;
  Value state = make_dict({{"weight", weight}, {"bias", bias}}, DictKind::kOrdered);
  auto metadata = std::make_shared<Dict>();
  metadata->items = {{"_metadata", make_dict({{"", make_dict({{"version", 1}})}}, DictKind::kOrdered)}};
  state.as_dict().attributes = metadata;
  return make_dict({{"state", state},
                    {"epoch", 3},
                    {"lr", 0.1},
                    {"name", "x"},
                    {"bytes", make_bytes("\xFF\x01")},
                    {"list", make_list({1, make_tuple({2, Value()}), true})}});
}

TEST(IoHostile, TruncatedCheckpoints) {
  const std::string file = save_to_string(sample());
  ASSERT_TRUE(readable(file));
  for (size_t length = 0; length < file.size(); ++length) {
    EXPECT_FALSE(readable(file.substr(0, length))) << length;
  }
}

TEST(IoHostile, CheckpointsWithFlippedBits) {
  const std::string file = save_to_string(sample());
  std::mt19937 random(1);
  int read = 0;
  for (size_t at = 0; at < file.size(); ++at) {
    std::string damaged = file;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random() % 8)));
    read += readable(damaged, {.mmap = random() % 2 == 0}) ? 1 : 0;
  }
  // Padding, time stamps and the bytes of mapped storages carry no checksum.
  EXPECT_LT(read, static_cast<int>(file.size()) / 2);
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = file;
    for (uint32_t flips = 1 + random() % 8; flips > 0; --flips) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    readable(damaged, {.mmap = true});
  }
}

/// Behind the checksum, where a forger would be: the pickle itself is damaged.
TEST(IoHostile, PicklesWithChangedBytes) {
  const std::string file = save_to_string(sample());
  const ZipReader zip(bytes_of(file), "sample");
  const auto entry = zip.find("archive/data.pkl")->bytes;
  const std::string pickle(reinterpret_cast<const char*>(entry.data()), entry.size());
  std::mt19937 random(2);
  const std::string ops =
      "(.012NJKMGTUXBC]ael)td}su\x85\x86\x87\x81\x88\x89\x8A\x8B\x8C\x8D\x8E\x8F\x90\x91\x92\x93"
      "\x94\x95\x96"
      "cRbQhjqr";
  for (int i = 0; i < 40000; ++i) {
    std::string damaged = pickle;
    for (uint32_t changes = 1 + random() % 6; changes > 0; --changes) {
      const size_t at = random() % damaged.size();
      switch (random() % 4) {
        case 0:
          damaged[at] = static_cast<char>(random());
          break;
        case 1:
          damaged[at] = ops[random() % ops.size()];
          break;
        case 2:
          damaged.erase(at, random() % 5);
          break;
        default:
          damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 12));
          break;
      }
      if (damaged.empty()) damaged = ".";
    }
    try {
      touch(run(damaged));
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::kInternal) << error.what();
    }
  }
}

TEST(IoHostile, SafetensorsWithChangedBytes) {
  const float data[6] = {};
  auto storage = std::make_shared<StorageBlob>();
  storage->data = reinterpret_cast<const std::byte*>(data);
  storage->nbytes = sizeof data;
  TensorBlob blob;
  blob.dtype = kFloat32;
  blob.sizes = {2, 3};
  blob.strides = {3, 1};
  blob.storage = storage;
  TensorBlob other = blob;
  other.sizes = {};
  other.strides = {};
  other.storage =
      std::make_shared<StorageBlob>(StorageBlob{kFloat32, false, false, storage->data, 4, nullptr, "", ""});
  blob.storage_offset = 0;
  blob.sizes = {1, 5};
  blob.strides = {5, 1};
  blob.storage = std::make_shared<StorageBlob>(
      StorageBlob{kFloat32, false, false, storage->data + 4, 20, nullptr, "", ""});
  const std::string file = save_safetensors_to_string({{"a", blob}, {"b", other}}, {{"format", "pt"}});
  const auto read = [](const std::string& bytes) {
    try {
      for (const auto& [name, tensor] : load_safetensors(bytes_of(bytes), nullptr, "test").tensors)
        touch(tensor);
      return true;
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::kInternal) << error.what();
      return false;
    }
  };
  ASSERT_TRUE(read(file));
  for (size_t length = 0; length < file.size(); ++length) EXPECT_FALSE(read(file.substr(0, length)));
  std::mt19937 random(3);
  const std::string words = "{}[]\",:0123456789-e.\\ntF";
  for (int i = 0; i < 40000; ++i) {
    std::string damaged = file;
    for (uint32_t changes = 1 + random() % 4; changes > 0; --changes) {
      const size_t at = random() % damaged.size();
      damaged[at] = random() % 2 == 0 ? static_cast<char>(random()) : words[random() % words.size()];
    }
    read(damaged);
  }
}

TEST(IoHostile, CodeIsNeverRun) {
  expect_refused("\x80\2cos\nsystem\n" + text("true") + "\x85R.", "'os.system'");
  expect_refused("\x80\2cposix\nsystem\n" + text("true") + "\x85R.", "always safe loading");
  expect_refused("\x80\2c__builtin__\neval\n" + text("1") + "\x85R.", "'builtins.eval'");
  expect_refused("\x80\4\x8C\2os\x8C\6system\x93\x8C\4true\x85R.", "'os.system'");
  expect_refused("\x80\2cbuiltins\ngetattr\n.", "'builtins.getattr'");
  expect_refused("\x80\2cnumpy.core.multiarray\n_reconstruct\n.", "NumPy");
  expect_refused("\x80\2ctorch\nFloatStorage\n)R.", "never do");
  expect_refused("\x80\2ctorch\nTensor\n)\x81.", "never do");
  expect_refused("\x80\2ccollections\nOrderedDict\n.", "class or function");
  expect_refused("\x80\2" + text("os.system") + ")R.", "calls an object of type str");
  expect_refused("\x80\2(ios\nsystem\n.", "opcode");
  expect_refused("\x80\2]}b.", "BUILD");
  expect_refused("\x80\2K\1Q.", "persistent id");
}

TEST(IoHostile, BrokenPickles) {
  expect_refused("", "ends early");
  expect_refused("\x80\2", "ends early");
  expect_refused("\x80\2.", "stack is empty");
  expect_refused("\x80\1N.", "protocol 1");
  expect_refused("\x80\6N.", "protocol 6");
  expect_refused("\x80\2(N.", "inside an open container");
  expect_refused("\x80\2N(s.", "stack is empty");
  expect_refused("\x80\2t.", "mark");
  expect_refused("\x80\2}(Nu.", "without value");
  expect_refused("\x80\2}]Ns.", "unhashable key of type list");
  expect_refused("\x80\2}]\x85Ns.", "unhashable key of type tuple");
  expect_refused("\x80\2Nh\5.", "never set");
  expect_refused("\x80\2Nr" + little<uint32_t>(0xFFFFFFFF) + ".", "larger than the pickle");
  expect_refused("\x80\2X" + little<uint32_t>(0xFFFFFFFF) + "a.", "ends early");
  expect_refused("\x80\4\x8D" + little<uint64_t>(~uint64_t{0}) + "a.", "ends early");
  expect_refused("\x80\4\x8E" + little<uint64_t>(uint64_t{1} << 63) + "a.", "ends early");
  expect_refused("\x80\5\x96" + little<uint64_t>(uint64_t{1} << 40) + "a.", "ends early");
  expect_refused("\x80\4\x95" + little<uint64_t>(~uint64_t{0}) + "N.", "frame");
  expect_refused("\x80\2\x8B" + little<int32_t>(-1) + ".", "negative length");
  expect_refused("\x80\2" + text("\xFF") + ".", "not UTF-8");
  expect_refused("\x80\2" + text("\xC0\x80") + ".", "not UTF-8");
  expect_refused("\x80\2" + std::string(100, 'c') + std::string(5000, 'x'), "name without end");
}

TEST(IoHostile, EqualKeysAreJoinedAsPythonDoes) {
  // {1: 'a', True: 'b', 1.0: 'c', 'k': 'd', 'k': 'e'} is {1: 'c', 'k': 'e'}.
  const Value value =
      run("\x80\2}(K\1" + text("a") + "\x88" + text("b") + "G\x3F\xF0" + std::string(6, '\0') + text("c") +
          text("k") + text("d") + text("k") + text("e") + "u.");
  const auto& items = value.as_dict().items;
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items[0].first.as_int(), 1);
  EXPECT_EQ(items[0].second.as_text(), "c");
  EXPECT_EQ(items[1].second.as_text(), "e");
}

TEST(IoHostile, DeepNestingAndRings) {
  EXPECT_NO_THROW(run("\x80\2N" + std::string(900, '\x85') + "."));
  expect_refused("\x80\2N" + std::string(1500, '\x85') + ".", "nests deeper");
  expect_refused("\x80\2N" + std::string(1000000, '\x85') + ".", "nests deeper");
  // Deep, but thrown away: nothing to refuse, and nothing may overflow the stack.
  EXPECT_TRUE(run("\x80\2N" + std::string(1000000, '\x85') + "0N.").is_none());
  std::string lists = "\x80\2";
  lists += std::string(200000, ']') + std::string(199999, 'a') + ".";
  expect_refused(lists, "nests deeper");
  // A list that contains itself; rings leave no memory behind, reachable or not.
  expect_refused("\x80\2]q\1h\1a.", "contains itself");
  EXPECT_TRUE(run("\x80\2]q\1h\1a0N.").is_none());
  expect_refused("\x80\2}q\1Nh\1s.", "contains itself");
  EXPECT_TRUE(run("\x80\2ccollections\nOrderedDict\n)Rq\1}Nh\1sb0N.").is_none());
  expect_refused(
      "\x80\2]q\1h\1\x85"
      "a",
      "ends early");
}

TEST(IoHostile, MemoryBombs) {
  // Thirty lists, each of two references to the one before: small as a graph, and read as one.
  std::string doubling = "\x80\2]q" + std::string(1, '\0');
  for (int i = 0; i < 30; ++i) {
    const auto before = static_cast<char>(i), next = static_cast<char>(i + 1);
    doubling += std::string("](h") + before + "h" + before + "eq" + next;
  }
  const Value value = run(doubling + ".");
  EXPECT_EQ(value.as_list().items.size(), 2U);
  EXPECT_EQ(&value.as_list().items[0].as_list(), &value.as_list().items[1].as_list());
  // As dict keys, doubling tuples would take 2^30 comparisons.
  std::string keys = "\x80\2N";
  const auto tower = [](char first) {
    std::string out = std::string("K\1q") + first;
    for (int i = 0; i < 30; ++i) {
      const auto before = static_cast<char>(first + i), next = static_cast<char>(first + i + 1);
      out += std::string("h") + before + "h" + before + "\x86q" + next + "0";
    }
    return out;
  };
  keys += tower(0) + tower(40) + "}(h\x1EKah\x46Kbu.";
  expect_refused(keys, "slow to compare");

  // One long text turned into bytes again and again.
  std::string copies = "\x80\2" + text(std::string(100000, 'a')) + "q" + std::string(1, '\0') + "0" +
                       text("latin1") + "q\1" +
                       "0c_codecs\nencode\nq\2"
                       "0](";
  for (int i = 0; i < 10000; ++i) copies += std::string("h\2h\0h\1\x86R", 8);
  expect_refused(copies + "e.", "far more memory");
  std::string sets = "\x80\2](";
  for (int i = 0; i < 10000; ++i) sets += "K\1";
  sets += std::string("eq\0", 3) + "c__builtin__\nset\nq\1](";
  for (int i = 0; i < 10000; ++i) sets += std::string("h\1h\0\x85R", 6);
  expect_refused(sets + "e.", "far more memory");
}

TEST(IoHostile, TensorsOutsideTheirStorage) {
  const std::string zero(1, '\0');
  const std::string max = "\x8A\x08" + little<int64_t>(INT64_MAX);
  EXPECT_EQ(run(tensor("K" + zero, "K\4\x85", "K\1\x85")).as_tensor().sizes.size(), 1U);
  EXPECT_NO_THROW(run(tensor("K" + zero, "K\2K\2\x86", "K\1K\2\x86")));
  EXPECT_NO_THROW(run(tensor("K\3", ")", ")")));
  expect_refused(tensor("K\4", ")", ")"), "reaches element 4");
  expect_refused(tensor("K\1", "K\4\x85", "K\1\x85"), "reaches element 4");
  expect_refused(tensor("K" + zero, "K\2\x85", "K\4\x85"), "reaches element 4");
  expect_refused(tensor("J\xFF\xFF\xFF\xFF", "K\1\x85", "K\1\x85"), "negative storage offset");
  expect_refused(tensor("K" + zero, "J\xFF\xFF\xFF\xFF\x85", "K\1\x85"), "negative size");
  expect_refused(tensor("K\3", "K\2\x85", "J\xFF\xFF\xFF\xFF\x85"), "negative stride");
  expect_refused(tensor("K" + zero, max + max + "\x86", "K" + zero + "K" + zero + "\x86"), "overflow");
  expect_refused(tensor("K\1", "K\2\x85", max + "\x85"), "overflow");
  expect_refused(tensor(max, "K\2\x85", "K\1\x85"), "overflow");
  expect_refused(tensor("K" + zero, "K\1\x85", ")"), "1 sizes but 0 strides");
  expect_refused(tensor("K" + zero, "K\1\x85", "K\1\x85", max), "persistent id");
  expect_refused(tensor("K" + zero, "K\1\x85", "K\1\x85", "J\xFF\xFF\xFF\xFF"), "persistent id");
  expect_refused(tensor("K" + zero, "K\1\x85", "K\1\x85", "K\5"), "too short");
  expect_refused(tensor("K" + zero, "(" + std::string(65, 'N') + "t", ")"), "dimensions");
}

// Archives. A record is (name, bytes); `edit` may change the directory entries before they are written.
struct Record {
  std::string name, content;
  uint32_t header = 0;
};

std::string zip_of(std::vector<Record> records, const std::function<void(std::vector<Record>&)>& edit = {}) {
  std::string out, directory;
  const auto fields = [](const Record& record) {
    const auto size = static_cast<uint32_t>(record.content.size());
    return little<uint16_t>(0) + little<uint16_t>(0) + little<uint32_t>(0) +
           little(crc32_of(bytes_of(record.content))) + little(size) + little(size) +
           little(static_cast<uint16_t>(record.name.size()));
  };
  for (Record& record : records) {
    record.header = static_cast<uint32_t>(out.size());
    out +=
        "PK\3\4" + little<uint16_t>(20) + fields(record) + little<uint16_t>(0) + record.name + record.content;
  }
  if (edit) edit(records);
  for (const Record& record : records) {
    directory += "PK\1\2" + little<uint16_t>(20) + little<uint16_t>(20) + fields(record) +
                 std::string(12, '\0') + little(record.header) + record.name;
  }
  const auto count = static_cast<uint16_t>(records.size());
  return out + directory + "PK\5\6" + little<uint32_t>(0) + little(count) + little(count) +
         little(static_cast<uint32_t>(directory.size())) + little(static_cast<uint32_t>(out.size())) +
         little<uint16_t>(0);
}

TEST(IoHostile, ForgedArchives) {
  const std::string pickle = "\x80\2N.";
  const auto expect = [](const std::string& file, const std::string& part) {
    try {
      load(bytes_of(file), nullptr, "forged");
      ADD_FAILURE() << "accepted; expected: " << part;
    } catch (const Error& error) {
      EXPECT_NE(error.message().find(part), std::string::npos) << error.what();
    }
  };
  EXPECT_TRUE(load(bytes_of(zip_of({{"a/data.pkl", pickle}})), nullptr, "sound").is_none());
  expect(zip_of({}), "empty");
  expect(zip_of({{"a/other", pickle}}), "torch.save did not write it");
  // Two names for the same bytes, as in archives that unpack to far more than they hold.
  expect(
      zip_of({{"a/data.pkl", pickle}}, [](std::vector<Record>& records) { records.push_back(records[0]); }),
      "overlap");
  const std::string inner = zip_of({{"a/data.pkl", pickle}});
  expect(zip_of({{"a/data.pkl", pickle}, {"a/inner", inner}},
                [](std::vector<Record>& records) {
                  records.push_back({"a/data.pkl", "\x80\2N.", records[1].header + 30 + 7});
                }),
         "overlap");
  expect(zip_of({{"a/data.pkl", pickle}, {"a/data.pkl", pickle}}), "exists twice");
  expect(
      zip_of({{"a/data.pkl", pickle}}, [](std::vector<Record>& records) { records[0].header = 0x7FFFFFFF; }),
      "no local header");
  expect(
      zip_of({{"a/data.pkl", pickle}}, [](std::vector<Record>& records) { records[0].content += "longer"; }),
      "runs out of the file");
  expect(
      zip_of({{"a/data.pkl", pickle}}, [](std::vector<Record>& records) { records[0].name = "b/data.pkl"; }),
      "another name");
  expect(zip_of({{"a/data.pkl", pickle}},
                [](std::vector<Record>& records) { records[0].content = "\x80\2N\n"; }),
         "contradicts");
  const std::string sound = zip_of({{"a/data.pkl", pickle}});
  std::string count = sound;
  count.replace(sound.size() - 12, 2, "\xFF\xFF");
  expect(count, "entry count");
  std::string directory = sound;
  directory.replace(sound.size() - 6, 4, "\xF0\xFF\xFF\xFF");
  expect(directory, "outside the file");
  expect("PK\3\4" + std::string(100, '\0'), "end-of-directory");
}

TEST(IoHostile, StoragesThatTheArchiveDoesNotBack) {
  const std::string zero(1, '\0');
  const std::string pickle = tensor("K" + zero, "K\4\x85", "K\1\x85");
  EXPECT_TRUE(readable(zip_of({{"a/data.pkl", pickle}, {"a/data/0", std::string(16, '\0')}})));
  EXPECT_FALSE(readable(zip_of({{"a/data.pkl", pickle}})));
  EXPECT_FALSE(readable(zip_of({{"a/data.pkl", pickle}, {"a/data/0", std::string(12, '\0')}})));
  EXPECT_FALSE(readable(zip_of({{"a/data.pkl", pickle}, {"a/data/0", std::string(20, '\0')}})));
  const std::string huge =
      tensor("K" + zero, "K\1\x85", "K\1\x85", "\x8A\x06" + std::string(5, '\0') + "\x40");
  EXPECT_FALSE(readable(zip_of({{"a/data.pkl", huge}, {"a/data/0", std::string(16, '\0')}})));
}

TEST(IoHostile, SavingRefusesRings) {
  const Value list = make_list({});
  list.as_list().items.push_back(list);
  EXPECT_THROW(save_to_string(list), Error);
  list.as_list().items.clear();
}

}  // namespace
}  // namespace lohe::io
