#include <gtest/gtest.h>

#include <bit>
#include <random>
#include <set>
#include <string>

#include "base/hash.h"

namespace lohe {
namespace {

TEST(Hash, AgreesWithPublishedVectors) {
  // MurmurHash3_x64_128 with seed 0.
  EXPECT_EQ(hash_bytes("").hex(), "00000000000000000000000000000000");
  EXPECT_EQ(hash_bytes("hello").hex(), "cbd8a7b341bd9b025b1e906a48ae1d19");
  EXPECT_EQ(hash_bytes("hello, world").hex(), "342fac623a5ebc8e4cdcbc079642414d");
  EXPECT_EQ(hash_bytes("The quick brown fox jumps over the lazy dog.").hex(),
            "cd99481f9ee902c9695da1a38987b6e7");
}

TEST(Hash, DoesNotDependOnHowTheBytesArrive) {
  std::mt19937 random(3);
  std::string text(1000, '\0');
  for (char& c : text) c = static_cast<char>(random());
  const Hash128 whole = hash_bytes(text);
  for (int round = 0; round < 200; ++round) {
    Hasher hasher;
    for (size_t done = 0; done < text.size();) {
      const size_t taken = std::min<size_t>(text.size() - done, random() % 40);
      hasher.update(std::as_bytes(std::span(text).subspan(done, taken)));
      done += taken;
    }
    ASSERT_EQ(hasher.digest(), whole);
    ASSERT_EQ(hasher.digest(), whole) << "asking changes nothing";
  }
}

TEST(Hash, TypedUpdatesKeepFieldsApart) {
  std::set<Hash128> seen;
  seen.insert(Hasher().update("ab").update("c").digest());
  seen.insert(Hasher().update("a").update("bc").digest());
  seen.insert(Hasher().update("abc").digest());
  seen.insert(Hasher().update(0.0).digest());
  seen.insert(Hasher().update(-0.0).digest());
  seen.insert(Hasher(1).update(1).update(2).digest());
  seen.insert(Hasher(1).update(2).update(1).digest());
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(Hasher().update(int32_t{-1}).digest(), Hasher().update(int64_t{-1}).digest());
}

TEST(Hash, EachInputBitChangesAboutHalfOfTheOutput) {
  std::string text(37, 'x');
  const Hash128 base = hash_bytes(text);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string changed = text;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    const Hash128 other = hash_bytes(changed);
    const int flipped = std::popcount(base.first ^ other.first) + std::popcount(base.second ^ other.second);
    EXPECT_GT(flipped, 30);
    EXPECT_LT(flipped, 98);
  }
}

TEST(Hash, CombineDependsOnTheOrder) {
  EXPECT_NE(hash_combine(hash_combine(0, 1), 2), hash_combine(hash_combine(0, 2), 1));
  EXPECT_NE(hash_combine(0, 0), 0u);
  static_assert(hash_combine(1, 2) != hash_combine(2, 1));
}

}  // namespace
}  // namespace lohe
